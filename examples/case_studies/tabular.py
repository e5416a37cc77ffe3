"""Three regressions on tables: California housing (houses), bike sharing, elevators.

The tables come from `california_housing.csv`, `bike.csv.gz` and `elevators.csv.gz` in the folder that
TSCOPE_DATA names; the last two have no header and their label in the last column. Only numbers are used.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datafile import data_file
from numpy.typing import NDArray

FILES = {"houses": "california_housing.csv", "bike": "bike.csv.gz", "elevators": "elevators.csv.gz"}
# Year and month twice; casual and registered riders, whose sum the label is the logarithm of.
_LEFT_OUT = {"houses": (), "bike": (4, 5, 15, 16), "elevators": ()}

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs (example, feature) and labels (example, 1), scaled by mean and deviation of the training set."""

    x_train: Values
    y_train: Values
    x_validation: Values
    y_validation: Values
    x_test: Values
    y_test: Values


def read_table(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return all inputs (example, feature) and labels (example,), without rows that have gaps."""
    path = data_file(FILES[name])
    if name == "houses":
        with path.open() as file:
            next(file)
            # The last column is a word; gaps are empty.
            rows = [[float(cell or "nan") for cell in line.split(",")[:-1]] for line in file]
        table = np.array(rows)
        table = table[np.isfinite(table).all(1)]
        return table[:, :-1], np.log(table[:, -1])
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    kept = [column for column in range(table.shape[1] - 1) if column not in _LEFT_OUT[name]]
    return table[:, kept], table[:, -1]


def load_split(name: str, train: int, test: int, seed: int, *, regular: bool) -> Split:
    """Draw training, validation (half as many) and test examples.

    Args:
        name: The table.
        train: Training examples.
        test: Test examples.
        seed: Of the drawing.
        regular: Train and validate on regular examples only: the tenth that lies farthest along the first
            principal component of the (scaled) table can be test examples only.
    """
    x, y = read_table(name)
    count = train + train // 2 + test
    order = np.random.default_rng(seed).permutation(len(x))
    if count > len(x):
        raise SystemExit(f"{FILES[name]} holds {len(x)} complete rows, got {count}")
    held, rest = order[:test], order[test:]
    if regular:
        scaled = (x - x.mean(0)) / x.std(0)
        along = np.abs(scaled @ np.linalg.svd(scaled, full_matrices=False)[2][0])
        rest = rest[along[rest] <= np.quantile(along, 0.9)]
    parts = (rest[:train], rest[train : train + train // 2], held)
    first = parts[0]
    scale = x[first].std(0)
    # A column that is constant on the training set has a deviation of 0, or of rounding, and says nothing.
    scale[x[first].min(0) == x[first].max(0)] = 1
    inputs = [((x[part] - x[first].mean(0)) / scale).astype(np.float32) for part in parts]
    labels = [((y[part] - y[first].mean()) / y[first].std()).astype(np.float32)[:, None] for part in parts]
    return Split(inputs[0], labels[0], inputs[1], labels[1], inputs[2], labels[2])


def add_arguments(parser) -> None:
    """Say which examples to draw."""
    parser.add_argument("--data", choices=list(FILES), default="houses")
    parser.add_argument("--train", type=int, default=2000, help="training examples")
    parser.add_argument("--test", type=int, default=2000, help="test examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--regular", action="store_true", help="train on regular examples only")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the validation errors here, as CSV")


def write_log(path: Path | None, unit: str, errors: list[float]) -> None:
    """Write the validation error after each epoch or tree, and print the last."""
    print(f"{unit} {len(errors)}  validation_mse {errors[-1]:.4g}")
    if path is not None:
        lines = [f"{k},{error!r}" for k, error in enumerate(errors, start=1)]
        path.write_text("\n".join([f"{unit},validation_mse", *lines]) + "\n")

"""Runs of a case study: recorded and analysed in processes of their own, and not repeated.

Each run is a training script that knows nothing of tscope, under `tscope record`, and then
`tscope analyze --metric effective-params`. What a figure needs of it is kept as `<name>.json` in the
study's folder, beside the trace `<name>.zarr`; a run whose options and scripts are those of the file is done.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs" / "case_studies"

Values = NDArray[np.float64]


def code_hash(*scripts: str) -> str:
    """Return a hash of scripts beside this one."""
    return hashlib.sha256(b"".join((HERE / script).read_bytes() for script in scripts)).hexdigest()


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: Of its files in the study's folder.
        script: The training script, a file beside this one.
        arguments: Its arguments, without --seed, --log and --log-every.
        seed: Of data and initialisation.
        every: Steps between two lines of its log, and between two kept rows of the analysis.
        held_out: Makes its test inputs and labels.
    """

    name: str
    script: str
    arguments: tuple[str, ...]
    seed: int
    every: int
    held_out: Callable[[], tuple[Tensor, Tensor]]

    def command(self, log: Path) -> list[str]:
        """Return the command that trains, as a user would type it."""
        own = ["--seed", str(self.seed), "--log", str(log), "--log-every", str(self.every)]
        return [sys.executable, str(HERE / self.script), *self.arguments, *own]

    def identity(self) -> dict[str, object]:
        """Return what a finished run must agree in to be the same run."""
        code = code_hash(self.script, "images.py", "progress.py")
        return {"arguments": [*self.arguments], "seed": self.seed, "every": self.every, "scripts": code}


@dataclass(frozen=True, eq=False)
class Curves:
    """What was found: the script's own log and the effective parameters, at the same steps.

    Attributes:
        run: The run.
        step: Optimizer steps (row,).
        log: Columns of the script's log (row,) by name.
        effective: Series of the metric (row,) by name.
        scalars: The metric's scalars.
    """

    run: Run
    step: Values
    log: dict[str, Values]
    effective: dict[str, Values]
    scalars: dict[str, Any]

    def last(self, name: str) -> float:
        """Return a series' last value."""
        return float({**self.log, **self.effective}[name][-1])


def follow(runs: Sequence[Run], folder: Path, jobs: int) -> list[Curves]:
    """Record and analyse each run that is not done yet, `jobs` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda run: _follow(run, folder), runs))


def once(done: Path, identity: dict[str, object], measure: Callable[[], dict[str, object]]) -> dict[str, Any]:
    """Return what was measured and kept in a file, unless the file is of another run; else measure it."""
    kept: dict[str, Any] = json.loads(done.read_text()) if done.is_file() else {}
    if kept.get("run") != identity:
        kept = {"run": identity, **measure()}
        partial = done.with_suffix(".partial")
        partial.write_text(json.dumps(kept))
        partial.replace(done)
        print(f"{done.stem}: done", file=sys.stderr)
    return kept


class Problem(Protocol):
    """Runs that belong together, measured as one."""

    @property
    def name(self) -> str:
        """Of its files in the study's folder."""
        ...

    def identity(self) -> dict[str, object]:
        """Return what finished results must agree in to be of the same problem."""
        ...


P = TypeVar("P", bound=Problem)


def solve(
    problems: Sequence[P], measure: Callable[[P, Path], dict[str, object]], folder: Path, jobs: int
) -> list[tuple[P, dict[str, Any]]]:
    """Measure each problem that is not done yet, `jobs` at a time."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(problem: P) -> dict[str, Any]:
        return once(folder / f"{problem.name}.json", problem.identity(), partial(measure, problem, folder))

    with ThreadPoolExecutor(jobs) as pool:
        return list(zip(problems, pool.map(one, problems), strict=True))


def _follow(run: Run, folder: Path) -> Curves:
    done = folder / f"{run.name}.json"
    kept = once(done, run.identity(), lambda: _measure(run, folder))
    log, effective = (
        {name: np.asarray(values, dtype=np.float64) for name, values in kept[part].items()}
        for part in ("log", "effective")
    )
    step = effective.pop("step")
    if not np.array_equal(log.pop("step")[: len(step)], step):
        raise SystemExit(f"{run.name}: the log and the analysis are of different steps; delete {done}")
    log = {name: values[: len(step)] for name, values in log.items()}
    return Curves(run, step, log, effective, kept["scalars"])


def _measure(run: Run, folder: Path) -> dict[str, object]:
    trace, log, probe = (folder / f"{run.name}{suffix}" for suffix in (".zarr", ".log.csv", ".probe.npz"))
    x, y = run.held_out()
    np.savez(probe, x=x.numpy(), y=y.numpy())
    # The metric replays the run anyway: projections while it is recorded would only cost time.
    tscope(run.name, ["record", "-o", str(trace), "--force", "--probe", "none", "--", *run.command(log)])
    metric = ["--metric", "effective-params", "--probe", str(probe), "--every", str(run.every)]
    result = json.loads(tscope(run.name, ["analyze", str(trace), *metric, "--json"]))
    with log.open() as file:
        rows = list(csv.DictReader(file))
    series = {name: array["data"] for name, array in result["arrays"].items() if array["dims"] == ["step"]}
    return {
        "log": {name: [float(row[name]) for row in rows] for name in rows[0]},
        "effective": series,
        "scalars": result["scalars"],
    }


def tscope(name: str, arguments: list[str]) -> str:
    """Run tscope, and return what it prints."""
    return call(name, f"tscope {arguments[0]}", [sys.executable, "-m", "tscope_cli", *arguments])


def call(name: str, what: str, command: list[str]) -> str:
    """Run a command with one thread of torch, and return what it prints; a failure ends the study."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != 0:
        raise SystemExit(f"{name}: {what} failed ({done.returncode}):\n{done.stderr}")
    return done.stdout


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table; numbers with six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])


def renew_table(name: str, text: str, page: str = "effective-parameters.md") -> None:
    """Put a Markdown table between its marks in a case study's page."""
    path = DOCS / page
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = path.read_text().split(start)
    path.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}")

"""Case study 2: its tables, what it tunes, and the whole of it at a tiny size."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_case_studies import columns, load, run

HOUSES = "longitude,latitude,age,rooms,bedrooms,population,households,income,value,ocean\n"


def write_houses(folder: Path, rows: int = 40) -> np.ndarray:
    """Write a table of houses with one gap; return its numbers."""
    table = np.random.default_rng(0).uniform(1, 9, (rows, 9)).round(3)
    lines = [",".join(map(str, row)) + ",INLAND" for row in table.tolist()]
    cells = lines[3].split(",")
    cells[4] = ""
    lines[3] = ",".join(cells)
    (folder / "california_housing.csv").write_text(HOUSES + "\n".join(lines) + "\n")
    return table


def write_bike(folder: Path, rows: int = 40) -> np.ndarray:
    """Write a table of bikes, whose label is made of two columns that are left out."""
    table = np.random.default_rng(1).normal(size=(rows, 18))
    with gzip.open(folder / "bike.csv.gz", "wt") as file:
        np.savetxt(file, table, delimiter=",")
    return table


def test_missing_tables_are_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabular = load("tabular", monkeypatch)
    monkeypatch.delenv("TSCOPE_DATA", raising=False)
    with pytest.raises(SystemExit, match=r"^set TSCOPE_DATA to the folder that holds bike\.csv\.gz$"):
        tabular.read_table("bike")
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as error:
        tabular.read_table("houses")
    assert str(error.value) == f"there is no california_housing.csv in TSCOPE_DATA={tmp_path}"
    write_houses(tmp_path)
    with pytest.raises(SystemExit, match=r"^california_housing\.csv holds 39 complete rows, got 45$"):
        tabular.load_split("houses", 20, 15, 0, regular=False)


def test_tables_keep_numbers_and_leave_out_what_gives_the_label_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabular = load("tabular", monkeypatch)
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    houses = np.delete(write_houses(tmp_path), 3, axis=0)  # the row with the gap
    x, y = tabular.read_table("houses")
    assert np.array_equal(x, houses[:, :8])
    assert np.array_equal(y, np.log(houses[:, 8]))
    bike = write_bike(tmp_path)
    x, y = tabular.read_table("bike")
    kept = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    np.testing.assert_allclose(x, bike[:, kept], rtol=1e-15)
    np.testing.assert_allclose(y, bike[:, 17], rtol=1e-15)


def test_splits_are_scaled_by_the_training_set_and_can_keep_to_regular_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabular = load("tabular", monkeypatch)
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    table = write_bike(tmp_path, 200)
    plain = tabular.load_split("bike", 60, 50, 2, regular=False)
    assert (len(plain.x_train), len(plain.x_validation), len(plain.x_test)) == (60, 30, 50)
    np.testing.assert_allclose(plain.x_train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(plain.x_train.std(0), 1, atol=1e-6)
    rows = np.concatenate([plain.y_train, plain.y_validation, plain.y_test])[:, 0]
    assert len(np.unique(rows)) == 140  # no row is in two parts
    again = tabular.load_split("bike", 60, 50, 2, regular=False)
    assert np.array_equal(again.x_test, plain.x_test)

    regular = tabular.load_split("bike", 60, 50, 2, regular=True)
    x = table[:, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
    scaled = (x - x.mean(0)) / x.std(0)
    direction = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    along = np.abs(scaled @ direction)
    irregular = np.flatnonzero(along > np.quantile(along, 0.9))
    trained = np.concatenate([regular.y_train, regular.y_validation])[:, 0]
    order = np.random.default_rng(2).permutation(200)
    rest = [row for row in order[50:] if row not in set(irregular)][:90]
    expected = table[rest, 17]
    expected = (expected - table[rest[:60], 17].mean()) / table[rest[:60], 17].std()
    np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-5)


def test_a_column_that_is_constant_on_the_training_set_is_not_blown_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deviation is rounding, not 0: a validation example that differs would be 1e16 of it away."""
    tabular = load("tabular", monkeypatch)
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    table = write_bike(tmp_path, 200)
    order = np.random.default_rng(2).permutation(200)
    table[:, 3] = 0.1
    table[order[0], 3] = 0.2  # the first test example
    with gzip.open(tmp_path / "bike.csv.gz", "wt") as file:
        np.savetxt(file, table, delimiter=",")
    assert table[order[50:110], 3].std() > 0
    split = tabular.load_split("bike", 60, 50, 2, regular=False)
    assert split.x_test[0, 3] == pytest.approx(0.1)
    assert np.abs(split.x_train[:, 3]).max() < 1e-15


def test_the_search_takes_the_smallest_validation_error_and_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load("trees_and_nets", monkeypatch)
    script = tmp_path / "curve.py"
    script.write_text(
        "import argparse\n"
        "from pathlib import Path\n"
        "parser = argparse.ArgumentParser()\n"
        "for name in ('data', 'train', 'test', 'seed', 'lr', 'epochs', 'log'):\n"
        "    parser.add_argument('--' + name)\n"
        "args = parser.parse_args()\n"
        "errors = [float('nan') if args.lr == '9' else abs(k - 2) + float(args.lr) for k in range(4)]\n"
        "lines = [f'{k},{error}' for k, error in enumerate(errors, 1)]\n"
        "Path(args.log).write_text('\\n'.join(['epoch,validation_mse', *lines]))\n"
    )
    model = study.Model("net", str(script), {"--lr": (0.5, 0.25, 9)}, "--epochs", 4)
    problem = study.Problem("bike", "random", 0, 10, 10, (model, model))
    assert study.search(problem, model, tmp_path) == (0.25, ("--lr", "0.25", "--epochs", "3"))


data = pytest.mark.skipif("TSCOPE_DATA" not in os.environ, reason="TSCOPE_DATA names no folder with tables")


@pytest.mark.slow
@data
def test_trees_and_networks_are_tuned_recorded_compared_and_drawn_and_nothing_is_repeated(
    tmp_path: Path,
) -> None:
    sizes = ["--quick", "--data", "bike", "--train", "80", "--test", "60", "--out", str(tmp_path)]
    first = run("trees_and_nets.py", *sizes)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count(": done") == 2
    rows = columns(tmp_path / "trees_and_nets.csv")
    assert len(rows) == 2 * 2 * 11
    for row in rows:
        assert row["table"] == "bike"
        assert float(row["norm_net"]) > 0
        increase = float(row["error_net"]) / float(row["error_trees"]) - 1
        assert float(row["relative_increase"]) == pytest.approx(increase, abs=1e-4)
    for score in ("pca", "mahalanobis"):
        assert (tmp_path / f"trees_and_nets_{score}.svg").stat().st_size > 0
    kept = json.loads((tmp_path / "bike-random-0.json").read_text())
    chosen = kept["chosen"]["net"]["arguments"]
    assert kept["results"]["pca"]["scalars"]["steps"] == 2 * int(chosen[chosen.index("--epochs") + 1])
    again = run("trees_and_nets.py", *sizes)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)

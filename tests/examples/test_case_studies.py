"""The case studies: a run against an independent recursion, missing data, and each script at a tiny size."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from recorded_example import EXAMPLES
from torch import Tensor

FOLDER = EXAMPLES / "case_studies"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )


def smoother_by_hand(
    W: Tensor, x: Tensor, y: Tensor, train: int, epsilon: float, lr: float, steps: int
) -> tuple[float, float, float]:
    """Train `AveragedUnits` (α = 1) in float64 with its kernel in closed form: p_train, p_test, test MSE.

    ∂f/∂w_i = φ'(w_i·x) x/N, so K(x, x') = x·x' Σ_i φ'(w_i·x) φ'(w_i·x') / N².
    """
    count = len(W)

    def outputs(W: Tensor) -> Tensor:
        h = x @ W.T
        return (h + epsilon / 2 * h * h).mean(1, keepdim=True)

    first = outputs(W)
    S = x.new_zeros(len(x), train)
    for _ in range(steps):
        slope = 1 + epsilon * (x @ W.T)
        K = (x @ x[:train].T) * (slope @ slope[:train].T) / count**2
        S = S - lr * 2 / train * K @ (S[:train] - torch.eye(train, dtype=x.dtype))
        residual = (outputs(W) - first - y)[:train]
        W = W - lr * 2 / train / count * (residual * slope[:train]).T @ x[:train]
    squares = S.square().sum(1)
    error = (outputs(W) - first - y)[train:].square().mean()
    return float(squares[:train].sum()), float(train * squares[train:].mean()), float(error)


@pytest.mark.slow
def test_effective_parameters_of_the_polynomial_study_are_those_of_the_closed_form_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, script = load("study", monkeypatch), load("train_polynomial", monkeypatch)
    inputs, units, train, test, steps = 8, 12, 20, 15, 40
    sizes = {"inputs": inputs, "units": units, "train": train, "test": test, "steps": steps, "epsilon": 0.25}
    words = tuple(word for name, value in sizes.items() for word in (f"--{name}", str(value)))

    def held_out() -> tuple[Tensor, Tensor]:
        x, y = script.make_task(inputs, train, test, 3)[2:]
        return x, y

    (found,) = study.follow(
        [study.Run("tiny", "train_polynomial.py", words, 3, 10, held_out)], tmp_path, jobs=1
    )

    x, y, x_test, y_test = script.make_task(inputs, train, test, 3)
    torch.manual_seed(3)
    W = script.AveragedUnits(inputs, units, 0.25, 1.0).units.weight.detach().double()
    p_train, p_test, error = smoother_by_hand(
        W,
        torch.cat([x, x_test]).double(),
        torch.cat([y, y_test]).double(),
        train,
        0.25,
        units / inputs,
        steps,
    )
    assert found.step.tolist() == [0, 10, 20, 30, 40]
    assert found.last("p_train") == pytest.approx(p_train, rel=1e-5)
    assert found.last("p_test") == pytest.approx(p_test, rel=1e-5)
    assert found.last("test_mse") == pytest.approx(error, rel=1e-4)


def test_missing_pictures_are_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load("images", monkeypatch)
    monkeypatch.delenv("TSCOPE_DATA", raising=False)
    with pytest.raises(SystemExit, match=r"^set TSCOPE_DATA to the folder that holds mnist10k\.npz$"):
        images.load_pair("mnist", 4, 10, 10, 0.0, 0)
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as error:
        images.load_pair("cifar", 4, 10, 10, 0.0, 0)
    assert str(error.value) == f"there is no cifar10_subset.npz in TSCOPE_DATA={tmp_path}"


def test_a_fifth_of_the_training_labels_is_flipped_and_pixels_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 5, 7], 20).astype(np.uint8)
    pictures = rng.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "cifar10_subset.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels
    )
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    images = load("images", monkeypatch)
    noisy = images.load_pair("cifar", pool=2, train=40, test=30, noise=0.2, seed=1)
    clean = images.load_pair("cifar", pool=2, train=40, test=30, noise=0.0, seed=1)
    assert torch.equal(noisy.x_train, clean.x_train)
    assert int((noisy.y_train != clean.y_train).sum()) == 8
    assert torch.equal(clean.y_test[:20], torch.full((20, 1), -1.0))
    # Undo centring and scaling on the test pictures, which are the training pictures in order.
    means = pictures[:30].reshape(30, 2, 2, 2, 2, 3).mean((2, 4)).reshape(30, 12) / 255
    found = clean.x_test.numpy()
    slope = np.polyfit(means[:, 0], found[:, 0], 1)[0]
    np.testing.assert_allclose(found - found[0], slope * (means - means[0]), atol=1e-4)


def columns(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


data = pytest.mark.skipif("TSCOPE_DATA" not in os.environ, reason="TSCOPE_DATA names no folder with pictures")


@pytest.mark.slow
@data
def test_double_descent_records_analyses_and_draws_and_repeats_no_run(tmp_path: Path) -> None:
    arguments = ["--widths", "2", "30", "--steps", "60", "--seeds", "1", "--out", str(tmp_path)]
    first = run("double_descent.py", *arguments)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count(": done") == 4
    rows = columns(tmp_path / "double_descent.csv")
    assert [(row["data"], row["width"], row["seed"]) for row in rows] == [
        (data, width, "0") for data in ("mnist", "cifar") for width in ("2", "30")
    ]
    for row in rows:
        assert 0 < float(row["p_train"]) < 200
        assert float(row["discrepancy_telescoped"]) < 0.1 * float(row["prediction_scale"])
    assert (tmp_path / "double_descent.svg").stat().st_size > 0
    again = run("double_descent.py", *arguments)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
    changed = run("double_descent.py", *arguments, "--data", "mnist", "--widths", "2", "--steps", "50")
    assert changed.stderr == "mnist-2-0: done\n"


@pytest.mark.slow
@data
def test_both_groks_are_recorded_analysed_and_drawn(tmp_path: Path) -> None:
    done = run("grokking.py", "--quick", "--steps", "40", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for study, names in (
        ("polynomial", {"polynomial-0.25", "polynomial-1"}),
        ("mnist", {"mnist-6", "mnist-1"}),
    ):
        rows = columns(tmp_path / f"grokking_{study}.csv")
        assert {row["run"] for row in rows} == names
        assert {row["step"] for row in rows} >= {"0", "40"}
        assert all(float(row["p_train"]) > 0 for row in rows if row["step"] == "40")
        assert (tmp_path / f"grokking_{study}.svg").stat().st_size > 0

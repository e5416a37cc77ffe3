"""Probes: unbiased, with an error that falls as one over the root of their number and covers the truth."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tscope
from tests.analyses.effective_runs import make_run
from tscope.analyses.effective.curve import Squares
from tscope.analyses.effective.directions import Directions
from tscope.analyses.effective.error import above, standard_errors
from tscope.analyses.effective.estimate import by_probes
from tscope.analyses.effective.walk import Tally
from tscope.analyses.metric import Watch
from tscope.optimizers import Loss


def smoother(n: int, m: int, outputs: int, dominating: float = 1.0) -> torch.Tensor:
    """Return a dense S (point, output, direction) whose first singular value is `dominating` times larger."""
    random = torch.Generator().manual_seed(2)
    S = torch.randn((n + m) * outputs, n * outputs, generator=random, dtype=torch.float64)
    U, sigma, V = torch.linalg.svd(S, full_matrices=False)
    sigma[0] *= dominating
    return (U * sigma @ V).reshape(n + m, outputs, n * outputs)


def series_of(S: torch.Tensor, n: int, W: torch.Tensor, *, is_basis: bool):
    """Return p from the columns S W, W (example, output, column)."""
    squares = Squares((n, len(S) - n), S.shape[1], is_basis)
    columns = torch.einsum("poq,qk->pok", S, W.reshape(S.shape[2], -1))
    squares.add(0, columns)
    return squares.series(1)


def directions(n: int, outputs: int) -> Directions:
    loss = Loss("mse", 1.0, "mean", torch.zeros(n, outputs))
    return Directions.of(loss, n, outputs, torch.float64)


@pytest.mark.parametrize("dominating", [1.0, 20.0])
def test_probes_are_unbiased_and_their_error_is_as_theory_says(dominating):
    n, m, C = 12, 7, 2
    S, basis = smoother(n, m, C, dominating), directions(n, C)
    truth = series_of(S, n, basis.basis(), is_basis=True)
    assert truth.train[0] == pytest.approx(float(S[:n].square().sum()) / C)
    assert truth.test[0] == pytest.approx(n / m * float(S[n:].square().sum()) / C)
    r = 4000
    found = series_of(S, n, basis.probes(r, torch.Generator().manual_seed(0)), is_basis=False)
    A = S[:n].reshape(n * C, -1)
    G = A.T @ A
    # Hutchinson: Var ‖Sε‖² = 2(‖SᵀS‖² − Σ diag²), math.md §2.
    spread = float((2 * (G.square().sum() - G.diagonal().square().sum())).sqrt() / G.trace())
    assert found.train_se[0] / truth.train[0] == pytest.approx(spread / r**0.5, rel=0.1)
    assert abs(found.train[0] - truth.train[0]) < 4 * found.train_se[0]
    assert abs(found.test[0] - truth.test[0]) < 4 * found.test_se[0]
    norms = truth.train_norms[0]
    # A single example has few directions: its own spread is at most √2.
    assert np.abs(found.train_norms[0] / norms - 1).max() < 4 * (2 / r) ** 0.5


def test_the_error_halves_as_probes_quadruple():
    n, C = 12, 2
    S, basis = smoother(n, 7, C), directions(n, C)
    truth = series_of(S, n, basis.basis(), is_basis=True).train[0]
    errors = []
    for r in (8, 32, 128):
        found = [
            series_of(S, n, basis.probes(r, torch.Generator().manual_seed(seed)), is_basis=False).train[0]
            for seed in range(150)
        ]
        errors.append(float(np.sqrt(np.mean(np.square(np.array(found) - truth)))))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.25)


def test_the_standard_error_covers_the_truth_at_its_rate():
    n, C = 12, 2
    S, basis = smoother(n, 7, C), directions(n, C)
    truth = series_of(S, n, basis.basis(), is_basis=True)
    inside = [0, 0, 0]
    for seed in range(400):
        found = series_of(S, n, basis.probes(32, torch.Generator().manual_seed(seed)), is_basis=False)
        inside[0] += abs(found.train[0] - truth.train[0]) < 2 * found.train_se[0]
        inside[1] += abs(found.test[0] - truth.test[0]) < 2 * found.test_se[0]
        gap, exact = found.test[0] - found.train[0], truth.test[0] - truth.train[0]
        inside[2] += abs(gap - exact) < 2 * found.gap_se[0]
    for count in inside:
        assert 0.90 < count / 400 < 0.98


def test_the_error_of_the_gap_is_that_of_pairs():
    n, C = 12, 2
    S, basis = smoother(n, n, C), directions(n, C)
    S[n:] = S[:n]  # held-out examples that are the training ones: the gap is 0 for every probe
    found = series_of(S, n, basis.probes(16, torch.Generator().manual_seed(0)), is_basis=False)
    assert found.gap_se[0] < 1e-12 * found.test_se[0]
    assert series_of(S, n, basis.basis(), is_basis=True).gap_se[0] == 0


def analysed(run, **options):
    return tscope.analyze(run.trace, "effective-params", probe=str(run.held), save=False, **options)


class Walked:
    """Passes over a run whose smoother S (point, output, direction) is known."""

    def __init__(self, S: torch.Tensor, n: int):
        self.S, self.n = S, n
        self.setup = SimpleNamespace(directions=directions(n, S.shape[1]), problem=SimpleNamespace(rows=[0]))
        self.watch = Watch()

    def run(self, index, W, *, exact, progress):
        tally = Tally(Squares((self.n, len(self.S) - self.n), self.S.shape[1], exact))
        columns = W.reshape(self.S.shape[2], -1)
        tally.plain.add(0, (self.S.flatten(0, 1) @ columns).reshape(*self.S.shape[:2], -1))
        tally.discrepancies.step.append(1)
        return tally


@pytest.mark.parametrize("rtol", [0.1, 0.05])
def test_two_standard_errors_cover_the_truth_where_the_error_decides_how_many_probes(rtol):
    n, m, runs = 150, 60, 600
    S = smoother(n, m, 1, 2.5)
    truth = series_of(S, n, directions(n, 1).basis(), is_basis=True)
    covered = np.zeros((runs, 3), bool)
    probes = set()
    for seed in range(runs):
        found = by_probes(Walked(S, n), rtol=rtol, most=1000, seed=seed)
        series = found.series
        probes.add(found.probes)
        assert found.reached
        gap, true_gap = (float(which.test[0] - which.train[0]) for which in (series, truth))
        covered[seed] = [
            abs(series.train[0] - truth.train[0]) < 2 * series.train_se[0],
            abs(series.test[0] - truth.test[0]) < 2 * series.test_se[0],
            abs(gap - true_gap) < 2 * series.gap_se[0],
        ]
    # The rule did decide: not all runs took as many.
    assert len(probes) > 1
    # 95 % less two standard deviations of 600 runs; textbook errors, stopped when small, cover 90 to 92 %.
    assert (covered.mean(0) >= 0.93).all()


def test_the_standard_error_is_that_of_students_t_and_of_the_logarithm():
    columns = np.random.default_rng(0).gamma(2.0, size=(16, 2))
    plain = columns.std(0, ddof=1) / 4
    # Tables: the 97.5 % quantile of t of 15 degrees of freedom is 2.13145.
    assert standard_errors(columns) == pytest.approx(plain * 2.13145 / 1.959964, rel=1e-5)
    assert standard_errors(columns[:3]) == pytest.approx(
        columns[:3].std(0, ddof=1) / 3**0.5 * 4.30265 / 1.959964, rel=0.01
    )
    p, se = np.array([2.0, 0.0, np.nan]), np.array([0.4, 0.0, np.nan])
    carried = above(p, se)
    assert p[0] + 2 * carried[0] == pytest.approx(2 * np.exp(2 * 0.2))
    assert carried[1] == 0
    assert np.isnan(carried[2])


@pytest.mark.parametrize(("loss", "outputs"), [("mse", 3), ("cross_entropy", 3)])
def test_probes_of_a_run_estimate_its_exact_figures(tmp_path, loss, outputs):
    run = make_run(tmp_path, optimizer="adamw", outputs=outputs, loss=loss)
    truth = analysed(run, loss=loss)
    found = analysed(run, loss=loss, form="probes", rtol=0.2, seed=3)
    assert found.scalars["form"] == "probes"
    assert not found.scalars["exact"]
    assert 0 < found.scalars["probes"] <= run.train * outputs
    names = ["p_train", "p_test"]
    if loss == "cross_entropy":
        names += ["p_train_probability", "p_test_probability"]
    for name in names:
        exact, estimate, error = (
            truth.arrays[name].data[1:],
            found.arrays[name].data[1:],
            found.arrays[f"{name}_se"].data[1:],
        )
        assert (error > 0).all()
        assert (np.abs(estimate - exact) < 4 * error).all()
    # What does not depend on the columns is the same to the last digits.
    for name in ("discrepancy_telescoped", "discrepancy_anchored", "prediction_scale"):
        assert np.allclose(found.arrays[name].data, truth.arrays[name].data, rtol=1e-12, atol=1e-15)
    assert found.scalars["label_residual"] < 1e-12


def test_probes_are_added_until_the_error_is_as_asked(tmp_path):
    run = make_run(tmp_path, optimizer="momentum", outputs=3)
    rough = analysed(run, form="probes", rtol=0.9)
    # So few that p may be skewed are not enough, however rough it may be.
    assert (rough.scalars["probes"], rough.scalars["passes"]) == (30, 2)
    fine = analysed(run, form="probes", rtol=0.05)
    # Never more than there are label directions; the note says that it was not enough.
    assert (fine.scalars["probes"], fine.scalars["passes"]) == (30, 2)
    assert any("did not reach 5% with 30 probes" in note for note in fine.notes)
    for name in ("train", "test"):
        error = rough.scalars[f"p_{name}_se"] / rough.scalars[f"p_{name}"]
        assert error < 0.9
    assert not any("did not reach" in note for note in rough.notes)


def test_probes_are_taken_in_passes_that_fit_and_are_the_same_by_seed(tmp_path, monkeypatch):
    from tscope.analyses.effective import analysis

    run = make_run(tmp_path, optimizer="momentum", outputs=3)
    whole = analysed(run, form="probes", rtol=0.05, seed=5)
    again = analysed(run, form="probes", rtol=0.05, seed=5)
    assert whole.scalars["p_train"] == again.scalars["p_train"]
    assert analysed(run, form="probes", seed=6).scalars["p_train"] != whole.scalars["p_train"]
    choose = analysis.choose

    def few(*args, **kwargs):
        plan = choose(*args, **kwargs)
        return replace(plan, columns=10, block=3)

    monkeypatch.setattr(analysis, "choose", few)
    parts = analysed(run, form="probes", rtol=0.05, seed=5)
    assert (parts.scalars["probes"], parts.scalars["passes"]) == (30, 4)
    truth = analysed(run, form="parameter").scalars["p_train"]
    assert abs(parts.scalars["p_train"] - truth) < 4 * parts.scalars["p_train_se"]

"""Runs that the recursion cannot follow, each refused in one line with what to do."""

from __future__ import annotations

import pytest
import torch
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError

import tscope
from tests.analyses.effective_runs import make_run
from tests.optimizers.recorded import Recorder, data, epochs, mlp, train
from tscope.analyses import metric
from tscope.analyses.effective import setup
from tscope.analyses.effective.checks import Tolerance
from tscope.analyses.effective.points import Points


def refused(trace, **options) -> TscopeError:
    with pytest.raises(TscopeError) as caught:
        tscope.analyze(trace, "effective-params", save=False, **options)
    return caught.value


def test_a_run_without_a_step(tmp_path, monkeypatch):
    module = mlp(1)
    x, _ = data(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    trace = Recorder(tmp_path / "run.zarr", module, optimizer, x).close()
    monkeypatch.setattr(type(metric("effective-params")), "missing", lambda *_: ())
    error = refused(trace)
    assert isinstance(error, MissingDataError)
    assert "holds no training step" in str(error)


def test_a_run_that_is_not_finite_from_its_first_step(tmp_path):
    module = mlp(1)
    x, y = data(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 1), torch.nn.functional.mse_loss)
    message = "the run holds NaN or infinite values at step 0; there is no step before it to analyse"
    assert str(refused(trace)) == message


def test_training_examples_of_different_shapes(tmp_path, monkeypatch):
    run = make_run(tmp_path)

    class Ragged(setup.ExampleInputs):
        def take(self, examples):
            raise AnalysisError("examples of several shapes")

    monkeypatch.setattr(setup, "ExampleInputs", Ragged)
    assert "effective-params needs examples of one shape (pad sequences" in str(refused(run.trace))


def test_an_example_that_is_not_among_the_points():
    x = torch.zeros(3, 2)
    points = Points(torch.tensor([1, 4, 7]), (x,), None)
    assert points.rows(torch.tensor([7, 1, 1])).tolist() == [2, 0, 0]
    assert (points.counts, points.total) == ((3, 0), 3)
    for unknown in (0, 5, 9):
        with pytest.raises(AnalysisError, match="an example that is not among the run's training examples"):
            points.rows(torch.tensor([1, unknown]))


def test_dropout_in_training_is_named(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.5), torch.nn.Linear(6, 1)).double()
    x, y = data(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 2), torch.nn.functional.mse_loss)
    assert "the training outputs are not a fixed function" in str(refused(trace, loss="mse"))


def test_a_smoother_that_overflows_ends_the_curves_and_is_noted(tmp_path, monkeypatch):
    from tscope.analyses.effective import recursion

    run = make_run(tmp_path)
    advance = recursion._advance

    def overflowing(problem, state, step, *rest):
        advance(problem, state, step, *rest)
        if step.row == 6:
            state.smoother.fill_(float("inf"))

    monkeypatch.setattr(recursion, "_advance", overflowing)
    result = tscope.analyze(run.trace, "effective-params", save=False)
    assert result.arrays["step"].data.tolist() == [0, 1, 2, 3, 4, 5]
    assert "the recursion is not finite after step 5; figures end there" in result.notes


def test_a_later_pass_of_probes_that_overflows(tmp_path, monkeypatch):
    from tscope.analyses.effective import recursion

    run = make_run(tmp_path, optimizer="momentum", outputs=3)
    advance = recursion._advance

    def overflowing(problem, state, step, update, W, rollouts, form, choice, checks):
        advance(problem, state, step, update, W, rollouts, form, choice, checks)
        if checks is None and step.row == 6:
            state.smoother.fill_(float("inf"))

    monkeypatch.setattr(recursion, "_advance", overflowing)
    message = str(refused(run.trace, form="probes", rtol=0.01))
    assert "overflowed at step 5 in pass 2 but not in the first" in message


@pytest.mark.parametrize(
    ("dtypes", "limits"),
    [
        ((torch.float64, torch.float64, torch.float64), (1e-8, 1e-8, 1e-8)),
        ((torch.float64, torch.float32, torch.float64), (1e-8, 5e-6, 2e-3)),
        ((torch.float64, torch.float32, torch.float32), (5e-5, 5e-6, 2e-3)),
        ((torch.float32, torch.float32, torch.float64), (1e-8, 5e-6, 2e-3)),
        ((torch.float32, torch.float32, torch.float32), (5e-5, 5e-6, 2e-3)),
    ],
)
def test_tolerances_follow_the_precision_of_run_trace_and_replay(dtypes, limits):
    assert Tolerance.of(*dtypes) == Tolerance(*limits)

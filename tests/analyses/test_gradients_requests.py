"""What `gradients` can be asked for, what it refuses in one line, and what it says beside the figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError, UsageError

import tscope
from tests.analyses.layer_runs import Run, deep, make_run
from tests.optimizers.recorded import Recorder, data, epochs, train
from tests.traces import train as plain_train
from tscope import analyses


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("gradients"))


def analysed(trace, **options):
    return tscope.analyze(trace, "gradients", save=False, **options)


def refused(trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        analysed(trace, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": "first"}, "since must be steps separated by commas, or `last`; got 'first'"),
        ({"at": "3;4"}, "at must be steps separated by commas, or `last`; got '3;4'"),
        ({"at": "3", "every": 2}, "at and every both choose the rows; leave out one of the two"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"train": 0}, "train must be at least 1, got 0"),
        ({"stable": 0.0}, "stable must be a share above 0, got 0.0"),
        (
            {"probe_output": "loss"},
            "these gradients are of the model's outputs, not of loss: probe_output must be full, or "
            "positions such as 3, 0,4,7 or 0:16",
        ),
        ({"dtype": "half"}, "unknown dtype 'half'; there is float32, float64"),
        ({"max_memory_mb": -1}, "max_memory_mb must be positive, got -1"),
        ({"seed": -1}, "seed must lie between 0 and 2**63 - 1, got -1"),
        ({"since": "77"}, "step 77 is not in the trace; it holds steps 0 to 9"),
        (
            {"since": "last"},
            "--since last: no row follows step 9, so there is nothing to compare its gradients with",
        ),
        (
            {"since": "5", "at": "0,5"},
            "no row that was chosen follows step 5, the first to compare with; choose later ones with "
            "`--at`, or an earlier one with `--since`",
        ),
        ({"train": 11}, "--train 11: there are 10 training examples"),
    ],
)
def test_bad_requests_are_one_line(run, options, message):
    assert refused(run.trace, UsageError, **options) == message


def test_rows_by_default_and_as_asked_for(run, tmp_path):
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=0.01)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, y)] * 80, nn.functional.mse_loss)
    found = analysed(trace, train=2).arrays
    assert found["since"].data.tolist() == [0, 1, 2, 6, 14, 33]
    assert found["step"].data[[0, -1]].tolist() == [0, 80]
    assert set(found["since"].data) <= set(found["step"].data)
    assert 13 <= len(found["step"].data) <= 18
    # What lies before the first t' is not computed.
    found = analysed(run.trace, since="4", at="2,6").arrays
    assert (found["since"].data.tolist(), found["step"].data.tolist()) == ([4], [4, 6])
    assert analysed(run.trace, since="0", every=4).arrays["step"].data.tolist() == [0, 4, 8, 9]


def test_examples_are_drawn_with_the_seed_and_fewer_by_default_with_many_outputs(tmp_path):
    torch.manual_seed(0)
    module = nn.Linear(4, 20).double()
    optimizer = optim.SGD(module.parameters(), lr=0.01)
    batches = epochs(*data(20, count=50), 25, 1)
    trace = train(tmp_path / "run.zarr", module, optimizer, batches, nn.functional.mse_loss)
    found = analysed(trace, seed=3)
    assert found.scalars["examples_train"] == 640 // 20
    assert not np.array_equal(analysed(trace, seed=4).arrays["train"].data, found.arrays["train"].data)
    assert analysed(trace, train=40).scalars["examples_train"] == 40


def test_what_does_not_fit_is_refused_and_what_fits_is_done_in_parts(run):
    message = refused(run.trace, AnalysisError, max_memory_mb=0.01, since="0,3", every=1)
    assert message == (
        "gradients of 3 outputs by 83 parameters at 2 steps t' need 0.014 MB for one example, and the "
        "parameters of 10 rows 0.0066 MB, of the 0.01 MB allowed (`--max-memory MB`); take fewer: `--since "
        "0`, `--at last`, `--probe-output 0`"
    )
    small = analysed(run.trace, max_memory_mb=0.03, since="0,3", every=1)
    assert small.provenance["examples_at_once"] == 1
    large = analysed(run.trace, since="0,3", every=1)
    assert large.provenance["examples_at_once"] == 10
    np.testing.assert_allclose(
        small.arrays["change_train"].data, large.arrays["change_train"].data, rtol=1e-13, atol=0
    )
    said = analyses.plan(run.trace, "gradients", since="0,3", every=1)
    assert said == (
        "gradients at 10 rows against 2 of them, of 10 training and 0 held-out examples with C = 3: about "
        "0 s of arithmetic, 0.15 MB"
    )


def test_a_trace_without_steps_or_program_or_examples_is_refused(tmp_path):
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    start = Recorder(tmp_path / "start.zarr", module, optimizer, x).close()
    assert "the training examples" in refused(start, MissingDataError)
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)], nn.functional.mse_loss, program=False)
    message = refused(tscope.open(tmp_path / "t.zarr"), MissingDataError)
    assert "the model as data (program) and the training examples" in message


def test_a_trace_without_updates_has_gradients_at_the_rows_that_it_keeps(tmp_path):
    x, y = data(3)
    traces = []
    for updates in (False, True):
        module = deep()
        optimizer = optim.SGD(module.parameters(), lr=0.05)
        path = tmp_path / f"{updates}.zarr"
        batches = [(x, y)] * 9
        traces.append(train(path, module, optimizer, batches, nn.functional.mse_loss, updates=updates))
    sparse, whole = traces
    assert "`--updates none`" in refused(sparse, MissingDataError)
    assert "`--updates none`" in refused(sparse, MissingDataError, at="last", since="3")
    found, expected = (analysed(t, since="0,4", at="8,last").arrays for t in (sparse, whole))
    assert np.array_equal(found["change_train"].data, expected["change_train"].data, equal_nan=True)


def test_a_run_that_diverges_ends_before_and_one_that_does_at_once_is_refused(tmp_path):
    module, (x, y) = deep(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=1e30)
    recorder = Recorder(tmp_path / "t.zarr", module, optimizer, x)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(recorder.forward(x), y).backward()
        recorder.step()
    trace = recorder.close()
    found = analysed(trace, every=1, since="0")
    stopped = found.scalars["stopped"]
    assert found.arrays["step"].data[-1] == stopped - 1
    assert f"the run or its gradients are not finite at step {stopped}; figures end before" in found.notes
    assert np.isfinite(found.arrays["change_train"].data).all()
    message = refused(trace, AnalysisError, since=str(stopped), at="last")
    assert message.startswith("the run holds NaN or infinite values, or gradients, before any step")


def test_without_held_out_examples_a_note_says_so(run):
    assert analysed(run.trace).notes == ("no held-out examples: give some with `--probe FILE.npz`",)
    assert analysed(run.trace, probe=str(run.held)).notes == ()

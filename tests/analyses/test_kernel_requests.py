"""What `kernel` can be asked for, what it refuses in one line, and what it says beside the figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError, UsageError

import tscope
from tests.analyses.effective_runs import make_run
from tests.optimizers.recorded import Recorder, data, epochs, mlp, train
from tests.traces import Probe
from tests.traces import train as plain_train
from tscope.analyses.kernel import setup


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), optimizer="adam")


def analysed(trace, **options):
    return tscope.analyze(trace, "kernel", save=False, **options)


def refused(trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        analysed(trace, **options)
    return str(caught.value)


def test_rows_are_spaced_evenly_on_a_logarithmic_scale_by_default(tmp_path):
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.01)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, y)] * 80, nn.functional.mse_loss)
    step = analysed(trace, train=2).arrays["step"].data
    assert step.tolist()[:6] == [0, 1, 2, 3, 4, 5]
    assert step[-1] == 80
    ratios = step[12:] / step[11:-1]
    assert 18 < len(step) <= 25
    assert ratios.max() / ratios.min() < 1.1


def test_rows_by_every_and_at(run):
    assert analysed(run.trace, every=4).arrays["step"].data.tolist() == [0, 4, 8, 9]
    assert analysed(run.trace, at="7,last,3").arrays["step"].data.tolist() == [0, 3, 7, 9]
    assert analysed(run.trace, at="last", preconditioned=True).arrays["step"].data.tolist() == [0, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "3,x"}, "at must be steps separated by commas, or `last`; got '3,x'"),
        ({"matrix": ""}, "matrix must be steps separated by commas, or `last`; got ''"),
        ({"at": "3", "every": 2}, "at and every both choose the rows; leave out one of the two"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"eigenvalues": 0}, "eigenvalues must be at least 1, got 0"),
        ({"train": -1}, "train must be at least 1, got -1"),
        ({"at": "10"}, "step 10 is not in the trace; it holds steps 0 to 9"),
        (
            {"at": "9", "preconditioned": True},
            "--at: no step follows step 9, so it has no preconditioner; the last that has one is 8",
        ),
        (
            {"at": "3", "matrix": "4"},
            "--matrix: no kernel is taken at step 4; name it in `--at` too, which chooses the rows",
        ),
        ({"train": 11}, "--train 11: there are 10 training examples"),
        ({"test": 1}, "--test 1: the trace holds no held-out examples; give some with `--probe FILE.npz`"),
        ({"probe_output": "1"}, "--probe-output 1: the model has the outputs 0 to 0"),
        (
            {"probe_output": "loss"},
            "a tangent kernel is of the model's outputs, not of loss: probe_output must be full, or "
            "positions such as 3, 0,4,7 or 0:16",
        ),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there is auto, mse, cross_entropy, bce"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"seed": -1}, "seed must lie between 0 and 2**63 - 1, got -1"),
        (
            {"top": 3},
            "kernel has no option top; it has at, dtype, eigenvalues, every, form, labels, layers, loss, "
            "matrix, max_memory_mb, preconditioned, probe, probe_output, seed, test, train",
        ),
    ],
)
def test_requests_that_cannot_be_met(run, options, message):
    assert refused(run.trace, UsageError, **options) == message


def test_more_held_out_examples_than_there_are(run):
    message = refused(run.trace, UsageError, probe=str(run.held), test=6)
    assert message == "--test 6: there are 5 held-out examples"


def test_matrices_that_do_not_fit_are_refused_before_anything_is_computed(run, monkeypatch):
    from tscope.analyses.kernel import analysis

    monkeypatch.setattr(analysis, "Jacobian", None)
    message = refused(run.trace, AnalysisError, probe=str(run.held), max_memory_mb=0.01, matrix="last")
    assert message == (
        "kernels of 10 training and 5 held-out rows (examples times 1 outputs), by 2 layers, 1 of them kept, "
        "need 0.017 MB of the 0.01 MB allowed (`--max-memory MB`); take fewer: `--train N`, `--test N` or "
        "leave the layers out (`--no-layers`)"
    )


def test_a_trace_without_what_a_kernel_needs(tmp_path):
    torch.manual_seed(0)
    module = mlp(1)
    batches = [data(1)] * 3
    probes = {"held": Probe((data(1)[0],))}
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    path = plain_train(
        tmp_path / "run.zarr", module, optimizer, batches, nn.functional.mse_loss, probes, program=False
    ).path
    message = refused(path, MissingDataError)
    assert "lacks what kernel needs: the model as data (program) and the training examples. " in message
    assert message.endswith("Record with `tscope record --max-examples N`")


def test_a_trace_without_updates_has_exact_kernels_at_the_rows_that_it_keeps(tmp_path):
    found = []
    for updates in (True, False):
        module, (x, y) = mlp(1), data(1)
        optimizer = optim.SGD(module.parameters(), lr=0.1)
        path = tmp_path / f"{updates}.zarr"
        batches = [(x, y)] * 6
        trace = train(path, module, optimizer, batches, nn.functional.mse_loss, updates=updates)
        found.append(analysed(trace, at="2,4,last"))
    for name, array in found[0].arrays.items():
        np.testing.assert_array_equal(found[1].arrays[name].data, array.data)
    assert found[1].arrays["step"].data.tolist() == [0, 2, 4, 6]
    for options in ({}, {"at": "3"}, {"form": "exact"}, {"at": "2", "preconditioned": True}):
        message = refused(trace, MissingDataError, **options)
        assert message.endswith(
            "lacks what kernel needs: the parameters at every row (theta). The run was recorded with "
            "`--updates none`: record it without, take steps that it keeps (0, powers of two and the last: "
            "`--at 0,last`), or estimates of a run with sketches (`tscope record --sketch K`, `--form "
            "sketch`); `--preconditioned` needs every row"
        )


def test_sketches_that_were_not_recorded_are_refused(run):
    message = refused(run.trace, MissingDataError, form="sketch")
    assert message.endswith(
        "lacks what kernel needs: sketches of a probe set. Record with `tscope record --sketch K`"
    )


def test_training_examples_of_different_shapes(run, monkeypatch):
    class Ragged(setup.ExampleInputs):
        def take(self, examples):
            raise AnalysisError("examples of several shapes")

    monkeypatch.setattr(setup, "ExampleInputs", Ragged)
    message = refused(run.trace, AnalysisError)
    assert message.startswith("the training examples have different shapes, so they cannot be evaluated")


def test_a_run_without_a_step_has_a_kernel_but_no_preconditioner(tmp_path):
    module, (x, _) = mlp(1), data(1)
    recorder = Recorder(tmp_path / "run.zarr", module, optim.Adam(module.parameters()), x)
    recorder._identify(x)
    trace = recorder.close()
    assert analysed(trace).arrays["step"].data.tolist() == [0]
    message = refused(trace, MissingDataError, preconditioned=True)
    assert message.endswith(
        "holds no training step, so no preconditioner; let the run go on, or leave out `--preconditioned`"
    )


def test_no_step_after_a_row_because_the_rest_was_skipped(tmp_path):
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    recorder = Recorder(tmp_path / "run.zarr", module, optimizer, x)
    for step in (1, 2, 3):
        optimizer.zero_grad()
        nn.functional.mse_loss(recorder.forward(x), y).backward()
        recorder.step(1.0, skipped=step == 3)
    trace = recorder.close()
    message = refused(trace, AnalysisError, preconditioned=True)
    assert message == (
        "no step of the optimizer follows step 2, so there is no preconditioner; leave it out of `--at`"
    )
    assert analysed(trace, preconditioned=True, at="1").arrays["step"].data.tolist() == [0, 1]


def test_training_that_moves_nothing_the_model_uses(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.ones(4, 1, dtype=torch.float64), requires_grad=False)
            self.unused = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x):
            return x @ self.used

    module, (x, _) = Odd(), data(1)
    recorder = Recorder(tmp_path / "run.zarr", module, optim.SGD([module.unused], lr=0.1), x)
    recorder._identify(x)
    message = refused(recorder.close(), AnalysisError)
    assert message == "training moves none of the parameters that the model uses: its kernel is zero"


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_run_that_diverges_is_followed_up_to_there(tmp_path, preconditioned):
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    batches = epochs(x, y, 10, 4)
    batches[2] = (x, y * float("nan"))
    trace = train(tmp_path / "run.zarr", module, optimizer, batches, nn.functional.mse_loss)
    result = analysed(trace, every=1, preconditioned=preconditioned, loss="auto")
    last = 1 if preconditioned else 2
    assert result.arrays["step"].data.tolist() == list(range(last + 1))
    assert result.scalars["stopped"] == last + 1
    assert f"the run is not finite at step {last + 1}; figures end before" in result.notes
    assert np.isfinite(result.arrays["trace_train"].data).all()


def test_a_run_that_is_not_finite_from_its_beginning(tmp_path):
    module, (x, y) = mlp(1), data(1)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 1), nn.functional.mse_loss)
    message = "the run holds NaN or infinite values from its beginning; there is no kernel to analyse"
    assert refused(trace, AnalysisError) == message


def trained_on(folder, y):
    module, (x, _) = mlp(1), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    return train(folder / "run.zarr", module, optimizer, epochs(x, y, 5, 3), nn.functional.mse_loss)


def test_constant_labels_have_no_centred_alignment(tmp_path):
    result = analysed(trained_on(tmp_path, torch.full((10, 1), 0.7, dtype=torch.float64)), at="last")
    assert "all training examples have the same label: their centred alignment is not defined" in result.notes
    assert np.isnan(result.arrays["alignment_centered_train"].data).all()
    assert (result.arrays["alignment_train"].data > 0).all()


def test_labels_of_zero_have_no_alignment(tmp_path):
    result = analysed(trained_on(tmp_path, torch.zeros(10, 1, dtype=torch.float64)), at="last")
    assert "all labels of the training examples are 0: their alignment is not defined" in result.notes
    assert np.isnan(result.arrays["alignment_train"].data).all()


def test_a_loss_that_cannot_be_told_leaves_alignment_out_and_says_why(tmp_path):
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 5, 3), nn.functional.l1_loss)
    result = analysed(trace, at="last")
    assert not [name for name in result.arrays if "alignment" in name or name.startswith("label")]
    (note,) = [note for note in result.notes if note.endswith("): no alignment")]
    assert note.startswith("the training labels cannot be told (no loss fits the recorded gradients")
    assert "no loss fits" in refused(trace, AnalysisError, loss="mse")


def test_labels_from_a_file(tmp_path):
    module, (x, y) = mlp(1), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 5, 3), nn.functional.mse_loss)
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=y.numpy())
    told = analysed(trace, at="last", labels=str(tmp_path / "labels.npz"))
    inferred = analysed(trace, at="last")
    np.testing.assert_allclose(
        told.arrays["alignment_train"].data, inferred.arrays["alignment_train"].data, rtol=1e-9
    )


def test_a_probe_sets_labels_that_fit_nothing_are_not_used(run):
    path = run.held.with_name("odd.npz")
    np.savez(path, x=np.load(run.held)["x"], y=np.zeros((5, 2)))
    result = analysed(run.trace, at="last", probe=str(path))
    assert "alignment_test" not in result.arrays
    assert "the probe set odd has no labels that fit the model's 1 outputs: no alignment" in result.notes


def test_notes_on_what_a_result_rests_on(run):
    plain = analysed(run.trace, at="last")
    assert "no held-out examples: give some with `--probe FILE.npz`" in plain.notes
    (note,) = [note for note in analysed(run.trace, at="3", preconditioned=True).notes if "D weighs" in note]
    assert "a few parameters can dominate" in note


def test_an_optimizer_without_preconditioner_gives_the_plain_kernel(tmp_path):
    run = make_run(tmp_path, optimizer="momentum")
    plain, conditioned = (analysed(run.trace, at="4", preconditioned=flag) for flag in (False, True))
    assert "the optimizer has no preconditioner (D = 1): these are the plain kernels" in conditioned.notes
    np.testing.assert_array_equal(plain.arrays["trace_train"].data, conditioned.arrays["trace_train"].data)


def test_the_plan_says_what_it_costs(run):
    from tscope.analyses import plan

    text = plan(run.trace, "kernel", probe=str(run.held), at="3,9")
    assert text.startswith(
        "exact kernels at 3 rows, of 10 training and 5 held-out examples with C = 1: about 0 s of "
        "arithmetic, "
    )


def test_a_result_is_saved_and_loaded_with_every_array(run, tmp_path):
    from tscope_format import load_result, save_result

    result = analysed(run.trace, at="3,last", matrix="last", probe=str(run.held))
    save_result(tmp_path / "results", result, "model")
    loaded = load_result(tmp_path / "results", "kernel")
    assert set(loaded.arrays) == set(result.arrays)
    for name, array in result.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name].data, array.data)
        assert loaded.arrays[name].dims == array.dims
    sizes: dict[str, set[int]] = {}
    for array in result.arrays.values():
        for dim, size in zip(array.dims, array.data.shape, strict=True):
            sizes.setdefault(dim, set()).add(size)
    assert {dim: len(found) for dim, found in sizes.items()} == dict.fromkeys(sizes, 1)
    assert sizes["layer"] == {2}


def test_many_outputs_take_fewer_examples_by_default():
    for outputs, expected in ((1, 256), (8, 256), (100, 20), (5000, 1)):
        assert len(setup.drawn("train", "training", 10_000, None, outputs, 0)) == expected

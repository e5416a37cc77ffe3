"""What `weight-averaging` can be asked for, and what it refuses in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TraceError, TscopeError, UsageError

import tscope
from tests.analyses.averaging_runs import Runs, make_runs
from tests.analyses.boosting_pairs import ensemble
from tests.optimizers.recorded import Recorder, data, epochs, mlp, train
from tests.traces import Run, write


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return make_runs(tmp_path_factory.mktemp("requests"))


def refused(kind: type[TscopeError], trace, **options) -> str:
    with pytest.raises(kind) as caught:
        tscope.analyze(trace, "weight-averaging", save=False, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "2,half"}, "at must be steps separated by commas, or `last`; got '2,half'"),
        ({"points": 2}, "points must be at least 3, got 2: both ends and one between"),
        ({"match": True}, "match puts another run's units in order; name that run with `--against`"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"train": 0}, "train must be at least 1, got 0"),
        ({"starts": "0.5,1"}, "starts must be numbers from 0, below 1, separated by commas; got '1'"),
        ({"decays": "x"}, "decays must be numbers from 0, below 1, separated by commas; got 'x'"),
        ({"counts": "2.5"}, "counts must be whole numbers from 1 separated by commas; got '2.5'"),
        ({"counts": "0"}, "counts must be whole numbers from 1 separated by commas; got '0'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there is auto, mse, cross_entropy, bce"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"seed": -1}, "seed must lie between 0 and 2**63 - 1, got -1"),
        ({"at": "last"}, "--at last names one step: give two or more to average, or another run"),
        ({"at": "last,22"}, "--at last,22 names one step"),
        ({"at": "1,99"}, "step 99 is not in the trace; it holds steps 0 to 22"),
        ({"train": 11, "at": "1,2"}, "--train 11: there are 10 training examples"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(runs, options, message):
    assert refused(UsageError, runs.traces[0], **options).startswith(message)


def test_runs_and_steps_must_fit_each_other(runs):
    a, b = runs.traces
    path = str(b.path)
    assert "--at 1,2,3 names 3 steps for 2 runs" in refused(UsageError, a, against=path, at="1,2,3")
    assert refused(UsageError, a, against=str(a.path)) == (
        "--against names a model twice: an average needs different ones"
    )
    found = runs.analysed(at="5,last", layers=False, points=3)
    assert [member["step"] for member in found.provenance["members"]] == [5, 22]
    same = runs.analysed(at="7", layers=False, points=3)
    assert [member["step"] for member in same.provenance["members"]] == [7, 7]
    again = tscope.analyze(a, "weight-averaging", against=str(a.path), at="2,5", save=False, layers=False)
    assert again.scalars["fork_step"] == 2


def other(path, module: nn.Module) -> str:
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    x, y = data(3)
    return str(
        train(path, module, optimizer, [(x[:, : module[0].in_features], y)], nn.functional.mse_loss).path
    )


def test_other_models_are_refused_and_the_difference_named(runs, tmp_path):
    wide = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    message = refused(UsageError, runs.traces[0], against=other(tmp_path / "wide.zarr", wide))
    assert message == (
        "run0.zarr and wide.zarr cannot be averaged: 3 of their parameters differ, the first being 0.weight, "
        "float64 (6, 4) in one and float64 (7, 4) in the other; give runs of the same model"
    )
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    message = refused(UsageError, runs.traces[0], against=other(tmp_path / "bent.zarr", bent))
    assert message == (
        "run0.zarr and bent.zarr cannot be averaged: their programs differ; tanh is aten.tanh.default in "
        "one, relu is aten.relu.default in the other; give runs of the same model"
    )
    longer = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(1)).double()
    message = refused(UsageError, runs.traces[0], against=other(tmp_path / "long.zarr", longer))
    assert message.endswith("their programs differ, 3 and 4 operations; give runs of the same model")
    less = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()
    message = refused(UsageError, runs.traces[0], against=other(tmp_path / "less.zarr", less))
    assert message.endswith(
        "2.bias, float64 (3,) in one and absent in the other; give runs of the same model"
    )


class Slope(nn.Module):
    """The same operations with another number in them."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.add_module("0", nn.Linear(4, 6))
        self.add_module("2", nn.Linear(6, 3))

    def extra_repr(self) -> str:
        return f"slope={self.slope}"

    def __getitem__(self, place: int) -> nn.Module:
        return self.get_submodule(str(place))

    def forward(self, x):
        return self[2](nn.functional.leaky_relu(self[0](x), self.slope))


def test_arguments_of_operations_count_too(tmp_path):
    a, b = (other(tmp_path / f"{slope}.zarr", Slope(slope).double()) for slope in (0.1, 0.2))
    message = refused(UsageError, tscope.open(a), against=b)
    assert "their programs differ; leaky_relu is aten.leaky_relu.default in one" in message
    assert "in the other, with other arguments; give runs" in message


def test_what_is_no_network_is_refused(runs, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4)), rng.normal(size=(10, 1))
    trees = ensemble(tmp_path / "trees.zarr", x, y, None)
    message = refused(MissingDataError, runs.traces[0], against=str(trees.path))
    assert "trees.zarr holds an ensemble of trees, whose parameters cannot be averaged" in message
    refused(TraceError, runs.traces[0], against=str(tmp_path))
    assert "lacks what weight-averaging needs: a network" in refused(MissingDataError, trees)


def test_a_diverged_model_is_refused_by_its_step(runs, tmp_path):
    module = mlp(3)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    x, y = runs.sets["train"]
    recorder = Recorder(tmp_path / "nan.zarr", module, optimizer, x)
    for step in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(recorder.forward(x), y).backward()
        if step == 2:
            module[0].weight.grad.fill_(float("nan"))
        recorder.step()
    trace = recorder.close()
    message = refused(AnalysisError, runs.traces[0], against=str(trace.path))
    assert message.startswith("0.weight is not finite at step 3 of nan.zarr: the run diverged; choose an ")
    assert "0.weight is not finite at step 3 of nan.zarr" in refused(AnalysisError, trace)
    assert runs.analysed(at="last,2", layers=False).scalars["models"] == 2


def test_labels_must_be_known_somewhere(runs, tmp_path):
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    run = Run(tmp_path / "bare.zarr", module)
    run.remember()
    with torch.no_grad():
        module[0].weight.mul_(2)
    run.remember()
    write(run, (torch.zeros(2, 4, dtype=torch.float64),), {})
    message = refused(MissingDataError, tscope.open(run.path), at="0,last")
    assert message.endswith(
        "lacks what weight-averaging needs: the training examples. Record with `tscope record "
        "--max-examples N`"
    )
    # A loss of three positions: nothing that is known fits its gradients.
    strange = mlp(3)
    x, y = data(3)
    trace = train(
        tmp_path / "strange.zarr",
        strange,
        optim.SGD(strange.parameters(), lr=0.1),
        epochs(x, y, 5, 2),
        lambda f, y: (f - y).abs().pow(3).sum(),
    )
    message = refused(AnalysisError, trace, at="0,last")
    assert message.startswith("the training loss cannot be told (")
    assert message.endswith("and give the training labels with `--labels FILE.npz` (x, y)")
    message = refused(MissingDataError, trace, at="0,last", loss="mse")
    assert "neither training nor held-out examples have labels, so there is no loss to compare" in message
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=y.numpy())
    found = tscope.analyze(
        trace, "weight-averaging", at="0,last", loss="mse", labels=str(tmp_path / "labels.npz"), save=False
    )
    with torch.no_grad():
        expected = float((strange(x) - y).square().mean())
    assert found.scalars["loss_b_train"] == pytest.approx(expected, rel=1e-12)
    assert "loss and labels are as given: the recorded gradients are not of them" in found.notes
    assert "no held-out examples: give some with `--probe FILE.npz`" in found.notes
    message = refused(MissingDataError, trace, at="0,last", loss="mse", test=3)
    assert message.startswith("--test 3: ")


def test_runs_of_different_starts_have_no_curvature_terms(runs, tmp_path):
    module = mlp(3, seed=5)
    x, y = runs.sets["train"]
    optimizer = optim.SGD(module.parameters(), lr=0.5)
    held = torch.from_numpy(np.load(runs.held)["x"])
    batches = [(x[:6], y[:6]), (held[:2], torch.tensor([0, 1]))]
    trace = train(tmp_path / "far.zarr", module, optimizer, batches, nn.functional.cross_entropy)
    options = {"probe": str(runs.held), "against": str(trace.path), "save": False, "layers": False}
    found = tscope.analyze(runs.traces[0], "weight-averaging", **options)
    assert found.scalars["fork_step"] is None
    assert not any(name.startswith(("curvature", "explained", "identity")) for name in found.arrays)
    assert not any(name.startswith(("curvature", "explained", "identity")) for name in found.scalars)
    notes = " ".join(found.notes)
    assert "they have no fork, and the curvature terms are not defined" in notes
    assert "2 of 7 held-out examples were trained on in far.zarr" in notes
    assert "4 of the 10 training examples were not trained on in far.zarr" in notes


def test_held_out_examples_may_be_those_of_the_other_run(runs, tmp_path):
    module, (x, y) = mlp(3), runs.sets["train"]
    optimizer = optim.SGD(module.parameters(), lr=0.5)
    traces = []
    for name, shift in (("with", 0.0), ("also", 1.0)):
        recorder = Recorder(tmp_path / f"{name}.zarr", module, optimizer, x)
        nn.functional.cross_entropy(recorder.forward(x), y).backward()
        recorder.step()
        held, labels = (np.load(runs.held)[key] for key in ("x", "y"))
        recorder.root.add_probe("held", inputs=[held + shift], target=labels, attributes={})
        traces.append(recorder.close())
    options = {"against": str(traces[0].path), "save": False, "layers": False, "points": 3}
    found = tscope.analyze(runs.traces[0], "weight-averaging", **options)
    assert found.provenance["probe"] == "held"
    assert found.scalars["examples_test"] == 7
    both = tscope.analyze(traces[1], "weight-averaging", **options)
    assert (
        "the probe set held of with.zarr holds other examples; those of also.zarr are measured" in both.notes
    )


class Waves(nn.Module):
    """A model of complex parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))

    def forward(self, x):
        return (x.to(torch.complex128) @ self.turn).real


def test_complex_parameters_are_refused(tmp_path):
    module, (x, y) = Waves(), data(3)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "waves.zarr", module, optimizer, [(x, y)] * 2, nn.functional.mse_loss)
    assert refused(AnalysisError, trace, at="0,last") == (
        "1 parameters are complex, such as turn: only real ones are averaged"
    )


class Product(nn.Module):
    """f(x) = x w v: finite where the two weights make up for each other."""

    def __init__(self, w: float, v: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(v, dtype=torch.float64))

    def forward(self, x):
        return x * self.w * self.v


def test_averages_that_overflow_are_noted(tmp_path):
    traces = []
    x = torch.arange(1.0, 9.0, dtype=torch.float64)[:, None]
    for name, w, v in (("a", 1e200, 1e-200), ("b", 1e-200, 1e200)):
        module = Product(w, v)
        optimizer = optim.SGD(module.parameters(), lr=0.0)
        batches = [(x, 2 * x), (x, 2 * x)]
        traces.append(train(tmp_path / f"{name}.zarr", module, optimizer, batches, nn.functional.mse_loss))
    labels = tmp_path / "labels.npz"
    np.savez(labels, x=x.numpy(), y=2 * x.numpy())
    options = {"against": str(traces[1].path), "loss": "mse", "labels": str(labels), "points": 5}
    found = tscope.analyze(traces[0], "weight-averaging", save=False, layers=False, **options)
    assert found.scalars["loss_a_train"] == pytest.approx(float(x.square().mean()), rel=1e-12)
    notes = [
        note for note in found.notes if note.startswith("the average's loss on train examples is NaN or")
    ]
    assert len(notes) == 1
    assert "the first being alpha = " in notes[0]

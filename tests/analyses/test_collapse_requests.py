"""What `neural-collapse` can be asked for, what it refuses in one line, and what it says beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError, UsageError

import tscope
from tests.analyses.test_collapse_series import CLASSES, data
from tests.optimizers.recorded import Recorder, train
from tests.traces import train as plain_train
from tscope.trace import Trace


def trained(
    path: Path,
    module: nn.Module,
    examples: tuple[Tensor, Tensor] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    rate: float = 0.1,
    steps: int = 2,
) -> Trace:
    module = module.double()
    batch = data(12, seed=1) if examples is None else examples
    return train(path, module, optim.SGD(module.parameters(), lr=rate), [batch] * steps, loss)


def net(*last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), *(last or (nn.Linear(7, CLASSES),)))


@pytest.fixture(scope="module")
def trace(tmp_path_factory) -> Trace:
    return trained(tmp_path_factory.mktemp("collapse") / "t.zarr", net(), steps=9)


def analysed(trace, **options):
    return tscope.analyze(trace, "neural-collapse", save=False, **options)


def refused(trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        analysed(trace, **options)
    return str(caught.value)


def held_file(folder: Path, x: Tensor, y: Tensor | None) -> str:
    path = folder / "held.npz"
    np.savez(path, x=x.numpy(), **({} if y is None else {"y": y.numpy()}))
    return str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "one"}, "at must be steps separated by commas, or `last`; got 'one'"),
        ({"at": "3", "every": 2}, "at and every both choose the rows; leave out one of the two"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"test": 0}, "test must be at least 1, got 0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there is auto, mse, cross_entropy, bce"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; there is float32, float64"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"seed": -3}, "seed must lie between 0 and 2**63 - 1, got -3"),
        ({"at": "10"}, "step 10 is not in the trace; it holds steps 0 to 9"),
        ({"train": 13}, "--train 13: there are 12 training examples"),
    ],
)
def test_bad_requests_are_one_line(trace, options, message):
    assert refused(trace, UsageError, **options) == message


def test_rows_and_memory(trace):
    assert analysed(trace, at="last,4").arrays["step"].data.tolist() == [0, 4, 9]
    assert analysed(trace, every=4).arrays["step"].data.tolist() == [0, 4, 8, 9]
    small = analysed(trace, at="last", max_memory_mb=1e-6)  # two examples at a time
    assert small.scalars["nc1_train"] == pytest.approx(
        analysed(trace, at="last").scalars["nc1_train"], rel=1e-12
    )
    assert analysed(trace).notes == ("no held-out examples: give some with `--probe FILE.npz` (x, y)",)


class Bare(nn.Module):
    """Features times a matrix, and a bias that is added by itself."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 7)
        self.w, self.b = nn.Parameter(torch.randn(7, CLASSES)), nn.Parameter(torch.randn(CLASSES))

    def forward(self, x):
        return torch.tanh(self.first(x)) @ self.w + self.b


def test_a_matrix_that_stands_on_the_right_is_a_last_layer_and_its_bias_may_be_added(tmp_path):
    torch.manual_seed(0)
    module = Bare()
    trace = trained(tmp_path / "t.zarr", module)
    found = analysed(trace, at="last")
    assert (found.scalars["layer"], found.scalars["features"]) == ("w", 7)
    module.load_state_dict(trace.state_dict(2))
    x = torch.from_numpy(trace["examples/input/0"])
    h = torch.tanh(module.first(x)).detach()
    mean = torch.stack([h[torch.from_numpy(found.arrays["class_train"].data) == c].mean(0) for c in range(3)])
    M, W = mean - mean.mean(0), module.w.detach().T
    assert found.scalars["nc3_train"] == pytest.approx(float((W / W.norm() - M / M.norm()).norm()), rel=1e-13)


class Positions(nn.Module):
    """A linear layer at each of several positions."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x.view(-1, 2, 2)))).mean(1)


class Scaled(nn.Module):
    """A parameter that multiplies what the last linear layer gives."""

    def __init__(self):
        super().__init__()
        self.last, self.scale = nn.Linear(4, CLASSES), nn.Parameter(torch.ones(CLASSES))

    def forward(self, x):
        return self.last(x) * self.scale


class Convolved(nn.Module):
    """No linear layer at all."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv1d(1, CLASSES, 4)

    def forward(self, x):
        return self.last(x[:, None])[:, :, 0]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Convolved(),
            "the model has no linear layer (`Linear`, or a product with a matrix of parameters) on the way "
            "to its output, so there are no features that one reads: neural collapse is not defined",
        ),
        (
            Scaled(),
            "scale comes after the last linear layer, last: the output is not Wh + b of that layer's "
            "features, and neural collapse is not defined",
        ),
        (
            nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (3, 2)), nn.AvgPool1d(2), nn.Flatten()),
            "the last linear layer, 0, has 6 outputs and the model 3; neural collapse needs one for each "
            "class",
        ),
        (
            Positions(),
            "the last linear layer, last, reads (12, 2, 5) for 12 examples; neural collapse needs one vector "
            "of features an example, not one at each position",
        ),
    ],
)
def test_models_without_a_last_linear_layer_of_their_classes_are_refused_by_name(tmp_path, module, message):
    assert refused(trained(tmp_path / "t.zarr", module), AnalysisError) == message


def test_a_single_output_is_refused(tmp_path):
    x, y = data(12, seed=1)
    examples = (x, (y[:, None] == 0).double())
    trace = trained(
        tmp_path / "t.zarr", net(nn.Linear(7, 1)), examples, nn.functional.binary_cross_entropy_with_logits
    )
    message = refused(trace, AnalysisError)
    assert message.startswith("neural collapse needs an output for each class; the model has one")


def test_classes_with_fewer_than_two_examples_are_refused(tmp_path):
    x, y = data(12, seed=1)
    few = torch.where((y == 2) & (torch.arange(12) > 2), 1, y)
    message = refused(trained(tmp_path / "t.zarr", net(), (x, few)), AnalysisError)
    assert message == (
        "class 2 has 1 training example(s); neural collapse needs two of each of the model's classes at "
        "least, for their spread; record a run with more of it, or take more of the examples (`--train`)"
    )
    message = refused(trained(tmp_path / "u.zarr", net(), (x, torch.zeros_like(y))), AnalysisError)
    assert message.startswith("class 1 has 0 training example(s) (and 1 more classes)")


def test_labels_that_are_not_classes_are_refused(tmp_path):
    x, _ = data(12, seed=1)
    random = torch.Generator().manual_seed(3)
    y = torch.randn(12, CLASSES, generator=random, dtype=torch.float64)
    message = refused(trained(tmp_path / "t.zarr", net(), (x, y), nn.functional.mse_loss), AnalysisError)
    assert message.startswith("the labels of the training examples are not classes: some with the same")


def test_classes_may_be_learnt_as_unit_vectors_by_squared_loss(tmp_path):
    x, y = data(12, seed=1)
    unit = nn.functional.one_hot(y, CLASSES).double()
    found = analysed(trained(tmp_path / "t.zarr", net(), (x, unit), nn.functional.mse_loss))
    known = {tuple(row): int(label) for row, label in zip(x.tolist(), y, strict=True)}
    x = found.arrays["class_train"].data
    order = [tuple(row) for row in tscope.open(tmp_path / "t.zarr")["examples/input/0"].tolist()]
    assert x.tolist() == [known[row] for row in order]


def test_held_out_examples_that_cannot_be_measured(trace, tmp_path):
    x, y = data(9, seed=4)
    unlabelled = held_file(tmp_path, x, None)
    message = refused(trace, MissingDataError, probe=unlabelled)
    assert "the probe set held has no labels that fit the model's 3 outputs" in message
    one = held_file(tmp_path, x[:4], y[:4])
    message = refused(trace, AnalysisError, probe=one)
    assert message.startswith("class 1 has 1 held-out example(s)")
    assert message.endswith("for their spread; give more with `--probe FILE.npz` (x, y)")
    whole = analysed(trace, probe=held_file(tmp_path, x, y))
    assert whole.notes == ()
    assert whole.scalars["examples_test"] == 9


def test_classes_that_are_not_known_are_asked_for(tmp_path):
    def loss(output: Tensor, y: Tensor) -> Tensor:
        return output.cosh().log().mean()  # of no label

    trace = trained(tmp_path / "t.zarr", net(), loss=loss)
    message = refused(trace, MissingDataError)
    assert message.startswith("neural collapse needs the classes of the training examples: ")
    assert message.endswith("give them with `--labels FILE.npz` (x, y)")


def test_a_run_that_diverges_ends_before(tmp_path):
    module, (x, y) = net().double(), data(12, seed=1)
    recorder = Recorder(tmp_path / "t.zarr", module, optim.SGD(module.parameters(), lr=0.1), x)
    for step in range(4):
        recorder.optimizer.zero_grad()
        nn.functional.cross_entropy(recorder.forward(x), y).backward()
        if step == 2:
            module[0].bias.grad.fill_(float("inf"))
        recorder.step()
    found = analysed(recorder.close(), every=1)
    assert found.scalars["stopped"] == 3
    assert found.arrays["step"].data.tolist() == [0, 1, 2]
    assert "the run or its features are not finite at step 3; figures end before" in found.notes


def test_a_trace_without_updates_is_measured_at_the_rows_that_it_keeps(tmp_path):
    module, batch = net().double(), data(12, seed=1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy
    sparse = train(tmp_path / "t.zarr", module, optimizer, [batch] * 7, loss, updates=False)
    assert "`--updates none`" in refused(sparse, MissingDataError)
    found = analysed(sparse, at="4,last")
    assert found.arrays["step"].data.tolist() == [0, 4, 7]
    assert np.isfinite(found.arrays["nc1_train"].data).all()


def test_unequal_classes_are_noted(tmp_path):
    x, y = data(12, seed=1)
    unequal = torch.where(torch.arange(12) > 5, 0, y)
    notes = analysed(trained(tmp_path / "t.zarr", net(), (x, unequal))).notes
    assert "classes of the training examples have 2 to 8 each; every class counts the same" in notes


def test_without_a_program_it_is_refused(tmp_path):
    module, (x, y) = net().double(), data(12, seed=1)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    plain_train(tmp_path / "t.zarr", module, optimizer, [(x, y)], nn.functional.cross_entropy, program=False)
    message = refused(tscope.open(tmp_path / "t.zarr"), MissingDataError)
    assert (
        "lacks what neural-collapse needs: the model as data (program) and the training examples" in message
    )

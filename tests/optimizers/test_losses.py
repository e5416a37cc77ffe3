"""Loss and labels from outputs and gradients, and their second derivatives against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recorded import Recorder, data, epochs, mlp, train
from torch import nn

import tscope
from tscope.optimizers import Loss, infer_loss, read_labels

F = nn.functional
CLASSES = torch.tensor([0, 1, 2, 2, 1, 0, 1, 1, 2, 0])


def labels_by_example(trace, x, y):
    """Return y in the order in which the trace numbers the examples."""
    inputs = torch.from_numpy(trace["examples/input/0"])
    place = (inputs[:, None] == x[None]).all(2).int().argmax(1)
    return y[place]


def run(path, outputs, y, loss, size=4, count=5, lr=0.1, **options):
    x, _ = data(outputs)
    module = mlp(outputs)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    trace = train(path / "run.zarr", module, optimizer, epochs(x, y, size, count), loss, **options)
    return trace, labels_by_example(trace, x, y)


def half(f, y):
    return (f - y).square().sum() / (2 * len(f))


def soft(f, y):
    return F.cross_entropy(f, y)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    ("loss", "factor", "reduction"),
    [
        (F.mse_loss, lambda c: 2 / c, "mean"),
        (lambda f, y: F.mse_loss(f, y, reduction="sum"), lambda c: 2.0, "sum"),
        (half, lambda c: 1.0, "mean"),
        (lambda f, y: 0.3 * F.mse_loss(f, y), lambda c: 0.3 * 2 / c, "mean"),
    ],
)
def test_a_squared_loss_and_its_labels_are_found_whatever_its_reduction(
    tmp_path, outputs, loss, factor, reduction
):
    trace, y = run(tmp_path, outputs, data(outputs)[1], loss)
    found = infer_loss(trace)
    assert (found.kind, found.reduction) == ("mse", reduction)
    assert found.factor == pytest.approx(factor(outputs), rel=1e-15)
    assert (found.labels - y).abs().max() < 1e-13
    assert found.spread < 1e-13
    assert found.visits == 50


def test_gradient_accumulation_is_part_of_the_factor(tmp_path):
    trace, y = run(tmp_path, 3, data(3)[1], F.mse_loss, size=5, micro=5)
    found = infer_loss(trace)
    assert found.factor == pytest.approx(2 / 3 / 5, rel=1e-15)
    assert (found.labels - y).abs().max() < 1e-13


@pytest.mark.parametrize("count", [1, 5])
def test_cross_entropy_of_classes_is_found_even_in_one_epoch(tmp_path, count):
    trace, y = run(tmp_path, 3, CLASSES, F.cross_entropy, count=count)
    found = infer_loss(trace)
    assert (found.kind, found.reduction, found.factor) == ("cross_entropy", "mean", 1.0)
    assert torch.equal(found.labels, F.one_hot(y, 3).double())
    assert found.spread < 1e-13


def test_soft_labels_are_found_where_examples_come_again(tmp_path):
    y = torch.softmax(data(3)[1], 1)
    trace, expected = run(tmp_path, 3, y, soft)
    found = infer_loss(trace)
    assert (found.kind, found.factor) == ("cross_entropy", 1.0)
    assert (found.labels - expected).abs().max() < 1e-13


@pytest.mark.parametrize("outputs", [1, 3])
def test_binary_cross_entropy_is_found(tmp_path, outputs):
    y = (data(outputs)[1] > 0).double()
    trace, expected = run(tmp_path, outputs, y, F.binary_cross_entropy_with_logits, count=1)
    found = infer_loss(trace)
    assert (found.kind, found.factor) == ("bce", pytest.approx(1 / outputs, rel=1e-15))
    assert torch.equal(found.labels, expected)


def test_labels_of_whole_numbers_are_whole(tmp_path):
    y = data(1)[1].sign()
    trace, expected = run(tmp_path, 1, y, F.mse_loss)
    assert torch.equal(infer_loss(trace).labels, expected)


def test_labels_that_are_given_fix_a_factor_that_one_visit_cannot(tmp_path):
    trace, y = run(tmp_path, 3, data(3)[1], F.mse_loss, count=1)
    with pytest.raises(tscope.AnalysisError, match=r"no example was visited twice.*`--labels FILE.npz`"):
        infer_loss(trace, kind="mse")
    found = infer_loss(trace, kind="mse", labels=y)
    assert found.factor == 2 / 3
    assert torch.equal(found.labels, y)
    assert found.spread < 1e-13


def test_classes_may_be_given_as_numbers(tmp_path):
    trace, y = run(tmp_path, 3, CLASSES, F.cross_entropy)
    assert infer_loss(trace, labels=y).kind == "cross_entropy"
    with pytest.raises(tscope.UsageError, match=r"labels go from 0 to 3, and the model has 3 outputs"):
        infer_loss(trace, labels=y.clamp(max=1) * 3)
    with pytest.raises(tscope.UsageError, match=r"9 labels were given for 10 examples"):
        infer_loss(trace, labels=y[1:])
    with pytest.raises(tscope.UsageError, match=r"labels of the shape \(10, 2\)"):
        infer_loss(trace, labels=torch.zeros(10, 2))


def test_wrong_labels_are_refused(tmp_path):
    trace, y = run(tmp_path, 3, data(3)[1], F.mse_loss)
    with pytest.raises(tscope.AnalysisError, match=r"with the labels given, .* is off by"):
        infer_loss(trace, labels=y.roll(1, 0))


@pytest.mark.parametrize(
    "loss",
    [
        F.l1_loss,
        F.huber_loss,
        lambda f, y: F.mse_loss(f, y + torch.randn_like(y)),
        lambda f, y: F.mse_loss(f, y) + 0.1 * f.abs().mean(),
    ],
)
def test_another_loss_or_labels_that_change_are_refused_with_a_remedy(tmp_path, loss):
    torch.manual_seed(0)
    trace, _ = run(tmp_path, 1, 3 * data(1)[1], loss)
    with pytest.raises(tscope.AnalysisError, match=r"no loss fits .*`--loss` and `--labels FILE.npz`"):
        infer_loss(trace)


def test_a_cross_entropy_at_each_position_is_refused_by_name(tmp_path):
    """A language model's: outputs (example, position, class)."""
    y = torch.stack([CLASSES, CLASSES.roll(3)], 1)

    def per_position(f, y):
        return F.cross_entropy(f.reshape(-1, 3), y.reshape(-1))

    trace, _ = run(tmp_path, 6, y, per_position)
    with pytest.raises(tscope.AnalysisError, match="a cross-entropy at each of 2 positions, over 3 classes"):
        infer_loss(trace)


def test_two_losses_that_fit_alike_are_refused_with_the_option(tmp_path):
    """Near 0 the logistic function is a line, so small steps do not tell BCE from squared loss."""
    x, _ = data(1, dtype=torch.float32)
    y = torch.linspace(0.3, 0.7, 10)[:, None]
    module = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    loss = F.binary_cross_entropy_with_logits
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 10, 6), loss)
    with pytest.raises(tscope.AnalysisError, match=r"both (mse|bce) and (mse|bce) fit .* `--loss`"):
        infer_loss(trace)
    assert infer_loss(trace, kind="bce").kind == "bce"


def test_class_weights_are_refused(tmp_path):
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    trace, _ = run(tmp_path, 3, CLASSES, lambda f, y: F.cross_entropy(f, y, weight=weight))
    with pytest.raises(tscope.AnalysisError, match="no loss fits"):
        infer_loss(trace)


def test_a_kind_that_is_asked_for_must_fit(tmp_path):
    trace, _ = run(tmp_path, 3, data(3)[1], F.mse_loss)
    with pytest.raises(tscope.AnalysisError, match=r"no loss fits .* cross_entropy comes closest"):
        infer_loss(trace, kind="cross_entropy")
    with pytest.raises(tscope.UsageError, match=r"unknown loss 'hinge'; there is mse, cross_entropy, bce"):
        infer_loss(trace, kind="hinge")


def test_cross_entropy_of_one_output_is_refused(tmp_path):
    trace, _ = run(tmp_path, 1, data(1)[1], F.mse_loss)
    with pytest.raises(tscope.UsageError, match=r"a loss of one is mse or bce"):
        infer_loss(trace, kind="cross_entropy")


def test_scaled_losses_and_skipped_steps_do_not_count(tmp_path):
    x, y = data(1)
    module = mlp(1)
    recorder = Recorder(tmp_path / "run.zarr", module, torch.optim.SGD(module.parameters(), lr=0.1), x)
    recorder.scale = 1024.0
    for number in range(6):
        module.zero_grad()
        factor = float("inf") if number == 2 else 1024.0
        (factor * F.mse_loss(recorder.forward(x), y)).backward()
        for p in module.parameters():
            p.grad /= 1024.0
        recorder.step(skipped=number == 2)
    trace = recorder.close()
    found = infer_loss(trace)
    assert found.factor == 2.0
    assert found.visits == 50
    assert (found.labels - labels_by_example(trace, x, y)).abs().max() < 1e-13


def losses(outputs):
    x, y = data(outputs, count=5)
    cases = [("mse", "mean", 2 / outputs, y, F.mse_loss)]
    cases.append(("mse", "sum", 2.0, y, lambda f, y: F.mse_loss(f, y, reduction="sum")))
    binary = (y > 0).double()
    cases.append(("bce", "mean", 1 / outputs, binary, F.binary_cross_entropy_with_logits))
    if outputs > 1:
        cases.append(("cross_entropy", "mean", 1.0, torch.softmax(y, 1), soft))
    return x[:, :1] * torch.ones(outputs, dtype=torch.float64) + y, cases


@pytest.mark.parametrize("outputs", [1, 3])
def test_derivatives_equal_autograd(outputs):
    f, cases = losses(outputs)
    sizes = (3, 2)
    for kind, reduction, factor, y, reference in cases:
        loss = Loss(kind, factor, reduction, y)

        def total(f, y, reference=reference):
            return sum(reference(a, b) for a, b in zip(f.split(sizes), y.split(sizes), strict=True))

        slots = torch.arange(5)
        assert torch.allclose(loss.gradient(f, slots, sizes), torch.func.grad(total)(f, y), atol=1e-15)
        hessian = torch.func.jacrev(torch.func.grad(total))(f, y)
        cross = torch.func.jacrev(torch.func.grad(total), 1)(f, y)
        for slot in range(5):
            assert torch.allclose(loss.hessian(f, sizes)[slot], hessian[slot, :, slot], atol=1e-15), kind
            expected = cross[slot, :, slot]
            assert torch.allclose(loss.cross(f, sizes)[slot], expected, atol=1e-15), kind


def test_labels_are_found_by_the_inputs(tmp_path):
    x, _ = data(1)
    trace, expected = run(tmp_path, 3, CLASSES, F.cross_entropy)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "labels.npz", x=x[order].numpy(), y=CLASSES[order].numpy())
    assert torch.equal(read_labels(trace, tmp_path / "labels.npz"), expected)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (slice(None), None, r"holds no labels; add them as an array y"),
        (slice(0, 7), CLASSES[:7], r"lacks 3 of 10 training examples, the first being example \d"),
        ([*range(10), 0], torch.cat([CLASSES, CLASSES[1:2]]), r"rows 0 and 10 have the same inputs"),
    ],
)
def test_files_without_a_label_for_each_example_are_refused(tmp_path, x, y, message):
    trace, _ = run(tmp_path, 3, CLASSES, F.cross_entropy, count=1)
    arrays = {"x": data(1)[0][x].numpy()} | ({} if y is None else {"y": y.numpy()})
    np.savez(tmp_path / "labels.npz", **arrays)
    with pytest.raises(tscope.UsageError, match=message):
        read_labels(trace, tmp_path / "labels.npz")


def test_rows_without_a_batch_say_nothing_of_the_loss(tmp_path):
    """As the last row of a run that was recorded at every few steps."""
    x, y = data(1)
    module = mlp(1)
    recorder = Recorder(tmp_path / "run.zarr", module, torch.optim.SGD(module.parameters(), lr=0.1), x)
    for number in range(6):
        module.zero_grad()
        F.mse_loss(recorder.forward(x), y).backward()
        if number in (2, 5):
            recorder.micro = []
        recorder.step()
    found = infer_loss(recorder.close())
    assert (found.kind, found.visits) == ("mse", 40)

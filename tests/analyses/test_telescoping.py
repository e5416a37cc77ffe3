"""Telescoping against explicit Jacobians in float64 on the original module (tests/reference)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import tscope
from tests import models
from tests.reference.telescoping import Reference, reference
from tests.traces import Probe, Run, train

STEPS = 6


@dataclass(frozen=True)
class Case:
    module: Callable[[], nn.Module]
    data: Callable[[int], tuple[torch.Tensor, torch.Tensor]]
    loss: Callable[..., torch.Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]


CROSS = nn.functional.cross_entropy
CASES = {
    "mlp, one output, sgd": Case(
        lambda: models.mlp(1), models.signs, nn.functional.mse_loss, lambda p: torch.optim.SGD(p, 0.05)
    ),
    "mlp, three outputs, adam": Case(
        lambda: models.mlp(3, nn.ReLU), models.classes, CROSS, lambda p: torch.optim.AdamW(p, 0.01)
    ),
    "convolution with batch norm, momentum": Case(
        models.Conv, models.images, CROSS, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)
    ),
    "attention with tied weights, adam": Case(
        models.Attention, models.tokens, CROSS, lambda p: torch.optim.Adam(p, 0.01)
    ),
    "lstm, rmsprop": Case(models.Recurrent, models.sequences, CROSS, lambda p: torch.optim.RMSprop(p, 0.005)),
}


def recorded(case: Case, path, name: str = "run", **options: object) -> tuple[Run, Probe]:
    torch.manual_seed(0)
    module = case.module()
    x, y = case.data(5)
    probe = Probe((x,), y)
    optimizer = case.optimizer(module.parameters())
    run = train(
        path / f"{name}.zarr",
        module,
        optimizer,
        models.batches(case.data, STEPS),
        case.loss,
        {"held": probe},
        **options,
    )
    return run, probe


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(", ", "-").replace(" ", "_"))
def replayed(request, tmp_path_factory) -> tuple[Run, tscope.Trace, object, Reference]:
    case = CASES[request.param]
    run, probe = recorded(case, tmp_path_factory.mktemp("traces"))
    trace = tscope.open(run.path)
    result = tscope.analyze(trace, "telescoping", dtype="float64", per_layer_full=True, save=False)
    return run, trace, result, reference(run.module, run.thetas, run.buffers, probe.inputs)


def largest(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_predictions_equal_the_dense_reference(replayed):
    _, _, result, expected = replayed
    assert result.scalars["source"] == "replay"
    assert result.arrays["step"].data.tolist() == list(range(STEPS + 1))
    for name in ("actual", "telescoped", "lazy"):
        assert result.arrays[name].data.dtype == np.float64
        assert largest(result.arrays[name].data, getattr(expected, name).detach()) < 1e-10, name


def test_errors_equal_the_dense_reference(replayed):
    _, _, result, expected = replayed
    for name in ("telescoped", "lazy"):
        error = (expected.actual - getattr(expected, name)).abs().detach()
        assert largest(result.arrays[f"error_{name}"].data, error.mean((1, 2))) < 1e-10
        assert largest(result.arrays[f"error_{name}_output"].data, error.mean(1)) < 1e-10
        assert result.scalars[f"final_error_{name}"] == pytest.approx(float(error[-1].mean()), abs=1e-10)


def test_layers_equal_the_dense_reference_and_add_up(replayed):
    _, _, result, expected = replayed
    layers = result.provenance["layers"]
    full = result.arrays["layer_contribution"].data
    for index, layer in enumerate(layers):
        own = [part for name, part in expected.parameters.items() if name.rpartition(".")[0] == layer]
        assert own
        assert largest(full[:, index], sum(own).detach()) < 1e-10
    norms = np.sqrt(np.square(full).sum((2, 3)))
    assert largest(result.arrays["contribution"].data, norms) < 1e-12
    assert (
        largest(np.cumsum(full.sum(1), 0), result.arrays["telescoped"].data - result.arrays["actual"].data[0])
        < 1e-10
    )


def test_the_three_terms_equal_the_dense_reference_and_add_up(replayed):
    run, _, result, expected = replayed
    assert result.scalars["decomposition_check"] < 1e-12
    first_order = sum(expected.parameters.values())
    before = torch.cat([expected.actual[:1], expected.actual[:-1]])
    drift = expected.actual - expected.held
    residual = expected.held - before - first_order
    for name, term in {"gradient": first_order, "residual": residual, "buffer": drift}.items():
        assert largest(result.arrays[f"change_{name}"].data, term.detach().flatten(1).norm(dim=1)) < 1e-10
    assert bool(result.arrays["change_buffer"].data[1:].all()) == bool(run.buffers[0])
    shares = result.arrays["contribution_signed"].data.sum(1)
    shares = shares + result.arrays["share_residual"].data + result.arrays["share_buffer"].data
    assert largest(shares[1:], np.ones(STEPS)) < 1e-9
    assert shares[0] == 0


def test_the_relative_residual_is_that_of_the_whole_run(replayed):
    _, _, result, expected = replayed
    change = expected.actual.diff(dim=0)
    rest = change - sum(expected.parameters.values())[1:]
    assert result.scalars["relative_residual"] == pytest.approx(float(rest.norm() / change.norm()), abs=1e-10)
    relative = (rest.flatten(1).norm(dim=1) / change.flatten(1).norm(dim=1)).detach()
    assert largest(result.arrays["residual_relative"].data[1:], relative) < 1e-8


def test_recorded_projections_equal_the_replayed_to_float32(replayed):
    _, trace, exact, _ = replayed
    result = tscope.analyze(trace, "telescoping", save=False)
    assert result.scalars["source"] == "recorded"
    assert "change_buffer" not in result.arrays
    for name in ("actual", "telescoped", "lazy", "error_telescoped", "error_lazy", "residual"):
        assert largest(result.arrays[name].data, exact.arrays[name].data) < 2e-5, name


def test_float32_replay_equals_the_recorded(replayed):
    _, trace, _, _ = replayed
    stored = tscope.analyze(trace, "telescoping", save=False)
    again = tscope.analyze(trace, "telescoping", replay=True, save=False)
    assert again.scalars["source"] == "replay"
    assert again.provenance["dtype"] == "float32"
    for name in ("actual", "telescoped", "lazy"):
        assert again.arrays[name].data.dtype == np.float32
        assert largest(stored.arrays[name].data, again.arrays[name].data) < 2e-5, name


def test_examples_in_small_chunks_give_the_same(replayed):
    _, trace, exact, _ = replayed
    small = tscope.analyze(
        trace, "telescoping", dtype="float64", per_layer_full=True, max_memory_mb=1e-6, save=False
    )
    assert small.provenance["chunk"] == 2 < exact.provenance["chunk"]
    for name in ("actual", "telescoped", "lazy", "layer_contribution"):
        assert largest(small.arrays[name].data, exact.arrays[name].data) < 1e-12, name


def test_without_layers_the_whole_is_the_same(replayed):
    _, trace, exact, _ = replayed
    whole = tscope.analyze(trace, "telescoping", dtype="float64", layers=False, save=False)
    assert "contribution" not in whole.arrays
    assert whole.provenance["layers"] == []
    assert largest(whole.arrays["telescoped"].data, exact.arrays["telescoped"].data) < 1e-12


def test_accuracies_are_those_of_the_predictions(replayed):
    _, trace, result, expected = replayed
    target = trace.probes["held"].target
    if expected.actual.shape[2] == 1:
        decide, labels = (lambda f: f[..., 0] > 0), target[:, 0] > 0
    else:
        decide, labels = (lambda f: f.argmax(-1)), target
    for name in ("actual", "telescoped", "lazy"):
        classes = decide(getattr(expected, name).detach().numpy())
        assert result.arrays[f"accuracy_{name}"].data.tolist() == (classes == labels).mean(1).tolist()
        assert result.scalars[f"accuracy_{name}"] == result.arrays[f"accuracy_{name}"].data[-1]
        if name != "actual":
            same = (classes == decide(expected.actual.detach().numpy())).mean(1)
            assert result.arrays[f"agreement_{name}"].data.tolist() == same.tolist()


def test_the_compiled_lazy_model_is_the_same(tmp_path, monkeypatch):
    import tscope.replay.lazy

    run, _ = recorded(CASES["mlp, three outputs, adam"], tmp_path)
    plain = tscope.analyze(run.path, "telescoping", dtype="float64", save=False)
    assert plain.provenance["lazy"] == "forward"
    monkeypatch.setattr(tscope.replay.lazy, "_COMPILE_ROWS", 1)
    compiled = tscope.analyze(run.path, "telescoping", dtype="float64", save=False)
    assert compiled.provenance["lazy"] == "compiled"
    assert largest(compiled.arrays["lazy"].data, plain.arrays["lazy"].data) < 1e-12


def test_small_sgd_steps_telescope_far_better_than_lazily(tmp_path):
    torch.manual_seed(0)
    module = models.mlp(1, inputs=8, width=32)
    x, y = models.signs(64, 8)
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    held = models.signs(32, 8)
    run = train(
        tmp_path / "run.zarr",
        module,
        optimizer,
        [(x, y)] * 400,
        nn.functional.mse_loss,
        {"held": Probe((held[0],), held[1])},
    )
    result = tscope.analyze(run.path, "telescoping", save=False)
    telescoped, lazy = result.scalars["final_error_telescoped"], result.scalars["final_error_lazy"]
    print(f"mean |error| after 400 steps of SGD: telescoped {telescoped:.2e}, lazy {lazy:.2e}")
    assert telescoped < lazy / 100
    assert not any("fails" in note for note in result.notes)

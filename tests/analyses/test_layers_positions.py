"""What layers do to the loss of a probe set with a label at each position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tscope
from tests.analyses.position_runs import IGNORE, Tagger, loss_of, short_run, tagged
from tscope.analyses.layers import layers


def doubled(f: Tensor, y: Tensor, step: int) -> Tensor:
    return 2 * functional.cross_entropy(f.transpose(1, 2), y, ignore_index=IGNORE)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> tscope.Trace:
    return short_run(tmp_path_factory.mktemp("run") / "run.zarr", doubled)


def test_layers_change_the_mean_loss_over_the_positions_that_count(
    trace: tscope.Trace, tmp_path: Path
) -> None:
    x, y = (values[6:] for values in tagged(11))
    np.savez(tmp_path / "held.npz", x=x.numpy(), y=y.numpy())
    held = str(tmp_path / "held.npz")
    found = tscope.analyze(
        trace, "layers", parts="contributions", probe=held, probe_output="full", save=False
    )
    module = Tagger("last")
    losses, expected = [], np.zeros((4, 3))
    groups = layers(trace.parameters)
    for step in range(4):
        module.load_state_dict(trace.state_dict(step))
        loss = 2 * loss_of(module(x), y)
        losses.append(float(loss.detach()))
        if step == 3:
            break
        gradient = dict(
            zip(dict(module.named_parameters()), torch.autograd.grad(loss, module.parameters()), strict=True)
        )
        after, before = trace.state_dict(step + 1), trace.state_dict(step)
        for place, names in enumerate(groups.values()):
            expected[step + 1, place] = sum(
                float((gradient[name] * (after[name] - before[name])).sum()) for name in names
            )
    assert found.provenance["layers"] == list(groups)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found.arrays["loss_contribution"].data, expected, atol=1e-14)
    np.testing.assert_allclose(found.arrays["loss_change"].data[1:], np.diff(losses), atol=1e-14)


def test_values_at_each_position_have_a_loss_too(tmp_path: Path) -> None:
    x, y = tagged(11)
    wanted = functional.one_hot(y.clamp(min=0), 3).double()

    def squared(f: Tensor, _: Tensor, step: int) -> Tensor:
        return functional.mse_loss(f, wanted[:6])

    trace = short_run(tmp_path / "run.zarr", squared)
    np.savez(tmp_path / "held.npz", x=x[6:].numpy(), y=wanted[6:].numpy())
    held = str(tmp_path / "held.npz")
    found = tscope.analyze(trace, "layers", parts="contributions", probe=held, save=False)
    losses = []
    for step in range(4):
        module = Tagger("last")
        module.load_state_dict(trace.state_dict(step))
        losses.append(float(functional.mse_loss(module(x[6:]), wanted[6:]).detach()))
    np.testing.assert_allclose(found.arrays["loss_change"].data[1:], np.diff(losses), atol=1e-14)


def test_a_probe_set_without_labels_at_the_positions_has_no_loss(trace: tscope.Trace, tmp_path: Path) -> None:
    x, y = (values[6:] for values in tagged(11))
    asked = {"parts": "contributions", "probe_output": "full", "save": False}
    for labels in (y[:, :2], y.clamp(min=0) + 5, torch.full_like(y, IGNORE)):
        np.savez(tmp_path / "held.npz", x=x.numpy(), y=labels.numpy())
        found = tscope.analyze(trace, "layers", probe=str(tmp_path / "held.npz"), **asked)
        assert "loss_contribution" not in found.arrays
        assert any("has no labels that fit the model's outputs" in note for note in found.notes)


def test_another_loss_of_positions_is_said_not_to_be_known(tmp_path: Path) -> None:
    def hinge(f: Tensor, y: Tensor, step: int) -> Tensor:
        return functional.multi_margin_loss(f.flatten(0, 1), y.clamp(min=0).flatten())

    trace = short_run(tmp_path / "hinge.zarr", hinge)
    x, y = tagged(6)
    np.savez(tmp_path / "held.npz", x=x.numpy(), y=y.numpy())
    asked = {"parts": "contributions", "probe_output": "full", "save": False}
    found = tscope.analyze(trace, "layers", probe=str(tmp_path / "held.npz"), **asked)
    assert any(
        "no part in the loss of the probe set: the training loss cannot" in note for note in found.notes
    )

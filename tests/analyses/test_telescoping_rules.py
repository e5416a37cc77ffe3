"""The rules' errors fall at their orders as one segment of a smooth model is cut in n steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tscope
from tests import models
from tests.traces import Probe, Run, write

ORDERS = {"left": 1, "midpoint": 2, "simpson": 4, "gauss3": 6}
PIECES = {
    "left": (8, 16, 32, 64),
    "midpoint": (8, 16, 32, 64),
    "simpson": (2, 4, 8, 16),
    "gauss3": (4, 8, 16),
}


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    """A float64 model of tanh units, and a straight path from its start to a far point."""
    torch.manual_seed(0)
    module = models.mlp(2).double()
    start = {name: value.detach().clone() for name, value in module.state_dict().items()}
    move = {name: 0.8 * torch.randn_like(value) / value.shape[-1] ** 0.5 for name, value in start.items()}
    x = torch.randn(6, 4, dtype=torch.float64)
    folder = tmp_path_factory.mktemp("segment")

    def error(rule: str, pieces: int) -> float:
        path = folder / f"{pieces}.zarr"
        if not path.exists():
            places = np.linspace(0, 1, pieces + 1)
            states = [{name: start[name] + float(s) * move[name] for name in start} for s in places]
            write(Run(path, module, states), (x,), {"x": Probe((x,), projected=False)})
        result = tscope.analyze(path, "telescoping", rule=rule, layers=False, save=False)
        assert result.scalars["rule"] == rule
        assert result.provenance["dtype"] == "float64"
        return float(result.scalars["final_error_telescoped"])

    return error


@pytest.mark.parametrize("rule", ORDERS)
def test_composite_error_falls_at_the_rules_order(segment, rule):
    pieces = PIECES[rule]
    errors = [segment(rule, n) for n in pieces]
    slope = -np.polyfit(np.log(pieces), np.log(errors), 1)[0]
    print(f"{rule}: errors {errors}, order {slope:.2f}")
    assert slope == pytest.approx(ORDERS[rule], abs=0.4)


def test_higher_rules_are_nearer_on_the_same_path(segment):
    errors = [segment(rule, 4) for rule in ORDERS]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("rule", ORDERS)
def test_layers_add_up_under_every_rule(tmp_path, rule):
    torch.manual_seed(0)
    module = models.mlp(2).double()
    first = {name: value.detach().clone() for name, value in module.state_dict().items()}
    second = {name: value + 0.1 * torch.randn_like(value) for name, value in first.items()}
    x = torch.randn(6, 4, dtype=torch.float64)
    write(Run(tmp_path / "run.zarr", module, [first, second]), (x,), {"x": Probe((x,), projected=False)})
    result = tscope.analyze(tmp_path / "run.zarr", "telescoping", rule=rule, per_layer_full=True, save=False)
    parts = result.arrays["layer_contribution"].data[1].sum(0)
    whole = result.arrays["telescoped"].data[1] - result.arrays["actual"].data[0]
    assert np.abs(parts - whole).max() < 1e-13
    assert result.scalars["decomposition_check"] < 1e-13

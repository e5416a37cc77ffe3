"""Hidden units: their order leaves a model what it is; matching finds that of a copy, or the best."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from tscope_format.errors import AnalysisError, MissingDataError

from tests.models import Recurrent
from tscope.averaging import Matching, State, find_units, match
from tscope.program import Program, export


class Residual(nn.Module):
    """Convolutions with BatchNorm and a residual sum: two layers of channels share one order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.back = nn.Conv2d(6, 4, 3, padding=1)
        self.fc = nn.Linear(16, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.back(self.norm(self.inner(x)).relu())
        x = torch.nn.functional.max_pool2d(x, 2)
        return self.head(self.fc(x.flatten(1)).relu()).log_softmax(1)


class Scaled(nn.Module):
    """A parameter that multiplies hidden units outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) * self.scale)


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 2)
    )


MODELS = {"mlp": (plain, (4,)), "residual": (Residual, (1, 4, 4))}
IMAGES = (torch.zeros(2, 2, 4, 4),)


def exported(module: nn.Module, x: Tensor) -> Program:
    graph, constants = export(module, (x,), {}, output=None, gradient_path=None)
    return Program.load(graph, constants)


def state_of(module: nn.Module) -> State:
    theta = {
        name: value.detach() + 0.1 * torch.randn_like(value) for name, value in module.named_parameters()
    }
    buffers = {n: v + torch.rand_like(v) if v.is_floating_point() else v for n, v in module.named_buffers()}
    return State(theta, buffers)


@pytest.fixture(scope="module", params=list(MODELS))
def model(request) -> tuple[Program, State, Tensor]:
    torch.manual_seed(0)
    make, shape = MODELS[request.param]
    module, x = make().double(), torch.randn(6, *shape, dtype=torch.float64)
    return exported(module, x), state_of(module), x


def shuffled(program: Program, state: State, seed: int) -> tuple[Matching, State]:
    units = find_units(program)
    generator = torch.Generator().manual_seed(seed)
    orders = {layer: torch.randperm(size, generator=generator) for layer, size in units.sizes.items()}
    order = Matching(orders, 0.0, 0.0)
    return order, order.apply(units, state)


def test_another_order_of_units_is_the_same_function(model):
    program, state, x = model
    for seed in range(3):
        order, turned = shuffled(program, state, seed)
        assert order.moved > 0
        moved = {name for name, value in turned.theta.items() if not torch.equal(value, state.theta[name])}
        assert moved == {name for name in state.theta if name not in ("5.bias", "head.bias")}
        with torch.no_grad():
            before = program(state.theta, state.buffers, (x,))
            after = program(turned.theta, turned.buffers, (x,))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-14)


def test_a_copy_in_another_order_is_matched_exactly(model):
    program, state, _ = model
    _, turned = shuffled(program, state, 7)
    units = find_units(program)
    found = match(units, state.theta, turned.theta, seed=0)
    again = found.apply(units, turned)
    assert found.before > 1
    assert found.after == 0
    for name, value in (*again.theta.items(), *again.buffers.items()):
        assert torch.equal(value, {**state.theta, **state.buffers}[name])


def test_a_residual_sum_ties_the_order_of_its_parts():
    torch.manual_seed(0)
    units = find_units(exported(Residual(), torch.randn(2, 1, 4, 4)))
    assert sorted(units.sizes.values()) == [4, 5, 6]
    stem = dict(units.axes["stem.weight"])[0]
    assert dict(units.axes["back.weight"])[0] == stem
    assert dict(units.axes["fc.weight"])[1] == stem
    assert "head.bias" not in units.axes


def test_matching_finds_the_best_order_of_one_hidden_layer():
    """Against all 24 orders of four units."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    units = find_units(exported(module, torch.randn(2, 3, dtype=torch.float64)))
    a = state_of(module)
    for other in range(5):
        torch.manual_seed(10 + other)
        b = {name: torch.randn_like(value) for name, value in a.theta.items()}
        found = match(units, a.theta, b, seed=0)
        layer = next(iter(units.sizes))
        distances = []
        for order in itertools.permutations(range(4)):
            turned = Matching({layer: torch.tensor(order)}, 0, 0).apply(units, State(b, {})).theta
            distances.append(sum(float((a.theta[n] - turned[n]).square().sum()) for n in units.axes))
        assert found.after == pytest.approx(min(distances), rel=1e-12)
        identity = sum(float((a.theta[n] - b[n]).square().sum()) for n in units.axes)
        assert found.before == pytest.approx(identity, rel=1e-12)


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (Recurrent(), torch.randn(2, 6, 3), r"the node 'lstm' \(aten.lstm.input\) is not an operation"),
        (
            nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1)),
            IMAGES[0],
            r"the node 'conv2d' \(aten.conv2d.default\) has 2 groups of channels",
        ),
        (Scaled(), torch.randn(2, 3), r"the node 'mul' \(aten.mul.Tensor\) uses a parameter as its input"),
        (nn.Linear(3, 2), torch.randn(2, 3), "the model has no hidden units whose order is free"),
    ],
    ids=["lstm", "groups", "scale", "linear"],
)
def test_what_units_cannot_be_followed_through_is_refused_by_name(module, x, message):
    with pytest.raises(AnalysisError, match=message):
        find_units(exported(module, x))


def test_without_scipy_the_extra_is_named(model, monkeypatch):
    program, state, _ = model
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(MissingDataError, match=r"pip install 'tscope\[matching\]'"):
        match(find_units(program), state.theta, state.theta, seed=0)

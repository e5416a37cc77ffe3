"""Where runs part, what is curvature after that, and the maximum of a curve."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tests.reference import jacobians
from tests.traces import Run, write
from tscope import open as open_trace
from tscope.averaging import State, bend, highest, last_common_step, linearised, mixed
from tscope.program import OutputFunctional, Program, export, jvp


def written(path, module: nn.Module, values: list[float], steps: list[int] | None = None, updates=True):
    """A run whose weights are all of one value at each row."""
    run = Run(path, copy.deepcopy(module))
    for value in values:
        with torch.no_grad():
            for parameter in run.module.parameters():
                parameter.fill_(value)
        run.remember()
    write(run, (torch.zeros(2, 2),), {}, steps=steps, program=False, updates=updates)
    return open_trace(path)


def test_runs_part_at_the_last_step_that_is_the_same_bit_for_bit(tmp_path):
    module = nn.Linear(2, 1)
    a = written(tmp_path / "a.zarr", module, [1, 2, 3, 4, 5])
    b = written(tmp_path / "b.zarr", module, [1, 2, 3, 4.5, 5])
    c = written(tmp_path / "c.zarr", module, [1, 2, 7, 4, 5])
    d = written(tmp_path / "d.zarr", module, [2, 2, 3, 4, 5])
    assert last_common_step([a, b], 4) == 2
    assert last_common_step([a, b], 1) == 1
    assert last_common_step([a, b, c], 4) == 1
    assert last_common_step([a, d], 4) is None


def test_only_steps_that_all_recorded_are_compared(tmp_path):
    module = nn.Linear(2, 1)
    a = written(tmp_path / "a.zarr", module, [1, 2, 3, 4, 5])
    sparse = written(tmp_path / "s.zarr", module, [1, 3, 8], steps=[0, 2, 4])
    assert last_common_step([a, sparse], 4) == 2


def test_of_a_run_without_updates_the_kept_states_are_compared(tmp_path):
    """Powers of two: step 3 is not among them."""
    module = nn.Linear(2, 1)
    a = written(tmp_path / "a.zarr", module, [1, 2, 3, 4, 5, 6])
    b = written(tmp_path / "b.zarr", module, [1, 2, 3, 4, 7, 8], updates=False)
    assert b.reader.theta_rows == (0, 1, 2, 4, 5)
    assert last_common_step([a, b], 5) == 2


def test_bits_are_compared_not_values(tmp_path):
    module = nn.Linear(2, 1)
    nan = written(tmp_path / "n.zarr", module, [1, math.nan, 2])
    same = written(tmp_path / "m.zarr", module, [1, math.nan, 3])
    assert last_common_step([nan, same], 2) == 1
    zero = written(tmp_path / "z.zarr", module, [1, 0.0])
    minus = written(tmp_path / "y.zarr", module, [1, -0.0])
    assert last_common_step([zero, minus], 1) == 0


def test_ends_of_a_mix_are_the_states_and_integers_are_not_mixed():
    a = State({"w": torch.tensor([0.1, 0.2])}, {"n": torch.tensor(3)})
    b = State({"w": torch.tensor([0.3, 0.7])}, {"n": torch.tensor(8)})
    assert mixed([a, b], [1, 0]).theta["w"] is a.theta["w"]
    assert mixed([a, b], [0, 1]).theta["w"] is b.theta["w"]
    half = mixed([a, b], [0.5, 0.5])
    torch.testing.assert_close(half.theta["w"], torch.tensor([0.2, 0.45]))
    assert half.buffers["n"] == 3


CURVES = {
    "parabola": (lambda x: -((x - 0.37) ** 2), 0.37, 7),  # 3 that were given, the vertex, and 3 to be sure
    "skewed": (lambda x: x * math.exp(-4 * x), 0.25, 9),
    "rising": (lambda x: math.exp(x), 0.6, 15),
    "kink": (lambda x: -abs(x - 0.31), 0.31, 15),
    "steps": (lambda x: math.floor(40 * x) * (x < 0.45), 0.4375, 16),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_maximum_is_found_to_its_tolerance(name: str):
    shape, place, most = CURVES[name]
    tried = {}

    def curve(x: float) -> float:
        tried[x] = shape(x)
        return tried[x]

    middle = max((0.2, 0.4, 0.6), key=shape)
    highest(curve, 0.2, middle, 0.6, tolerance=1e-3)
    assert all(0.2 <= x <= 0.6 for x in tried)
    width = 0.0125 if name == "steps" else 1e-3  # any place on the highest step is a maximum
    assert abs(max(tried, key=tried.__getitem__) - place) <= width
    assert len(tried) <= most


@pytest.mark.parametrize("middle", [0.2, 0.4])
@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_a_search_for_a_maximum_ends_where_there_is_none(value: float, middle: float):
    tried = []

    def curve(x: float) -> float:
        tried.append(x)
        return value

    highest(curve, 0.2, middle, 0.6, tolerance=1e-3)
    assert len(tried) <= 16


@pytest.fixture(scope="module")
def bent() -> tuple[nn.Module, Program, torch.Tensor]:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    return module, Program.load(*export(module, (x,), {}, output=None, gradient_path=None)), x


def test_curvature_terms_are_what_explicit_jacobians_leave(bent):
    module, program, x = bent
    origin = State({n: v.detach().clone() for n, v in module.named_parameters()}, {})
    J = jacobians.jacobian(module, [x])
    members = [
        State({n: v + size * torch.randn_like(v) for n, v in origin.theta.items()}, {}) for size in (0.3, 0.5)
    ]
    outputs = [program(member.theta, {}, (x,)) for member in members]
    plus, minus = bend(origin, members[1], members[0])
    found = linearised(
        origin,
        members,
        outputs,
        lambda change: jvp(program, OutputFunctional(), origin.theta, change, {}, (x,)),
        {(1, 0): (program(plus.theta, {}, (x,)), program(minus.theta, {}, (x,)))},
    )
    f = program(origin.theta, {}, (x,))
    terms = []
    for member, output in zip(members, outputs, strict=True):
        moved = sum(
            (J[n].reshape(4, 2, -1) @ (member.theta[n] - v).reshape(-1)) for n, v in origin.theta.items()
        )
        terms.append(output - f - moved)
    torch.testing.assert_close(found.terms, torch.stack(terms), rtol=0, atol=1e-12)
    weights = (0.3, 0.7)
    average = mixed(members, weights)
    curved = program(average.theta, {}, (x,)) - found.linear(weights)
    ensemble = 0.3 * outputs[0] + 0.7 * outputs[1]
    apart = program(average.theta, {}, (x,)) - ensemble
    torch.testing.assert_close(apart, curved - found.members(weights), rtol=0, atol=1e-12)
    assert float(apart.abs().max()) > 1e-3
    expected = -0.21 * (terms[0] + terms[1])
    torch.testing.assert_close(found.alone(weights), expected, rtol=0, atol=1e-12)
    d = {name: members[1].theta[name] - members[0].theta[name] for name in origin.theta}
    ends = [
        program({name: value + sign * d[name] for name, value in origin.theta.items()}, {}, (x,))
        for sign in (1, -1)
    ]
    bent_by = (ends[0] + ends[1]) / 2 - f
    torch.testing.assert_close(found.predicted(weights), -0.21 * bent_by, rtol=0, atol=1e-12)


class Square(nn.Module):
    """f(x) = (x·w)² + v·x: quadratic in its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.w).square() + x @ self.v


def test_of_a_quadratic_model_the_second_order_is_all_there_is():
    torch.manual_seed(1)
    module, x = Square().double(), torch.randn(4, 3, dtype=torch.float64)
    program = Program.load(*export(module, (x,), {}, output=None, gradient_path=None))

    def f(state: State) -> torch.Tensor:
        return program(state.theta, {}, (x,)).reshape(4, 1)

    origin = State({n: v.detach().clone() for n, v in module.named_parameters()}, {})
    members = [State({n: v + torch.randn_like(v) for n, v in origin.theta.items()}, {}) for _ in range(3)]
    ends = {}
    for pair in ((1, 0), (2, 0), (2, 1)):
        plus, minus = bend(origin, members[pair[0]], members[pair[1]])
        ends[pair] = f(plus), f(minus)
    functional = OutputFunctional()
    found = linearised(
        origin,
        members,
        [f(member) for member in members],
        lambda change: jvp(program, functional, origin.theta, change, {}, (x,)),
        ends,
    )
    weights = (0.2, 0.3, 0.5)
    ensemble = sum(w * f(member) for w, member in zip(weights, members, strict=True))
    apart = f(mixed(members, weights)) - ensemble
    assert float(apart.abs().max()) > 0.1
    torch.testing.assert_close(found.predicted(weights), apart, rtol=0, atol=1e-12)

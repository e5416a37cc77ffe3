"""Khatri-Rao sketches: against their definition, and in their products against exact kernels; float64."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from kernel_models import BUILT, Case, case, exported, mlp
from torch import Tensor, nn

from tests.reference import jacobians, signs
from tscope.kernels import Jacobian, Signs
from tscope.program import OutputFunctional

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
]

FULL = OutputFunctional()


@functools.cache
def made(name: str, outputs: int) -> Case:
    return case(name, outputs)


def numbers(built: Case) -> dict[str, int]:
    return {name: q for q, name in enumerate(built.parameters)}


def jacobian(built: Case, **options: object) -> Jacobian:
    return Jacobian(built.program, FULL, built.parameters, built.buffers, **options)


def sketch(built: Case, columns: int, seed: int = 0, **options: object) -> Tensor:
    return jacobian(built, **options).sketch(built.inputs, Signs(seed, columns, numbers(built)))


def gram(phi: Tensor) -> Tensor:
    return torch.tensordot(phi, phi, ([2], [2]))


def test_the_generator_is_splitmix64():
    # The published numbers of the reference implementation from 1234567 on.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert signs.splitmix64(1234567, 3) == expected
    assert [signs.number(1234567, index) for index in range(3)] == expected


def test_signs_are_those_of_the_specification():
    drawn = Signs(7, 200, {"w": 5}).draw("w", 1, np.array([3, 0, 70_000]), 64, 200)
    expected = [[signs.sign(7, 5, 1, place, k) for k in range(64, 200)] for place in (3, 0)]
    assert drawn[:2].tolist() == expected
    assert drawn.shape == (3, 136)
    assert set(np.unique(drawn)) == {-1, 1}


def test_signs_of_parameters_sides_places_and_seeds_are_unrelated():
    count = 1 << 12
    drawn = [
        Signs(seed, count, {"a": 0, "b": 1}).draw(name, side, np.array([place]), 0, count)[0]
        for seed, name, side, place in (
            *((0, "a", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)),
            *((0, "b", 0, 0), (1, "a", 0, 0), (0, "b", 1, 1)),
        )
    ]
    correlation = np.corrcoef(np.array(drawn, np.float64)) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 5 / count**0.5
    assert max(abs(row.mean(dtype=np.float64)) for row in drawn) < 5 / count**0.5


@pytest.mark.parametrize(
    ("name", "memory"), [*((name, 1 << 26) for name in BUILT), ("convolutions", 1), ("tokens", 1)]
)
def test_a_sketch_is_the_explicit_jacobian_times_signs(name, memory):
    built = made(name, 3)
    dense = jacobians.jacobian(built.module, built.inputs)
    expected = signs.sketch(dense, list(built.parameters), 3, 70)
    found = sketch(built, 70, seed=3, memory=memory)
    assert found.shape == (5, 3, 70)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_columns_beyond_one_block_are_those_of_the_specification():
    built = made("mlp", 3)
    names = ["4.weight", "4.bias"]
    dense = jacobians.jacobian(built.module, built.inputs, names=names)
    expected = signs.sketch(dense, list(built.parameters), 0, 1100)
    torch.testing.assert_close(sketch(built, 1100, wrt=names), expected, rtol=0, atol=1e-12)


def test_a_sketch_of_some_parameters_is_of_their_kernel():
    built = made("mlp", 3)
    names = ["2.weight", "2.bias"]
    dense = jacobians.jacobian(built.module, built.inputs, names=names)
    expected = signs.sketch(dense, list(built.parameters), 0, 64)
    torch.testing.assert_close(sketch(built, 64, wrt=names), expected, rtol=0, atol=1e-12)


def test_a_model_without_parameters_to_follow_has_sketches_of_zero():
    built = made("mlp", 3)
    assert torch.equal(sketch(built, 16, wrt=[]), torch.zeros(5, 3, 16, dtype=torch.float64))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("mlp", "norms") else pytest.mark.slow) for name in BUILT],
)
def test_products_of_sketches_are_the_kernel_on_average_and_err_as_one_over_the_root(name):
    built, sizes, seeds = made(name, 3), (64, 256, 1024), 12
    K = jacobian(built).block(built.inputs, built.inputs)
    errors = []
    for columns in sizes:
        found = torch.stack([gram(sketch(built, columns, seed)) for seed in range(seeds)])
        errors.append(float((found - K).square().sum((1, 2, 3, 4)).mean().sqrt() / K.norm()))
        # The mean over the seeds errs √seeds less: unbiased.
        assert float((found.mean(0) - K).norm() / K.norm()) < 2.0 * errors[-1] / seeds**0.5
    exponent = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert exponent == pytest.approx(-0.5, abs=0.12)


def test_the_error_on_the_mlp_of_the_specification():
    """math.md §4: .168, .058, .029 at 256, 1024, 4096 columns, 784-200-200-1."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 1))
    built = exported(module, (torch.rand(64, 784),))
    K = jacobian(built).block(built.inputs, built.inputs)
    found = [float((gram(sketch(built, columns)) - K).norm() / K.norm()) for columns in (256, 1024, 4096)]
    for error, expected in zip(found, (0.168, 0.058, 0.029), strict=True):
        assert expected / 3 < error < 3 * expected


def test_fewer_columns_have_the_signs_of_more():
    """Sketches with the same seed and fewer columns share their signs."""
    built = exported(mlp(2), (torch.randn(4, 6),))
    many, few = sketch(built, 128), sketch(built, 64)
    torch.testing.assert_close(many[..., :64] * 2**0.5, few, rtol=1e-12, atol=1e-14)

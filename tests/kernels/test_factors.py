"""Each form of a layer's Jacobian against the sum that defines it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tscope.kernels.factors import Affine, Explicit, Lookup

DOUBLE = torch.float64
MEMORY = 1 << 20
SIZES = [  # n, c, g, s, o, i
    (4, 1, 1, 1, 3, 5),
    (4, 3, 1, 1, 3, 5),
    (3, 2, 1, 6, 3, 2),
    (3, 2, 1, 2, 7, 8),
]


def affine(n: int, c: int, g: int, s: int, o: int, i: int, flipped: bool) -> tuple[Affine, Tensor]:
    x, G = torch.randn(n, s, i, dtype=DOUBLE), torch.randn(n, c, g, s, o, dtype=DOUBLE)
    dense = torch.einsum("nsi,ncgso->nc" + ("io" if flipped else "oi"), x, G)
    return Affine(x, G, tuple(dense.shape[2:]), flipped), dense


def flat(dense: Tensor) -> Tensor:
    return dense.flatten(0, 1).flatten(1)


@pytest.fixture(params=[True, False], ids=["features first", "Jacobian first"])
def form(request, monkeypatch):
    monkeypatch.setattr(Affine, "_first_features", lambda self, k: request.param)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("memory", [1, MEMORY])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_both_orders_of_multiplication_agree(sizes, flipped, memory):
    torch.manual_seed(0)
    factor, dense = affine(*sizes, flipped)
    n, c = dense.shape[:2]
    V = torch.randn(4, *dense.shape[2:], dtype=DOUBLE)
    R = torch.randn(n, c, 4, dtype=DOUBLE)
    torch.testing.assert_close(factor.each(), dense.flatten(0, 1))
    expected = (flat(dense) @ V.flatten(1).T).view(n, c, 4)
    torch.testing.assert_close(factor.push(V, memory), expected)
    expected = (R.flatten(0, 1).T @ flat(dense)).view(V.shape)
    torch.testing.assert_close(factor.pull(R, memory), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("memory", [1, MEMORY])
@pytest.mark.parametrize("sizes", SIZES)
def test_pairs_of_positions_make_the_gram_block_with_its_bias(sizes, memory, bias):
    torch.manual_seed(0)
    factor, dense = affine(*sizes, False)
    others = factor.rows(1, 3)
    n, c = dense.shape[:2]
    K = torch.ones(n, c, 2, c, dtype=DOUBLE)
    factor.add_pairs(others, memory, bias, K)
    expected = 1 + flat(dense) @ flat(dense[1:3]).T
    if bias:
        sums = factor.gradients.sum((2, 3))
        expected += flat(sums) @ flat(sums[1:3]).T
    torch.testing.assert_close(K.view(n * c, -1), expected)


def test_the_cheaper_form_is_taken():
    narrow, _ = affine(4, 1, 1, 1, 50, 50, False)
    long, _ = affine(4, 1, 1, 90, 5, 5, False)
    assert narrow.pairs_are_cheaper(narrow)
    assert not long.pairs_are_cheaper(long)


@pytest.mark.parametrize("memory", [1, MEMORY])
def test_a_table_with_repeated_entries(memory):
    torch.manual_seed(0)
    index, G = torch.tensor([[1, 1, 4], [0, 5, 1]]), torch.randn(2, 2, 3, 4, dtype=DOUBLE)
    dense = torch.zeros(2, 2, 6, 4, dtype=DOUBLE)
    for n in range(2):
        for s in range(3):
            dense[n, :, index[n, s]] += G[n, :, s]
    factor = Lookup(index, G, (6, 4))
    V, R = torch.randn(3, 6, 4, dtype=DOUBLE), torch.randn(2, 2, 3, dtype=DOUBLE)
    torch.testing.assert_close(factor.each(), dense.flatten(0, 1))
    torch.testing.assert_close(factor.push(V, memory), (flat(dense) @ V.flatten(1).T).view(2, 2, 3))
    torch.testing.assert_close(factor.pull(R, memory), (R.flatten(0, 1).T @ flat(dense)).view(V.shape))
    entries = torch.tensor([0, 4])
    torch.testing.assert_close(factor.among(entries).each(), dense[:, :, entries].flatten(0, 1))


def test_a_scalar_parameter_is_a_column():
    factor = Explicit(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    torch.testing.assert_close(factor.push(torch.tensor([10.0]), MEMORY)[..., 0], 10 * factor.gradients)
    torch.testing.assert_close(factor.pull(torch.ones(2, 2, 1), MEMORY), torch.tensor([10.0]))

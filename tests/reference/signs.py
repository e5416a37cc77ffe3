"""Signs of sketches as format/SPEC.md writes them, number by number, and sketches by their definition."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MASK = 2**64 - 1


def splitmix64(start: int, count: int) -> list[int]:
    """Return the first `count` numbers of SplitMix64."""
    found = []
    for _ in range(count):
        start = (start + 0x9E3779B97F4A7C15) & MASK
        z = start
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        found.append(z ^ (z >> 31))
    return found


def number(start: int, index: int) -> int:
    """Return one of these numbers, without those before it."""
    return splitmix64((start + index * 0x9E3779B97F4A7C15) & MASK, 1)[0]


@functools.cache
def word(seed: int, parameter: int, side: int, place: int, index: int) -> int:
    return number(number(number(seed, 2 * parameter + side), place), index)


def sign(seed: int, parameter: int, side: int, place: int, column: int) -> int:
    return -1 if word(seed, parameter, side, place, column // 64) >> (column % 64) & 1 else 1


def sketch(dense: Mapping[str, Tensor], order: Sequence[str], seed: int, columns: int) -> Tensor:
    """φ (example, output, column) from explicit Jacobians (example, output, *parameter)."""
    found: Tensor | float = 0.0
    for name, J in dense.items():
        q = order.index(name)
        matrix = J.reshape(*J.shape[:2], J.shape[2] if J.dim() > 2 else 1, -1)
        a, b = matrix.shape[2:]
        s = torch.tensor([[sign(seed, q, 0, i, k) for k in range(columns)] for i in range(a)]).to(J)
        r = torch.tensor([[sign(seed, q, 1, i, k) for k in range(columns)] for i in range(b)]).to(J)
        found = found + torch.einsum("ncab,ak,bk->nck", matrix, s, r)
    return found / columns**0.5

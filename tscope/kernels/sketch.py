"""Khatri-Rao sketches of a Jacobian: a few numbers for each example, whose products are the tangent kernel.

A parameter is taken as a matrix (first axis, all others); column k of its sketch is the Jacobian times
s_k r_kᵀ/√K, with random signs s_k of its rows and r_k of its columns. So E[φ(x)·φ(x')] = k(x, x').
For a weight with the gradient Σ_s g_s a_sᵀ of an example, φ_k = Σ_s (g_s·s_k)(a_s·r_k)/√K: J is never built.

Letters as in `factors`: n example, c output, s position, g group, i input and o output feature, k column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tscope.kernels.factors import Affine, Factor, Lookup, pieces

WORD = 64  # signs of one random word
_COLUMNS = 8 * WORD  # at a time, which bounds intermediate values
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, eq=False)
class Signs:
    """The random signs of a sketch: a function of its seed, and the same on any machine.

    h(x, y) is the y-th number, from 0, of the generator SplitMix64 [Steele14] that starts at x. The signs of
    row (side 0) or column (side 1) a of parameter q are the bits of the words h(h(h(seed, 2q + side), a), j),
    j = 0, 1, …: sign k is bit k mod 64, the lowest first, of word k div 64; a bit that is set means −1.

    Attributes:
        seed: of all of them, 0 to 2**64 − 1.
        columns: K.
        numbers: q of each parameter.
    """

    seed: int
    columns: int
    numbers: Mapping[str, int]

    def draw(
        self, name: str, side: int, places: NDArray[np.int64], start: int, stop: int
    ) -> NDArray[np.int8]:
        """Return ±1 (place, column) of the columns [start, stop), start a multiple of 64."""
        # Arrays throughout: numpy warns of a scalar that wraps around, as these are meant to.
        number = np.array([2 * self.numbers[name] + side], np.uint64)
        key = _mixed(np.array([self.seed], np.uint64), number)
        rows = _mixed(key, places.astype(np.uint64))
        words = np.arange(start // WORD, -(-stop // WORD), dtype=np.uint64)
        found = _mixed(rows[:, None], words).astype("<u8").view(np.uint8)
        bits = np.unpackbits(found, axis=1, count=stop - start, bitorder="little")
        signs: NDArray[np.int8] = 1 - 2 * bits.view(np.int8)
        return signs

    def sketch(self, factors: Mapping[str, Sequence[Factor]], memory: int) -> Tensor:
        """Return φ (example, output, column) of some examples.

        A linear layer costs 2·n·s·K·(i + c·o + c) flops, any other parameter of p elements 2·n·c·p·K.

        Args:
            factors: for each parameter, the factors of its uses; at least one.
            memory: bytes for intermediate values.
        """
        first = next(iter(factors.values()))[0].gradients
        found = first.new_zeros(*first.shape[:2], self.columns)
        for start in range(0, self.columns, _COLUMNS):
            stop = min(start + _COLUMNS, self.columns)
            for name, uses in factors.items():
                for factor in uses:
                    self._add(name, factor, memory, found[..., start:stop], start)
        return found.div_(math.sqrt(self.columns))

    def _add(self, name: str, factor: Factor, memory: int, out: Tensor, start: int) -> None:
        """Add √K φ of one use of a parameter, of the columns from `start` on, to out (n, c, k)."""
        if isinstance(factor, Lookup):
            # Of a large table only the signs of the rows that are read are drawn.
            entries, places = torch.unique(factor.index, return_inverse=True)
            S = self._signs(name, 0, entries.cpu().numpy(), out, start)
            R = self._signs(name, 1, np.arange(factor.shape[1]), out, start)
            _add_lookup(replace(factor, index=places), S, R, memory, out)
            return
        shape = factor.shape if isinstance(factor, Affine) else tuple(factor.gradients.shape[2:])
        S = self._signs(name, 0, np.arange(shape[0] if shape else 1), out, start)
        R = self._signs(name, 1, np.arange(math.prod(shape[1:])), out, start)
        if isinstance(factor, Affine) and _is_cheaper(factor, out.shape[2]):
            _add_affine(factor, S, R, memory, out)
            return
        each = factor.gradients[0].numel() + out.shape[1] * len(S) * len(R)
        each += out.shape[1] * out.shape[2] * min(len(S), len(R))
        for low, high in pieces(len(out), each * out.element_size(), memory):
            J = factor.rows(low, high).each().reshape(-1, len(S), len(R))
            out[low:high] += _contracted(J, S, R).view(high - low, *out.shape[1:])

    def _signs(self, name: str, side: int, places: NDArray[np.int64], out: Tensor, start: int) -> Tensor:
        drawn = self.draw(name, side, places, start, start + out.shape[2])
        return torch.from_numpy(drawn).to(out)


def _mixed(state: NDArray[np.uint64], count: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the numbers number `count` of SplitMix64 from these states, broadcast."""
    z: NDArray[np.uint64] = state + (count + np.uint64(1)) * np.uint64(_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def _is_cheaper(factor: Affine, k: int) -> bool:
    """Tell whether the sketch takes fewer flops by positions than from the Jacobian of each example."""
    c, g, s, o, i = factor.sizes
    return g * s * k * (i + c * o + c) <= c * g * o * i * (s + k)


def _add_affine(factor: Affine, S: Tensor, R: Tensor, memory: int, out: Tensor) -> None:
    """Add Σ_gs (A_ngs·r_k)(G_ncgs·s_k) to out (n, c, k); S (row, k) and R (column, k) of the parameter."""
    c, g, s, o, i = factor.sizes
    k = out.shape[2]
    inputs, outputs = (S, R) if factor.flipped else (R, S)
    outputs = outputs.view(g, o, k)
    for low, high in pieces(len(out), g * s * (i + (1 + c) * k) * out.element_size(), memory):
        part = factor.rows(low, high)
        T = part.features @ inputs  # (n, g, s, k)
        if g == 1:  # one product of matrices, as that of T is
            U = (part.gradients.reshape(-1, o) @ outputs[0]).view(high - low, c, g, s, k)
        else:
            U = part.gradients @ outputs
        U *= T.unsqueeze(1)
        out[low:high] += U.sum((2, 3))


def _add_lookup(factor: Lookup, S: Tensor, R: Tensor, memory: int, out: Tensor) -> None:
    """Add Σ_s S[index_ns, k] (G_ncs·r_k) to out (n, c, k); S (row, k) and R (o, k) of the table."""
    n, c, s, o = factor.gradients.shape
    k = out.shape[2]
    for low, high in pieces(n, s * (1 + c) * k * out.element_size(), memory):
        U = (factor.gradients[low:high].reshape(-1, o) @ R).view(high - low, c, s, k)
        U *= S[factor.index[low:high]].unsqueeze(1)
        out[low:high] += U.sum(2)


def _contracted(J: Tensor, S: Tensor, R: Tensor) -> Tensor:
    """Return Σ_ab J_mab S_ak R_bk (m, k) of Jacobians J (m, a, b), the longer axis first."""
    if J.shape[2] >= J.shape[1]:
        return (J @ R).mul_(S).sum(1)
    return (J.transpose(1, 2) @ S).mul_(R).sum(1)

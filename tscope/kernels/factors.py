"""The Jacobian of one use of a parameter, in the form in which it is cheap to multiply with.

A parameter that is used once enters the output through one value y of the program, and y depends on it
linearly. With G = ∂(output)/∂y of each example, ∂(output c of example n)/∂(parameter) is a small product of
G and of what the parameter was multiplied with. None of the classes ever needs all of them at once.

Letters, here and in the shapes: n example, c output, s position (of a sequence or an image), g group, i
input and o output feature, k column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from tscope.kernels.layout import split


class Factor(Protocol):
    """The Jacobian (example, output, *parameter) of one use of a parameter."""

    @property
    def gradients(self) -> Tensor:
        """(example, output, …): G, or the Jacobian itself."""

    def rows(self, start: int, stop: int) -> Factor:
        """Return the factor of the examples [start, stop)."""

    def each(self) -> Tensor:
        """Return the Jacobian itself (example·output, *parameter)."""

    def push(self, tangents: Tensor, memory: int) -> Tensor:
        """Return J V (example, output, k) for V (k, *parameter)."""

    def pull(self, cotangents: Tensor, memory: int) -> Tensor:
        """Return Jᵀ R (k, *parameter) for R (example, output, k)."""


# Larger intermediate values are new pages from the system each time, and out of the cache.
_PIECE = 16 << 20


def pieces(count: int, each: float, memory: int) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) that cover `count` things of `each` bytes, as many at a time as `memory` holds."""
    step = max(1, int(min(memory, _PIECE) / max(each, 1.0)))
    for start in range(0, count, step):
        yield start, min(start + step, count)


@dataclass(frozen=True)
class Explicit:
    """A Jacobian that is held as it is: biases, normalisation, and whatever has no better form.

    Attributes:
        gradients: (example, output, *parameter).
    """

    gradients: Tensor

    def rows(self, start: int, stop: int) -> Explicit:
        """Return the factor of the examples [start, stop)."""
        return Explicit(self.gradients[start:stop])

    def each(self) -> Tensor:
        """Return the Jacobian (example·output, *parameter). Nothing is computed."""
        return self.gradients.flatten(0, 1)

    def push(self, tangents: Tensor, memory: int) -> Tensor:
        """Return J V (example, output, k); 2·n·c·p·k flops."""
        n, c = self.gradients.shape[:2]
        k = len(tangents)
        return (self.each().reshape(n * c, -1) @ tangents.reshape(k, -1).T).view(n, c, k)

    def pull(self, cotangents: Tensor, memory: int) -> Tensor:
        """Return Jᵀ R (k, *parameter); 2·n·c·p·k flops."""
        n, c, k = cotangents.shape
        product = cotangents.reshape(n * c, k).T @ self.each().reshape(n * c, -1)
        return product.view(k, *self.gradients.shape[2:])


@dataclass(frozen=True)
class Unfolding:
    """How a convolution sees its input: (row, channel, *space) → patches (row, group, position, feature).

    Attributes:
        kernel: extent of the kernel in each dimension of space.
        padding: zeros before and after each dimension.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the patches, their features in the order of the kernel's memory (channel, *kernel)."""
        flat = [size for pair in reversed(self.padding) for size in pair]
        x = torch.nn.functional.pad(x, flat) if any(flat) else x
        dims = len(self.kernel)
        if dims > 2:
            return self._windows(x)
        # (row, feature of all groups, position): torch's own for images does it in half the time of strides.
        flat_kernel, stride, dilation = (
            (1,) * (2 - dims) + sizes for sizes in (self.kernel, self.stride, self.dilation)
        )
        x = x.unsqueeze(2) if dims == 1 else x
        patches = torch.nn.functional.unfold(x, flat_kernel, dilation, stride=stride)
        return split(patches, 1, (self.groups, -1)).transpose(2, 3)

    def _windows(self, x: Tensor) -> Tensor:
        for axis, (size, stride, dilation) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True), 2
        ):
            x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        dims = len(self.kernel)
        x = split(x, 1, (self.groups, -1))  # (row, g, channel, *out, *kernel)
        out, kernel = range(3, 3 + dims), range(3 + dims, 3 + 2 * dims)
        x = x.permute(0, 1, *out, 2, *kernel)
        return x.flatten(2 + dims).flatten(2, 1 + dims)


@dataclass(frozen=True)
class Affine:
    """The weight of a linear layer or a convolution: ∂f_nc = Σ_s G_ncs A_nsᵀ [Jeffares24; math.md §4].

    Attributes:
        inputs: what the layer read: (n, s, i), or for a convolution (n, r, channel, *space), r images each.
        gradients: G (n, c, g, s, o).
        shape: the parameter's shape: (o, i), (i, o) if flipped, (g·o, channel/g, *kernel) of a convolution.
        flipped: whether the weight stands on the right: x @ W.
        unfolding: of a convolution.
    """

    inputs: Tensor
    gradients: Tensor
    shape: tuple[int, ...]
    flipped: bool = False
    unfolding: Unfolding | None = None

    def rows(self, start: int, stop: int) -> Affine:
        """Return the factor of the examples [start, stop)."""
        return replace(self, inputs=self.inputs[start:stop], gradients=self.gradients[start:stop])

    @property
    def features(self) -> Tensor:
        """A (n, g, s, i). For a convolution the patches are computed anew each time: they are large."""
        if self.unfolding is None:
            return self.inputs[:, None]
        n, images = self.inputs.shape[:2]
        patches = self.unfolding(self.inputs.flatten(0, 1))  # (n·r, g, position, i)
        return split(patches, 0, (n, images)).movedim(1, 2).flatten(2, 3)

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """(c, g, s, o, i)."""
        c, g, s, o = self.gradients.shape[1:]
        return c, g, s, o, self.shape[0] if self.flipped else _product(self.shape[1:])

    def each(self) -> Tensor:
        """Return Σ_s G_ncs A_nsᵀ (n·c, *parameter); 2·n·c·s·g·o·i flops.

        Without positions, the columns are last in memory, so that `push` can multiply without a copy.
        """
        A, G = self.features, self.gradients
        if A.shape[2] == 1:
            product = A.permute(1, 3, 2, 0)[..., None] * G.permute(2, 4, 0, 1, 3)[:, None, ..., 0]
        else:
            found = G.permute(0, 2, 1, 4, 3).flatten(2, 3) @ A  # (n, g, c·o, i)
            found = split(found, 2, (G.shape[1], G.shape[4])).permute(0, 2, 1, 3, 4)
            return self._parameter(found.flatten(0, 1))
        return self._parameter(product.flatten(3).permute(3, 0, 2, 1))  # from (g, i, o, n·c)

    def push(self, tangents: Tensor, memory: int) -> Tensor:
        """Return J V (n, c, k): first A V, then G against it; or first J, whichever is fewer flops."""
        c, g, s, o, i = self.sizes
        k = len(tangents)
        if not self._first_features(k):
            each = c * g * o * i
            return _joined(
                Explicit(split(part.each(), 0, (-1, c))).push(tangents, memory)
                for part in self._pieces(each + s * g * i, memory)
            )
        if g == s == 1 and not self.flipped:
            return self._push_rows(tangents.reshape(k * o, i), memory)
        V = self._matrices(tangents).permute(1, 3, 2, 0).reshape(g, i, o * k)
        found = []
        for part in self._pieces(g * s * (i + o * k), memory):
            n = len(part.gradients)
            T = part.features.transpose(0, 1).reshape(g, n * s, i) @ V
            T = T.view(g, n, s * o, k).transpose(0, 1).reshape(n, g * s * o, k)
            found.append(part.gradients.reshape(n, c, g * s * o) @ T)
        return torch.cat(found)

    def _push_rows(self, V: Tensor, memory: int) -> Tensor:
        """Return J V (n, c, k) without positions and groups, for V (k·o, i) as it lies in memory.

        A copy of V with its columns last takes twice as long as the products (100 examples of 784 features,
        60 columns).
        """
        c, _, _, o, i = self.sizes
        found = []
        for part in self._pieces(i + len(V), memory):
            T = (part.inputs.view(-1, i) @ V.T).view(-1, len(V) // o, o)
            found.append(part.gradients.reshape(-1, c, o) @ T.transpose(1, 2))
        return torch.cat(found)

    def pull(self, cotangents: Tensor, memory: int) -> Tensor:
        """Return Jᵀ R (k, *parameter): first Rᵀ G, then against A; or first J, whichever is fewer flops."""
        c, g, s, o, i = self.sizes
        k = cotangents.shape[2]
        total = cotangents.new_zeros((k, *self.shape))
        start = 0
        first = self._first_features(k)
        for part in self._pieces(g * s * (i + o * k) if first else c * g * o * i + s * g * i, memory):
            n = len(part.gradients)
            R = cotangents[start : start + n]
            start += n
            if not first:
                total += Explicit(split(part.each(), 0, (n, c))).pull(R, memory)
                continue
            H = R.transpose(1, 2) @ part.gradients.reshape(n, c, g * s * o)  # (n, k, g·s·o)
            H = H.view(n, k, g, s, o).permute(2, 1, 4, 0, 3).reshape(g, k * o, n * s)
            found = H @ part.features.transpose(0, 1).reshape(g, n * s, i)
            total += self._parameter(found.view(g, k, o, i).transpose(0, 1))
        return total

    def add_pairs(self, others: Affine, memory: int, bias: bool, K: Tensor) -> None:
        """Add the Gram block Σ_st (A_ns·A_mt) (G_ncs·G_mc't) to K (n, c, m, c'); no Jacobian is formed.

        Args:
            others: the factor of the columns' examples m.
            memory: bytes for intermediate values.
            bias: add the bias's block, G_ncs·G_mc't: each feature product has one more term, 1·1.
            K: what to add to.
        """
        c, g, s, o, i = self.sizes
        m, t = len(others.gradients), others.sizes[2]
        right_A = others.features.transpose(0, 1).reshape(g, m * t, i).transpose(1, 2)
        right_G = others.gradients.permute(2, 0, 3, 1, 4).reshape(g, m * t * c, o).transpose(1, 2)
        start = 0
        for part in self._pieces(g * s * (i + m * t * (1 + c * c)), memory):
            n = len(part.gradients)
            AA = part.features.transpose(0, 1).reshape(g, n * s, i) @ right_A
            GG = part.gradients.permute(2, 0, 3, 1, 4).reshape(g, n * s * c, o) @ right_G
            if bias:
                AA += 1
            rows = K[start : start + n]
            start += n
            if g == s == t == 1:
                rows.addcmul_(GG.view(n, c, m, c), AA.view(n, 1, m, 1))
            else:
                GG = GG.view(g, n, s, c, m, t, c)
                GG *= AA.view(g, n, s, 1, m, t, 1)
                rows += GG.sum((0, 2, 5))

    def pairs_are_cheaper(self, others: Affine) -> bool:
        """Tell whether `add_pairs` takes fewer flops than the others' Jacobians and `push`."""
        c, g, s, o, i = self.sizes
        n, m = len(self.gradients), len(others.gradients)
        pairs = n * m * g * s * s * (i + c * c * o)
        return pairs <= m * c * g * s * o * i + n * min(self._push_flops(m * c))

    def _push_flops(self, k: int) -> tuple[int, int]:
        c, g, s, o, i = self.sizes
        return s * k * g * o * (i + c), c * g * o * i * (s + k)

    def _first_features(self, k: int) -> bool:
        first, second = self._push_flops(k)
        return first <= second

    def _pieces(self, elements: int, memory: int) -> Iterator[Affine]:
        for start, stop in pieces(len(self.gradients), elements * self.gradients.element_size(), memory):
            yield self.rows(start, stop)

    def _matrices(self, tangents: Tensor) -> Tensor:
        """Return (k, g, o, i) from (k, *parameter)."""
        if self.flipped:
            return tangents.transpose(1, 2)[:, None]
        _, g, _, o, i = self.sizes
        return tangents.reshape(len(tangents), g, o, i)

    def _parameter(self, matrices: Tensor) -> Tensor:
        """Return (k, *parameter) from (k, g, o, i)."""
        if self.flipped:
            return matrices[:, 0].transpose(1, 2)
        return matrices.reshape(len(matrices), *self.shape)


@dataclass(frozen=True)
class Lookup:
    """The table of an embedding: ∂f_nc is G_ncs in row index_ns, summed over s.

    Attributes:
        index: (n, s) rows of the table.
        gradients: G (n, c, s, o), zero at the padding index.
        shape: (entry, o).
    """

    index: Tensor
    gradients: Tensor
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> Lookup:
        """Return the factor of the examples [start, stop)."""
        return replace(self, index=self.index[start:stop], gradients=self.gradients[start:stop])

    def each(self) -> Tensor:
        """Return the Jacobian (n·c, entry, o)."""
        n, c, s, o = self.gradients.shape
        found = self.gradients.new_zeros(n, c, *self.shape)
        found.scatter_add_(2, self.index[:, None, :, None].expand(n, c, s, o), self.gradients)
        return found.flatten(0, 1)

    def push(self, tangents: Tensor, memory: int) -> Tensor:
        """Return J V (n, c, k); 2·n·c·s·o·k flops."""
        n, c, s, o = self.gradients.shape
        k = len(tangents)
        V = tangents.permute(1, 2, 0).contiguous()
        found = []
        for start, stop in pieces(n, s * o * k * self.gradients.element_size(), memory):
            T = V[self.index[start:stop]].view(stop - start, s * o, k)
            found.append(self.gradients[start:stop].reshape(-1, c, s * o) @ T)
        return torch.cat(found)

    def pull(self, cotangents: Tensor, memory: int) -> Tensor:
        """Return Jᵀ R (k, entry, o); 2·n·c·s·o·k flops."""
        n, c, s, o = self.gradients.shape
        k = cotangents.shape[2]
        total = cotangents.new_zeros((k, *self.shape))
        for start, stop in pieces(n, 2 * s * o * k * self.gradients.element_size(), memory):
            R, G = cotangents[start:stop], self.gradients[start:stop]
            H = (R.transpose(1, 2) @ G.reshape(-1, c, s * o)).view(-1, k, s, o)
            total.index_add_(1, self.index[start:stop].reshape(-1), H.transpose(0, 1).reshape(k, -1, o))
        return total

    def among(self, entries: Tensor) -> Lookup:
        """Return the factor of the table's rows `entries` (sorted) only: what of a Gram block is not zero."""
        place = torch.searchsorted(entries, self.index).clamp_(max=len(entries) - 1)
        known = entries[place] == self.index
        gradients = self.gradients * known[:, None, :, None]
        return Lookup(place, gradients, (len(entries), *self.shape[1:]))


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _joined(parts: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(parts))

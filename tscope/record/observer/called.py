"""Modules that were called by the script itself, not by another module: what a root is chosen from."""

from __future__ import annotations

import weakref
from typing import Any, Callable, FrozenSet, List, Optional, Sequence, Tuple

import torch

from .batch import Batch
from .blocks import Pool
from .evaluation import Budget, Evaluation
from .flat import Held, Slot, Table, buffer_slots, parameter_slots

_WRAPPERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")
# A module whose batches nobody took for so long, while others were trained, is not worth copying batches of.
_MOST_UNTAKEN = 64


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module within what torch.compile or data parallelism put around it."""
    while True:
        inner = module._modules.get("_orig_mod")
        if inner is None and type(module).__name__ in _WRAPPERS:
            inner = module._modules.get("module")
        if inner is None:
            return module
        module = inner


class Loss:
    """The value of one backward call; several modules may have been part of it."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


class Called:
    """A module that the script calls, with what is pending until an optimizer step takes it.

    Attributes:
        parameters: Its parameters.
        buffers: Its buffers.
        theta_0: Parameters as before the first training forward; None when not kept.
        buffer_0: Buffers as before the first training forward.
        pending: Training forwards that no step took yet.
        losses: Backward calls that reached one of its outputs since the last step.
        evaluations: Evaluation forwards from before it belonged to a root.
        root: The root it belongs to.
        leading: Index of the first input whose rows are the examples, once an output's gradient told.
        untaken: Training forwards since a step took one.
    """

    def __init__(
        self, module: torch.nn.Module, gone: Callable[[weakref.ref[Any]], None], budget: Budget
    ) -> None:
        self.reference = weakref.ref(module, gone)
        self.parameters = Table(parameter_slots(module))
        self.buffers = Table(buffer_slots(module))
        self.trainable = any(slot.tensor().requires_grad for slot in self.parameters.slots)
        self.theta_0: Optional[Held] = None
        self.buffer_0: Optional[Held] = None
        self.pending: List[Batch] = []
        self.losses: List[Loss] = []
        self.budget = budget
        self.evaluations: List[Evaluation] = []
        self.root: Optional[Any] = None
        self.untaken = 0
        self.leading: Optional[int] = None

    @property
    def module(self) -> Optional[torch.nn.Module]:
        """The module, while it lives."""
        return self.reference()

    @property
    def places(self) -> FrozenSet[Tuple[int, str]]:
        """Where the parameters are kept: equal for a module and a wrapper that adds none of its own."""
        return frozenset((id(slot.owner), slot.key) for slot in self.parameters.slots)

    @property
    def ignored(self) -> bool:
        """Whether its training batches are of no use to anyone."""
        return not self.trainable or (self.root is None and self.untaken > _MOST_UNTAKEN)

    def arrived(self) -> bool:
        """Tell whether a gradient came back to one of the pending batches."""
        return any(batch.arrived for batch in self.pending)

    def take(self) -> List[Batch]:
        """Return the pending batches that got a gradient; the others stay."""
        taken: List[Batch] = []
        left: List[Batch] = []
        for batch in self.pending:
            if batch.arrived:
                batch.owner = None
                taken.append(batch)
            else:
                left.append(batch)
        self.pending = left
        self.untaken = 0
        return taken

    def learn(self, batches: Sequence[Batch], path: Optional[str]) -> None:
        """Find out which inputs' rows are the examples: those of which the output has as many."""
        for batch in batches:
            length = batch.arrived.get(path, -1) if path is not None else -1
            for index, copied in batch.inputs:
                if copied.shape[0] == length:
                    self.leading = index
                    return

    def drop(self, batches: Sequence[Batch]) -> None:
        """Forget some of the pending batches."""
        for batch in batches:
            if batch in self.pending:
                self.pending.remove(batch)
            batch.owner = None
            batch.forget()

    def drop_parameters(self) -> None:
        """Keep no copy of the parameters any more."""
        self.theta_0 = None


def compose(table: Table, sources: Sequence[Tuple[Table, Optional[Held]]], pool: Pool) -> Held:
    """Return the table's values: from the first source that has a tensor, else as they are now."""
    values = table.copy(pool)
    known = {}
    for source, held in reversed(sources):
        if held is not None:
            for flat in source.flats:
                for slot in flat.slots:
                    known[id(slot.owner), slot.key] = (slot, held[flat.name])
    for flat in table.flats:
        for slot in flat.slots:
            found = known.get((id(slot.owner), slot.key))
            if found is not None and _alike(found[0], slot):
                old, block = found
                slot.move(values[flat.name].address + slot.start, block.address + old.start, slot.size)
    return values


def _alike(one: Slot, other: Slot) -> bool:
    return one.dtype is other.dtype and one.shape == other.shape

"""A root as its projections and sketches see it: the program, and the tables that cut states into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tscope_format.tensors import Tensor

from tscope.program.program import Program
from tscope.record.backlog import State
from tscope.replay.flat import named

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Model:
    """One root: its program, and the tables that cut flat vectors into its tensors."""

    program: Program
    parameters: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]

    def tensors(self, state: State) -> tuple[Tensors, Tensors]:
        """Return the parameters and buffers that the program takes, by the names it uses."""
        theta = _with_aliases(self.parameters, named(self.parameters, state.theta))
        buffer = _with_aliases(self.buffers, named(self.buffers, state.buffer))
        return (
            {name: theta[name] for name in self.program.parameters},
            {name: buffer[name] for name in self.program.buffers},
        )

    @property
    def trained(self) -> dict[str, int]:
        """The places in the table of the parameters that had `requires_grad`, by the program's names."""
        places = {
            name: place
            for place, entry in enumerate(self.parameters)
            if entry.requires_grad
            for name in (entry.name, *entry.tied)
        }
        return {name: places[name] for name in self.program.parameters if name in places}


def _with_aliases(table: Sequence[Tensor], views: Tensors) -> Tensors:
    """Return the views under their tied names too."""
    return {**{alias: views[entry.name] for entry in table for alias in entry.tied}, **views}

"""A module, and the program that its exported graph is read back as."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from program_models import build
from torch import Tensor, nn

from tscope.program import Program, ad_friendly, export, leaves


@dataclass
class Case:
    module: nn.Module
    args: tuple[Any, ...]
    graph: dict[str, Any]
    constants: dict[str, Tensor]
    program: Program

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.module.named_parameters()}

    @property
    def buffers(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.named_buffers()}

    @property
    def inputs(self) -> list[Tensor]:
        return [tensor for _, tensor in leaves(self.args)]

    def expected(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the eval-mode module's own output at the selected path."""
        self.module.eval()
        with torch.no_grad(), ad_friendly():
            return dict(leaves(self.module(*(args or self.args), **kwargs)))[self.program.output_path]

    def tangents(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        return {n: torch.randn(p.shape, generator=generator) for n, p in self.parameters.items()}


def exported(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    output: str | None = None,
    gradient_path: str | None = None,
) -> Case:
    graph, constants = export(module, args, kwargs or {}, output=output, gradient_path=gradient_path)
    stored = json.loads(json.dumps(graph, allow_nan=False))
    arrays = {name: value.numpy() for name, value in constants.items()}
    return Case(module, tuple(args), stored, constants, Program.load(stored, arrays))


@functools.cache
def _exported(name: str, rows: int) -> Case:
    return exported(*build(name, rows))


def case(name: str, rows: int = 5) -> Case:
    """Return a case of its own: exporting takes a second, so that is done once."""
    made = _exported(name, rows)
    module = copy.deepcopy(made.module)
    program = Program.load(made.graph, made.constants)
    return Case(module, made.args, copy.deepcopy(made.graph), made.constants, program)

"""J at a probe set: what directions in parameter space do to its predictions, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tscope.kernels import Jacobian
from tscope.program import vjp
from tscope.replay import Evaluation

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Probe:
    """A probe set, and the layers to tell apart.

    Attributes:
        evaluation: f on the probe set.
        layers: The parameters of each layer, or of all of them under one name.
        names: All parameters that J is over, those that the model uses.
        outputs: C, how many an example has.
        memory: Bytes for intermediate values.
    """

    evaluation: Evaluation
    layers: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    outputs: int
    memory: int

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.evaluation.inputs[0])

    def value(self, theta: Tensors, buffers: Tensors) -> Tensor:
        """Return f (example, output)."""
        return self.evaluation.value(theta, buffers)

    def push(self, theta: Tensors, buffers: Tensors, directions: Sequence[Tensors]) -> Tensor:
        """Return J^(l)v of each direction v and layer l (direction, layer, example, output).

        C backward passes over the probe set and a product for each direction; of a log-probability or a loss,
        a forward-mode pass for each direction and layer.

        Args:
            theta: θ by name.
            buffers: by name.
            directions: each by parameter name; what is left out is zero.
        """
        groups = [tuple(name for name in names if name in self.names) for names in self.layers.values()]
        evaluation = self.evaluation
        if evaluation.functional.target is not None:
            products = (evaluation.jvp_layers(theta, v, groups, buffers)[1] for v in directions)
            return torch.stack(list(products))
        stacked = {
            name: torch.stack(
                [direction.get(name, torch.zeros_like(theta[name])) for direction in directions]
            )
            for name in self.names
        }
        jacobian = self._jacobian(theta, buffers)
        if len(groups) == 1:
            return jacobian.pushforward(evaluation.inputs, stacked).permute(2, 0, 1)[:, None]
        return jacobian.pushforward_parts(evaluation.inputs, stacked, groups).permute(3, 0, 1, 2)

    def rows(self, theta: Tensors, buffers: Tensors, examples: Tensor) -> dict[str, Tensor]:
        """Return the rows of J of some examples, by parameter name (example·output, …).

        C backward passes over them; of a log-probability or a loss, one for each row.
        """
        evaluation, C = self.evaluation, self.outputs
        if evaluation.functional.target is not None:
            return self._rows_one_by_one(theta, buffers, examples)
        inputs = tuple(value[examples] for value in evaluation.inputs)
        unit = torch.eye(len(examples) * C, dtype=evaluation.program.dtype).view(len(examples), C, -1)
        return self._jacobian(theta, buffers).pullback(inputs, unit)

    def _rows_one_by_one(self, theta: Tensors, buffers: Tensors, examples: Tensor) -> dict[str, Tensor]:
        evaluation = self.evaluation
        rows: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for example in examples.tolist():
            functional = evaluation.functional.rows(example, example + 1)
            inputs = tuple(value[example : example + 1] for value in evaluation.inputs)
            for unit in torch.eye(self.outputs, dtype=evaluation.program.dtype):
                _, found = vjp(evaluation.program, functional, theta, buffers, inputs, unit[None])
                for name in self.names:
                    rows[name].append(found[name])
        return {name: torch.stack(found) for name, found in rows.items()}

    def _jacobian(self, theta: Tensors, buffers: Tensors) -> Jacobian:
        evaluation = self.evaluation
        return Jacobian(
            evaluation.program, evaluation.functional, theta, buffers, wrt=self.names, memory=self.memory
        )

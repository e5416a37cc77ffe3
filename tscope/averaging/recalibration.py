"""BatchNorm's statistics for parameters that were not trained: those of training inputs, computed anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError

from tscope.kernels.sites import arguments
from tscope.program import Program
from tscope.program.graph import Node, Ref

_WHOLE = ("aten.batch_norm.default",)
_WITH_STATISTICS = (
    "aten._native_batch_norm_legit_no_training.default",
    "aten.native_batch_norm.default",
)


class Recalibration:
    """Recomputes the running mean and variance of every BatchNorm, as `torch.optim.swa_utils.update_bn` does.

    Each batch passes through the model with its own statistics in place of the running ones; the running
    mean and variance become the means over batches of the batches' means and (unbiased) variances. Dropout
    stays off: the recorded program is the model in evaluation mode.

    Attributes:
        layers: How many BatchNorm layers with running statistics the program has.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._found: dict[str, list[Tensor]] = {}
        names = {n: entry.name for n, entry in enumerate(program.graph.inputs, 1) if entry.kind == "buffer"}
        nodes = [self._observed(node, names) for node in program.graph.nodes]
        self.layers = sum(new is not old for new, old in zip(nodes, program.graph.nodes, strict=True))
        graph = replace(program.graph, nodes=tuple(nodes))
        self._watched = Program(graph, program.constants, program.dtype)

    def __call__(
        self,
        theta: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batches: Iterable[Sequence[Tensor]],
    ) -> dict[str, Tensor]:
        """Return the buffers with the statistics of `batches`; one forward pass over them.

        Args:
            theta: The parameters.
            buffers: The buffers; those that are not statistics are returned as they are.
            batches: The inputs of each batch, each (example, …). A batch needs more than one value for
                each channel.

        Raises:
            AnalysisError: There are no batches, or one has a single value for a channel.
        """
        if not self.layers:
            return dict(buffers)
        self._found = {}
        with torch.no_grad():
            for inputs in batches:
                self._watched(theta, buffers, inputs)
        if not self._found:
            raise AnalysisError("there are no training examples to compute BatchNorm's statistics on")
        fresh = {name: torch.stack(values).mean(0) for name, values in self._found.items()}
        self._found = {}
        return {name: fresh.get(name, value) for name, value in buffers.items()}

    def _observed(self, node: Node, names: Mapping[int, str]) -> Node:
        """Return a BatchNorm's node as one that normalises by its batch and remembers what it saw."""
        if node.target not in (*_WHOLE, *_WITH_STATISTICS):
            return node
        given = arguments(node, node.args, node.kwargs)
        mean, variance = given.get("running_mean"), given.get("running_var")
        if not (isinstance(mean, Ref) and isinstance(variance, Ref)):
            return node  # without running statistics it uses the batch's own already
        if mean.slot not in names or variance.slot not in names:
            raise AnalysisError(
                f"the node {node.name!r} computes BatchNorm's statistics from others, so they cannot be "
                "recalibrated; leave that out with `--no-recalibrate`"
            )
        return replace(node, function=self._watch(node, names[mean.slot], names[variance.slot]))

    def _watch(self, node: Node, mean: str, variance: str) -> Callable[..., Any]:
        """Return the function that stands for the node."""

        def call(*args: Any, **kwargs: Any) -> Any:
            given = arguments(node, args, kwargs)
            x: Tensor = given["input"]
            if x.numel() == x.shape[1]:
                raise AnalysisError(
                    f"a batch of one example has one value for each channel of BatchNorm {mean!r}: it has no "
                    "variance; take more training examples"
                )
            weight, bias, eps = given.get("weight"), given.get("bias"), given["eps"]
            # With momentum 1 the kernel leaves the batch's own statistics: `x.var` takes thrice its time.
            own, spread = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
            normalised = torch.nn.functional.batch_norm(
                x, own, spread, weight, bias, training=True, momentum=1.0, eps=eps
            )
            self._found.setdefault(mean, []).append(own)
            self._found.setdefault(variance, []).append(spread)
            if node.target in _WHOLE:
                return normalised
            return normalised, x.new_empty(0), x.new_empty(0)

        return call

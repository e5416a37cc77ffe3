"""The lazy model: f linearised at the first row, J_0(θ − θ_0)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tscope.replay.evaluation import Evaluation, difference
from tscope.replay.flat import Tensors

# Compiling the linear map takes up to some seconds; a pass through it then costs a third to two thirds of a
# forward-mode pass (measured: MLP 0.7 ms against 1.0, CNN 5 against 14, ResNet 10 against 39, Transformer 31
# against 52; an LSTM gains nothing): it pays on long runs.
_COMPILE_ROWS = 1000


class LazyModel:
    """v ↦ J_0 v at the start of the run, with the buffers held.

    Attributes:
        form: "compiled": the linear map is traced once and kept with all its activations; "forward": a
            forward-mode pass at θ_0 every time.
    """

    def __init__(
        self, evaluation: Evaluation, theta: Mapping[str, Tensor], buffers: Mapping[str, Tensor], rows: int
    ) -> None:
        self._evaluation = evaluation
        self._theta = {name: value.clone() for name, value in theta.items()}
        self._buffers = {name: value.clone() for name, value in buffers.items()}
        one_pass = evaluation.chunk >= len(evaluation.inputs[0])
        self._linear = self._compile() if one_pass and rows >= _COMPILE_ROWS else None

    @property
    def form(self) -> str:
        """How J_0 v is computed."""
        return "forward" if self._linear is None else "compiled"

    def __call__(self, theta: Mapping[str, Tensor]) -> Tensor:
        """Return J_0(θ − θ_0) (example, output)."""
        change = difference(theta, self._theta)
        if self._linear is not None:
            return self._linear(change)
        return self._evaluation.jvp(self._theta, change, self._buffers)[1]

    def _compile(self) -> Callable[[Tensors], Tensor] | None:
        """Trace the linear map; None for a model with an operation that has no forward derivative."""
        floating = {name: value for name, value in self._theta.items() if value.is_floating_point()}

        def function(point: Tensors) -> Tensor:
            return self._evaluation.value({**self._theta, **point}, self._buffers)

        try:
            with warnings.catch_warnings():
                # torch.func.linearize warns about a constant of its own making (torch.fx const_fold).
                warnings.simplefilter("ignore")
                _, linear = torch.func.linearize(function, floating)
        except NotImplementedError:
            return None
        return linear

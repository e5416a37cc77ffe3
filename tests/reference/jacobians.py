"""Explicit Jacobians of a module by reverse mode, a row and an output at a time; float64, without tscope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

Named = Mapping[str, Tensor]


def jacobian(
    module: torch.nn.Module, inputs: Sequence[Tensor], path: str = "", names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """(example, output, *parameter) of each parameter; examples go through one by one, given twice."""
    module = module.double().eval()
    theta = {name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()}
    rows: dict[str, list[Tensor]] = {name: [] for name in theta}
    for example in range(len(inputs[0])):
        pair = [value[[example, example]] for value in inputs]
        pair = [value.double() if value.is_floating_point() else value for value in pair]
        output = functional_call(module, theta, tuple(pair))
        if isinstance(output, (tuple, list)):
            output = output[int(path or 0)]
        for value in output[0].reshape(-1):
            grads = torch.autograd.grad(
                value, list(theta.values()), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for name, grad in zip(theta, grads, strict=True):
                rows[name].append(grad)
    n = len(inputs[0])
    return {
        name: torch.stack(found).reshape(n, -1, *theta[name].shape)
        for name, found in rows.items()
        if names is None or name in names
    }


def block(left: Named, right: Named, diagonal: Named | None = None) -> Tensor:
    """Return J(rows) diag(D) J(columns)ᵀ (row, output, column, output)."""
    total = torch.zeros((), dtype=torch.float64)
    for name, rows in left.items():
        columns = right[name] if diagonal is None else right[name] * diagonal[name]
        total = total + torch.tensordot(_flat(rows), _flat(columns), ([2], [2]))
    return total


def _flat(rows: Tensor) -> Tensor:
    return rows.reshape(*rows.shape[:2], -1)

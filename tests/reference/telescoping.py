"""Telescoping by explicit Jacobians: short, slow, float64, on the original module, without tscope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Reference:
    actual: Tensor  # (step, example, output)
    telescoped: Tensor  # (step, example, output)
    lazy: Tensor  # (step, example, output)
    parameters: dict[str, Tensor]  # J^(p)Δθ^(p) of each parameter (step, example, output)
    held: Tensor  # f(θ_t, b_{t−1}) (step, example, output)


def outputs(module: torch.nn.Module, theta: Named, buffers: Named, inputs: Sequence[Tensor]) -> Tensor:
    returned = functional_call(module, ({**theta}, {**buffers}), tuple(inputs))
    return returned.reshape(len(inputs[0]), -1)


def jacobian(
    module: torch.nn.Module, theta: Named, buffers: Named, inputs: Sequence[Tensor]
) -> dict[str, Tensor]:
    """One dense (example, output, parameter) matrix for each parameter."""
    dense = jacrev(lambda point: outputs(module, point, buffers, inputs))(dict(theta))
    return {name: part.flatten(2) for name, part in dense.items()}


def apply(jacobians: Named, change: Named) -> dict[str, Tensor]:
    return {name: jacobians[name] @ change[name].flatten() for name in jacobians}


def reference(
    module: torch.nn.Module, thetas: Sequence[Named], buffers: Sequence[Named], inputs: Sequence[Tensor]
) -> Reference:
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention has no batched derivative
    with sdpa_kernel(SDPBackend.MATH):
        return _reference(module.double().eval(), thetas, buffers, inputs)


def _reference(
    module: torch.nn.Module, thetas: Sequence[Named], buffers: Sequence[Named], inputs: Sequence[Tensor]
) -> Reference:
    wide = [{name: value.double() for name, value in theta.items()} for theta in thetas]
    held = [{n: v.double() if v.is_floating_point() else v for n, v in b.items()} for b in buffers]
    inputs = [value.double() if value.is_floating_point() else value for value in inputs]
    first = jacobian(module, wide[0], held[0], inputs)
    actual = [outputs(module, wide[0], held[0], inputs)]
    telescoped, lazy, drifted = [actual[0]], [actual[0]], [actual[0]]
    parts: dict[str, list[Tensor]] = {name: [torch.zeros_like(actual[0])] for name in wide[0]}
    for t in range(1, len(wide)):
        change = {name: wide[t][name] - wide[t - 1][name] for name in wide[t]}
        terms = apply(jacobian(module, wide[t - 1], held[t - 1], inputs), change)
        for name, term in terms.items():
            parts[name].append(term)
        actual.append(outputs(module, wide[t], held[t], inputs))
        telescoped.append(telescoped[-1] + sum(terms.values()))
        since = {name: wide[t][name] - wide[0][name] for name in wide[t]}
        lazy.append(actual[0] + sum(apply(first, since).values()))
        drifted.append(outputs(module, wide[t], held[t - 1], inputs))
    return Reference(
        torch.stack(actual),
        torch.stack(telescoped),
        torch.stack(lazy),
        {name: torch.stack(terms) for name, terms in parts.items()},
        torch.stack(drifted),
    )

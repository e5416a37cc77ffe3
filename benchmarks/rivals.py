"""Other ways to a kernel block: torch.func, curvlinops, neural-tangents, the projections of TRAK and dattri.

Each is given the columns' examples first and then some rows; what it costs is the one and the other.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from benchmarks.networks import Network

Rows = Callable[[Tensor], Tensor]
Prepare = Callable[[Network, Tensor, dict[str, Tensor] | None], Rows]

CHUNK = 400 << 20  # bytes of a Jacobian at a time
DIRECTIONS = 1024  # of a random projection


@dataclass(frozen=True)
class Rival:
    """One other way.

    Attributes:
        needs: The module that has to be installed.
        prepare: From a network and the columns' inputs, a function from rows' inputs to K
            (row·output, column·output).
        by_column: Whether each row costs as much as there are columns.
        compiles: Whether the first call for a shape is slow.
    """

    name: str
    needs: str
    prepare: Prepare
    by_column: bool = False
    compiles: bool = False

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


def jacobians(module: nn.Module, inputs: Tensor, chunk: int) -> Tensor:
    """J of the inputs by `vmap(jacrev)`, `chunk` examples at a time: (example·output, parameter)."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def output(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(module, values, (x[None],))[0]

    found = []
    for part in inputs.split(chunk):
        J = vmap(jacrev(output), in_dims=(None, 0))(parameters, part)
        found.append(torch.cat([value.flatten(2).flatten(0, 1) for value in J.values()], 1))
    return torch.cat(found) if len(found) > 1 else found[0]


def chunk_for(network: Network, inputs: Tensor) -> int:
    return max(1, CHUNK // (network.size * network.outputs * inputs.element_size() * (1 + 1)))


def flat(D: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in D.values()])


def jacrev_block(network: Network, columns: Tensor, D: dict[str, Tensor] | None) -> Rows:
    """Chunks of rows against the columns' Jacobian, which is kept."""
    chunk = chunk_for(network, network.draw(1))
    right = jacobians(network.module, columns, chunk)
    if D is not None:
        right *= flat(D)

    def rows(inputs: Tensor) -> Tensor:
        return torch.cat([jacobians(network.module, part, chunk) @ right.T for part in inputs.split(chunk)])

    return rows


def curvlinops_block(network: Network, columns: Tensor, D: dict[str, Tensor] | None) -> Rows:
    """J (D (Jᵀ I)) by Jacobian operators, all columns at once."""
    from curvlinops import JacobianLinearOperator

    parameters = list(network.module.parameters())

    def operator(inputs: Tensor) -> JacobianLinearOperator:
        data = [(part, torch.zeros(len(part), network.outputs)) for part in inputs.split(100)]
        return JacobianLinearOperator(network.module, parameters, data, check_deterministic=False)

    size = len(columns) * network.outputs
    right = operator(columns).adjoint() @ torch.eye(size)
    if D is not None:
        right *= flat(D)[:, None]
    return lambda inputs: operator(inputs) @ right


def neural_tangents_block(network: Network, columns: Tensor, D: dict[str, Tensor] | None) -> Rows:
    """The same perceptron in jax, by contracted Jacobians.

    neural-tangents 0.6.5 is imported with jax 0.4.26 and tf2jax 0.3.6. Its structured derivatives [Novak22]
    fail with it: they use what jax has removed since, and an older jax does not go with numpy 2.
    """
    import jax.numpy as jnp

    layers = [layer for layer in network.module if isinstance(layer, nn.Linear)]
    theta = [(jnp.asarray(layer.weight.detach()), jnp.asarray(layer.bias.detach())) for layer in layers]
    right = jnp.asarray(columns)
    kernel = _empirical_ntk()

    def rows(inputs: Tensor) -> Tensor:
        K = np.asarray(kernel(jnp.asarray(inputs), right, theta))  # (row, column, output, output)
        n, m, c, _ = K.shape
        return torch.from_numpy(K.transpose(0, 2, 1, 3).reshape(n * c, m * c).copy())

    return rows


@functools.cache
def _empirical_ntk() -> Callable[..., Any]:
    """The compiled kernel of a perceptron: one for all, as jax compiles anew for each function."""
    import jax
    import neural_tangents as nt

    def forward(parameters: list[tuple[Any, Any]], x: Any) -> Any:
        for k, (weight, bias) in enumerate(parameters):
            x = (jax.nn.relu(x) if k else x) @ weight.T + bias
        return x

    contraction = nt.NtkImplementation.JACOBIAN_CONTRACTION
    found: Callable[..., Any] = jax.jit(
        nt.empirical_ntk_fn(forward, trace_axes=(), vmap_axes=0, implementation=contraction)
    )
    return found


def trak_block(network: Network, columns: Tensor, D: dict[str, Tensor] | None) -> Rows:
    from trak.projectors import BasicProjector, ProjectionType

    projector = BasicProjector(network.size, DIRECTIONS, 0, ProjectionType.rademacher, "cpu")
    return _projected(network, columns, D, lambda J: projector.project(J, 0) / DIRECTIONS**0.5)


def dattri_block(network: Network, columns: Tensor, D: dict[str, Tensor] | None) -> Rows:
    from dattri.func.projection import BasicProjector, ProjectionType

    device = torch.device("cpu")  # unlike TRAK's, this projector scales what it returns
    projector = BasicProjector(network.size, DIRECTIONS, 0, ProjectionType.rademacher, device)
    return _projected(network, columns, D, lambda J: projector.project(J, 0))


def _projected(
    network: Network, columns: Tensor, D: dict[str, Tensor] | None, project: Callable[[Tensor], Tensor]
) -> Rows:
    """Per-example gradients by `vmap(jacrev)`, projected; the inner products of what is left."""
    chunk = chunk_for(network, network.draw(1))
    weights = None if D is None else flat(D).sqrt()

    def sketch(inputs: Tensor) -> Tensor:
        J = jacobians(network.module, inputs, chunk)
        return project(J if weights is None else J * weights)

    right = sketch(columns)
    return lambda inputs: sketch(inputs) @ right.T


JACREV = Rival("vmap(jacrev)", "torch", jacrev_block)
CURVLINOPS = Rival("curvlinops", "curvlinops", curvlinops_block, by_column=True)
NEURAL_TANGENTS = Rival("neural-tangents", "neural_tangents", neural_tangents_block, compiles=True)
RIVALS = (
    JACREV,
    CURVLINOPS,
    Rival("TRAK", "trak", trak_block),
    Rival("dattri", "dattri", dattri_block),
)

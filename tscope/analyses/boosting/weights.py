"""Norms of kernel weights ‖k_t(x, ·)‖ of examples, of a network and of trees.

    network:  k_t(x, x_i) = J_t(x) J_t(x_i)ᵀ over the training examples, J_t = ∂f/∂θ at θ_t
    trees:    k_t(x, x_i) = 1{x and x_i in the same leaf of tree t} w_i / (Σ w + λ)

The learning rate is left out of both: a constant cancels where norms are normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import AnalysisError

from tscope.analyses.kernel.options import Options as KernelOptions
from tscope.analyses.kernel.setup import Setup, prepare
from tscope.analyses.kernel.states import KernelState, plain_states, preconditioned_states
from tscope.analyses.kernel.statistics import weight_norms
from tscope.boosting.evaluation import Evaluation
from tscope.boosting.kernel import tree_kernel
from tscope.kernels import Jacobian
from tscope.program import evaluate
from tscope.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from tscope.analyses.boosting.options import Options
    from tscope.analyses.metric import Watch
    from tscope.boosting import Ensemble
    from tscope.trace import Trace

    Values = NDArray[np.float64]

_ROWS = 25
_TRAIN = 1024
_PASS = 1024  # examples in one forward pass


@dataclass(frozen=True, eq=False)
class Norms:
    """The norms of the examples' weights.

    Attributes:
        step: Of each row, the state before the next step or tree.
        train: (step, train).
        test: (step, test).
    """

    step: NDArray[np.int64]
    train: Values
    test: Values


def open_network(trace: Trace, options: Options, test: int, train: int) -> Setup:
    """Open the network for its kernels, at rows that are evenly spaced and each have a step after them.

    Args:
        trace: The run.
        options: Of the metric.
        test: How many test examples there are; all are taken.
        train: How many training examples there are.
    """
    last = trace.rows - 2
    if last < 0:
        raise AnalysisError("the run holds no training step, so no kernel that anything was learnt with")
    if options.every is None:
        rows = np.unique(np.linspace(0, last, _ROWS).round().astype(int))
    else:
        rows = np.arange(0, last + 1, options.every)
    chosen = KernelOptions(
        at=",".join(str(int(step)) for step in trace.steps[rows]),
        preconditioned=options.preconditioned,
        train=min(_TRAIN, train) if options.train is None else options.train,
        test=test,
        probe=options.probe,
        seed=options.seed,
        layers=False,
        dtype=options.dtype,
    )
    return prepare(trace, chosen)


def network_norms(trace: Trace, setup: Setup, options: Options, watch: Watch) -> Norms:
    """Return the norms of the network's weights at the rows of the setup; exact blocks, a strip at a time.

    Raises:
        AnalysisError: The run is not finite, or moves no parameter, or not even one row of a block fits.
    """
    if setup.test is None:
        raise AnalysisError("there are no test examples")
    states = (
        preconditioned_states(trace, setup.program, setup.rows, setup.dtype)
        if options.preconditioned
        else plain_states(trace, setup.rows, setup.dtype)
    )
    found: list[list[Values]] = []
    for state in states:
        jacobian = _jacobian(setup, state, options)
        found.append(
            [
                _strips(jacobian, examples.inputs, setup, state, options)
                for examples in (setup.train, setup.test)
            ]
        )
        watch.progress(len(found), len(setup.rows))
    steps = trace.steps[setup.rows]
    finite = [all(np.isfinite(part).all() for part in row) for row in found]
    if len(found) < len(steps) or not all(finite):
        stopped = steps[finite.index(False) if False in finite else len(found)]
        raise AnalysisError(f"the network is not finite at step {stopped}: there is nothing to compare")
    train, test = (np.stack(parts) for parts in zip(*found, strict=True))
    return Norms(steps, train, test)


def network_outputs(trace: Trace, setup: Setup) -> Values:
    """Return f(x) of the test examples (test, output) at the last row, in float64 of the setup's dtype.

    Raises:
        AnalysisError: They are not finite.
    """
    if setup.test is None:
        raise AnalysisError("there are no test examples")
    _, theta, buffers = next(Replay(trace, dtype=setup.dtype).at([trace.rows - 1]))
    found = evaluate(setup.program, setup.functional, theta, buffers, setup.test.inputs, _PASS)
    if not bool(torch.isfinite(found).all()):
        raise AnalysisError(
            "the network's predictions are not finite at its last step: there is no error to compare"
        )
    outputs: Values = found.double().numpy()
    return outputs


def tree_norms(ensemble: Ensemble, train: NDArray[Any], test: NDArray[Any]) -> Norms:
    """Return the norms of the trees' weights √(Σ w²)/(Σ w + λ), of each example's leaf in each tree.

    A leaf that no training example fell into, or none of the tree's subsample, has none.

    Args:
        ensemble: The trees.
        train: (train, feature).
        test: (test, feature).
    """
    leaves = [ensemble.nodes.leaves(inputs) for inputs in (train, test)]
    points = Evaluation(ensemble, np.concatenate([ensemble.leaf, *leaves], axis=1))
    norms = np.stack([tree_kernel(points, tree).norms for tree in range(ensemble.trees)])
    _, mine, theirs = np.split(norms, [ensemble.examples, ensemble.examples + len(train)], axis=1)
    return Norms(np.arange(ensemble.trees), mine, theirs)


def _jacobian(setup: Setup, state: KernelState, options: Options) -> Jacobian:
    wrt = [name for name in setup.program.parameters if name in state.names]
    if not wrt:
        raise AnalysisError("training moves none of the parameters that the model uses: its kernel is zero")
    limit = int(options.max_memory_mb * 1e6 / 2)
    return Jacobian(setup.program, setup.functional, state.theta, state.buffers, wrt=wrt, memory=limit)


def _strips(
    jacobian: Jacobian, inputs: Sequence[Tensor], setup: Setup, state: KernelState, options: Options
) -> Values:
    """Return ‖k(x, ·)‖ of examples (example,), by strips of the block that fit half of the memory."""
    # A strip in its own dtype, its float64 copy, and the squares of that.
    row = setup.outputs**2 * setup.train.count * 24
    height = int(options.max_memory_mb * 1e6 / 2 / row)
    if height < 1:
        raise AnalysisError(
            f"a row of the kernel over {setup.train.count} training examples with {setup.outputs} outputs "
            f"needs {row / 1e6:.3g} MB, and {options.max_memory_mb / 2:g} MB are allowed for it "
            "(`--max-memory MB`); take fewer: `--train N`"
        )
    norms = [
        weight_norms(
            jacobian.blocks(
                [part[start : start + height] for part in inputs],
                setup.train.inputs,
                [jacobian.names],
                state.preconditioner,
            )
        )
        for start in range(0, len(inputs[0]), height)
    ]
    found: Values = torch.cat(norms).double().numpy()
    return found

"""The kernel of each tree, k_t(x, x_i) = 1{same leaf} w_i / (Σw + λ): what a tree lets label i do to x.

A tree's kernel is the counterpart of K_t = J_t J_tᵀ for a network's step [Jeffares24], and as there the
kernel at step t is the one that the next step follows: that of tree t + 1. With weights or drawn rows it is
not symmetric. On the training examples it has rank one within each leaf, so that its eigenvalues are
Σw/(Σw + λ), one for each leaf. All numbers are exact, from leaves, without a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import AnalysisError, UsageError, clean
from tscope_format.results import Array, Result

from tscope.analyses.kernel.notes import of_labels
from tscope.analyses.kernel.options import Options
from tscope.boosting.evaluation import Evaluation, evaluation, held_out, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tscope.analyses.metric import Watch
    from tscope.boosting.ensemble import Ensemble
    from tscope.probes import ProbeSet
    from tscope.trace import Trace

    Values = NDArray[np.float64]

_DIMS = ("matrix_step", "point", "output", "point_column", "output_column")
_NETWORKS = (
    "preconditioned",
    "train",
    "test",
    "probe_output",
    "layers",
    "loss",
    "labels",
    "dtype",
)


@dataclass(frozen=True, eq=False)
class TreeKernel:
    """The kernel of one tree.

    Attributes:
        leaf: The leaf of each point (point), training examples first.
        weights: w (train).
        total: Σw + λ of each point's leaf (point).
        squares: Σw² of each point's leaf (point).
        spectrum: The eigenvalues on the training examples that are not 0, decreasing.
    """

    leaf: NDArray[np.int32]
    weights: Values
    total: Values
    squares: Values
    spectrum: Values

    @property
    def matrix(self) -> Values:
        """k(x, x_i) of the training examples (train, train)."""
        n = len(self.weights)
        same = self.leaf[:n, None] == self.leaf[None, :n]
        return np.where(same, _over(self.weights[None].repeat(n, 0), self.total[:n, None]), 0.0)

    @property
    def norms(self) -> Values:
        """‖k(x, ·)‖ of each point (point)."""
        return _over(np.sqrt(self.squares), self.total)


def run(trace: Trace, options: Options, watch: Watch) -> Result:
    """Compute the metric.

    Raises:
        UsageError: An option that only networks have, or a step that is not in the trace.
        AnalysisError: The ensemble's smoother is not exact, or the matrices do not fit.
    """
    given = {name: getattr(options, name) for name in _NETWORKS}
    refuse("kernel", given, Options, "it is read off the leaves, of every example")
    probe = held_out(trace, options.probe)
    points = evaluation(trace, probe)
    last = points.ensemble.trees - 1
    kept = [] if options.matrix is None else _chosen("matrix", options.matrix, last)
    steps = sorted({*_steps(options, last), *kept})
    n, m = points.counts
    _check_memory(n, len(kept), options.max_memory_mb * 1e6)
    matrices: list[Values] = []
    first = before = tree_kernel(points, 0)
    rows: list[dict[str, float]] = []
    spectra = np.zeros((len(steps), options.eigenvalues))
    norms: list[Values] = []
    for place, step in enumerate(steps):
        tree = tree_kernel(points, step)
        since = step - steps[place - 1] if place else 0
        rows.append(_numbers(points.ensemble, tree, first, before, since))
        norms.append(tree.norms)
        if step in kept:
            matrices.append(tree.matrix)
        spectrum = tree.spectrum[: options.eigenvalues]
        spectra[place, : len(spectrum)] = spectrum
        before = tree
        watch.progress(place + 1, len(steps))
    arrays = {"step": Array(("step",), np.array(steps, np.int64))}
    arrays |= {f"{name}_train": Array(("step",), np.array([row[name] for row in rows])) for name in rows[0]}
    arrays["train"] = Array(("train",), np.arange(n, dtype=np.int64))
    if matrices:
        arrays["matrix_step"] = Array(("matrix_step",), np.array(kept, np.int64))
        arrays["kernel"] = Array(_DIMS, np.stack(matrices)[:, :, None, :, None])
    arrays["eigenvalues_train"] = Array(("step", "eigenvalue"), spectra)
    for part, places in (("train", slice(0, n)), ("test", slice(n, None))):
        if part == "train" or m:
            each = np.stack(norms)[:, places]
            arrays[f"weight_norm_{part}"] = Array(("step", part), each)
            arrays[f"weight_norm_mean_{part}"] = Array(("step",), each.mean(1))
            arrays[f"weight_norm_max_{part}"] = Array(("step",), each.max(1))
    return _result(arrays, points, steps, probe)


def _result(arrays: dict[str, Array], points: Evaluation, steps: list[int], probe: ProbeSet | None) -> Result:
    n, m = points.counts
    curves = [name for name, array in arrays.items() if array.dims == ("step",) and name != "step"]
    scalars: dict[str, float | int | str | bool | None] = {
        **{name: float(arrays[name].data[-1]) for name in curves},
        "form": "leaves",
        "examples_train": n,
        "examples_test": m,
        "outputs": points.ensemble.target.shape[1],
        "steps": steps[-1],
        "preconditioned": False,
        "probe": None if probe is None else clean(probe.name),
        "stopped": None,
    }
    notes = [
        "an ensemble of trees: the kernel at step t is that of the next tree, and movement is from the "
        "first one's"
    ]
    notes += of_labels("training", points.ensemble.target)
    if not m:
        notes.append("no held-out examples: give some with `--probe FILE.npz`")
    provenance = {"form": "leaves", "layers": [], "dtype": "float64", "rule_of_trees": points.ensemble.rule}
    return Result("kernel", scalars, arrays, provenance, tuple(notes))


def _steps(options: Options, last: int) -> list[int]:
    """Return the steps to look at, the first one always."""
    if options.at is None:
        return sorted({*range(0, last + 1, options.every or 1), last})
    return sorted({0, *_chosen("at", options.at, last)})


def _chosen(name: str, given: str, last: int) -> list[int]:
    """Return the steps that an option names.

    Raises:
        UsageError: There is no tree after one of them.
    """
    steps = sorted({last if step == "last" else int(step) for step in given.split(",")})
    if steps[-1] > last:
        raise UsageError(
            f"{name} {clean(given)} is out of range: the kernel at a step is that of the next tree, and the "
            f"last is at step {last}"
        )
    return steps


def _check_memory(examples: int, matrices: int, limit: float) -> None:
    size = 8.0 * matrices * examples**2
    if size > limit:
        raise AnalysisError(
            f"{matrices} matrices of {examples} training examples take {size / 1e6:.3g} MB of the "
            f"{limit / 1e6:.3g} MB allowed (`--max-memory MB`); keep fewer, or leave out `--matrix`"
        )


def tree_kernel(points: Evaluation, tree: int) -> TreeKernel:
    """Return the kernel of a tree, the first of which is number 0; O(points)."""
    ensemble, leaf = points.ensemble, points.leaf[tree]
    weights = ensemble.weights(tree)
    own, count = ensemble.leaf[tree], int(leaf.max()) + 1
    inside = np.bincount(own, weights, count).astype(np.float64)
    total = inside + ensemble.penalty
    squares = np.bincount(own, np.square(weights), count)
    spectrum = np.sort(_over(inside, total)[inside > 0])[::-1]
    return TreeKernel(leaf, weights, total[leaf], squares[leaf], spectrum)


def _numbers(
    ensemble: Ensemble, tree: TreeKernel, first: TreeKernel, before: TreeKernel, since: int
) -> dict[str, float]:
    """Return the numbers of one kernel on the training examples, named as a network's.

    Args:
        ensemble: The ensemble.
        tree: The kernel.
        first: That of the first tree.
        before: That of the row before.
        since: Steps since then; 0 where this is the first row.
    """
    n, y = ensemble.examples, ensemble.target
    norm, start, former = (float(np.sqrt(_inner(one, one, n))) for one in (tree, first, before))
    overlap, last = _inner(tree, first, n), _inner(tree, before, n)
    moved = max(0.0, norm**2 - 2 * overlap + start**2)
    trace = float(tree.spectrum.sum())
    # Taking the mean off equal labels would leave its rounding.
    centred = np.zeros_like(y) if (y == y[0]).all() else y - y.mean(0)
    p = tree.spectrum / trace if trace > 0 else tree.spectrum
    return {
        "trace": trace,
        "frobenius": norm,
        "effective_rank": float(np.exp(-(p * np.log(p)).sum())) if len(p) else float("nan"),
        "participation_ratio": _share(trace**2, norm**2),
        "alignment": _alignment(y, tree, norm),
        "alignment_centered": _alignment(centred, tree, _centred_norm(tree, norm, n)),
        "distance": 1 - _share(overlap, norm * start),
        "movement": _share(float(np.sqrt(moved)), start),
        "velocity": (1 - _share(last, norm * former)) / since if since else float("nan"),
    }


def _inner(one: TreeKernel, other: TreeKernel, n: int) -> float:
    """Return ⟨K, K'⟩ of two trees on the training examples.

    In a cell, where both leaves are the same, K[i, j]K'[i, j] = w_j w'_j / (Σw Σw'): the number of its
    examples times the sum over them.
    """
    _, cell = np.unique(np.stack([one.leaf[:n], other.leaf[:n]]), axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    products = np.bincount(cell, one.weights * other.weights)
    rows = np.bincount(cell, _over(np.ones(n), one.total[:n] * other.total[:n]))
    return float(products @ rows)


def _centred_norm(tree: TreeKernel, norm: float, n: int) -> float:
    """Return ‖HKH‖_F from ‖K‖_F and the means of K's rows and columns; H takes off means over examples."""
    leaf = tree.leaf[:n]
    rows = _over(np.bincount(leaf, tree.weights).astype(np.float64)[leaf], tree.total[:n]) / n
    columns = _over(np.bincount(leaf).astype(np.float64)[leaf] * tree.weights, tree.total[:n]) / n
    means = n * float(rows @ rows + columns @ columns) - (n * float(rows.mean())) ** 2
    # Where K is the mean over all examples nothing is left but rounding of n² terms.
    left = norm**2 - means
    return float(np.sqrt(left)) if left > n * np.finfo(np.float64).eps * norm**2 else 0.0


def _alignment(labels: Values, tree: TreeKernel, norm: float) -> float:
    """Return Σ_c y_cᵀKy_c / (norm ‖y‖²); NaN where the labels are 0. K sums each leaf's labels twice.

    Of labels from which means were taken off, yᵀKy is yᵀHKHy, and `norm` that of HKH.
    """
    leaf = tree.leaf[: len(labels)]
    total = np.zeros(int(leaf.max()) + 1)
    total[leaf] = tree.total[: len(labels)]
    agreed = 0.0
    for y in labels.T:
        sums = np.bincount(leaf, y) * np.bincount(leaf, tree.weights * y)
        agreed += float(_over(sums.astype(np.float64), total).sum())
    return _share(agreed, norm * float(np.square(labels).sum()))


def _over(part: Values, whole: Values) -> Values:
    """Return part / whole, and 0 in leaves that no weighted example is in."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")

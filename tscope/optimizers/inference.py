"""The loss and labels of a run, from its outputs and their gradients alone (math.md §3).

If ∂L/∂f = c·(μ(f) − y), then y = μ(f) − ∂L/∂f / c is the same at every visit of an example, and that fixes c.
Of softmax and the logistic function, labels that are classes fix it at a single visit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.optimizers.batches import Batches, counted
from tscope.optimizers.losses import KINDS, Kind, Loss, Reduction, mean, reduction_weights
from tscope.optimizers.positions import infer_positions
from tscope.optimizers.rounding import half_unit, spread_limit

if TYPE_CHECKING:
    from tscope.trace import Trace

# The factor and the kind are fitted on the visits of so many examples, and as long as so many values came.
_FITTED_EXAMPLES = 4096
_FITTED_VALUES = 1 << 23
# A gradient that moves by less than this of its size does not fix the factor.
_LEAST_MOVEMENT = 1e-3
# Factors are small fractions: 2/C, 1, 1/4 of an accumulation over four micro-batches.
_LARGEST_DENOMINATOR = 128
# Another kind of loss must fit worse by this.
_CLEARLY = 10.0


@dataclass(frozen=True, eq=False)
class _Visits:
    """Some visits of examples: which (visit,), f and ∂L/∂f (visit, output), and the sizes of batches."""

    examples: Tensor
    output: Tensor
    gradient: Tensor
    sizes: tuple[int, ...]  # of every visit's micro-batch
    half: float  # half a unit in the last place of recorded numbers


@dataclass(frozen=True)
class _Fit:
    kind: Kind
    reduction: Reduction
    inverse: float  # 1/factor
    spread: float
    limit: float  # what rounding of the recorded numbers may make of the spread
    classes: bool  # labels were taken to be classes


def infer_loss(trace: Trace, *, kind: str | None = None, labels: Tensor | None = None) -> Loss:
    """Return the loss and labels that the run was trained with.

    One pass over the recorded outputs and gradients; no model is evaluated.

    Args:
        trace: The run, at the root that is analysed.
        kind: mse, cross_entropy or bce; None tries all.
        labels: (example,) classes or values, or (example, output) values, by rows of `examples/`; None infers
            them too.

    Raises:
        UsageError: An unknown kind, or labels that do not fit the outputs.
        AnalysisError: None fits, several fit, or the examples were visited too seldom to tell.
        MissingDataError: The trace holds no outputs, gradients or identities.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown loss {clean(kind)!r}; there is {', '.join(KINDS)}")
    batches = Batches(trace, torch.float64)
    kinds = [name for name in KINDS if kind in (None, name) and not _needless(name, batches.outputs)]
    if not kinds:
        raise UsageError(f"--loss {kind}: the model has one output; a loss of one is mse or bce")
    known = None if labels is None else _as_values(labels, batches)
    visits = _some(trace, batches)
    fits = [
        fit
        for name in kinds
        for reduction in _reductions(visits.sizes)
        for fit in _fits(visits, name, reduction, known)
    ]
    _refuse_positions(trace, batches, fits)
    best = _best(fits, given=known is not None)
    factor = _rounded(best, batches.outputs, 1e-9 if batches.gradient_dtype == "float64" else 1e-5)
    loss = _labelled(trace, batches, best, factor, known)
    if not loss.spread <= best.limit:
        raise _misfit(loss.kind, loss.spread, best.limit, given=known is not None)
    return loss


def _needless(kind: Kind, outputs: int) -> bool:
    return kind == "cross_entropy" and outputs == 1


def _as_values(labels: Tensor, batches: Batches) -> Tensor:
    """Return labels as (example, output) float64, classes as unit vectors where there are several outputs."""
    shape = (batches.examples, batches.outputs)
    if len(labels) != batches.examples:
        raise UsageError(f"{len(labels)} labels were given for {batches.examples} examples")
    flat = labels.reshape(len(labels), -1)
    if not flat.is_floating_point() and flat.shape[1] == 1 < batches.outputs:
        if int(flat.min()) < 0 or int(flat.max()) >= batches.outputs:
            raise UsageError(
                f"labels go from {int(flat.min())} to {int(flat.max())}, and the model has {batches.outputs} "
                "outputs"
            )
        return torch.nn.functional.one_hot(flat[:, 0].long(), batches.outputs).double()
    if tuple(flat.shape) != shape:
        raise UsageError(f"labels of the shape {tuple(labels.shape)} were given for outputs of {shape}")
    return flat.double()


def _some(trace: Trace, batches: Batches) -> _Visits:
    """Return the visits that the kind and factor are fitted on."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    sizes: list[int] = []
    values = 0
    for batch in counted(trace, batches):
        chosen = batch.examples < _FITTED_EXAMPLES
        parts.append((batch.examples[chosen], batch.output[chosen], batch.output_grad[chosen]))
        per_slot = [size for size in batch.sizes for _ in range(size)]
        sizes += [per_slot[slot] for slot in torch.nonzero(chosen)[:, 0].tolist()]
        values += parts[-1][1].numel()
        if values > _FITTED_VALUES:
            break
    if not values:
        raise MissingDataError(
            f"{clean(trace.path)}: no step has outputs and gradients that are numbers, so the loss cannot "
            "be told"
        )
    examples, outputs, gradients = (torch.cat(part) for part in zip(*parts, strict=True))
    return _Visits(examples, outputs, gradients, tuple(sizes), half_unit(batches.gradient_dtype))


def _reductions(sizes: Sequence[int]) -> tuple[Reduction, ...]:
    return ("mean",) if len(set(sizes)) == 1 else ("mean", "sum")


def _fits(visits: _Visits, kind: Kind, reduction: Reduction, known: Tensor | None) -> Iterator[_Fit]:
    """Yield the factors at which ∂L/∂f = c(μ(f) − y) fits best, for each way of having the labels."""
    counts = torch.tensor(visits.sizes, dtype=torch.float64)
    u = visits.gradient * (counts[:, None] if reduction == "mean" else 1.0)
    mu = mean(kind, visits.output)
    size = float(u.square().sum())
    if size == 0:
        return
    if known is not None:
        yield _fit_known(kind, reduction, mu, known[visits.examples], u, visits.half, classes=False)
        return
    if kind != "mse":
        yield _fit_known(kind, reduction, mu, _classes(kind, u), u, visits.half, classes=True)
    moved, shifted = _centred(u, visits.examples), _centred(mu, visits.examples)
    square = float(moved.square().sum())
    if square < _LEAST_MOVEMENT**2 * size:
        return
    inverse = float((moved * shifted).sum()) / square
    off = float((shifted - inverse * moved).square().sum())
    freedom = 1 - len(torch.unique(visits.examples)) / len(visits.examples)
    limit = _limit(visits.half, mu, inverse, size)
    yield _Fit(kind, reduction, inverse, _relative(off / freedom, inverse, size), limit, classes=False)


def _fit_known(
    kind: Kind, reduction: Reduction, mu: Tensor, y: Tensor, u: Tensor, half: float, *, classes: bool
) -> _Fit:
    size = float(u.square().sum())
    inverse = float(((mu - y) * u).sum()) / size
    off = float((mu - y - inverse * u).square().sum())
    limit = _limit(half, mu, inverse, size)
    return _Fit(kind, reduction, inverse, _relative(off, inverse, size), limit, classes)


def _limit(half: float, mu: Tensor, inverse: float, size: float) -> float:
    return spread_limit(half, _relative(float(mu.square().sum()), inverse, size))


def _relative(off: float, inverse: float, size: float) -> float:
    """Return ‖off‖ over ‖u/factor‖, which is the size of μ(f) − y."""
    return math.sqrt(off / size) / abs(inverse) if inverse else math.inf


def _classes(kind: Kind, u: Tensor) -> Tensor:
    """Return the labels if they are classes: only there can the gradient be negative."""
    if kind == "bce":
        return (u < 0).to(u.dtype)
    return torch.nn.functional.one_hot(u.argmin(1), u.shape[1]).to(u.dtype)


def _centred(values: Tensor, examples: Tensor) -> Tensor:
    """Return values (visit, output) less their mean over the visits of the same example."""
    _, place = torch.unique(examples, return_inverse=True)
    count = torch.bincount(place).to(values.dtype)
    # Less those of any one visit first: the mean of nearly equal numbers loses digits.
    first = torch.empty(len(count), values.shape[1], dtype=values.dtype)
    first[place] = values
    shifted = values - first[place]
    sums = torch.zeros_like(first).index_add_(0, place, shifted)
    return shifted - (sums / count[:, None])[place]


def _best(fits: Sequence[_Fit], *, given: bool) -> _Fit:
    """Return the fit of the smallest spread.

    Raises:
        AnalysisError: None is good, or two kinds of loss are.
    """
    if not fits:
        raise AnalysisError(
            "the loss cannot be told from the run: no example was visited twice with another gradient; give "
            "the labels with `--labels FILE.npz` (x as trained on, and y)"
        )
    best = min(fits, key=lambda fit: fit.spread)
    if not best.spread <= best.limit:
        raise _misfit(best.kind, best.spread, best.limit, given=given)
    others = [fit for fit in fits if fit.kind != best.kind and fit.spread <= fit.limit]
    rival = min(others, key=lambda fit: fit.spread, default=None)
    if rival is not None and rival.spread < _CLEARLY * best.spread:
        raise AnalysisError(
            f"both {best.kind} and {rival.kind} fit the recorded gradients (to {best.spread:.2g} and "
            f"{rival.spread:.2g}); name the loss with `--loss`"
        )
    return best


def _refuse_positions(trace: Trace, batches: Batches, fits: Sequence[_Fit]) -> None:
    """Refuse a cross-entropy at each position of a sequence by name, where nothing else fits.

    Raises:
        AnalysisError: The gradients are those of classes at several positions.
    """
    if any(fit.spread <= fit.limit for fit in fits):
        return
    found = infer_positions(trace, (batches.outputs,))
    if found is not None:
        raise AnalysisError(
            f"the loss is a cross-entropy at each of {found.positions.count} positions, over "
            f"{found.positions.classes} classes: label sensitivity is known for one label an example, not "
            "for one at each position of a sequence; train on examples with one label each (the last "
            "position's, for one)"
        )


def _misfit(kind: Kind, spread: float, limit: float, *, given: bool) -> AnalysisError:
    what = "the labels given" if given else "labels that stay the same"
    return AnalysisError(
        f"no loss fits the recorded gradients: with {what}, {kind} comes closest, and is off by "
        f"{spread:.2g} of the residuals ({limit:.1g} is allowed). Known are {', '.join(KINDS)} of the "
        "model's own outputs (logits: no softmax or sigmoid within the model), without weights, with one "
        "label for each input, and inputs that come again as they were (not augmented); if it is one of "
        "them, give it with `--loss` and `--labels FILE.npz`"
    )


def _rounded(fit: _Fit, outputs: int, tolerance: float) -> float:
    """Return the factor, as the simple fraction it must be if it is near one."""
    # What torch divides by besides the batch: mse_loss and binary_cross_entropy by the number of outputs.
    unit = {"mse": 2 / outputs, "cross_entropy": 1.0, "bce": 1 / outputs}[fit.kind]
    found = 1 / fit.inverse / unit
    near = Fraction(found).limit_denominator(_LARGEST_DENOMINATOR)
    return unit * (float(near) if abs(float(near) - found) <= tolerance * abs(found) else found)


def _labelled(trace: Trace, batches: Batches, fit: _Fit, factor: float, known: Tensor | None) -> Loss:
    """Return the loss with the labels of all examples, and its spread over all visits."""
    shape = (batches.examples, batches.outputs)
    first = torch.full(shape, math.nan, dtype=torch.float64)
    sums, squares = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    counts = torch.zeros(batches.examples, dtype=torch.float64)
    weighted, weights = torch.zeros(shape, dtype=torch.float64), torch.zeros_like(counts)
    residual = 0.0
    for batch in counted(trace, batches):
        c = factor * reduction_weights(fit.reduction, batch.sizes, batch.output)
        off = batch.output_grad / c[:, None]
        y = mean(fit.kind, batch.output) - off
        new = torch.isnan(first[batch.examples]).all(1)
        start = _classes(fit.kind, off) if fit.classes else y
        first[batch.examples[new]] = start[new]
        shifted = y - first[batch.examples]
        sums.index_add_(0, batch.examples, shifted)
        squares.index_add_(0, batch.examples, shifted.square())
        counts.index_add_(0, batch.examples, torch.ones(len(y), dtype=torch.float64))
        # Rounding of a visit grows with its outputs: of a run that diverges the first visits know best.
        weight = 1 / (y.square() + off.square()).mean(1).clamp(min=torch.finfo(torch.float64).tiny)
        weighted.index_add_(0, batch.examples, weight[:, None] * shifted)
        weights.index_add_(0, batch.examples, weight)
        residual += float(off.square().sum())
    visited = counts > 0
    # From `first` to the labels: the mean of the visits, unless they are known or classes.
    shift = torch.zeros_like(sums) if fit.classes else weighted / weights.where(visited, 1.0)[:, None]
    shift = (_to_integers(first + shift, visited, fit) if known is None else known) - first
    missed = (squares - 2 * shift * sums + counts[:, None] * shift.square())[visited]
    spread = math.sqrt(max(0.0, float(missed.sum())) / residual) if residual else 0.0
    labels = first + shift
    labels[~visited] = math.nan
    return Loss(fit.kind, factor, fit.reduction, labels, spread, int(counts.sum()))


def _to_integers(labels: Tensor, visited: Tensor, fit: _Fit) -> Tensor:
    """Return labels as integers where all of them are, up to the precision at which they are known."""
    whole = labels.round()
    off = float((labels - whole)[visited].abs().max())
    size = float(labels[visited].square().mean().sqrt())
    return whole if off <= 1e-4 * max(size, 1.0) and not fit.classes else labels

"""Weighted averages of models beside the ensemble of the same weights, and the line between their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from tscope_format.errors import AnalysisError

from tscope.analyses.averaging.members import Member
from tscope.analyses.averaging.scores import Score
from tscope.analyses.averaging.stage import Stage
from tscope.averaging import Curvature, State, mixed

_ROUNDINGS = 100  # of the outputs' size: less is not a difference

Point = dict[str, float]
Weights = tuple[float, ...]


class Blend:
    """Models under the examples; each average is measured once.

    Attributes:
        states: The models, with BatchNorm's statistics for each.
        outputs: f_i (example, output) of each, by the name of the examples.
        scores: Their losses, by the name of the examples; None where they have no labels.
        curvature: Their curvature terms by the name of the examples; None without a common start.
    """

    def __init__(self, stage: Stage, members: Sequence[Member], states: Sequence[State]) -> None:
        self.stage = stage
        self.states = [stage.settled(state) for state in states]
        self.outputs = [stage.outputs(state) for state in self.states]
        for member, outputs in zip(members, self.outputs, strict=True):
            if not all(bool(values.isfinite().all()) for values in outputs.values()):
                raise AnalysisError(f"the outputs of the model at {member.name} are NaN or infinite")
        self.scores: dict[str, list[Score] | None] = {}
        for name in stage.splits:
            found = [stage.score(name, own[name]) for own in self.outputs]
            self.scores[name] = None if None in found else [own for own in found if own is not None]
        self.curvature: dict[str, Curvature] | None = None
        self._origin: State | None = None
        self.points: dict[Weights, Point] = {}

    def linearise(self, origin: State) -> None:
        """Take the curvature terms around a common start."""
        self._origin = self.stage.settled(origin)
        self.curvature = self.stage.curvature(self._origin, self.states, self.outputs)

    def identity(self, weights: Sequence[float]) -> Point:
        """Return how far average − ensemble is from c_w − Σ w_i c_i, with c_w from a pass of its own.

        The largest difference, relative to the largest output: what rounding makes of the identity.
        """
        if self._origin is None or self.curvature is None:
            return {}
        average = self.average(weights)
        outputs = self.stage.outputs(average)
        own = self.stage.curvature(self._origin, [average], [outputs])
        found: Point = {}
        for name, values in outputs.items():
            parts = torch.stack([part[name] for part in self.outputs])
            ensemble = torch.tensordot(torch.tensor(list(weights), dtype=parts.dtype), parts, 1)
            told = own[name].terms[0] - self.curvature[name].members(weights)
            size = float(values.abs().max())
            off = float((values - ensemble - told).abs().max())
            found[f"identity_error_{name}"] = off / size if size else off
        return found

    def point(self, weights: Sequence[float]) -> Point:
        """Return every series of the average with these weights, by the names of the result's arrays."""
        key = tuple(weights)
        if key not in self.points:
            outputs = self.stage.outputs(self.average(key))
            self.points[key] = self._measured(key, outputs)
        return self.points[key]

    def average(self, weights: Sequence[float]) -> State:
        """Return Σ w_i θ_i with BatchNorm's statistics; one of the models bit for bit."""
        if 1.0 in weights:
            return self.states[list(weights).index(1.0)]
        return self.stage.settled(mixed(self.states, weights))

    def excess(self, name: str, weights: Sequence[float]) -> float:
        """Return how far the average's loss is above the line between the models'."""
        point = self.point(weights)
        return point[f"loss_average_{name}"] - point[f"loss_line_{name}"]

    def _measured(self, weights: Weights, outputs: dict[str, Tensor]) -> Point:
        found: Point = {}
        for name, average in outputs.items():
            parts = [own[name] for own in self.outputs]
            ensemble = torch.stack([w * f for w, f in zip(weights, parts, strict=True)]).sum(0)
            scores = self.scores[name]
            if scores is not None:
                found |= self._scored(name, weights, scores, average, ensemble)
            apart = average - ensemble
            found[f"difference_{name}"] = rms(apart)
            if self.curvature is not None:
                rounding = torch.finfo(self.stage.dtype).eps
                found |= _explained(name, self.curvature[name], weights, average, apart, rounding)
        return found

    def _scored(
        self, name: str, weights: Weights, scores: Sequence[Score], average: Tensor, ensemble: Tensor
    ) -> Point:
        found: Point = {}
        for kind, outputs in (("average", average), ("ensemble", ensemble)):
            own = self.stage.score(name, outputs)
            if own is None:
                continue
            found[f"loss_{kind}_{name}"] = own.loss
            if own.accuracy is not None:
                found[f"accuracy_{kind}_{name}"] = own.accuracy
        found[f"loss_line_{name}"] = math.fsum(w * s.loss for w, s in zip(weights, scores, strict=True))
        known = [score.accuracy for score in scores if score.accuracy is not None]
        if len(known) == len(scores):
            found[f"accuracy_line_{name}"] = math.fsum(w * a for w, a in zip(weights, known, strict=True))
        return found


def _explained(
    name: str, curvature: Curvature, weights: Weights, average: Tensor, apart: Tensor, rounding: float
) -> Point:
    """Return the curvature terms of one average, and what of average − ensemble they say."""
    whole = average - curvature.linear(weights)
    members = curvature.members(weights)
    predicted, alone = curvature.predicted(weights), curvature.alone(weights)
    size = float(apart.square().sum())
    # At the models themselves, and of a linear one, the two are one up to rounding: nothing to explain.
    only = max(weights) == 1.0 or rms(apart) <= _ROUNDINGS * rounding * rms(average)
    return {
        f"curvature_average_{name}": rms(whole),
        f"curvature_members_{name}": rms(members),
        f"predicted_{name}": rms(predicted),
        f"explained_{name}": math.nan if only else 1 - float((apart - predicted).square().sum()) / size,
        f"explained_alone_{name}": math.nan if only else 1 - float((apart - alone).square().sum()) / size,
        f"share_average_{name}": math.nan if only else float((whole * apart).sum()) / size,
        f"share_members_{name}": math.nan if only else -float((members * apart).sum()) / size,
    }


def rms(values: Tensor) -> float:
    """Return the root mean square over examples and outputs."""
    return float(values.square().mean().sqrt())

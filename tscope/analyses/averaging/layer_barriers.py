"""Barriers of single layers: one model in which only one layer is averaged with another model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.results import Array

from tscope.averaging import State

if TYPE_CHECKING:
    from torch import Tensor

    from tscope.analyses.averaging.blend import Blend
    from tscope.analyses.metric import Watch

_PLACES = (0.25, 0.5, 0.75, 1.0)


def barriers(blend: Blend, layers: Mapping[str, Sequence[str]], watch: Watch) -> dict[str, Array]:
    """Return the barriers of each layer of two models, with either as the rest of the network.

    With θ_base and only layer l at s·θ_other^l + (1 − s)·θ_base^l, as in [Adilova24],

        barrier_l = max_s [L(s) − ((1 − s) L(0) + s L(1))],    rise_l = L(½) − L(0)

    over s = 0, ¼, ½, ¾, 1. Four evaluations a layer and base.

    Returns:
        `layer_barrier_<set>` and `layer_rise_<set>` (base, layer).
    """
    known = {name: scores for name, scores in blend.scores.items() if scores is not None}
    names = list(known)
    found = {
        f"layer_{what}_{name}": np.zeros((2, len(layers))) for what in ("barrier", "rise") for name in names
    }
    for base in range(2):
        own, other = blend.states[base], blend.states[1 - base]
        for place, (layer, members) in enumerate(layers.items()):
            watch.progress(base * len(layers) + place, 2 * len(layers))
            losses = {name: [scores[base].loss] for name, scores in known.items()}
            for share in _PLACES:
                state = _with_layer(own, other, layer, members, share)
                outputs = blend.stage.outputs(blend.stage.settled(state))
                for name in names:
                    scored = blend.stage.score(name, outputs[name])
                    losses[name].append(np.nan if scored is None else scored.loss)
            for name, values in losses.items():
                line = np.interp((0.0, *_PLACES), (0.0, 1.0), (values[0], values[-1]))
                found[f"layer_barrier_{name}"][base, place] = float((values - line).max())
                found[f"layer_rise_{name}"][base, place] = values[1 + _PLACES.index(0.5)] - values[0]
    return {name: Array(("base", "layer"), values) for name, values in found.items()}


def _with_layer(own: State, other: State, layer: str, members: Sequence[str], share: float) -> State:
    """Return a model in which one layer's parameters and buffers are mixed with another's."""
    theta, buffers = dict(own.theta), dict(own.buffers)
    for name in members:
        theta[name] = _between(own.theta[name], other.theta[name], share)
    for name in buffers:
        if name.rpartition(".")[0] == layer:
            buffers[name] = _between(own.buffers[name], other.buffers[name], share)
    return State(theta, buffers)


def _between(a: Tensor, b: Tensor, share: float) -> Tensor:
    if not a.is_floating_point():
        return a
    return b if share == 1.0 else a * (1 - share) + b * share

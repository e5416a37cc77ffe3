"""Where an ensemble's smoother is followed: the training examples, then those of a probe set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import MissingDataError, UsageError, clean

from tscope.analyses.telescoping import Options as ProbeChoice
from tscope.analyses.telescoping import choose_probe
from tscope.boosting.ensemble import Ensemble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tscope.probes import ProbeSet
    from tscope.trace import Trace


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An ensemble and the points at which it is looked at.

    Attributes:
        ensemble: The ensemble.
        leaf: The leaf of each point (tree, point), the training examples first.
    """

    ensemble: Ensemble
    leaf: NDArray[np.int32]

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of training and of held-out examples."""
        n = self.ensemble.examples
        return n, self.leaf.shape[1] - n


def held_out(trace: Trace, name: str | None) -> ProbeSet | None:
    """Return the held-out examples: a probe set by name or file, or the first that was not trained on.

    Returns:
        None where none is named and there is none.

    Raises:
        UsageError: The named one is neither a probe set of the trace nor a good file.
    """
    try:
        probe = choose_probe(trace, ProbeChoice(probe=name))
    except MissingDataError:
        return None
    return None if name is None and probe.in_sample else probe


def evaluation(trace: Trace, probe: ProbeSet | None, places: NDArray[np.intp] | None = None) -> Evaluation:
    """Open an ensemble for evaluation.

    Args:
        trace: A trace of trees.
        probe: The held-out examples; None for the training examples alone.
        places: Take only these of the held-out examples.

    Raises:
        TraceError: The ensemble is damaged.
        AnalysisError: Its smoother is not exact.
    """
    ensemble = Ensemble.read(trace)
    if probe is None:
        return Evaluation(ensemble, ensemble.leaf)
    # Found anew rather than read: the set may have come after the run.
    held = ensemble.nodes.leaves(probe.inputs[0] if places is None else probe.inputs[0][places])
    return Evaluation(ensemble, np.concatenate([ensemble.leaf, held], axis=1))


def refuse(metric: str, given: Mapping[str, Any], defaults: Any, why: str) -> None:
    """Refuse options that have no meaning for trees.

    Args:
        metric: The metric.
        given: Options by name.
        defaults: An object that has their default values.
        why: What is different.

    Raises:
        UsageError: One of them is not at its default.
    """
    asked = [name for name, value in given.items() if value != getattr(defaults, name)]
    if asked:
        raise UsageError(f"{metric} of an ensemble of trees takes no {', '.join(map(clean, asked))}: {why}")

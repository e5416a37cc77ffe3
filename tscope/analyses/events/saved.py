"""Curves that other metrics saved in a trace, from which events are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import TraceError, clean
from tscope_format.results import list_results, load_result

from tscope.analyses.events.onsets import Fit
from tscope.analyses.events.peaks import jump, peak

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.analyses.events.event import Event, Values
    from tscope.trace import Trace


class Saved:
    """The newest saved result of each metric for one root.

    Args:
        trace: The run.
        sure: The least confidence of an event.

    Attributes:
        used: The ids of the results that were looked at, by metric.
        problems: Why a result could not be read.
    """

    def __init__(self, trace: Trace, sure: float) -> None:
        self._trace, self._sure = trace, sure
        self._newest = {info.metric: info.id for info in list_results(trace.path) if info.root == trace.name}
        self.used: dict[str, str] = {}
        self.problems: list[str] = []

    def has(self, metric: str) -> bool:
        """Whether there is a result of a metric."""
        return metric in self._newest

    def peaks(self) -> list[Event] | None:
        """Return the peaks of effective parameters; None where no result tells of them."""
        names = [f"p_{part}{of}" for part in ("train", "test") for of in ("", "_se")]
        result = self._read("effective-params", names)
        if result is None:
            return None
        found = []
        for part, title in (("train", "training"), ("test", "held-out")):
            p = _series(result, f"p_{part}")
            if p is not None:
                error = _series(result, f"p_{part}_se")
                steps = result.arrays["step"].data.astype(np.int64)
                found.append(peak(steps, p, np.zeros(len(p)) if error is None else error, title, self._sure))
        return [event for event in found if event is not None]

    def jumps(self) -> list[Event] | None:
        """Return the jump of the kernel's alignment with the labels; None where no result tells of it.

        The labels are those of the training examples; of a kernel that was estimated from sketches, which is
        that of its probe set, those of the probe set.
        """
        result = self._read("kernel", ["alignment_train", "alignment_test"])
        if result is None:
            return None
        own, of = ("test", "probe set's") if result.scalars.get("form") == "sketch" else ("train", "training")
        alignment = _series(result, f"alignment_{own}")
        if alignment is None:
            return None
        found = jump(result.arrays["step"].data.astype(np.int64), alignment, self._sure, of)
        return [] if found is None else [found]

    def held_out(self) -> Fit | None:
        """Return the accuracy of a telescoping result's probe set, if that is held-out and has labels."""
        result = self._read("telescoping", ["accuracy_actual"])
        accuracy = None if result is None else _series(result, "accuracy_actual")
        if result is None or accuracy is None or len(accuracy) < 2:
            return None
        probe = result.provenance.get("probe")
        known = probe if isinstance(probe, dict) else {}
        if known.get("in_sample"):
            return None
        source = f"{clean(result.scalars.get('probe'))} in the telescoping result"
        examples = max(1, int(known.get("examples") or 1))
        return Fit(result.arrays["step"].data.astype(np.int64), accuracy, examples, "accuracy", source)

    def _read(self, metric: str, names: list[str]) -> Result | None:
        if metric not in self._newest:
            return None
        # Also of one that cannot be read, which another search would not read either.
        self.used[metric] = self._newest[metric]
        try:
            result = load_result(self._trace.path, metric, self._newest[metric], arrays=["step", *names])
        except TraceError as error:
            self.problems.append(f"the saved {metric} result cannot be read: {clean(error)}")
            return None
        if "step" not in result.arrays:
            self.problems.append(f"the saved {metric} result has no steps")
            return None
        return result


def _series(result: Result, name: str) -> Values | None:
    found = result.arrays.get(name)
    if found is None or found.dims != ("step",) or len(found.data) != len(result.arrays["step"].data):
        return None
    return np.asarray(found.data, dtype=np.float64)

"""Everything that the view of averages shows of one trace, read together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tscope_tui.data import averaging, gradients
from tscope_tui.data.averaging import Along, Average
from tscope_tui.data.forks import Family, Sweep
from tscope_tui.data.gradients import Gradients
from tscope_tui.data.saved import SavedAll

if TYPE_CHECKING:
    from tscope_format import RootReader, TraceReader


@dataclass(frozen=True, eq=False)
class Averages:
    """The saved results, the newest first.

    Attributes:
        pairs: Averages between models, those of its forks with their base after the trace's own.
        runs: Averages along the run.
        gradients: Changes of gradients.
        sweep: The run with its forks; None where there are none.
        lacks: What the trace lacks for them.
        fingerprint: The trace's own.
    """

    pairs: tuple[Average, ...] = ()
    runs: tuple[Along, ...] = ()
    gradients: tuple[Gradients, ...] = ()
    sweep: Sweep | None = None
    lacks: tuple[str, ...] = ()
    fingerprint: str = ""


class AveragesSource:
    """Reads them; blocks."""

    def __init__(self, path: Path) -> None:
        self._averages = SavedAll(path, averaging.METRIC, partial(averaging.from_result, path))
        self._gradients = SavedAll(path, gradients.METRIC, partial(gradients.from_result, path))
        self._family = Family(path)

    def read(self, trace: TraceReader, root: RootReader, problems: list[str]) -> Averages:
        """Return what is saved now; what cannot be read is added to `problems`."""
        found = self._averages.read(root.name, problems)
        sweep = self._family.read(trace, root.name)
        pairs = [one for one in found if isinstance(one, Average)]
        for fork in sweep.forks if sweep is not None else ():
            if fork.average is not None and all(fork.average.id != one.id for one in pairs):
                pairs.append(fork.average)
        return Averages(
            tuple(pairs),
            tuple(one for one in found if isinstance(one, Along)),
            self._gradients.read(root.name, problems),
            sweep,
            averaging.lacks_of(root),
            trace.fingerprint,
        )

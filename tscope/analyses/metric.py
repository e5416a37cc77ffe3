"""What a metric is: a name, what it needs, its options, and the function that computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tscope_format.errors import MissingDataError, clean

if TYPE_CHECKING:
    from tscope_format.results import Result

    from tscope.trace import Trace

Progress = Callable[[int, int], None]
"""Called now and then with (rows done, rows in all)."""


def _silent(done: int, total: int) -> None:
    """Report no progress."""


def _mute(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Watch:
    """Who is told how an analysis is going.

    Attributes:
        progress: How far it is.
        say: A line for the user: what it will cost, a coarse answer, what was found of an earlier attempt.
    """

    progress: Progress = _silent
    say: Callable[[str], None] = _mute


@dataclass(frozen=True)
class Need:
    """Something a metric needs, and what to do when a trace lacks it.

    Attributes:
        name: What is needed, in a few words.
        remedy: The option that provides it.
        met: Whether a trace, with the metric's options, has it.
    """

    name: str
    remedy: str
    met: Callable[[Trace, Any], bool]


def _keeps_updates(trace: Trace, options: Any) -> bool:
    return trace.reader.attributes.get("updates") != "none"


EVERY_ROW = Need(
    "the parameters at every row",
    "The run was recorded with `--updates none`: record it without",
    _keeps_updates,
)
_NETWORK = Need(
    "a network",
    "The trace holds an ensemble of trees: `tscope info` lists what can be computed of it",
    lambda trace, options: trace.kind != "trees",
)


@dataclass(frozen=True)
class Metric:
    """One analysis.

    Attributes:
        name: What the user asks for.
        summary: One line.
        requires: Alternatives; a trace must meet every need of at least one of them. The last is what can
            still be provided after the run, so its gaps are the ones to report.
        options: A frozen dataclass, whose fields are the metric's options; it checks their values.
        run: Computes the result: (trace, options, watch) → Result. It writes nothing but what it needs to
            continue if it is interrupted.
        plan: Says how it would be computed and about what that costs, where that can be much; None where,
            with these options, it is not.
        trees: Computes it for an ensemble of trees, if it has a meaning there.
    """

    name: str
    summary: str
    requires: tuple[tuple[Need, ...], ...]
    options: type[Any]
    run: Callable[[Trace, Any, Watch], Result]
    plan: Callable[[Trace, Any], str | None] | None = None
    trees: Callable[[Trace, Any, Watch], Result] | None = None

    @property
    def needs(self) -> str:
        """What the metric needs, as one line."""
        return ", or ".join(" and ".join(need.name for need in group) for group in self.requires)

    def missing(self, trace: Trace, options: Any = None) -> tuple[Need, ...]:
        """Return what the trace lacks: nothing, or what would make the metric possible."""
        if trace.kind == "trees":
            return () if self.trees is not None else (_NETWORK,)
        chosen = self.options() if options is None else options
        gaps = [tuple(n for n in group if not n.met(trace, chosen)) for group in self.requires]
        return () if () in gaps else gaps[-1]

    def check(self, trace: Trace, options: Any) -> None:
        """Refuse a trace that lacks what the metric needs.

        Raises:
            MissingDataError: It does; the message names the options that would provide it.
        """
        missing = self.missing(trace, options)
        if missing:
            lacks = " and ".join(need.name for need in missing)
            remedies = ". ".join(dict.fromkeys(need.remedy for need in missing))
            raise MissingDataError(f"{clean(trace.path)} lacks what {self.name} needs: {lacks}. {remedies}")

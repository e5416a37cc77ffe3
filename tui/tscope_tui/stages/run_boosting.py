"""The panes of a network against an ensemble of trees: view 4, once more."""

from __future__ import annotations

import shlex

from tscope_tui.data.boosting import METRIC, Boosting
from tscope_tui.data.run import RunData
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.plot import Series
from tscope_tui.spans import Span
from tscope_tui.stages.run_absence import absence, noted

_OVER = "share of irregular examples"
_TITLES = {"norms": "max ‖k(x)‖", "increase": "error of net over trees", "errors": "squared error"}
_TREES = ("it holds an ensemble of trees: analyse the network's trace, --against this one",)


def boosting_panes(data: RunData, *, loaded: bool) -> dict[str, Pane]:
    """Return the panes; none of them is of a step."""
    found = data.boosting
    if found is None or not found.share.size:
        told = _missing(data, loaded)
        charts = {name: RelationPane(name, title, _OVER, (), empty=told) for name, title in _TITLES.items()}
        return {**charts, "against": FactsPane(noted(told), "against trees")}
    return {
        "norms": RelationPane("norms", _TITLES["norms"], _OVER, _pair(found, "norm")),
        "increase": RelationPane(
            "increase",
            _TITLES["increase"],
            _OVER,
            (Series("relative", found.share, found.series["relative_increase"], "solid", 2),),
        ),
        "errors": RelationPane("errors", _TITLES["errors"], _OVER, _pair(found, "error")),
        "against": FactsPane((*found.facts, *(("note", note) for note in found.notes)), "against trees"),
    }


def _pair(found: Boosting, quantity: str) -> tuple[Series, Series]:
    """Return the network's curve and the trees', with the spread over the draws."""
    net, trees = (
        Series(
            model,
            found.share,
            found.series[f"{quantity}_{model}"],
            "solid" if model == "net" else "dash",
            hue,
            found.spread.get(f"{quantity}_{model}"),
        )
        for hue, model in enumerate(("net", "trees"))
    )
    return net, trees


def status_of(found: Boosting) -> list[Span]:
    """Return what the bars are, and how many notes the result has."""
    notes = f" · {len(found.notes)} note{'' if len(found.notes) == 1 else 's'} (r)" if found.notes else ""
    return [
        Span(" bars: one standard deviation of the draws · saved result", "dim"),
        Span(notes, "warn"),
    ]


def analyse_text(data: RunData) -> str:
    """Return the command that computes the metric, as one types it."""
    return f"tscope analyze {shlex.quote(str(data.path))} --metric {METRIC} --against TREES.zarr"


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the comparison."""
    lacks = _TREES if data.trees else data.kernel_lacks
    return absence(data, "comparison with trees", lacks, analyse_text(data), loaded=loaded)

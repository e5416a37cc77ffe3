"""The panes of a network against an ensemble of trees: view 4, once more."""

from __future__ import annotations

from tscope_tui.data.boosting import METRIC, Boosting
from tscope_tui.data.run import RunData
from tscope_tui.panes.facts import FactsPane
from tscope_tui.panes.pane import Pane
from tscope_tui.panes.relation import RelationPane
from tscope_tui.plot import Series
from tscope_tui.spans import Span
from tscope_tui.stages.flags import analyse_text
from tscope_tui.stages.run_absence import absence, noted
from tscope_tui.stages.run_notes import status

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
    return status(" bars: one standard deviation of the draws · saved result", found.notes)


def _missing(data: RunData, loaded: bool) -> tuple[str, ...]:
    """Return what would provide the comparison."""
    command = f"{analyse_text(data.path, METRIC)} --against TREES.zarr"
    lacks = _TREES if data.trees else data.kernel_lacks
    return absence(data, "comparison with trees", lacks, command, loaded=loaded)

"""How the examples share in the effective parameters at one step: a histogram of ‖s(x)‖²."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tscope_tui.data.effective import Part
from tscope_tui.data.table import Table, Value
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import bar, compact
from tscope_tui.spans import Line, Span, cells, fit, wrap

_NAME = "‖s(x)‖²"
_TONES: Mapping[Part, str] = {"train": "series0", "test": "series1"}
# From this ratio on between the largest and the smallest value, bins are even in the logarithm.
_LOG = 20.0


@dataclass(frozen=True, eq=False)
class SpreadPane:
    """Bars of the training examples beside those of the held-out ones, over the same bins.

    Attributes:
        step: The kept row's step.
        norms: ‖s(x)‖² of each example, by part.
        examples: Which training example each of `norms["train"]` is.
        empty: What to say, and what would provide the data, when there are none.
    """

    step: int
    norms: Mapping[Part, NDArray[np.float32]]
    examples: NDArray[np.int64]
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the histogram in its frame."""
        look = draw.look
        if not self.norms:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box([Span(_NAME, "title")], told, width, height, look, focused=draw.focused)
        title = [Span(f"{_NAME} of examples @{self.step:,}", "title")]
        inner, room = width - 2, max(1, height - 2)
        head = self._heads(inner) if room > 3 else []
        edges, counts = binned(self.norms, max(1, room - len(head)))
        labels = [compact(edge, 2) for edge in edges[:-1]]
        wide = max(map(len, labels), default=0)
        part = max(1, (inner - wide - 3) // len(self.norms) - 5)
        most = max((float(share.max()) for share in counts.values() if share.size), default=0.0)
        lines: list[Line] = list(head)
        # The largest values stand on top, as on an axis.
        for index in range(len(labels) - 1, -1, -1):
            spans = [Span(f" {labels[index]:>{wide}}", "label"), Span("+" if look.ascii else "┤", "axis")]
            for name, share in counts.items():
                value = float(share[index])
                filled = bar(value / most if most > 0 else 0.0, part, ascii=look.ascii)
                told_share = f"{value * 100:3.0f}%" if value > 0 else "    "
                spans += [Span(filled, _TONES[name]), Span(f"{told_share} ", "dim")]
            lines.append(tuple(spans))
        lost = sum(int(np.count_nonzero(~np.isfinite(values))) for values in self.norms.values())
        foot = f"{lost} not finite" if lost else ""
        return box(title, lines, width, height, look, focused=draw.focused, foot=foot)

    def _heads(self, inner: int) -> list[Line]:
        """Return one line a part: the number of examples, their median, and the largest with its example."""
        heads = []
        for name, values in self.norms.items():
            finite = np.where(np.isfinite(values), values, -1.0)
            if not values.size or not (finite >= 0).any():
                continue
            at = int(finite.argmax())
            largest = (
                f"max {compact(float(values[at]))} (#{int(self.examples[at]) if name == 'train' else at})"
            )
            median = f"median {compact(float(np.median(values[np.isfinite(values)])))}"
            texts = [f"{name:<5} {values.size:,}", median, largest]
            while len(texts) > 1 and sum(cells(text) + 2 for text in texts) > inner:
                texts.pop(0 if len(texts) == 3 else -1)
                if len(texts) == 2:
                    texts[0] = f"{name:<5} {median}"
            heads.append(fit([Span(" " + "  ".join(texts), _TONES[name])], inner))
        return heads

    def table(self) -> Table:
        """Return one row an example, the training ones first."""
        parts: list[Value] = []
        examples: list[Value] = []
        norms: list[Value] = []
        for name, values in self.norms.items():
            parts += [name] * values.size
            examples += (self.examples if name == "train" else np.arange(values.size)).tolist()
            norms += values.astype(np.float64).tolist()
        return Table("norms", {"set": parts, "example": examples, "norm": norms})

    def at(self) -> str:
        """Return the table's rows at the step, tab separated: the largest ten of all examples."""
        table = self.table()
        order = np.argsort(-np.nan_to_num(np.array(table.columns["norm"], dtype=np.float64)), kind="stable")
        rows = [table.rows[index] for index in order[:10].tolist()]
        return "\n".join("\t".join(map(str, row)) for row in (tuple(table.columns), *rows)) + "\n"


def binned(
    norms: Mapping[Part, NDArray[np.float32]], bins: int
) -> tuple[NDArray[np.float64], dict[Part, NDArray[np.float64]]]:
    """Return the edges of bins (bin + 1,) over all values, and each part's share in every bin (bin,).

    Values that are not finite are in no bin. Where values of 0 meet others that span decades, as at the start
    of a run, the zeros lie in the lowest bin.
    """
    finite = {name: values[np.isfinite(values)].astype(np.float64) for name, values in norms.items()}
    together = np.concatenate(list(finite.values())) if finite else np.zeros(0)
    if not together.size:
        return np.array([0.0, 1.0]), {name: np.zeros(1) for name in norms}
    low, high = float(together.min()), float(together.max())
    positive = together[together > 0]
    least = float(positive.min()) if positive.size else 0.0
    if high <= low:
        edges = np.array([low, np.nextafter(high, np.inf)])
    elif least > 0 and high / least > _LOG:
        edges = np.geomspace(least, high, bins + 1)
        edges[0], edges[-1] = low, high
    else:
        edges = np.linspace(low, high, bins + 1)
    shares = {
        name: np.histogram(values, edges)[0] / max(1, norms[name].size) for name, values in finite.items()
    }
    return edges, shares

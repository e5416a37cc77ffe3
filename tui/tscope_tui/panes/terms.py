"""What each term of the optimizer's steps did to the predictions over a range of steps."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_tui.data.table import Table
from tscope_tui.data.updates import Term
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import bar, sparkline
from tscope_tui.spans import Line, Span, pad, wrap

# Shorter where the metric's own names would leave no room for the bars.
_LABELS = {
    "preconditioning": "precond.",
    "coupled_decay": "decay in g",
    "decoupled_decay": "decay",
    "adapter_residual": "residual",
}


@dataclass(frozen=True, eq=False)
class TermsPane:
    """A bar for each term, its share over the range, and its share at the cursor.

    Attributes:
        terms: The terms, in their order.
        steps: The first and the last step that the shares are over; None without any.
        step: The step of the row at the cursor.
        left: The steps of the view's range that they are not over: (first, last) of each part.
        empty: What to say, and what would provide the data, when there are none.
    """

    terms: tuple[Term, ...]
    steps: tuple[int, int] | None
    step: int
    left: tuple[tuple[int, int], ...] = ()
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the bars in their frame."""
        look = draw.look
        over = "" if self.steps is None else f", steps {span(*self.steps)}"
        title = [Span(f"JΔθ by term{over}", "title")]
        beyond = f"not covered: steps {', '.join(span(*part) for part in self.left)}" if self.left else ""
        lines: list[Line] = [(Span(f" {line}", "warn"),) for line in wrap(beyond, max(4, width - 4)) if line]
        if not self.terms:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, [*lines, *told], width, height, look, focused=draw.focused)
        inner = width - 2
        names = [_LABELS.get(term.name, term.name) for term in self.terms]
        label = min(max(map(len, names)), max(8, inner - 22))
        # No bar is given up for the column's head.
        here = inner >= label + 24 and len(lines) + len(names) + 1 <= height - 2
        spark = 12 if inner >= label + 46 else 0
        wide = max(2, inner - label - 11 - (9 if here else 0) - (spark + 2 if spark else 0))
        scale = max(abs(term.share) for term in self.terms) or 1.0
        if here:
            head = f" {'':{label}} {'':{wide}} {'range':>8} {f'@{self.step:,}':>8}"
            lines.append((Span(head, "dim"),))
        for index, (term, name) in enumerate(zip(self.terms, names, strict=True)):
            # A term that works against the change has another tone and a sign, and a bar like the others.
            tone = f"series{index % 8}" if term.share >= 0 else "warn"
            spans = [
                Span(f" {pad(name, label, ellipsis=look.ellipsis)} "),
                Span(bar(abs(term.share) / scale, wide, ascii=look.ascii), tone),
                Span(f" {_percent(term.share):>8}"),
            ]
            if here:
                spans.append(Span(f" {_percent(term.here):>8}", "dim"))
            if spark:
                spans.append(Span(f"  {sparkline(term.values, spark, ascii=look.ascii)}", tone))
            lines.append(tuple(spans))
        return box(title, lines, width, height, look, focused=draw.focused)

    def table(self) -> Table:
        """Return term, share over the range, and share at the cursor."""
        return Table(
            "terms",
            {
                "term": [term.name for term in self.terms],
                "share": [term.share for term in self.terms],
                "share_at_step": [term.here for term in self.terms],
            },
        )


def span(first: int, last: int) -> str:
    """Return a range of steps as it is read."""
    return f"{first:,}–{last:,}"


def _percent(share: float) -> str:
    return f"{share * 100:+.1f}%" if abs(share) < 100 else f"{share:+.2g}×"

"""How much each layer moved the predictions over a range of steps."""

from __future__ import annotations

from dataclasses import dataclass

from tscope_tui.data.table import Table
from tscope_tui.data.telescoping import Share
from tscope_tui.panes.box import box
from tscope_tui.panes.pane import Draw
from tscope_tui.plot import bar, sparkline
from tscope_tui.spans import Line, Span, crop, pad, wrap


@dataclass(frozen=True)
class SharesPane:
    """Bars by layer, each with its course over the range."""

    shares: tuple[Share, ...]
    low: int
    high: int
    first: int = 0
    empty: tuple[str, ...] = ()

    def lines(self, width: int, height: int, draw: Draw) -> list[Line]:
        """Return the bars in their frame."""
        title = [Span("‖JΔθ‖ by layer", "title"), Span(f", steps {self.low:,}–{self.high:,}", "title")]
        if not self.shares:
            told: list[Line] = [
                (Span(" " + line, "dim"),) for text in self.empty for line in wrap(text, max(4, width - 4))
            ]
            return box(title, told, width, height, draw.look, focused=draw.focused)
        room = max(1, height - 2)
        ascii = draw.look.ascii
        layers = [share for share in self.shares if share.name != "residual"]
        rest = [share for share in self.shares if share.name == "residual"]
        fit = max(1, room - len(rest))
        first = min(self.first, max(0, len(layers) - fit))
        shown = layers[first : first + fit] + rest
        inner = width - 2
        label = min(max(len(share.name) for share in shown), max(8, inner // 3))
        spark = 12 if inner >= 60 else 0
        wide = max(4, inner - label - spark - 12)
        scale = max(share.share for share in self.shares) or 1.0
        lines: list[Line] = []
        for index, share in enumerate(shown):
            tone = "dim" if share.name == "residual" else f"series{index % 8}"
            name = pad(share.name, label, ellipsis=draw.look.ellipsis)
            spans = [
                Span(f" {name} "),
                Span(bar(share.share / scale, wide, ascii=ascii), tone),
                Span(f" {share.share * 100:5.1f}%"),
            ]
            if spark:
                spans.append(Span(f"  {sparkline(share.values, spark, ascii=ascii)}", tone))
            lines.append(tuple(spans))
        hidden = len(layers) - (len(shown) - len(rest))
        foot = f"j/k: {hidden} more layers" if hidden > 0 else ""
        return box(
            title, lines, width, height, draw.look, focused=draw.focused, foot=crop(foot, max(0, width - 8))
        )

    def table(self) -> Table:
        """Return layer and share."""
        return Table(
            "contribution",
            {"layer": [s.name for s in self.shares], "share": [s.share for s in self.shares]},
        )

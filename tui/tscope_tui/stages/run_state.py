"""What the reader of a run is looking at, and how keys change it. Immutable, without terminal or trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tscope_tui.data.kernel import Order
from tscope_tui.data.telescoping import Choice

# Steps in sight at the deepest zoom.
_NARROWEST = 4.0


@dataclass(frozen=True)
class RunState:
    """The shared cursor, the steps in sight, and the choices of each pane.

    Attributes:
        view: overview, telescoping, effective, kernel, boosting, averaging, forks, along, layers, regime,
            collapse, examples or example.
        focus: The pane with the focus.
        maximised: It has the whole room.
        cursor: The step of the scrubber.
        last: The last step of the run.
        following: The cursor stays on the last step.
        left_at: The last step when the cursor left it, for the count of new steps.
        playing: The cursor moves on by itself.
        crosshair: Values at the cursor are read out.
        window: The steps in sight, None for all.
        log_x: Logarithmic steps.
        log_y: The panes whose values the reader made logarithmic, or linear.
        range_start: One end of a range that is being marked.
        band: The marked range.
        choice: The example and output of the telescoping view.
        first_layer: The first layer listed.
        first_influence: The first training example listed.
        pair: The chosen row and column of the kernel.
        example_order: What the examples are ordered by, where it is known.
        kernel_order: How the kernel's points are ordered.
        kernel_share: Which of the quantities that layers share in is shown, counted from 1; 0 for none.
        difference: The kernel is shown less the first one.
        quantities: Which of its quantities a view shows, by the view's name, counted from 0.
        rows: Which row is chosen, by what the rows are (layer, matrix, pair, mode, fork, …), counted from 0.
    """

    view: str = "overview"
    focus: str = "loss"
    maximised: bool = False
    cursor: int = 0
    last: int = 0
    following: bool = True
    left_at: int = 0
    playing: bool = False
    crosshair: bool = False
    window: tuple[float, float] | None = None
    log_x: bool = False
    log_y: Mapping[str, bool] = field(default_factory=dict)
    range_start: int | None = None
    band: tuple[float, float] | None = None
    choice: Choice = Choice()  # noqa: RUF009 - frozen
    first_layer: int = 0
    first_influence: int = 0
    pair: tuple[int, int] = (0, 0)
    example_order: str = "loss"
    kernel_order: Order = "label"
    kernel_share: int = 0
    difference: bool = False
    quantities: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def new(self) -> int:
        """Steps that arrived since the cursor left the last one."""
        return 0 if self.following else max(0, self.last - self.left_at)

    def to(self, step: float) -> RunState:
        """Move the cursor to a step; only on the last one does it follow. The window comes along."""
        cursor = min(max(0, round(step)), self.last)
        following = cursor == self.last
        left_at = self.left_at if following or not self.following else self.last
        moved = replace(self, cursor=cursor, following=following, left_at=left_at)
        return moved._in_sight()

    def grown(self, last: int) -> RunState:
        """Take notice of new steps: the cursor follows, or stays; a window at the end moves on with it."""
        state = replace(self, last=last)
        if not self.following:
            return state
        if self.window is not None and self.window[1] >= self.last:
            width = self.window[1] - self.window[0]
            state = replace(state, window=(last - width, float(last)))
        return replace(state, cursor=last)

    def follow(self) -> RunState:
        """Go to the last step and stay there."""
        return replace(self, cursor=self.last, following=True, playing=False)._in_sight()

    def _in_sight(self) -> RunState:
        if self.window is None or self.window[0] <= self.cursor <= self.window[1]:
            return self
        return self._around(self.cursor, self.window[1] - self.window[0])

    def _around(self, centre: float, width: float) -> RunState:
        width = max(_NARROWEST, width)
        if width >= self.last:
            return replace(self, window=None)
        low = min(max(0.0, centre - width / 2), self.last - width)
        return replace(self, window=(low, low + width))

    def zoom(self, factor: float) -> RunState:
        """Zoom by a factor; the cursor stays where it is on the screen, or comes to its middle."""
        low, high = self.window or (0.0, float(self.last))
        width = max(_NARROWEST, (high - low) / factor)
        if width >= self.last:
            return replace(self, window=None)
        share = (self.cursor - low) / (high - low) if high > low else 0.5
        start = min(max(0.0, self.cursor - share * width), self.last - width)
        return replace(self, window=(start, start + width))

    def pan(self, direction: int) -> RunState:
        """Move the window by a quarter of its width."""
        if self.window is None:
            return self
        low, high = self.window
        shift = direction * (high - low) / 4
        return self._around((low + high) / 2 + shift, high - low)

    def fit(self) -> RunState:
        """Show all steps."""
        return replace(self, window=None)

    def mark(self) -> RunState:
        """Begin a range at the cursor, end it there, or clear it."""
        if self.range_start is not None:
            low, high = sorted((self.range_start, self.cursor))
            band = (float(low), float(high)) if high > low else None
            return replace(self, range_start=None, band=band)
        if self.band is not None:
            return replace(self, band=None)
        return replace(self, range_start=self.cursor)

    def shown_band(self) -> tuple[float, float] | None:
        """Return the marked range; while it is being marked, up to the cursor."""
        if self.range_start is None:
            return self.band
        low, high = sorted((float(self.range_start), float(self.cursor)))
        return low, high

    def toggled_log(self, default: bool) -> RunState:
        """Turn the focused pane's logarithmic values on or off."""
        now = self.log_y.get(self.focus, default)
        return replace(self, log_y={**self.log_y, self.focus: not now})

    def focused(self, names: Sequence[str], direction: int) -> RunState:
        """Move the focus among the panes of the view."""
        at = names.index(self.focus) if self.focus in names else 0
        return replace(self, focus=names[(at + direction) % len(names)])

    def other_example(self, direction: int, examples: int) -> RunState:
        """Choose the next example; before the first come all of them."""
        at = -1 if self.choice.example is None else self.choice.example
        at = (at + 1 + direction) % (examples + 1) - 1
        return replace(self, choice=replace(self.choice, example=None if at < 0 else at))

    def other_traced(self, direction: int, traced: Sequence[int]) -> RunState:
        """Choose the next of the examples whose influences were traced; the first where none is chosen."""
        known = self.choice.example in traced
        at = (traced.index(self.choice.example) + direction) % len(traced) if known else 0
        return replace(self, choice=replace(self.choice, example=traced[at]), first_influence=0)

    def other_output(self, outputs: int) -> RunState:
        """Choose the next output; after the last come all of them."""
        at = -1 if self.choice.output is None else self.choice.output
        at = (at + 2) % (outputs + 1) - 1
        return replace(self, choice=replace(self.choice, output=None if at < 0 else at))

    def other_pair(self, rows: int, columns: int, points: int) -> RunState:
        """Choose another row or column of a kernel of so many points; it ends at the edges."""
        row, column = (
            min(max(0, at + by), max(0, points - 1))
            for at, by in zip(self.pair, (rows, columns), strict=True)
        )
        return replace(self, pair=(row, column))

    def other_quantity(self, direction: int, count: int) -> RunState:
        """Show the next of a view's quantities; after the last, the first again."""
        place = (self.quantities.get(self.view, 0) + direction) % count
        return replace(self, quantities={**self.quantities, self.view: place})

    def other_row(self, of: str, direction: int, count: int, *, least: int = 0) -> RunState:
        """Choose the next row; it ends at the last, and at the first or, with `least` = −1, at none."""
        place = min(max(least, self.rows.get(of, least) + direction), max(0, count - 1))
        return replace(self, rows={**self.rows, of: place})

    def at_row(self, of: str, place: int) -> RunState:
        """Choose a row."""
        return replace(self, rows={**self.rows, of: place})

    def without_row(self, of: str) -> RunState:
        """Choose no row, so that the view's own choice is shown."""
        return replace(self, rows={name: place for name, place in self.rows.items() if name != of})

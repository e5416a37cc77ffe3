"""Which example, layer, pair or view of an opened run is looked at, and the keys that choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

import numpy as np

from tscope_tui.data.collapse import LABELS as MEASURES
from tscope_tui.data.entry import Entry
from tscope_tui.data.kernel import ORDERS as KERNEL_ORDERS
from tscope_tui.data.run import RunData
from tscope_tui.layout import Rect
from tscope_tui.panes.pane import Pane
from tscope_tui.stages import averaging_keys
from tscope_tui.stages.host import Host
from tscope_tui.stages.run_collapse import SHOWN as SPREADS
from tscope_tui.stages.run_examples import chosen_of, order_of, orders_of, ranked
from tscope_tui.stages.run_layers import quantity_of
from tscope_tui.stages.run_regime import SHOWN as MODES
from tscope_tui.stages.run_state import RunState

# Seconds for which a choice or window must rest before rows are read for it.
REST = 0.15
# The pane of each view that has the focus first.
_FIRST = {
    "overview": "loss",
    "telescoping": "prediction",
    "effective": "parameters",
    "kernel": "kernel",
    "boosting": "norms",
    "averaging": "blend",
    "forks": "sweep",
    "along": "run course",
    "layers": "layer map",
    "regime": "moved",
    "collapse": "nc1",
    "examples": "examples",
    "example": "outputs",
}


class RunChoices(ABC):
    """The choices of a run's reader."""

    host: Host
    path: Path
    state: RunState
    data: RunData
    siblings: list[Entry]
    side: int

    @abstractmethod
    def panes(self) -> dict[str, Pane]:
        """Return every pane by name."""

    @abstractmethod
    def focus_in(self, width: int, height: int) -> str:
        """Return the pane with the focus."""

    @abstractmethod
    def rects(self, width: int, height: int) -> dict[str, Rect]:
        """Return where the panes are."""

    @abstractmethod
    def reload(self, after: float = 0.0) -> None:
        """Read what is new, with the present choice and window."""

    @abstractmethod
    def do_event(self, direction: int) -> None:
        """Go to the next or previous event."""

    @property
    def by_example(self) -> bool:
        """Whether the view shows examples one by one."""
        return self.state.view in ("examples", "example")

    @property
    def of_averages(self) -> bool:
        """Whether the view shows averages, or forks."""
        return self.state.view in averaging_keys.VIEWS

    def chosen_example(self) -> int:
        """Return the chosen example, the first of the list as long as none is."""
        return chosen_of(self.data, self.state)

    def show_view(self, view: str) -> None:
        """Change the view."""
        came = self.of_averages
        self.state = replace(self.state, view=view, focus=_FIRST[view], maximised=False)
        if (self.by_example and self.data.examples is None) or (self.of_averages and not came):
            self.reload()

    def drill(self, example: int) -> None:
        """Show one example in view 7."""
        choice = replace(self.state.choice, example=example)
        self.state = replace(self.state, choice=choice, first_influence=0)
        self.show_view("example")
        self.reload()

    def _focused(self) -> tuple[str, Pane]:
        name = self.focus_in(*self.host.screen_size())
        return name, self.panes()[name]

    def do_down(self) -> None:
        """Choose the next one in the focused pane."""
        self._choose(1)

    def do_up(self) -> None:
        """Choose the previous one in the focused pane."""
        self._choose(-1)

    def _choose(self, direction: int) -> None:
        name, _ = self._focused()
        told = self.data.telescoping
        if name == "events":
            self.do_event(direction)
        elif name == "traces":
            self.side = (self.side + direction) % max(1, len(self.siblings))
        elif name in ("layers", "contribution") and told is not None:
            # The frame takes two lines of the pane, the residual another one.
            room = self.rects(*self.host.screen_size())[name].height - (3 if name == "layers" else 2)
            first = min(max(0, self.state.first_layer + direction), max(0, len(told.layers) - room))
            self.state = replace(self.state, first_layer=first)
        elif name == "kernel":
            self._choose_pair(direction, 0)
        elif name == "influence" and self.data.updates is not None:
            room = self.rects(*self.host.screen_size())[name].height - 2
            most = max(0, self.data.updates.train.size - room)
            first = min(max(0, self.state.first_influence + direction), most)
            self.state = replace(self.state, first_influence=first)
        elif self.of_averages:
            found = averaging_keys.chosen(self.data, self.state, name, direction)
            if found is None:
                self.host.say("nothing to choose from; see the pane")
            self.state = found or self.state
        elif self.state.view in ("layers", "regime", "collapse"):
            self._choose_row(direction)
        elif self.by_example:
            self._choose_example(direction)
        elif self.state.view == "telescoping" and told is not None:
            self.state = self.state.other_example(direction, told.examples)
            self.reload(REST)

    def _choose_row(self, direction: int) -> None:
        """Choose the next layer, matrix, pair, mode or measure in view; before the first mode come all."""
        layers, regime = self.data.layers, self.data.regime
        if self.state.view == "layers" and layers is not None:
            kind = quantity_of(layers, self.state).kind
            self.state = self.state.other_row(kind, direction, len(layers.rows[kind]))
        elif self.state.view == "regime" and regime is not None and regime.count:
            self.state = self.state.other_row("mode", direction, regime.count, least=-1)
        elif self.state.view == "collapse" and self.data.collapse is not None:
            self.state = self.state.other_row("measure", direction, len(MEASURES))
        else:
            self.host.say("nothing to choose from; see the pane")

    def _choose_example(self, direction: int) -> None:
        """Choose the next example of the list, in its order."""
        order = ranked(self.data, self.state)
        if not order.size:
            self.host.say("no outputs of single examples were recorded")
            return
        at = np.flatnonzero(order == self.chosen_example())
        place = (int(at[0]) if at.size else 0) + direction
        example = int(order[min(max(0, place), order.size - 1)])
        self.state = replace(
            self.state, choice=replace(self.state.choice, example=example), first_influence=0
        )
        self.reload(REST)

    def do_sort(self) -> None:
        """Order the examples, or the points of the kernel, by the next quantity."""
        if self.state.view == "kernel":
            if self.data.kernel is None or self.data.kernel.matrices is None:
                self.host.say("no matrix was kept; see the pane")
                return
            place = KERNEL_ORDERS.index(self.state.kernel_order) + 1
            order = KERNEL_ORDERS[place % len(KERNEL_ORDERS)]
            self.state = replace(self.state, kernel_order=order, pair=(0, 0))
            self.host.say(f"points ordered by {order}")
        elif self.by_example:
            known = orders_of(self.data, self.state.cursor)
            now = known.index(order_of(self.data, self.state))
            self.state = replace(self.state, example_order=known[(now + 1) % len(known)])
            self.host.say(f"ordered by {self.state.example_order}")
        else:
            self.host.say("views 4 and 7 have an order")

    def do_difference(self) -> None:
        """Show the kernel less the first one that was kept, or as it is."""
        found = self.data.kernel
        if self.state.view != "kernel" or found is None or found.matrices is None:
            self.host.say("view 4 shows differences of kept matrices")
        elif len(found.matrices.step) < 2:
            self.host.say("only one matrix was kept; `--matrix 0,last` keeps two")
        else:
            self.state = replace(self.state, difference=not self.state.difference)

    def do_layer(self, direction: int = 1) -> None:
        """Show the next quantity of a view that has several; after the last, the first again.

        Those of the kernel are the layers' shares of it, and its series are the first.
        """
        if self.of_averages:
            known = averaging_keys.quantities(self.state.view)
            self.state = self.state.other_quantity(direction, len(known))
            self.host.say(known[self.state.quantities[self.state.view]])
            return
        if self.state.view in ("layers", "regime", "collapse"):
            self._choose_quantity(direction)
            return
        found = self.data.kernel
        if self.state.view != "kernel" or found is None or not found.shares:
            self.host.say("no layers of the kernel are known; views 4 to 6 have quantities to choose from")
            return
        place = (self.state.kernel_share + direction) % (len(found.shares) + 1)
        self.state = replace(self.state, kernel_share=place)

    def _choose_quantity(self, direction: int) -> None:
        """Show the next quantity of the layers or modes, or what NC1 is the ratio of."""
        data, view = self.data, self.state.view
        counts = {
            "layers": 0 if data.layers is None else len(data.layers.quantities),
            "regime": 0 if data.regime is None else sum(name in data.regime.modes for name in MODES),
            "collapse": 0 if data.collapse is None else len(SPREADS),
        }
        if counts[view] < 2:
            self.host.say("there is no other quantity; see the pane")
            return
        self.state = self.state.other_quantity(direction, counts[view])

    def do_drill(self) -> None:
        """Go to the example of the chosen pair's row, if it is of the probe set."""
        found = self.data.kernel
        if self.state.view != "kernel" or found is None or found.matrices is None:
            self.host.say("choose a pair in view 4 first")
            return
        matrices = self.panes()["kernel"].matrices  # type: ignore[attr-defined]
        row = min(self.state.pair[0], len(matrices.numbers) - 1)
        if row < matrices.train:
            self.host.say(
                "its row is a training example, whose outputs are not followed; choose a held-out row"
            )
        elif self.data.telescoping is not None and self.data.telescoping.probe != found.probe:
            self.host.say(
                f"its row is of {found.probe}, and the outputs are of {self.data.telescoping.probe}"
            )
        else:
            self.drill(int(matrices.numbers[row]))

    def _choose_pair(self, rows: int, columns: int) -> None:
        """Move the chosen pair by cells of the map: by so many points that the mark moves."""
        found = self.data.kernel
        if found is None or found.matrices is None:
            self.host.say("no matrix was kept; see the pane")
            return
        points = found.matrices.pairs.shape[1]
        rect = self.rects(*self.host.screen_size())["kernel"]
        down = max(1, -(-points // max(1, rect.height - 2)))
        across = max(1, -(-points // max(1, rect.width - 2)))
        self.state = self.state.other_pair(rows * down, columns * across, points)

    def do_output(self) -> None:
        """Choose the next output; in the views of averages, the next saved result."""
        if self.of_averages:
            self.state, told = averaging_keys.other_result(self.data, self.state)
            self.host.say(told)
            return
        outputs = self._outputs()
        if outputs < 2:
            self.host.say("there is only one output" if outputs else "no predictions to choose from")
            return
        self.state = self.state.other_output(outputs)
        self.reload(REST)

    def _outputs(self) -> int:
        """Return how many outputs an example has in the view, 0 where none are known."""
        data = self.data
        if self.by_example:
            known = (
                0 if data.examples is None else data.examples.width,
                data.updates.outputs if data.updates else 0,
            )
            return max(known)
        return 0 if data.telescoping is None else data.telescoping.outputs

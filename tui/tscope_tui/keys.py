"""The one table of keys: bindings, help, hints and the table in `docs/browsing.md` are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["browser", "run"]
BOTH: tuple[Scope, ...] = ("browser", "run")


@dataclass(frozen=True)
class Key:
    """One action and its keys.

    Attributes:
        keys: Names as Textual has them, the first one shown.
        action: What is called, with its argument after a colon.
        shown: How the keys are written.
        help: What it does.
        scopes: Where it works.
        hint: A word for the line of hints; empty leaves it out.
    """

    keys: tuple[str, ...]
    action: str
    shown: str
    help: str
    scopes: tuple[Scope, ...] = ("run",)
    hint: str = ""


KEYS: tuple[Key, ...] = (
    Key(("left",), "step:-1", "←", "one step back"),
    Key(("right",), "step:1", "→", "one step on", hint="step"),
    Key(("shift+left",), "step:-10", "⇧←", "ten steps back"),
    Key(("shift+right",), "step:10", "⇧→", "ten steps on"),
    Key(("home",), "first", "home", "first step"),
    Key(("end",), "last", "end", "last step"),
    Key(("left_square_bracket",), "event:-1", "[", "previous event"),
    Key(("right_square_bracket",), "event:1", "]", "next event", hint="event"),
    Key(("g",), "go", "g", "go to a step", hint="go to"),
    Key(("space",), "play", "space", "play and stop"),
    Key(("f",), "follow", "f", "follow a live run", hint="follow"),
    Key(("plus", "equals_sign"), "zoom:2", "+", "zoom in on the steps around the cursor", hint="zoom"),
    Key(("minus",), "zoom:0.5", "-", "zoom out"),
    Key(("0",), "fit", "0", "fit all steps"),
    Key(("h",), "pan:-1", "h", "pan left; in the kernel, the column of the pair; of averages, α"),
    Key(("l",), "pan:1", "l", "pan right; in the kernel, the column of the pair; of averages, α"),
    Key(("L",), "log_y", "L", "logarithmic values, linear again"),
    Key(("X",), "log_x", "X", "logarithmic steps, linear again"),
    Key(("x",), "crosshair", "x", "read out the values at the cursor", hint="crosshair"),
    Key(("m",), "mark_range", "m…m", "mark a range of steps: m at both ends, m again to clear"),
    Key(("j", "down"), "down", "j ↓", "next example, layer, mode, event or row of the pane"),
    Key(("k", "up"), "up", "k ↑", "previous one"),
    Key(("o",), "output", "o", "next output of the example, then their mean; of averages the next result"),
    Key(("n",), "worst:1", "n", "next worst telescoping step"),
    Key(("N",), "worst:-1", "N", "previous worst telescoping step"),
    Key(("1",), "view:overview", "1", "overview"),
    Key(("2",), "view:telescoping", "2", "telescoping", hint="view"),
    Key(("3",), "view:effective", "3", "effective parameters"),
    Key(("4",), "view:kernel", "4", "tangent kernel; again: against boosted trees"),
    Key(("5",), "view:averaging", "5", "averages; again: forks and gradients; again: along the run"),
    Key(("6",), "view:layers", "6", "layers; again: lazy or rich; again: neural collapse"),
    Key(("7",), "view:examples", "7", "examples, one by one"),
    Key(("s",), "sort", "s", "examples by loss, forgetting, ‖s(x)‖², influence, number; the kernel's points"),
    Key(("d",), "difference", "d", "the kernel less the first one kept, and back"),
    Key(("w",), "layer:1", "w", "next quantity: of the layers, their shares of the kernel, the modes, NC1"),
    Key(("W",), "layer:-1", "W", "previous quantity"),
    Key(("i",), "drill", "i", "the example of the kernel's row, in view 7"),
    Key(("tab",), "focus:1", "tab", "next pane", BOTH, hint="pane"),
    Key(("shift+tab",), "focus:-1", "⇧tab", "previous pane", BOTH),
    Key(("z",), "maximise", "z", "maximise the pane, and back", BOTH, hint="max"),
    Key(
        ("enter",),
        "enter",
        "enter",
        "open the selected trace or example, jump to the selected event",
        BOTH,
        "open",
    ),
    Key(("escape", "backspace"), "back", "esc", "back", BOTH),
    Key(("a",), "analyse", "a", "run the analysis that the view shows; again to cancel", hint="analyse"),
    Key(("e",), "export", "e", "export the pane as CSV, JSON and SVG", BOTH, hint="export"),
    Key(("y",), "yank", "y", "copy the row at the cursor (OSC 52: works over SSH)", BOTH),
    Key(("r",), "repro", "r", "the commands that give the pane's numbers", BOTH, hint="repro"),
    Key(("j", "down"), "down", "j ↓", "next trace", ("browser",)),
    Key(("k", "up"), "up", "k ↑", "previous trace", ("browser",)),
    Key(("pagedown",), "page:1", "pgdn", "a page down", ("browser",)),
    Key(("pageup",), "page:-1", "pgup", "a page up", ("browser",)),
    Key(("home",), "first", "home", "first trace", ("browser",)),
    Key(("end",), "last", "end", "last trace", ("browser",)),
    Key(
        ("slash",),
        "filter",
        "/",
        "filter: regular expression on the name, `p_test>500 state:live`",
        ("browser",),
        "filter",
    ),
    Key(
        ("s",),
        "sort",
        "s",
        "sort by age, name, state, steps, loss, p_train, p_test, size",
        ("browser",),
        "sort",
    ),
    Key(("space",), "mark", "space", "mark for `d` and `e`", ("browser",), "mark"),
    Key(("p",), "pin", "p", "keep on top", ("browser",), "pin"),
    Key(
        ("d",),
        "doctor",
        "d",
        "verify the marked traces, else the selected one; again to cancel",
        ("browser",),
        "verify",
    ),
    Key(("L",), "log_y", "L", "logarithmic loss, linear again", ("browser",)),
    Key(("M",), "mouse", "M", "mouse on, off", BOTH),
    Key(("T",), "theme", "T", "next theme", BOTH),
    Key(("question_mark",), "help", "?", "this help", BOTH, hint="help"),
    Key(("q",), "quit", "q", "quit", BOTH, hint="quit"),
)


def keys_of(scope: Scope) -> tuple[Key, ...]:
    """Return the keys that work in a scope, in the order of the table."""
    return tuple(key for key in KEYS if scope in key.scopes)


def action_of(scope: Scope, name: str) -> str | None:
    """Return the action bound to a key in a scope."""
    return next((key.action for key in keys_of(scope) if name in key.keys), None)


def help_lines(scope: Scope) -> list[tuple[str, str]]:
    """Return how each key is written, and what it does."""
    return [(key.shown, key.help) for key in keys_of(scope)]


def markdown() -> str:
    """Return the table of `docs/browsing.md`."""
    lines = ["| key | in the browser | in a run |", "|---|---|---|"]
    rows: dict[str, dict[str, str]] = {}
    for key in KEYS:
        for scope in key.scopes:
            rows.setdefault(key.shown, {})[scope] = key.help
    for shown, texts in rows.items():
        lines.append(f"| `{shown}` | {texts.get('browser', '')} | {texts.get('run', '')} |")
    return "\n".join(lines) + "\n"

"""A result on the screen: the table of its curves, the chart, its scalars and notes, and how to read them."""

from __future__ import annotations

import sys

from tscope_format import Result

from tscope_cli import events, layered, regime, sketch
from tscope_cli.numerals import percent, significant
from tscope_cli.readings import series
from tscope_cli.table import Column, facts, render
from tscope_cli.terminal import ascii_only, coloured, out, paint, width
from tscope_cli.view import Curve
from tscope_cli.views import thin, view_of


def show(result: Result, name: str, *, quiet: bool = False) -> None:
    """Print a result; `quiet` leaves out the chart and the reading."""
    out(paint(name, "bold"))
    for line in table(result):
        out(f"  {line}")
    for title, lines in (*events.tables(result), *regime.tables(result), *layered.tables(result)):
        out()
        out(title)
        for line in lines:
            out(f"  {line}")
    if result.scalars:
        out()
        for line in facts(
            [(name.replace("_", " "), _scalar(value)) for name, value in result.scalars.items()]
        ):
            out(line)
    if not quiet:
        columns, ascii = min(width(), 120), ascii_only(sys.stdout)
        chart = sketch.draw(result, columns, ascii=ascii, colour=coloured(sys.stdout))
        for lines in (chart, sketch.bars(result, columns, ascii=ascii)):
            if lines:
                out()
                out("\n".join(lines))
    notes = [f"note: {note}" for note in result.notes]
    reading = () if quiet else view_of(result).reading(result)
    if notes or reading:
        out()
    for text in (*reading, *notes):
        out("\n".join(wrap(text, min(width(), 100))))


def table(result: Result) -> list[str]:
    """Return the lines of the table of a result's curves, at about a dozen evenly spaced steps."""
    view = view_of(result)
    if not view.columns or view.coordinate not in result.arrays:
        return []
    steps = result.arrays[view.coordinate].data
    curves = [series(result, curve.array) for curve in view.columns]
    rows = [
        [
            view.place(float(steps[row])),
            *(_cell(curve, values[row]) for curve, values in zip(view.columns, curves, strict=True)),
        ]
        for row in thin(len(steps), view.rows)
    ]
    return render([Column(view.abscissa), *(Column(curve.title) for curve in view.columns)], rows)


def wrap(text: str, columns: int) -> list[str]:
    """Return a paragraph of untrusted text as lines."""
    import textwrap

    from tscope_format import clean

    return textwrap.wrap(clean(text), columns)


def _cell(curve: Curve, value: float) -> str:
    return percent(float(value)) if curve.share else significant(float(value))


def _scalar(value: float | int | str | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value

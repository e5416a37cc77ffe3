"""A benchmark's result as a Markdown section, printed and kept in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
PREAMBLE = """# Benchmarks

Made by `python -m benchmarks --write` (`make bench` prints the same): every number of a table comes from one
run of it, and ratios from runs that took turns on the same machine. Other loads on the machine show as
noise; compare ratios, not seconds.
"""


@dataclass(frozen=True)
class Table:
    """A caption, the column heads, and rows of ready-made cells."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table with its columns aligned, readable as plain text too."""
        lines = [list(self.head), *(list(row) for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.head))]

        def join(cells: Sequence[str]) -> str:
            aligned = (cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(cells))
            return "| " + " | ".join(aligned) + " |"

        def padded(cells: Sequence[str]) -> list[tuple[str, int]]:
            return list(zip(cells, widths, strict=True))

        rule = "|" + "|".join("-" * (w + 1) + ("-" if k == 0 else ":") for k, w in enumerate(widths)) + "|"
        body = [join(padded(line)) for line in lines]
        caption = [self.caption, ""] if self.caption else []
        return "\n".join([*caption, body[0], rule, *body[1:]])


@dataclass(frozen=True)
class Section:
    """What one benchmark reports; `key` marks its place on the page."""

    key: str
    title: str
    text: str
    tables: Sequence[Table]

    def markdown(self) -> str:
        body = "\n\n".join(table.markdown() for table in self.tables)
        return f"## {self.title}\n\n{self.text.strip()}\n\n{body}\n\n{machine()}\n"


def machine() -> str:
    """The machine and the versions a measurement belongs to."""
    load = os.getloadavg()[0]
    return (
        f"*{date.today()}, {cpu_name()}, {os.cpu_count()} cores, load average {load:.1f} at the end, "
        f"Python {platform.python_version()}, torch {torch.__version__}.*"
    )


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_section(section: Section, page: Path = PAGE) -> None:
    """Put the section in its place on the page, after the others if it is new."""
    start, end = f"<!-- {section.key}: begin -->", f"<!-- {section.key}: end -->"
    text = page.read_text() if page.exists() else PREAMBLE
    if start not in text:
        text = f"{text.rstrip()}\n\n{start}\n{end}\n"
    before, rest = text.split(start)
    page.write_text(f"{before}{start}\n{section.markdown()}{end}{rest.split(end)[1]}")


def run_alone(measure: Callable[[bool], Section], description: str | None) -> None:
    """The command line of one benchmark."""
    run_all([measure], description)


def run_all(measures: Sequence[Callable[[bool], Section]], description: str | None) -> None:
    """The command line of several benchmarks: measure and print each, and with --write keep it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: does everything run?")
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md")
    args = parser.parse_args()
    for measure in measures:
        section = measure(args.quick)
        print(section.markdown(), flush=True)
        if args.write:
            write_section(section)

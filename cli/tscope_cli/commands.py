"""The table of commands: what `tscope --help` shows without importing any of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """One command: `function` of the module `tscope_cli.<module>`, and its line in `tscope --help`."""

    module: str
    function: str
    help: str
    settings: dict[str, object] = field(default_factory=dict)


COMMANDS: dict[str, Command] = {
    "record": Command(
        "record",
        "record",
        "Run a training script, unmodified, and record it as a trace.",
        # What follows the command's name belongs to the command, also without `--`.
        {"allow_interspersed_args": False},
    ),
    "analyze": Command(
        "analyze", "analyze", "Compute a metric from a trace: a table, a chart, JSON, CSV or a figure."
    ),
    "compare": Command("compare", "compare", "Compare a metric over several traces, a line each."),
    "forks": Command("forks", "forks", "List the forks of a run, with the barriers between them and it."),
    "browse": Command(
        "browse", "browse", "Look at traces in the terminal, also while they are being recorded."
    ),
    "info": Command(
        "info", "info", "Say what a trace holds, what can be computed from it, and what it lacks."
    ),
    "ls": Command("ls", "ls", "List the traces in a folder."),
    "verify": Command("verify", "verify", "Check every chunk, checksum and update of a trace."),
    "demo": Command("demo", "demo", "Record and analyse a small bundled training run."),
}

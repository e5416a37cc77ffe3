"""`tscope demo`: the whole path on a bundled script: record it, telescope it, say what to look at."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from tscope_format.errors import RecordError, clean

from tscope_cli.table import facts
from tscope_cli.terminal import out, paint

SCRIPT = Path(__file__).with_name("demo_train.py")
_METRIC = "telescoping"


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="OUT", help="The trace to write. [default: runs/demo-<time>.zarr]"
        ),
    ] = None,
) -> None:
    """Record a small bundled training run, telescope it, and say what there is to see (about 15 s)."""
    trace = output or fresh_name(Path("runs"))
    out(paint("1. record", "bold") + f": {SCRIPT.name} is an ordinary script and knows nothing of tscope")
    command = ["record", "-o", str(trace), "--", sys.executable, str(SCRIPT)]
    out(f"   $ tscope {shlex.join(['record', '-o', str(trace), '--', 'python', _near(SCRIPT)])}")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, "-m", "tscope_cli", *command], check=False).returncode
    if code:
        raise RecordError(f"the demo could not be recorded: `tscope record` ended with exit code {code}")
    out()
    out(paint("2. telescope", "bold") + ": rebuild its predictions from the recorded updates alone")
    out(f"   $ tscope analyze {shlex.quote(clean(trace))} --metric {_METRIC} --replay")
    out()
    sys.stdout.flush()
    from tscope_cli import report
    from tscope_cli.analysis import compute, save

    # Replayed: how many steps were projected while it ran depends on how busy the machine is.
    result = compute(trace, _METRIC, None, {"replay": True}, quiet=False)
    save(result, trace, None)
    report.show(result, f"{_METRIC} of {trace.name.removesuffix('.zarr')}")
    out()
    out(paint("3. look", "bold"))
    for line in _advice(trace):
        out(line)


def fresh_name(folder: Path) -> Path:
    """Return a name for a trace in `folder` that nothing has yet."""
    stem = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (folder / f"{stem}{suffix}.zarr" for suffix in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(name for name in names if not name.exists())


def _near(path: Path) -> str:
    """Return a path as one types it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _advice(trace: Path) -> tuple[str, ...]:
    name = shlex.quote(clean(trace))
    activate = Path(sys.prefix) / "bin" / "activate"
    first = []
    if shutil.which("tscope") is None and activate.exists():
        first = [(f". {shlex.quote(clean(_near(activate)))}", "first, so that the shell finds tscope")]
    return (
        "   The lazy model, linearised at the start, cannot tell the two spirals apart; the telescoped one,",
        "   linear in every single update, follows the network. The difference is what training learned.",
        "",
        *facts(
            [
                *first,
                (f"tscope browse {name}", "every step, with a scrubber"),
                (f"tscope info {name}", "what the trace holds"),
                (f"tscope analyze {name} --replay --plot demo.svg", "the same as a figure"),
                ("tscope record -- python train.py", "your own script, as it is"),
            ],
            indent=3,
        ),
    )

"""Write `docs/screenshot.svg`: the telescoping view on a run recorded for it, or on the trace that is given.

    python docs/make_screenshot.py [TRACE]

Everything goes through what a user has: `tscope record`, `tscope analyze --replay`, the terminal interface.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tscope_tui.stages.run import RunStage
from tscope_tui.terminal.app import TscopeApp

HERE = Path(__file__).resolve().parent
SIZE = (110, 32)


def record(folder: Path) -> Path:
    """Record and analyse the digits example; return the trace."""
    trace = folder / "digits-mlp.zarr"
    tscope = [sys.executable, "-m", "tscope_cli"]
    script = HERE.parent / "examples" / "digits_mlp.py"
    subprocess.run([*tscope, "record", "-o", str(trace), "--", sys.executable, str(script)], check=True)
    for options in (["telescoping", "--replay"], ["updates", "--influence", "none"]):
        subprocess.run([*tscope, "analyze", str(trace), "--metric", *options], check=True)
    return trace


async def picture(trace: Path) -> str:
    """Return the telescoping view of a trace as SVG."""
    app = TscopeApp([trace])
    async with app.run_test(size=SIZE) as pilot:
        while not (app.scope == "run" and isinstance(app.stage, RunStage) and app.stage.loaded):
            await pilot.pause(0.05)
        last = app.stage.state.last
        app.perform("view:telescoping")
        app.stage.go(last * 0.65)
        app.paint()
        await pilot.pause()
        return app.export_screenshot(title=f"tscope browse {trace.name}")


def standalone(svg: str) -> str:
    """Return the picture without comments, and without fonts that it would load from elsewhere."""
    return re.sub(r"<!--.*?-->\s*|@font-face \{.*?\}\s*", "", svg, flags=re.S)


def main() -> None:
    """Write the picture."""
    # Textual takes the colours that the terminal of whoever runs this has; the picture has all of them.
    os.environ.update(COLORTERM="truecolor", TERM="xterm-256color")
    os.environ.pop("NO_COLOR", None)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(sys.argv[1]) if len(sys.argv) > 1 else record(Path(folder))
        svg = standalone(asyncio.run(picture(trace)))
    (HERE / "screenshot.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The bootstrap folder: the observer's files where the script's interpreter finds them first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tscope_format.errors import RecordError, clean

PACKAGE = "_tscope_observer"


def install(folder: Path) -> dict[str, str]:
    """Make the bootstrap folder, and return what to add to the environment of the command.

    Args:
        folder: Where to make it. A private copy: the script's interpreter must see nothing else of tscope.

    Returns:
        PYTHONPATH with the folder first; what the user has there follows.

    Raises:
        RecordError: The folder cannot be written.
    """
    observer = Path(__file__).parent / "observer"
    program = Path(__file__).parents[1] / "program"
    package = folder / PACKAGE
    try:
        package.mkdir(parents=True)
        for source in sorted(observer.glob("*.py")):
            target = folder if source.name == "sitecustomize.py" else package
            shutil.copyfile(source, target / source.name)
        for source in sorted(program.glob("export*.py")):
            shutil.copyfile(source, package / source.name)
    except OSError as error:
        raise RecordError(
            f"the observer could not be copied into {clean(folder)}: {clean(error.strerror)}"
        ) from error
    others = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{others}" if others else str(folder)}

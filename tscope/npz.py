"""Arrays that a person gives in an `.npz` file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.errors import UsageError, clean

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_npz(path: Path, what: str, keys: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an `.npz` by name.

    Args:
        path: The file.
        what: What it is called in errors, such as "probe file".
        keys: What it should hold.

    Raises:
        UsageError: It is missing or cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"{what} {clean(path)} does not exist; give an .npz with {keys}")
    try:
        # The file is opened here: numpy leaves its own open when the archive is damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{what} {clean(path)} is one bare array; save an .npz with {keys}")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # Of any other file numpy says that it holds pickles, and how to load them.
        reason = clean(error) if zipfile.is_zipfile(path) else "it is no zip archive"
        raise UsageError(
            f"{what} {clean(path)} cannot be read as .npz ({reason}); save one with "
            "numpy.savez(path, NAME=…), without pickled objects"
        ) from error

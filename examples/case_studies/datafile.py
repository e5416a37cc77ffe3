"""Where the data of the case studies lie."""

import os
from pathlib import Path


def data_file(name: str) -> Path:
    """Return the path of a file in the folder that TSCOPE_DATA names, or end with what is missing."""
    folder = os.environ.get("TSCOPE_DATA")
    if folder is None:
        raise SystemExit(f"set TSCOPE_DATA to the folder that holds {name}")
    path = Path(folder) / name
    if not path.is_file():
        raise SystemExit(f"there is no {name} in TSCOPE_DATA={folder}")
    return path

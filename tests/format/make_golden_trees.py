"""Writes the golden trace of trees: a small ensemble in format 1, and the values that must come out of it.

Run by hand, once for each format version, from the root: `python -m tests.format.make_golden_trees`. An
existing golden trace is never rewritten: it stands for the traces that people have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden_trees"


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "boosting"))
    from tree_traces import recorded

    import tscope

    path = FOLDER / "trees-1.zarr"
    if path.exists():
        raise SystemExit(f"{path} exists, and golden traces are never rewritten")
    trace = recorded(path)
    result = tscope.analyze(trace, "effective-params", save=False)
    arrays = {name.replace("/", "."): trace[name] for name in trace.reader.arrays()}
    np.savez_compressed(
        path.with_suffix(".npz"),
        p_train=result.arrays["p_train"].data,
        p_test=result.arrays["p_test"].data,
        **arrays,
    )


if __name__ == "__main__":
    main()

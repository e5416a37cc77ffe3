"""Runs of which a case study wants several metrics: recorded and analysed once, and kept.

As in `study.py` each is a training script that knows nothing of tscope, in processes of its own; the results
are those of `tscope analyze --json`, kept in `<name>.json` beside the trace `<name>.zarr`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from study import HERE, code_hash, solve, tscope

Values = NDArray[np.float64]

PROBE = "{probe}"
"""Stands for `--probe FILE` with the subject's held-out examples."""
KEPT = {"step", "mode", "pair", "event"}  # the dimensions of arrays that are kept


@dataclass(frozen=True)
class Subject:
    """One training run and what is asked of it.

    Attributes:
        name: Of its files in the study's folder.
        script: The training script, a file beside this one.
        arguments: Its options with their values, without --seed; a tuple is several values.
        seed: What --seed is.
        metrics: The options of `tscope analyze` by metric, in the order in which they are run.
        record: Options of `tscope record`.
        held_out: Makes the held-out inputs and labels of the metrics whose options hold PROBE.
        modules: Files beside this one that the script imports.
    """

    name: str
    script: str
    arguments: dict[str, object]
    seed: int
    metrics: dict[str, tuple[str, ...]]
    record: tuple[str, ...] = ()
    held_out: Callable[[], tuple[Any, Any]] | None = None
    modules: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """Return the command that trains, as a user would type it."""
        words = [sys.executable, str(HERE / self.script), "--seed", str(self.seed)]
        for option, given in self.arguments.items():
            words += [option, *map(str, given if isinstance(given, tuple) else (given,))]
        return words

    def identity(self) -> dict[str, object]:
        """Return what kept results must agree in to be those of this run."""
        return {
            "arguments": self.command()[2:],
            "record": [*self.record],
            "metrics": [[metric, *options] for metric, options in self.metrics.items()],
            "scripts": code_hash(self.script, *self.modules),
        }


@dataclass(frozen=True, eq=False)
class Found:
    """What tscope found of a subject: each metric's result, as `tscope analyze --json` prints it."""

    subject: Subject
    results: dict[str, dict[str, Any]] = field(repr=False)

    def scalar(self, metric: str, name: str) -> float:
        """Return a scalar; NaN where the result has none."""
        value = self.results[metric]["scalars"].get(name)
        return float("nan") if value is None else float(value)

    def array(self, metric: str, name: str) -> Values:
        """Return an array."""
        return np.asarray(self.results[metric]["arrays"][name]["data"], dtype=np.float64)


def examine(subjects: Sequence[Subject], folder: Path, jobs: int) -> list[Found]:
    """Record and analyse each subject that is not done yet, `jobs` at a time."""
    done = solve(subjects, _measure, folder, jobs)
    return [Found(subject, kept["results"]) for subject, kept in done]


def _measure(subject: Subject, folder: Path) -> dict[str, object]:
    trace, probe = folder / f"{subject.name}.zarr", folder / f"{subject.name}.probe.npz"
    if subject.held_out is not None:
        x, y = subject.held_out()
        np.savez(probe, x=np.asarray(x), y=np.asarray(y))
    # A recorder on a busy machine projects few rows; what metrics replay does not depend on that.
    record = ["record", "-o", str(trace), "--force", "--quiet", "--probe", "none", *subject.record]
    tscope(subject.name, [*record, "--", *subject.command()])
    results = {}
    for metric, options in subject.metrics.items():
        given = ["--probe", str(probe)] if PROBE in options else []
        words = [word for word in options if word != PROBE]
        command = ["analyze", str(trace), "--metric", metric, *words, *given, "--json", "--quiet"]
        result = json.loads(tscope(subject.name, command))
        kept = {name: array for name, array in result["arrays"].items() if set(array["dims"]) <= KEPT}
        results[metric] = {
            **{part: result[part] for part in ("scalars", "provenance", "notes")},
            "arrays": kept,
        }
    return {"results": results}

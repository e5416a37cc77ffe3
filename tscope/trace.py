"""A recorded run as a Python object: arrays by name, parameters and model at any step, saved results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format import RootReader, TraceReader, open_trace
from tscope_format.errors import MissingDataError, UsageError, clean
from tscope_format.results import Result, ResultInfo, list_results, load_result

from tscope.probes import InputSpec, ProbeSet

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from tscope_format.tensors import Tensor as Entry
    from xarray import DataTree

    from tscope.program import Program


def open(path: str | Path) -> Trace:
    """Open a trace for reading; one that is still being recorded shows the rows committed so far.

    Raises:
        TraceError: `path` is not a trace, is damaged, or was written by a newer format.
    """
    return Trace(open_trace(Path(path)))


class Trace:
    """One recorded root module of a trace.

    A run that trains several models (a GAN) has several roots; `root` gives the others.

    Attributes:
        reader: The arrays on disk.
    """

    def __init__(self, source: TraceReader, root: str | None = None) -> None:
        self._source = source
        if not source.roots:
            raise MissingDataError(
                f"{clean(source.path)} holds no model: nothing was trained while it was recorded. Record a "
                "script "
                "that takes optimizer steps: `tscope record -- python train.py`"
            )
        if root is not None and root not in source.roots:
            names = ", ".join(clean(name) for name in source.roots)
            raise UsageError(f"{clean(source.path)} has no root {clean(root)!r}; it has {names}")
        self.reader: RootReader = source.root(root)

    @property
    def path(self) -> Path:
        """The folder of the trace."""
        return Path(self._source.path)

    @property
    def name(self) -> str:
        """The name of this root."""
        return self.reader.name

    @property
    def roots(self) -> tuple[str, ...]:
        """The names of all roots of the trace."""
        return tuple(self._source.roots)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known of the run: command, versions, status, …."""
        return self._source.facts

    @property
    def status(self) -> str:
        """The run's state: "recording", "complete", "interrupted" or "failed"."""
        return str(self._source.status)

    @property
    def fingerprint(self) -> str:
        """A hash that identifies the trace in the provenance of results."""
        return self._source.fingerprint

    def root(self, name: str) -> Trace:
        """Return another root of the same trace."""
        return Trace(self._source, name)

    @property
    def kind(self) -> str:
        """What this root is: "net", or "trees" for an ensemble of decision trees."""
        return str(self.reader.attributes.get("kind", "net"))

    @property
    def rows(self) -> int:
        """The number of recorded rows, row 0 (before training) included."""
        return int(self.reader.rows)

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """The optimizer step of every row (row,); 0 is the state before training."""
        return np.asarray(self.reader.read("step"), dtype=np.int64)

    @property
    def parameters(self) -> tuple[Entry, ...]:
        """The table of parameters: name, shape, dtype, place in the flat vector, tied names."""
        return tuple(self.reader.parameters)

    @cached_property
    def probes(self) -> dict[str, ProbeSet]:
        """The probe sets, by name."""
        return {name: self._probe(name) for name in self.reader.probes}

    def _probe(self, name: str) -> ProbeSet:
        folder = f"probe/{name}"
        present = self.reader.arrays()
        inputs: list[NDArray[Any]] = []
        while (array := f"{folder}/input/{len(inputs)}") in present:
            inputs.append(_numbers(self.reader.read(array), present[array].dtype))
        target = self.reader.read(f"{folder}/target") if f"{folder}/target" in present else None
        known = (self.reader.attributes.get("probes") or {}).get(name) or {}
        return ProbeSet(name, tuple(inputs), target, {**self.reader.group_attributes(folder), **known})

    @cached_property
    def input_specs(self) -> tuple[InputSpec, ...] | None:
        """Shape and dtype of one example of each model input, if any example or probe set was recorded."""
        present = self.reader.arrays()
        for folder in ("examples", *(f"probe/{name}" for name in self.reader.probes)):
            specs: list[InputSpec] = []
            while (info := present.get(f"{folder}/input/{len(specs)}")) is not None:
                specs.append(InputSpec(tuple(info.shape[1:]), str(info.dtype)))
            if specs:
                return tuple(specs)
        return None

    def __getitem__(self, name: str) -> NDArray[Any]:
        present = self.reader.arrays()
        if name not in present:
            raise UsageError(
                f"{clean(self.path)} has no array {clean(name)!r} in root {clean(self.name)}; it has "
                f"{', '.join(clean(array) for array in sorted(present))}"
            )
        array: NDArray[Any] = self.reader.read(name)
        return array

    def row(self, step: int) -> int:
        """Return the row that holds the state after optimizer step `step`.

        Raises:
            UsageError: That step was not recorded.
        """
        row = int(np.searchsorted(self.steps, step))
        if row < len(self.steps) and self.steps[row] == step:
            return row
        if step < 0 or row == len(self.steps):
            raise UsageError(f"step {step} is not in the trace; it holds steps 0 to {self.steps[-1]}")
        below, above = self.steps[row - 1], self.steps[row]
        raise UsageError(f"step {step} was not recorded; the nearest recorded steps are {below} and {above}")

    def theta(self, step: int) -> dict[str, torch.Tensor]:
        """Return the parameters after optimizer step `step`, by name, bit for bit.

        Raises:
            UsageError: That step was not recorded.
            MissingDataError: Its parameters were not kept (`record --updates none`).
        """
        from tscope.replay.flat import named

        return named(self.reader.parameters, self.reader.theta(self.row(step)))

    def buffers(self, step: int) -> dict[str, torch.Tensor]:
        """Return the buffers after optimizer step `step`, by name, bit for bit."""
        from tscope.replay.flat import named

        row = self.row(step)
        return named(self.reader.buffers, self.reader.buffer(row)) if self.reader.buffers else {}

    def state_dict(self, step: int) -> dict[str, torch.Tensor]:
        """Return what `module.state_dict()` held after step `step`, ready for `load_state_dict`.

        Tied parameters appear under each of their names; buffers that are not persistent do not appear.
        """
        transient = set(self.reader.attributes.get("transient_buffers", ()))
        state: dict[str, torch.Tensor] = {}
        for table, values in (
            (self.reader.parameters, self.theta(step)),
            (self.reader.buffers, self.buffers(step)),
        ):
            for entry in table:
                for name in (entry.name, *entry.tied):
                    if name not in transient:
                        state[name] = values[entry.name]
        return state

    def program(self) -> Program:
        """Return the model as data: a function of parameters, buffers and inputs.

        Raises:
            MissingDataError: The model could not be exported while the run was recorded.
            TraceError: The graph holds an operation that is not on the whitelist.
        """
        from tscope.program import Program

        stored = self.reader.program()
        if stored is None:
            raise MissingDataError(
                f"{clean(self.path)} holds no program of the model ({self.program_absence}); give the "
                "model's code "
                "with `--model module:factory`"
            )
        return Program.load(*stored)

    @property
    def program_absence(self) -> str:
        """Why the trace holds no program, as the recorder noted it."""
        exported = self.reader.attributes.get("program") or {}
        return clean(exported.get("reason") or "the recorder gave no reason")

    def results(self) -> list[ResultInfo]:
        """Return what analyses saved in this trace, oldest first."""
        return list(list_results(self.path))

    def result(self, metric: str, id: str | None = None) -> Result:
        """Return a saved result, the newest of the metric by default."""
        return load_result(self.path, metric, id)

    def to_xarray(self) -> DataTree:
        """Return the whole trace as an xarray DataTree, lazily read, with named dimensions.

        Raises:
            MissingDataError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise MissingDataError("to_xarray needs xarray: pip install 'tscope[xarray]'") from error
        tree: DataTree = xarray.open_datatree(self.path, engine="zarr")
        return tree

    def refresh(self) -> bool:
        """Read the commit record again; return whether rows or arrays were added since."""
        changed = self._source.refresh()
        if changed:
            self.reader = self._source.root(self.name)
            for name in ("steps", "probes", "input_specs"):
                self.__dict__.pop(name, None)
        return changed

    def __repr__(self) -> str:
        count = sum(entry.size for entry in self.reader.parameters)
        probes = ", ".join(clean(name) for name in self.reader.probes) or "none"
        root = f", root {clean(self.name)!r} of {len(self.roots)}" if len(self.roots) > 1 else ""
        steps = f"steps 0–{self.steps[-1]} in {self.rows} rows" if self.rows else "no rows"
        return (
            f"<tscope.Trace {clean(self.path)} ({self.status}){root}: {steps}, {count:,} parameters in "
            f"{len(self.reader.parameters)} tensors, probes: {probes}>"
        )


def _numbers(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return values that numpy can hold: bfloat16 is stored as the upper half of a float32."""
    if dtype != "bfloat16":
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)

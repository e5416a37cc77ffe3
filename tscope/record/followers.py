"""All that follows the states of a run: the projections and, where they are asked for, the sketches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tscope_format.dtypes import JSON

from tscope.record.backlog import State
from tscope.record.frames import Blob, Frame
from tscope.record.options import RecordOptions
from tscope.record.probe_source import ProbeArrays
from tscope.record.projector import Projector

if TYPE_CHECKING:
    from tscope_format.tensors import Tensor


class Followers:
    """One projector, and another that sketches: each call goes to both.

    They are processes of their own, so that a sketch, which may take seconds, costs no projection.

    Args:
        deliver: Called (from other threads) with what the processes say.
        options: What is to be followed.
        folder: For their logs.
    """

    def __init__(self, deliver: Callable[[Frame], None], options: RecordOptions, folder: Path) -> None:
        functional = options.probe_output
        self._each = [Projector(deliver, functional=functional, log=folder / "projection.log")]
        if options.sketch is not None:
            sketcher = Projector(
                deliver,
                functional=functional,
                log=folder / "sketch.log",
                columns=options.sketch,
                every=options.every,
            )
            self._each.append(sketcher)

    @property
    def what(self) -> str:
        """What there will be none of where the states cannot be followed."""
        return "projections" if len(self._each) == 1 else "projections and no sketches"

    @property
    def busy(self) -> bool:
        """Whether, after `finish`, anything is still to come."""
        return any(each.busy for each in self._each)

    @property
    def problems(self) -> list[str]:
        """Why following stopped, where it did."""
        return [each.problem for each in self._each if each.problem is not None]

    def start(self) -> None:
        """Start the processes, once."""
        for each in self._each:
            each.start()

    def add_root(
        self, root: str, parameters: Sequence[Tensor], buffers: Sequence[Tensor], first: State, *, late: bool
    ) -> None:
        """Begin to follow a root; `late`: a probe set may still be chosen after others."""
        for each in self._each:
            each.add_root(root, parameters, buffers, first, late=late)

    def set_program(self, root: str, graph: Mapping[str, JSON], constants: Mapping[str, Blob]) -> None:
        """Give the model of a root as data."""
        for each in self._each:
            each.set_program(root, graph, constants)

    def set_probe(self, root: str, probe: ProbeArrays, *, final: bool) -> None:
        """Follow this set from the first state on."""
        for each in self._each:
            each.set_probe(root, probe, final=final)

    def add(self, root: str, state: State) -> None:
        """Take in the state after a step."""
        for each in self._each:
            each.add(root, state)

    def stop(self, root: str) -> None:
        """Give up on a root."""
        for each in self._each:
            each.stop(root)

    def finish(self, deadline: float) -> None:
        """Do what can be done until `deadline`, the last state in any case."""
        for each in self._each:
            each.finish(deadline)

    def close(self) -> None:
        """End the processes, whatever they do."""
        for each in self._each:
            each.close()

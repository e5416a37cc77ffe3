"""The models that are averaged: of which trace and step each is, and whether they can be averaged at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tscope_format.errors import AnalysisError, MissingDataError, UsageError, clean

from tscope.averaging import State, last_common_step
from tscope.kernels.sites import arguments
from tscope.record.examples import row_hashes
from tscope.replay import Replay
from tscope.trace import open as open_trace

if TYPE_CHECKING:
    import torch

    from tscope.analyses.averaging.options import Options
    from tscope.probes import ProbeSet
    from tscope.program.graph import Node
    from tscope.trace import Trace

# Of BatchNorm: how fast its statistics follow the batches, and by which kernels they are computed.
_TRAINING = frozenset({"momentum", "cudnn_enabled"})


@dataclass(frozen=True, eq=False)
class Member:
    """One of the models.

    Attributes:
        trace: Its run.
        row: Its row there.
    """

    trace: Trace
    row: int

    @property
    def step(self) -> int:
        """Its optimizer step."""
        return int(self.trace.steps[self.row])

    @property
    def name(self) -> str:
        """Which it is, on the screen."""
        return f"step {self.step} of {clean(self.trace.path.name)}"

    def state(self, dtype: torch.dtype) -> State:
        """Return its parameters and buffers."""
        _, theta, buffers = next(Replay(self.trace, dtype=dtype).at([self.row]))
        return State(theta, buffers)


def read_members(trace: Trace, options: Options) -> list[Member]:
    """Return the models that the options name, two or more; none for averages along the one run.

    Raises:
        UsageError: The traces cannot be averaged, or the steps are not of them.
        MissingDataError: One of the traces holds no network.
        TraceError: One of them cannot be read.
    """
    if options.against is None:
        if options.at is None:
            return []
        rows = list(dict.fromkeys(_row(trace, step) for step in options.at.split(",")))
        if len(rows) < 2:
            raise UsageError(
                f"--at {options.at} names one step: give two or more to average, or another run (`--against "
                "OTHER.zarr`)"
            )
        return [Member(trace, row) for row in rows]
    traces = [trace, *(_network(path, trace.name) for path in options.others)]
    for other in traces[1:]:
        check_same_model(trace, other)
    steps = ["last"] * len(traces) if options.at is None else options.at.split(",")
    if len(steps) == 1:
        steps *= len(traces)
    if len(steps) != len(traces):
        raise UsageError(
            f"--at {options.at} names {len(steps)} steps for {len(traces)} runs: give one for all, or "
            "one for each"
        )
    members = [Member(own, _row(own, step)) for own, step in zip(traces, steps, strict=True)]
    known = {(member.trace.fingerprint, member.trace.name, member.row) for member in members}
    if len(known) < len(members):
        raise UsageError("--against names a model twice: an average needs different ones")
    return members


def fork_step(members: Sequence[Member]) -> int | None:
    """Return the last step that the histories of the models have in common; None if they start apart."""
    traces = list({id(member.trace): member.trace for member in members}.values())
    first = min(member.step for member in members)
    return first if len(traces) == 1 else last_common_step(traces, first)


def check_same_model(a: Trace, b: Trace) -> None:
    """Refuse runs of different models, and name the first difference.

    Raises:
        UsageError: Parameters or programs differ.
    """
    found = _difference(a, b)
    if found is not None:
        names = f"{clean(a.path.name)} and {clean(b.path.name)}"
        raise UsageError(f"{names} cannot be averaged: {found}; give runs of the same model")


def _difference(a: Trace, b: Trace) -> str | None:
    """Return the first difference between two models in words; None if they are the same."""
    ours, theirs = ({e.name: (tuple(e.shape), e.dtype) for e in t.parameters} for t in (a, b))
    differ = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if differ:
        what = [_described(table.get(differ[0])) for table in (ours, theirs)]
        return (
            f"{len(differ)} of their parameters differ, the first being {clean(differ[0])}, {what[0]} in one "
            f"and {what[1]} in the other"
        )
    first, second = a.program(), b.program()
    for x, y in zip(first.graph.nodes, second.graph.nodes, strict=False):
        if x.target != y.target or _arguments(x) != _arguments(y):
            what = [f"{clean(node.name)} is {clean(node.target)}" for node in (x, y)]
            how = "" if x.target != y.target else ", with other arguments"
            return f"their programs differ; {what[0]} in one, {what[1]} in the other{how}"
    lengths = [len(program.graph.nodes) for program in (first, second)]
    if lengths[0] != lengths[1]:
        return f"their programs differ, {lengths[0]} and {lengths[1]} operations"
    for name, value in first.constants.items():
        other = second.constants.get(name)
        if other is None or value.shape != other.shape or not bool((value == other).all()):
            return f"their programs differ in the constant {clean(name)}"
    return None


def check_finite(member: Member, state: State) -> None:
    """Refuse a model that diverged.

    Raises:
        AnalysisError: A parameter is NaN or infinite.
    """
    for name, value in state.theta.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise AnalysisError(
                f"{clean(name)} is not finite at {member.name}: the run diverged; choose an earlier step "
                "with `--at`"
            )


def overlaps(members: Sequence[Member], probe: ProbeSet | None) -> list[str]:
    """Return the notes on what other runs were trained on: held-out examples, or other training examples."""
    found = []
    first = _trained(members[0].trace)
    for member in {id(member.trace): member for member in members[1:]}.values():
        if member.trace is members[0].trace:
            continue
        theirs, name = _trained(member.trace), clean(member.trace.path.name)
        if probe is not None and theirs:
            held = sum(digest in theirs for digest in row_hashes(probe.inputs))
            if held:
                found.append(f"{held} of {probe.examples} held-out examples were trained on in {name}")
        unseen = len(first - theirs)
        if unseen:
            found.append(f"{unseen} of the {len(first)} training examples were not trained on in {name}")
        if probe is not None and probe.name in member.trace.probes:
            other = member.trace.probes[probe.name]
            same = len(other.inputs) == len(probe.inputs) and all(
                np.array_equal(x, y) for x, y in zip(other.inputs, probe.inputs, strict=True)
            )
            if not same:
                found.append(
                    f"the probe set {clean(probe.name)} of {name} holds other examples; those of "
                    f"{clean(members[0].trace.path.name)} are measured"
                )
    return found


def _network(path: str, root: str) -> Trace:
    """Return the network of another trace: the root of the same name, else the first."""
    trace = open_trace(path)
    if root in trace.roots:
        trace = trace.root(root)
    if trace.kind == "trees":
        raise MissingDataError(
            f"--against: {clean(trace.path)} holds an ensemble of trees, whose parameters cannot be averaged"
        )
    return trace


def _row(trace: Trace, step: str) -> int:
    return trace.rows - 1 if step == "last" else trace.row(int(step))


def _arguments(node: Node) -> dict[str, str]:
    """Return what a node is given, without what only training makes use of."""
    if not hasattr(node.function, "_schema"):  # arithmetic on sizes, or one of several results
        return {str(place): repr(value) for place, value in enumerate(node.args)}
    left_out = _TRAINING | ({"p"} if "dropout" in node.target else set())
    given = arguments(node, node.args, node.kwargs)
    return {name: repr(value) for name, value in given.items() if name not in left_out}


def _trained(trace: Trace) -> set[bytes]:
    if "examples/hash" not in trace.reader.arrays():
        return set()
    return {bytes(row) for row in trace.reader.read("examples/hash")}


def _described(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if entry is None else f"{entry[1]} {entry[0]}"

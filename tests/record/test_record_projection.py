from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from record_run import FEATURES, Run, Script, await_that, model, rows
from tscope_format import RootReader, open_trace, table

from tscope.program.export import export
from tscope.program.functional import OutputFunctional
from tscope.program.program import Program
from tscope.record.backlog import State
from tscope.record.frames import Blob
from tscope.record.linear_map import linear_map
from tscope.record.model import Model
from tscope.record.probe_source import ProbeArrays
from tscope.record.projection import Projection

Recording = Callable[..., Run]


def network(theta: np.ndarray, inputs: np.ndarray) -> torch.Tensor:
    module = model()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(theta.copy()), module.parameters())
    return module(torch.from_numpy(inputs)).detach()


def product(theta: np.ndarray, change: np.ndarray, inputs: np.ndarray) -> torch.Tensor:
    """Return J(θ) · change, by two backward passes through the module itself."""
    module = model()
    shapes = {name: p.shape for name, p in module.named_parameters()}

    def named(vector: torch.Tensor) -> dict[str, torch.Tensor]:
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        return {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}

    def output(vector: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, named(vector), (torch.from_numpy(inputs),))

    point, direction = torch.from_numpy(theta), torch.from_numpy(change)
    return torch.autograd.functional.jvp(output, point, direction)[1]


def assert_right(root: RootReader, probe: str, states: list[np.ndarray]) -> None:
    """Compare what was projected with the module itself at the recorded states."""
    steps = root.read(f"probe/{probe}/probe_step")
    inputs = root.read(f"probe/{probe}/input/0")
    output, change, lazy = (root.read(f"probe/{probe}/{name}") for name in ("output", "jvp", "lazy"))
    assert steps[0] == 0
    assert not change[0].any()
    assert not lazy[0].any()
    for position, step in enumerate(steps):
        at, before = states[step], states[steps[max(0, position - 1)]]
        assert np.allclose(output[position], network(at, inputs), atol=1e-5)
        assert np.allclose(change[position], product(before, at - before, inputs), atol=1e-5)
        assert np.allclose(lazy[position], product(states[0], at - states[0], inputs), atol=1e-5)


def projected(run: Run, probe: str) -> int:
    """Return the last step that a reader sees projected."""
    if not run.out.exists() or not open_trace(run.out).roots:
        return -1
    root = open_trace(run.out).root()
    name = f"probe/{probe}/probe_step"
    return int(root.read(name)[-1]) if name in root.arrays() and len(root.read(name)) else -1


def kill_projection() -> None:
    """Kill the process that projects, which is the only child of this one."""
    for name in Path("/proc").glob("[0-9]*"):
        words = (name / "cmdline").read_bytes().split(b"\0") if (name / "cmdline").exists() else []
        parent = f"PPid:\t{os.getpid()}\n"
        if b"tscope.record.projection" in words and parent in (name / "status").read_text():
            os.kill(int(name.name), signal.SIGKILL)


def begun(run: Run) -> Script:
    script = run.script()
    script.root()
    script.step(rows(8, 1))
    return script


def test_held_out_rows_are_followed_and_the_rows_are_right(recording: Recording) -> None:
    run = recording()
    script = begun(run)
    script.evaluate(rows(300, 2))
    script.program()
    for _ in range(20):
        script.step(rows(8, 1))
    # Live, a row is there once its successor is projected too.
    await_that(lambda: projected(run, "heldout") == 20)
    script.leave()
    run.finish()
    root = open_trace(run.out).root()
    assert root.probes == ("heldout",)
    assert root.read("probe/heldout/input/0").shape == (256, FEATURES)
    attributes = root.attributes["probes"]["heldout"]
    assert (attributes["in_sample"], attributes["functional"]) == (False, "full")
    assert_right(root, "heldout", script.states)
    assert root.read("probe/heldout/probe_step").tolist() == list(range(22))


def test_training_rows_stand_in_until_held_out_rows_come(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tscope.record.probe_choice.PATIENCE", 0.0)
    run = recording()
    script = begun(run)
    script.program()
    for _ in range(10):
        script.step(rows(8, 1))
    await_that(lambda: projected(run, "train") >= 9)
    script.evaluate(rows(256, 2))
    for _ in range(5):
        script.step(rows(8, 1))
    await_that(lambda: projected(run, "heldout") >= 14)
    script.leave()
    run.finish()
    root = open_trace(run.out).root()
    assert set(root.probes) == {"train", "heldout"}
    assert root.attributes["probes"]["train"]["in_sample"] is True
    for probe in root.probes:
        assert_right(root, probe, script.states)
    assert root.read("probe/heldout/probe_step").tolist() == list(range(17))
    assert root.read("probe/train/probe_step")[-1] < 16


def test_rows_that_turn_out_to_be_trained_on_are_counted_and_said(recording: Recording) -> None:
    run = recording()
    script = begun(run)
    held = rows(256, 2)
    script.evaluate(held)
    script.step(rows(8, 1))
    script.step(held[:5])
    script.step(held[3:8])
    script.no_program()
    script.leave()
    run.finish()
    attributes = open_trace(run.out).root().attributes["probes"]["heldout"]
    assert (attributes["rows_in_training"], attributes["in_sample"], attributes["kind"]) == (8, True, "mixed")
    assert len([text for text in run.said if text.startswith("8 of the rows taken as held out")]) == 1


def test_a_model_without_a_program_is_said_and_recorded(recording: Recording) -> None:
    run = recording()
    script = begun(run)
    script.no_program("it branches on its data")
    script.leave()
    outcome = run.finish()
    assert outcome.steps == 1
    assert run.said == [
        "model: the model could not be exported, so there are no projections: it branches on its data"
    ]
    assert open_trace(run.out).root().attributes["program"] == {
        "ok": False,
        "reason": "it branches on its data",
    }


def test_a_functional_that_does_not_fit_is_said(recording: Recording) -> None:
    run = recording(probe_output="logprob")
    script = begun(run)
    script.evaluate(rows(256, 2))
    script.program()
    script.step(rows(8, 1))
    await_that(lambda: run.said)
    script.leave()
    run.finish()
    assert len(run.said) == 1
    assert "--probe-output logprob needs targets" in run.said[0]


def test_a_given_probe_set_is_followed_from_the_first_step(recording: Recording) -> None:
    inputs, labels = rows(6, 3), np.arange(6)
    probe = ProbeArrays("probe", (Blob(inputs, "float32"),), Blob(labels, "int64"), {"kind": "file"})
    run = recording(probe=probe)
    script = begun(run)
    script.evaluate(rows(256, 2))
    script.program()
    script.step(rows(8, 1))
    await_that(lambda: projected(run, "probe") == 1)
    script.leave()
    run.finish()
    root = open_trace(run.out).root()
    assert root.probes == ("probe",)
    assert root.read("probe/probe/target").tolist() == list(range(6))
    assert_right(root, "probe", script.states)


def test_a_projecting_process_that_dies_is_said_and_the_run_recorded(recording: Recording) -> None:
    run = recording()
    script = begun(run)
    script.evaluate(rows(256, 2))
    script.program()
    script.step(rows(8, 1))
    await_that(lambda: projected(run, "heldout") >= 0)
    kill_projection()
    await_that(lambda: run.said)
    script.step(rows(8, 1))
    script.leave()
    outcome = run.finish()
    assert outcome.steps == 3
    assert outcome.failure is None
    assert run.said[0].startswith("projections stopped")


def setup() -> tuple[Model, np.ndarray]:
    module = model()
    graph, constants = export(module, (torch.zeros(8, FEATURES),), {}, output=None, gradient_path=None)
    entries = [(name, tuple(p.shape), "float32", (), True) for name, p in module.named_parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
    return Model(Program.load(graph, constants), table(entries), ()), theta


def test_a_chunked_projection_equals_a_whole_one() -> None:
    definition, theta = setup()
    inputs = [torch.from_numpy(rows(10, 1))]
    moved = State(1, {"float32": theta + 0.1}, {})
    found = []
    for chunk in (3, 10):
        first = State(0, {"float32": theta}, {})
        projection = Projection("p", definition, inputs, OutputFunctional(), chunk, first)
        projection.advance(moved)
        found.append(projection.last())
    assert torch.allclose(found[0].jvp, found[1].jvp)
    assert torch.allclose(found[0].output, found[1].output)


@pytest.mark.filterwarnings("ignore")  # torch warns about its own deprecated parts while it traces
def test_the_linear_map_is_the_jacobian_at_its_point() -> None:
    definition, theta = setup()
    inputs = [torch.from_numpy(rows(10, 1))]
    parameters, _ = definition.tensors(State(0, {"float32": theta}, {}))
    random = torch.Generator().manual_seed(0)
    v, w = ({n: torch.randn(p.shape, generator=random) for n, p in parameters.items()} for _ in range(2))
    flat = [torch.cat([tensor.reshape(-1) for tensor in vector.values()]).numpy() for vector in (v, w)]
    known = product(theta, flat[0], rows(10, 1))
    program, functional = definition.program, OutputFunctional()
    found = linear_map(program, functional, parameters, {}, inputs, v, known)
    assert found is not None
    assert torch.allclose(found(w), product(theta, flat[1], rows(10, 1)), atol=1e-5)
    assert linear_map(program, functional, parameters, {}, inputs, v, known + 1) is None


def test_the_linear_map_is_not_made_when_it_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tscope.record.linear_map.MOST_BYTES", 100)
    definition, theta = setup()
    parameters, _ = definition.tensors(State(0, {"float32": theta}, {}))
    inputs = [torch.from_numpy(rows(10, 1))]
    program, functional = definition.program, OutputFunctional()
    assert linear_map(program, functional, parameters, {}, inputs, parameters, torch.zeros(10, 3)) is None

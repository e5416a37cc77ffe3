"""Sketches and traces without updates, recorded: from the frames of a script to what a reader finds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from record_run import Run, Script, await_that, model, rows
from tscope_format import MissingDataError, RecordError, RootReader, UsageError, open_trace, verify

from tests.reference import jacobians, signs
from tscope.program import OutputFunctional, Program, export
from tscope.record.model import Model
from tscope.record.options import RecordOptions, parse_updates
from tscope.record.scale import Scale, following, points
from tscope.record.sketching import Sketching

Recording = Callable[..., Run]
COLUMNS = 80


def begun(run: Run) -> Script:
    script = run.script()
    script.root()
    script.step(rows(8, 1))
    script.evaluate(rows(300, 2))
    script.program()
    return script


def finished(run: Run, script: Script) -> RootReader:
    script.leave()
    run.finish()
    assert verify(run.out).ok
    return open_trace(run.out).root()


def seen(run: Run, coordinate: str) -> list[int]:
    """Return the steps that a reader sees projected (`probe_step`) or sketched (`sketch_step`)."""
    if not run.out.exists() or not open_trace(run.out).roots:
        return []
    root = open_trace(run.out).root()
    name = f"probe/heldout/{coordinate}"
    return root.read(name).tolist() if name in root.arrays() else []


def expected(theta: np.ndarray, inputs: np.ndarray, columns: int) -> np.ndarray:
    """φ by its definition, from explicit Jacobians of the module itself."""
    module = model()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(theta.copy()), module.parameters())
    dense = jacobians.jacobian(module, [torch.from_numpy(inputs)])
    return signs.sketch(dense, list(dense), 0, columns).numpy()


def test_the_scale_holds_zero_and_all_powers_of_two_and_one_between_each():
    found = [0]
    while found[-1] < 200:
        found.append(following(found[-1]))
    assert found == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256]


def test_a_step_stands_for_the_points_before_it():
    scale = Scale(every=5)
    assert [step for step in (0, 5, 10, 20, 35, 40, 45, 50) if scale.due(step)] == [0, 5, 10, 20, 35, 40]


@pytest.mark.parametrize(("last", "every", "count"), [(0, 1, 1), (1, 1, 2), (7, 1, 7), (8, 1, 7), (60, 5, 9)])
def test_the_points_up_to_a_step_are_counted_with_the_last(last, every, count):
    assert points(last, every) == count


def test_without_updates_sketches_and_a_few_states_are_kept(recording: Recording) -> None:
    run = recording(sketch=COLUMNS, updates=False)
    script = begun(run)
    for _ in range(9):
        script.step(rows(8, 1))
    await_that(lambda: seen(run, "sketch_step")[-1:] == [8] and seen(run, "probe_step")[-1:] == [9])
    root = finished(run, script)
    assert root.read("probe/heldout/sketch_step").tolist() == [0, 1, 2, 3, 4, 6, 8, 10]
    found = root.read("probe/heldout/sketch")
    inputs = root.read("probe/heldout/input/0")[:6]
    for place, step in enumerate((0, 1, 2, 3, 4, 6, 8, 10)):
        wanted = expected(script.states[step], inputs, COLUMNS)
        np.testing.assert_allclose(found[place, :6], wanted, rtol=0, atol=1e-6 * abs(wanted).max())
    told = root.attributes["probes"]["heldout"]["sketch"]
    assert told == {"generator": "splitmix64", "seed": 0, "columns": COLUMNS}
    # The projections are those of every step, as without sketches.
    assert root.read("probe/heldout/probe_step").tolist() == list(range(11))
    assert root.theta_rows == (0, 1, 2, 4, 8, 10)
    for row in root.theta_rows:
        assert np.array_equal(root.theta(row)["float32"], script.states[row])
    with pytest.raises(MissingDataError, match="at row 5 were not kept"):
        root.theta(5)
    assert root.read("step").tolist() == list(range(11))
    assert not any(name.startswith("optimizer/") for name in root.arrays())


@pytest.mark.slow
def test_a_sketching_process_that_dies_costs_no_projection(recording: Recording) -> None:
    run = recording(sketch=COLUMNS)
    script = begun(run)
    await_that(lambda: seen(run, "sketch_step"))
    for name in Path("/proc").glob("[0-9]*"):
        words = (name / "cmdline").read_bytes().split(b"\0") if (name / "cmdline").exists() else []
        mine = b"tscope.record.projection" in words and str(COLUMNS).encode() in words
        if mine and f"PPid:\t{os.getpid()}\n" in (name / "status").read_text():
            os.kill(int(name.name), signal.SIGKILL)
    await_that(lambda: any("sketches stopped" in line for line in run.said))
    for _ in range(5):
        script.step(rows(8, 1))
    await_that(lambda: seen(run, "probe_step")[-1:] == [5])
    root = finished(run, script)
    assert root.read("probe/heldout/probe_step").tolist() == list(range(7))


def test_a_model_that_is_no_data_has_no_sketches_and_that_is_said(recording: Recording) -> None:
    run = recording(sketch=COLUMNS)
    script = run.script()
    script.root()
    script.step(rows(8, 1))
    script.evaluate(rows(300, 2))
    script.no_program()
    root = finished(run, script)
    assert "could not be exported, so there are no projections and no sketches: control flow" in run.said[-1]
    assert not any("sketch" in name for name in root.arrays())


def test_outputs_that_are_not_the_models_own_are_refused() -> None:
    functional = OutputFunctional("logprob", target=torch.zeros(4, dtype=torch.long))
    program = Program.load(*export(model(), (torch.zeros(8, 4),), {}, output=None, gradient_path=None))
    with pytest.raises(UsageError, match="a tangent kernel is of the model's outputs, but the logprob of"):
        Sketching("p", Model(program, (), ()), [], functional, COLUMNS)


class Constant(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table * x.sum()


def test_an_output_without_a_row_for_each_example_is_refused() -> None:
    graph, constants = export(Constant(), (torch.zeros(8, 4),), {}, output=None, gradient_path=None)
    program = Program.load(graph, constants)
    with pytest.raises(UsageError, match="a sketch needs one row of the output for each example"):
        Sketching("p", Model(program, (), ()), [], OutputFunctional(), COLUMNS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sketch": 15}, "--sketch must be 16 to 65536 columns, got 15"),
        ({"sketch": 65_537}, "--sketch must be 16 to 65536 columns, got 65537"),
        ({"sketch": 64, "probe": "none"}, "--sketch sketches the probe set, and --probe none takes none"),
        (
            {"sketch": 64, "probe_output": "logprob"},
            "--sketch is of the model's outputs, not of their logprob",
        ),
    ],
)
def test_what_cannot_be_sketched_is_refused_before_the_command_starts(options, message):
    with pytest.raises(RecordError, match=message):
        RecordOptions(**options)


def test_updates_are_all_or_none():
    assert (parse_updates("all"), parse_updates("none")) == (True, False)
    with pytest.raises(RecordError, match="--updates must be all or none, got 'some'"):
        parse_updates("some")

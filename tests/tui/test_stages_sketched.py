"""The view of a tangent kernel that was estimated from sketches: of the probe set, with its error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tscope_format import Array, Result, save_result
from tscope_tui.data.kernel import from_result, lacks_of, ordered
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import finished, kernel_result


def estimated(matrices: tuple[int, ...] = (0, 120)) -> Result:
    """The kernel's result as one of sketches: without training examples."""
    whole = kernel_result(matrices=matrices)
    arrays = {
        name.replace("_train", "_test"): array
        for name, array in whole.arrays.items()
        if name in ("step", "matrix_step") or name.endswith("_train")
    }
    arrays["test"], arrays["label_test"] = whole.arrays["test"], whole.arrays["label_test"]
    steps = len(arrays["step"].data)
    arrays["error_test"] = Array(("step",), np.full(steps, 0.125))
    if "kernel" in whole.arrays:
        held = len(arrays["test"].data)
        kernel = whole.arrays["kernel"]
        arrays["kernel"] = Array(kernel.dims, kernel.data[:, -held:, :, -held:])
    scalars = {
        "form": "sketch",
        "columns": 1024,
        "error_test": 0.125,
        "error_exact_test": 0.25,
        "examples_test": 8,
        "outputs": 2,
        "probe": "heldout",
    }
    return replace(
        whole, arrays=arrays, scalars=scalars, provenance={"options": {}}, notes=("ESTIMATES from sketches",)
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    path = finished(tmp_path / "mlp.zarr")
    save_result(path, estimated(), "model")
    host = FakeHost(80, 24)
    stage = RunStage(host, path)
    stage.start()
    stage.act("view:kernel", "4")
    return stage, host


def test_estimates_are_marked_and_shown_with_their_error(run):
    stage, host = run
    assert stage.data.problems == ()
    text = screen(stage, host)
    assert "K @120, 8 of the probe set" in text
    assert "K, estimated" in text
    assert "±12.5% of ‖K‖, estimated" in text
    assert "± 0.125" in text
    assert "held-out #" in text
    assert "max ‖k(x)‖" not in text


def test_the_points_are_those_of_the_probe_set_in_any_order():
    found = from_result(estimated()).matrices
    assert (found.train, found.numbers.size) == (0, 8)
    assert found.label.tolist() == [0] * 4 + [1] * 4
    assert found.point(train=False, number=int(found.numbers[3])) == 3
    for order in ("number", "likeness"):
        assert sorted(ordered(found, order).numbers.tolist()) == sorted(found.numbers.tolist())


def test_its_facts_say_how_far_off_it_is():
    facts = dict(from_result(estimated()).facts)
    assert facts["error"] == "25.0% of ‖K‖ at most, against exact blocks; 12.5% at the end, from halves"
    assert facts["kernel"] == "ESTIMATED from sketches of 1024 columns"
    assert facts["examples"] == "8 of the probe set heldout"


def test_the_jump_of_its_alignment_is_an_event():
    assert [event.text for event in from_result(estimated()).events()] == ["kernel alignment +0.50"]


def test_the_python_that_reproduces_a_pane_names_the_arrays_it_has(run):
    stage, _ = run
    known = stage.data.kernel.arrays
    text = "\n".join(repro("course", stage.path, step=3, known=known))
    assert "distance_test" in text
    assert "error_test" in text
    assert "_train" not in text


class Root:
    """As much of a root as its gaps are told from."""

    def __init__(self, *arrays: str, **attributes: str) -> None:
        self.attributes = attributes
        self.probes = ("held",)
        self._arrays = dict.fromkeys(arrays)

    def arrays(self) -> dict[str, None]:
        return self._arrays


def test_what_is_missing_names_sketches_only_where_there_are_none():
    there = ("program/graph", "examples/input/0")
    assert lacks_of(Root(*there)) == ()
    expected = "it lacks the parameters at every row: record without --updates none, or with --sketch K"
    assert lacks_of(Root(*there, updates="none")) == (expected,)
    assert lacks_of(Root("probe/held/sketch", updates="none")) == ()

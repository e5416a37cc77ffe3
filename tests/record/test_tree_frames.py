"""What comes of an ensemble is checked before anything of it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tscope_format import open_trace
from tscope_format.writer import TraceWriter

from tests.boosting.tree_traces import HELD, TRAIN, TREES, data, frame, recorded
from tscope.record.frames import Blob, Frame, FrameError
from tscope.record.probe_source import ProbeArrays
from tscope.record.trees import Trees


@pytest.fixture
def writer(tmp_path: Path) -> TraceWriter:
    return TraceWriter.create(tmp_path / "t.zarr", facts={})


def _rows(inputs: NDArray[Any], output: NDArray[Any]) -> Frame:
    return Frame("tree_rows", {}, {"input": Blob(inputs, "float64"), "output": Blob(output, "float64")})


def _start() -> NDArray[np.int64]:
    return np.arange(TREES + 1) * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "voting"}, "'voting' is none of boosting, forest"),
        ({"base": None}, "None is none of mean, constant"),
        ({"precision": "float16"}, "'float16' is none of float64, float32"),
        ({"shrinkage": "much"}, "could not convert string to float"),
        ({"target": np.ones((TRAIN - 1, 1))}, r"`target` has shape \(29, 1\), expected \(30, 1\)"),
        ({"weight": np.ones(TRAIN + 1)}, r"`weight` has shape \(31,\)"),
        ({"sample": np.ones((TREES, 2))}, r"`sample` has shape \(6, 2\)"),
        ({"base_value": [1.0, 2.0]}, r"`base_value` has shape \(2,\)"),
        ({"start": _start()[:-1]}, r"`start` has shape \(6,\), expected \(7,\)"),
        ({"start": _start() * 0}, r"`value` has shape \(30, 1\), expected \(0, 1\)"),
        ({"start": _start() + np.array([0, 5, 0, 0, 0, 0, 0])}, "its trees have no nodes"),
        ({"leaf": np.full((TREES, TRAIN), 5, np.int32)}, "a leaf lies outside its tree"),
        ({"node__value": None}, "'node/value'"),
        ({"input": np.ones(TRAIN)}, r"inputs of float64 and shape \(30,\)"),
        ({"input": np.ones((TRAIN, 3), np.int64)}, "inputs of int64"),
        ({"input": None}, "lacks the array `input`"),
    ],
)
def test_a_frame_that_describes_no_ensemble_is_refused(
    writer: TraceWriter, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        Trees("model", frame(**changes), writer, None, lambda text: None)
    writer.close("complete")
    assert not open_trace(writer.path).roots


def test_leaves_are_found_from_the_nodes_where_the_library_gives_none(tmp_path: Path) -> None:
    given = recorded(tmp_path / "a.zarr")
    found = recorded(tmp_path / "b.zarr", frame(leaf=None))
    assert np.array_equal(given["trees/leaf"], found["trees/leaf"])


def test_other_leaves_than_the_librarys_are_said(writer: TraceWriter) -> None:
    said: list[str] = []
    leaf = frame().blobs["leaf"].array.copy()
    leaf[0] = leaf[0, 0]
    trees = Trees("model", frame(leaf=leaf), writer, None, said.append)
    assert trees.problem is not None
    assert trees.problem.startswith("the recorded nodes lead 23 training rows")
    assert said == [f"model (Stumps) cannot be analysed: {trees.problem}"]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_prediction_that_cannot_be_compared_is_none_that_agrees(writer: TraceWriter) -> None:
    values = frame().blobs["node/value"].array.copy()
    values[1] = np.nan
    trees = Trees("model", frame(node__value=values), writer, None, lambda text: None)
    assert trees.problem is not None
    assert trees.problem.startswith("max |Sy − prediction| is inf")
    writer.close("complete")
    assert open_trace(writer.path).root().attributes["check"]["largest"] is None


def test_rows_that_were_predicted_are_held_out_unless_trained_on(writer: TraceWriter) -> None:
    inputs, _, held = data()
    trees = Trees("model", frame(), writer, None, lambda text: None)
    own = recorded(writer.path.with_name("o.zarr"))
    output = own["probe/probe/output"][-1].astype(float)
    # Held in float32; what the library says is float64.
    exact = trees._ensemble.nodes.leaves(held)
    values = trees._ensemble.base_value + sum(trees._ensemble.nodes.values(k, exact[k]) for k in range(TREES))
    assert np.abs(values - output).max() < 1e-6
    trees.predicted(_rows(inputs, np.zeros((TRAIN, 1))))
    trees.predicted(_rows(held[:5], values[:5]))
    trees.predicted(_rows(held, values))
    trees.close()
    assert trees.problem is None
    writer.close("complete")
    root = open_trace(writer.path).root()
    assert root.probes == ("heldout",)
    assert np.array_equal(root.read("probe/heldout/input/0"), held, equal_nan=True)
    assert root.read("probe/heldout/output").shape == (TREES + 1, HELD, 1)
    assert root.group_attributes("probe/heldout")["in_sample"] is False


def test_predictions_that_the_trees_do_not_give_are_an_error(writer: TraceWriter) -> None:
    said: list[str] = []
    trees = Trees("model", frame(), writer, None, said.append)
    trees.predicted(_rows(data()[2], np.zeros((HELD, 1))))
    trees.close()
    writer.close("complete")
    assert trees.problem is not None
    assert "max |Sy − prediction|" in trees.problem
    assert open_trace(writer.path).root().attributes["check"]["problem"] == trees.problem
    assert said == [f"model: of the rows it was evaluated on, {trees.problem}"]


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (np.ones((4, 2)), np.ones((4, 1)), r"rows of shape \(4, 2\) are none of this ensemble"),
        (np.ones((4, 3)), np.ones((3, 1)), r"predictions of shape \(3, 1\) for 4 rows"),
    ],
)
def test_predicted_rows_must_fit(
    writer: TraceWriter, inputs: NDArray[Any], output: NDArray[Any], message: str
) -> None:
    trees = Trees("model", frame(), writer, None, lambda text: None)
    with pytest.raises(FrameError, match=message):
        trees.predicted(_rows(inputs, output))


def test_a_probe_set_of_other_rows_is_left_out(writer: TraceWriter) -> None:
    said: list[str] = []
    probe = ProbeArrays("probe", (Blob(np.ones((4, 2)), "float64"),))
    trees = Trees("model", frame(), writer, probe, said.append)
    assert said == ["model: the probe set does not fit: its rows have shape [2], those of training [3]"]
    assert trees.probes == []

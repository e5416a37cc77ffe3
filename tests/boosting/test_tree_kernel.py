"""The kernel of each tree, read off its leaves, against the matrix itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tree_traces
from numpy.typing import NDArray
from tree_traces import HELD, PENALTY, TRAIN, TREES, frame, recorded
from tscope_format.errors import AnalysisError, UsageError

import tscope
from tests.reference import kernel as dense
from tscope.boosting import Ensemble

Values = NDArray[np.float64]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> tscope.Trace:
    return recorded(tmp_path_factory.mktemp("trees") / "t.zarr")


def _matrices(trace: tscope.Trace, penalty: float = PENALTY) -> tuple[Values, list[Values]]:
    """Return the labels, and k_t(x, x_i) of training and held-out points for each tree."""
    ensemble = Ensemble.read(trace)
    leaf = np.concatenate([ensemble.leaf, trace.reader.read("probe/probe/leaf", 1)], axis=1)
    found = []
    for tree in range(TREES):
        w = ensemble.weights(tree)
        same = leaf[tree][:, None] == leaf[tree][None, :TRAIN]
        total = (same * w).sum(1, keepdims=True) + penalty
        found.append(np.where(same & (total > 0), w / np.where(total > 0, total, 1), 0.0))
    return ensemble.target, found


def test_every_number_is_that_of_the_matrix(trace: tscope.Trace) -> None:
    y, matrices = _matrices(trace)
    result = tscope.analyze(trace, "kernel", save=False)
    assert result.arrays["step"].data.tolist() == list(range(TREES))
    first = before = matrices[0][:TRAIN]
    for row, K in enumerate(matrices):
        own = K[:TRAIN]
        norm = np.linalg.norm(own)

        def cosine(other: Values, own: Values = own, norm: float = norm) -> float:
            return float((own * other).sum() / (norm * np.linalg.norm(other)))

        eigenvalues = np.linalg.eigvals(own)
        assert np.abs(eigenvalues.imag).max() < 1e-8
        spectrum = np.sort(eigenvalues.real)[::-1]
        kept = result.arrays["eigenvalues_train"].data[row]
        assert np.abs(kept - spectrum[:10]).max() < 1e-8  # defective zeros
        p = spectrum[spectrum > 1e-6] / np.trace(own)
        expected = {
            "effective_rank": np.exp(-(p * np.log(p)).sum()),
            "participation_ratio": np.trace(own) ** 2 / norm**2,
            "trace": np.trace(own),
            "frobenius": norm,
            "alignment": dense.alignment(own, y),
            "alignment_centered": dense.alignment_centered(own, y),
            "distance": 1 - cosine(first),
            "movement": np.linalg.norm(own - first) / np.linalg.norm(first),
            "velocity": 1 - cosine(before) if row else np.nan,
        }
        for name, value in expected.items():
            found = result.arrays[f"{name}_train"].data[row]
            # A difference of squares: of equal kernels it is the root of rounding.
            least = 1e-7 if name == "movement" else 1e-14
            assert found == pytest.approx(value, rel=1e-11, abs=least, nan_ok=True), (row, name)
        before = own


def test_weight_norms_are_those_of_the_rows(trace: tscope.Trace) -> None:
    _, matrices = _matrices(trace)
    norms = np.stack([np.linalg.norm(K, axis=1) for K in matrices])
    result = tscope.analyze(trace, "kernel", save=False)
    for name, rows in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, TRAIN + HELD))):
        assert np.allclose(result.arrays[f"weight_norm_{name}"].data, norms[:, rows], rtol=1e-13)
        assert np.allclose(result.arrays[f"weight_norm_max_{name}"].data, norms[:, rows].max(1), rtol=1e-13)
        assert np.allclose(result.arrays[f"weight_norm_mean_{name}"].data, norms[:, rows].mean(1), rtol=1e-13)


def test_steps_can_be_chosen(trace: tscope.Trace) -> None:
    whole = tscope.analyze(trace, "kernel", save=False)
    some = tscope.analyze(trace, "kernel", save=False, at="3,last")
    assert some.arrays["step"].data.tolist() == [0, 3, 5]
    assert (
        some.arrays["movement_train"].data.tolist() == whole.arrays["movement_train"].data[[0, 3, 5]].tolist()
    )
    assert tscope.analyze(trace, "kernel", save=False, every=4).arrays["step"].data.tolist() == [0, 4, 5]


def test_the_matrix_itself_is_kept_on_request(trace: tscope.Trace) -> None:
    _, matrices = _matrices(trace)
    result = tscope.analyze(trace, "kernel", save=False, every=5, matrix="0,3,last")
    assert result.arrays["step"].data.tolist() == [0, 3, 5]
    assert result.arrays["matrix_step"].data.tolist() == [0, 3, 5]
    kept = result.arrays["kernel"].data
    assert kept.shape == (3, TRAIN, 1, TRAIN, 1)
    for place, step in enumerate((0, 3, 5)):
        assert np.allclose(kept[place, :, 0, :, 0], matrices[step][:TRAIN], rtol=1e-14, atol=0)
    with pytest.raises(AnalysisError, match=r"2 matrices of 30 training examples take 0\.0144 MB of"):
        tscope.analyze(trace, "kernel", save=False, matrix="0,last", max_memory_mb=0.01)


def test_leaves_without_weight_say_nothing(tmp_path: Path) -> None:
    trace = recorded(tmp_path / "t.zarr", frame("forest"))
    _, matrices = _matrices(trace, 0.0)
    assert any((K.sum(1) == 0).any() for K in matrices)
    result = tscope.analyze(trace, "kernel", save=False)
    assert np.allclose(result.arrays["frobenius_train"].data, [np.linalg.norm(K[:TRAIN]) for K in matrices])


@pytest.mark.parametrize(
    ("value", "note", "undefined"),
    [
        (0.0, "all labels of the training examples are 0: their alignment is not defined", True),
        (0.1, "all training examples have the same label: their centred alignment is not defined", False),
    ],
)
def test_alignment_with_labels_that_say_nothing_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, note: str, undefined: bool
) -> None:
    inputs, target, held = tree_traces.data(1)
    monkeypatch.setattr(tree_traces, "data", lambda outputs=1: (inputs, np.full_like(target, value), held))
    result = tscope.analyze(recorded(tmp_path / "t.zarr"), "kernel", save=False)
    assert note in result.notes
    assert np.isnan(result.arrays["alignment_centered_train"].data).all()
    assert np.isnan(result.arrays["alignment_train"].data).all() == undefined


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preconditioned": True}, "takes no preconditioned: it is read off the leaves"),
        ({"dtype": "float64"}, "takes no dtype"),
        (
            {"at": "6"},
            "at 6 is out of range: the kernel at a step is that of the next tree, and the last is at step 5",
        ),
        ({"matrix": "0,6"}, "matrix 0,6 is out of range"),
    ],
)
def test_options_without_a_meaning_are_refused(
    trace: tscope.Trace, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tscope.analyze(trace, "kernel", save=False, **options)

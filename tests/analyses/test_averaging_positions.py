"""Averages of models with a label at each position: sequences, images, and positions that do not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from tscope_format.errors import AnalysisError

import tscope
from tests.analyses.averaging_runs import COMMON, LOSSES, Runs, make_runs, mean_state
from tests.analyses.position_runs import IGNORE, LENGTH, Tagger, loss_of, short_run, tagged
from tscope.analyses.target import equal_input, positions_of
from tscope.optimizers import Positions, infer_positions
from tscope.optimizers.batches import Batches


@pytest.fixture(scope="module", params=["last", "first", "flat"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOSSES, "positions", loss_of)
        return make_runs(
            folder, "positions", make=lambda: Tagger(request.param), examples=tagged, count=3, rate=0.7
        )


def accuracy(f: Tensor, y: Tensor) -> float:
    scores = f if f.dim() == 3 and f.shape[1] == 3 else f.reshape(len(f), LENGTH, 3).transpose(1, 2)
    return float((scores.argmax(1) == y)[y != IGNORE].double().mean())


def test_loss_and_accuracy_are_means_over_the_positions_that_count(runs: Runs) -> None:
    found = runs.analysed(points=5, layers=False)
    first, second = runs.state(0), runs.state(1)
    for name in ("train", "test"):
        y = runs.sets[name][1]
        f_first, f_second = runs.outputs(first, name), runs.outputs(second, name)
        for place, alpha in enumerate(found.arrays["alpha"].data):
            f = runs.outputs(mean_state([first, second], (alpha, 1 - alpha)), name)
            expected = float(loss_of(f, y))
            assert found.arrays[f"loss_average_{name}"].data[place] == pytest.approx(expected, rel=1e-12)
            assert found.arrays[f"accuracy_average_{name}"].data[place] == accuracy(f, y)
            ensemble = alpha * f_first + (1 - alpha) * f_second
            expected = float(loss_of(ensemble, y))
            assert found.arrays[f"loss_ensemble_{name}"].data[place] == pytest.approx(expected, rel=1e-12)
    assert found.scalars["positions"] == LENGTH
    assert found.scalars["fork_step"] == COMMON
    assert found.scalars["identity_error_train"] < 1e-12
    hidden = sum(int((y == IGNORE).sum()) for _, y in runs.sets.values())
    assert any(f"without the {hidden} of {17 * LENGTH} that do not count" in note for note in found.notes)


def test_along_a_run_too(runs: Runs) -> None:
    found = runs.analysed((), every=2)
    expected = float(loss_of(runs.outputs(runs.state(0), "train"), runs.sets["train"][1]))
    assert found.scalars["loss_run_train"] == pytest.approx(expected, rel=1e-12)
    assert found.scalars["accuracy_run_train"] == accuracy(
        runs.outputs(runs.state(0), "train"), runs.sets["train"][1]
    )


def test_labels_are_told_from_gradients_and_give_the_recorded_loss(runs: Runs) -> None:
    trace = runs.traces[0]
    runs.module.eval()
    shape = runs.module(runs.sets["train"][0]).shape[1:]
    found = infer_positions(trace, shape)
    assert found is not None
    y = runs.sets["train"][1]
    assert torch.equal(found.labels, y.clamp(min=-1))
    assert found.spread < 1e-14
    assert found.factor == pytest.approx(1, abs=1e-12)
    batch = next(Batches(trace, torch.float64).rows(1, 2))
    own = y[batch.examples]
    f = found.positions.scores(batch.output).transpose(1, 2)
    loss = functional.cross_entropy(f, own, ignore_index=IGNORE)
    assert float(trace.reader.read("loss")[1]) == pytest.approx(float(loss), rel=1e-12)


def test_given_labels_are_checked_and_say_no_more_than_gradients_do(runs: Runs, tmp_path: Path) -> None:
    x, y = runs.sets["train"]
    full = (x + x.roll(1, 1)) % 3  # also where the loss ignores them
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=full.numpy())
    given = runs.analysed(points=3, layers=False, labels=str(tmp_path / "labels.npz"))
    told = runs.analysed(points=3, layers=False)
    assert given.scalars["loss_a_train"] == told.scalars["loss_a_train"]
    wrong = y.masked_fill(y == 0, 1)
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=wrong.numpy())
    with pytest.raises(
        AnalysisError, match=r"\d+ of \d+ labels given are not those that the run was trained"
    ):
        runs.analysed(labels=str(tmp_path / "labels.npz"))


def test_another_weighing_of_positions_is_told(tmp_path: Path) -> None:
    def summed(f: Tensor, y: Tensor, step: int) -> Tensor:
        return functional.cross_entropy(f.transpose(1, 2), y, ignore_index=IGNORE, reduction="sum") / len(f)

    trace = short_run(tmp_path / "sum.zarr", summed)
    found = tscope.analyze(trace, "weight-averaging", at="0,last", save=False)
    y = tagged(6)[1]
    factor = float((y != IGNORE).sum()) / 6
    assert f"the run's loss is {factor:.4g} times the mean over positions that figures are of" in found.notes


def test_labels_that_change_are_refused(tmp_path: Path) -> None:
    def shifting(f: Tensor, y: Tensor, step: int) -> Tensor:
        return functional.cross_entropy(f.transpose(1, 2), (y.clamp(min=0) + step) % 3)

    trace = short_run(tmp_path / "shift.zarr", shifting)
    with pytest.raises(AnalysisError, match="example 0 had other labels at another visit"):
        tscope.analyze(trace, "weight-averaging", at="0,last", save=False)


def test_a_loss_that_weighs_classes_is_none_of_these(tmp_path: Path) -> None:
    def weighted(f: Tensor, y: Tensor, step: int) -> Tensor:
        weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        return functional.cross_entropy(f.transpose(1, 2), y, weight, ignore_index=IGNORE)

    trace = short_run(tmp_path / "weighted.zarr", weighted)
    with pytest.raises(AnalysisError, match="no loss fits the recorded gradients"):
        tscope.analyze(trace, "weight-averaging", at="0,last", save=False)


def test_without_gradients_labels_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    def plain(f: Tensor, y: Tensor, step: int) -> Tensor:
        return functional.cross_entropy(f.transpose(1, 2), y, ignore_index=IGNORE)

    trace = short_run(tmp_path / "bare.zarr", plain, keep=False)
    x, y = tagged(6)
    np.savez(tmp_path / "labels.npz", x=x.numpy(), y=y.numpy())
    path = str(tmp_path / "labels.npz")
    with pytest.raises(tscope.MissingDataError, match=r"`tscope record --outputs all`\); name it with `--l"):
        tscope.analyze(trace, "weight-averaging", at="0,last", save=False)
    module = Tagger("last")
    module.load_state_dict(trace.state_dict(3))
    expected = pytest.approx(float(loss_of(module(x), y).detach()), rel=1e-12)
    asked = {"at": "0,last", "save": False, "loss": "cross_entropy"}
    found = tscope.analyze(trace, "weight-averaging", labels=path, **asked)
    assert found.scalars["loss_b_train"] == expected
    assert any(note.startswith("loss and labels are as given") for note in found.notes)
    held = tscope.analyze(trace, "weight-averaging", probe=path, **asked)
    assert held.scalars["loss_b_test"] == expected
    assert "loss_b_train" not in held.scalars


def test_outputs_are_read_as_positions_and_classes() -> None:
    assert Positions.within((4, 3)) == [Positions(4, 3), Positions(3, 4, classes_first=True)]
    assert Positions.within((2, 5, 3)) == [Positions(10, 3), Positions(15, 2, classes_first=True)]
    assert Positions.within((6,)) == [Positions(3, 2), Positions(2, 3)]
    labels = torch.tensor([[0, 2, -100, 1]])
    assert positions_of((4, 3), labels)[0] == Positions(4, 3)
    assert positions_of((3, 4), labels)[0] == Positions(4, 3, classes_first=True)
    assert positions_of((4, 2), labels) is None  # class 2 of two
    assert positions_of((4, 3), labels.double()) is None
    assert positions_of((3,), torch.tensor([[1]])) is None


def test_labels_may_be_an_input_of_the_model() -> None:
    labels = torch.tensor([[0, 2, -1], [1, -1, 2]])
    tokens = torch.tensor([[5, 5, 5], [5, 5, 5]])
    assert equal_input((tokens, labels.masked_fill(labels < 0, 9)), labels) == (1, 9)
    assert equal_input((labels.clamp(min=1),), labels) is None
    assert equal_input((torch.tensor([[0, 2, 8], [1, 9, 2]]),), labels) is None  # which of the two to ignore?
    assert equal_input((labels.clamp(min=1).double(),), labels) is None

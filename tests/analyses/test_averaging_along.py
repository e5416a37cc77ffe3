"""Averages along one run: the search's figures, the halves it is split over, and the curves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tscope
from tests.analyses.averaging_runs import Runs, make_runs
from tests.optimizers.recorded import mlp, train
from tscope.averaging import Schedule

OPTIONS = {"starts": "0.5,0.8", "decays": "0.5,0.9", "counts": "2,3", "every": 3, "seed": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return make_runs(tmp_path_factory.mktemp("along"), runs=1)


@pytest.fixture(scope="module")
def found(runs):
    return runs.analysed(against=(), **OPTIONS)


def averaged(runs: Runs, schedule: Schedule, row: int | None = None) -> dict[str, torch.Tensor]:
    """The average of a run's recorded states, added up row by row."""
    last = runs.traces[0].rows - 1 if row is None else row
    weights = schedule.weights(last)
    states = [runs.state(0, step) for step in range(last + 1)]
    return {n: sum(w * s[n] for w, s in zip(weights, states, strict=True)) for n in states[0]}


def halves() -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(4).permutation(7)
    return np.sort(order[:3]), np.sort(order[3:])


def schedules(last: int) -> list[Schedule]:
    starts = [round(0.5 * last), round(0.8 * last)]
    return [
        *(Schedule("tail", start) for start in starts),
        *(Schedule("swa", start, 3) for start in starts),
        *(Schedule("ema", decay) for decay in (0.5, 0.9)),
        *(Schedule("lawa", count, 3) for count in (2, 3)),
    ]


def loss_on(runs: Runs, state, name: str, places) -> float:
    f = runs.outputs(state, name)[places]
    return float(torch.nn.functional.cross_entropy(f, runs.sets[name][1][places]))


def test_every_candidate_is_measured_on_each_part(runs, found):
    select, report = halves()
    last = runs.traces[0].rows - 1
    assert found.provenance["candidates"][0] == f"tail from step {round(0.5 * last)}"
    assert found.provenance["candidates"][-1] == "LAWA of 3 checkpoints"
    for k, schedule in enumerate(schedules(last)):
        state = averaged(runs, schedule)
        expected = {
            "train": loss_on(runs, state, "train", slice(None)),
            "select": loss_on(runs, state, "test", select),
            "test": loss_on(runs, state, "test", report),
        }
        for part, value in expected.items():
            assert found.arrays[f"candidate_loss_{part}"].data[k] == pytest.approx(value, rel=1e-12)
    assert (
        "averages were chosen by their loss on 3 of the held-out examples; held-out figures are of the "
        in (" ".join(found.notes))
    )


def test_the_best_of_each_family_is_best_where_it_was_chosen(found):
    losses = found.arrays["candidate_loss_select"].data
    reported = found.arrays["candidate_loss_test"].data
    for k, family in enumerate(("tail", "swa", "ema", "lawa")):
        pair = losses[2 * k : 2 * k + 2]
        assert found.scalars[f"loss_{family}_select"] == pair.min()
        assert found.scalars[f"loss_{family}_test"] == reported[2 * k + pair.argmin()]
    run = found.scalars["loss_run_select"]
    names = found.provenance["candidates"]
    assert found.scalars["best"] == (names[losses.argmin()] if losses.min() < run else "the run itself")


def test_the_curves_are_those_of_the_chosen_averages(runs, found):
    _, report = halves()
    steps = found.arrays["step"].data
    last = int(steps[-1])
    assert last == runs.traces[0].rows - 1
    chosen = {
        "tail": Schedule("tail", found.scalars["tail_from_step"]),
        "swa": Schedule("swa", found.scalars["swa_from_step"], 3),
        "ema": Schedule("ema", found.scalars["ema_decay"]),
        "lawa": Schedule("lawa", found.scalars["lawa_count"], 3),
    }
    for k, step in enumerate(steps.tolist()):
        own = loss_on(runs, runs.state(0, step), "test", report)
        assert found.arrays["loss_run_test"].data[k] == pytest.approx(own, rel=1e-12)
        for family, schedule in chosen.items():
            value = found.arrays[f"loss_{family}_test"].data[k]
            if schedule.weights(step) is None:
                assert np.isnan(value)
                continue
            expected = loss_on(runs, averaged(runs, schedule, step), "test", report)
            assert value == pytest.approx(expected, rel=1e-12)
    assert found.scalars["loss_run_test"] == found.arrays["loss_run_test"].data[-1]


def test_checkpoints_are_epochs_apart_unless_told_otherwise(runs):
    """10 examples in batches of 4, 4 and 2: an epoch is three rows."""
    plain = {**OPTIONS, "every": None}
    assert runs.analysed(against=(), **plain).scalars["checkpoint_rows"] == 3
    dense = runs.analysed(against=(), **{**OPTIONS, "every": 1})
    assert not any(name.startswith("SWA") for name in dense.provenance["candidates"])  # it is the tail


def test_without_labels_held_out_the_search_is_on_training_examples(runs, tmp_path):
    path = tmp_path / "bare.npz"
    np.savez(path, x=np.load(runs.held)["x"])
    found = runs.analysed(against=(), probe=str(path), **OPTIONS)
    assert found.scalars["chosen_on"] == "training examples"
    assert found.scalars["loss_ema_train"] == found.arrays["candidate_loss_train"].data[4:6].min()
    assert "loss_run_test" not in found.scalars
    assert any(note.startswith("averages were chosen on training examples") for note in found.notes)


def test_memory_changes_nothing(runs, found):
    small = runs.analysed(against=(), **OPTIONS, max_memory_mb=0.001)
    for name, array in found.arrays.items():
        np.testing.assert_allclose(small.arrays[name].data, array.data, rtol=1e-12)


def test_a_run_without_epochs_has_checkpoints_anyway(tmp_path):
    """Three steps over fresh examples: 12 examples in batches of 4 would be one epoch of three rows."""
    module = mlp(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    batches = []
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(4, 4, generator=random, dtype=torch.float64)
        batches.append((x, x[:, :3].argmax(1)))
    trace = train(tmp_path / "run.zarr", module, optimizer, batches, torch.nn.functional.cross_entropy)
    found = tscope.analyze(trace, "weight-averaging", save=False)
    assert found.scalars["checkpoint_rows"] == 1
    assert any(
        note.startswith("the run did not come to every training example twice") for note in found.notes
    )

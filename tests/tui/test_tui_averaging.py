"""Saved averages, gradients and forks, as the view of averages reads them."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from averaging_traces import along_result, between_result, family, gradients_result, save_between
from tscope_format import open_trace, save_result
from tscope_tui.data.averages import AveragesSource
from tui_traces import finished


def read(path, problems=None):
    trace = open_trace(path)
    told = [] if problems is None else problems
    return AveragesSource(path).read(trace, trace.root("model"), told)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return family(tmp_path_factory.mktemp("forks") / "mlp.zarr")


def test_all_saved_averages_are_read_the_newest_first(tmp_path):
    path = finished(tmp_path / "run.zarr", 30)
    members = [(path, 10), (path, 30)]
    save_between(path, members, options={"at": "10,30"})
    save_result(path, along_result(), "model")
    save_between(path, [*members, (path, 20)], fork=None)
    found = read(path)
    assert [pair.over for pair in found.pairs] == ["models", "alpha"]
    assert found.pairs[1].members == ("run @10", "run @30")
    assert found.pairs[1].scalar("barrier_loss_test") == pytest.approx(0.3 * 4 * 0.25)
    assert math.isnan(found.pairs[1].scalar("barrier_loss_nowhere"))
    assert [pair.fork for pair in found.pairs] == [None, 40]
    assert found.runs[0].best == "EMA of decay 0.99"
    assert [one.name for one in found.runs[0].candidates if one.found] == [
        "tail from step 30",
        "SWA from step 30",
        "EMA of decay 0.99",
        "LAWA of 3 checkpoints",
    ]
    assert found.sweep is None


def test_the_first_point_looked_at_is_the_barrier_and_without_one_the_middle(tmp_path):
    path = finished(tmp_path / "run.zarr", 10)
    homes = []
    for height in (0.3, -0.3):
        save_between(path, [(path, 0), (path, 10)], height=height)
        pair = read(path).pairs[0]
        homes.append(pair.x[pair.home])
    # The highest of the grid and the refined place: of 4α(1 − α) that is ½ in either case, so one is moved.
    assert homes == [0.5, 0.5]
    result = between_result([(path, 0), (path, 10)])
    excess = result.arrays["loss_excess_test"].data
    excess[3] = excess.max() + 1
    save_result(path, result, "model")
    pair = read(path).pairs[0]
    assert pair.x[pair.home] == pytest.approx(0.3)


def test_nothing_is_read_twice_and_what_is_damaged_is_named(tmp_path):
    path = finished(tmp_path / "run.zarr", 10)
    save_between(path, [(path, 0), (path, 10)])
    broken = save_between(path, [(path, 0), (path, 5)])
    shutil.rmtree(path / "analysis" / "weight-averaging" / broken / "loss_average_test" / "c")
    trace, problems = open_trace(path), []
    source = AveragesSource(path)
    first = source.read(trace, trace.root("model"), problems)
    again = source.read(trace, trace.root("model"), problems)
    assert first.pairs[0] is again.pairs[0]
    assert len(first.pairs) == 1
    assert [broken in text for text in problems] == [True, True]


def test_gradients_to_the_end_are_not_told_of_the_last_step(tmp_path):
    path = finished(tmp_path / "run.zarr")
    save_result(path, gradients_result((0, 60, 120)), "model")
    (found,) = read(path).gradients
    ends = found.to_end("change", "train")
    assert ends == pytest.approx([1.0, 0.5 * math.exp(-2), np.nan], nan_ok=True)
    assert [found.place(step) for step in (None, 0, 59, 60, 500)] == [0, 0, 0, 1, 2]
    assert found.stabilised_whole == {"test": 40, "train": 40}
    assert found.layers == ("fc1.weight", "fc1.bias", "head.weight")


def test_a_run_knows_what_is_saved_of_its_forks(base):
    found = read(base)
    sweep = found.sweep
    assert [(one.same_until, one.seed) for one in sweep.forks] == [
        (s, d) for s in (0, 40, 80) for d in (1, 2)
    ]
    assert sweep.shown is None
    steps, middle, reach = sweep.against(one.average.scalar("barrier_loss_test") for one in sweep.forks)
    fall = np.exp(-np.array([0, 1, 2]))
    assert steps.tolist() == [0, 40, 80]
    assert middle == pytest.approx(0.4 * fall)
    assert reach == pytest.approx(0.1 * fall)
    # The mean of both runs, which are alike here: from t' to the end.
    assert [one.change["train"] for one in sweep.forks[::2]] == pytest.approx(
        [1, 80 / 120 * math.exp(-4 / 3), 40 / 120 * math.exp(-8 / 3)]
    )
    assert [pair.members[0] for pair in found.pairs] == [
        f"mlp-fork{step}-seed{seed} @120" for step in (0, 40, 80) for seed in (1, 2)
    ]


def test_a_fork_knows_its_family_and_shows_its_own_pair_first(base):
    found = read(base.with_name("mlp-fork40-seed2.zarr"))
    assert found.sweep.shown == 3
    assert found.pairs[0].members == ("mlp-fork40-seed2 @120", "mlp @120")
    assert len(found.pairs) == 6


def test_values_of_some_forks_only_are_told_of_their_steps(base):
    sweep = read(base).sweep
    steps, middle, reach = sweep.against([1.0, math.nan, math.nan, math.nan, 2.0, math.inf])
    assert steps.tolist() == [0, 40, 80]
    assert middle == pytest.approx([1, np.nan, np.inf], nan_ok=True)
    assert reach == pytest.approx([0, np.nan, np.inf], nan_ok=True)


def test_forks_without_results_or_with_those_of_other_models_have_no_values(tmp_path):
    base = family(tmp_path / "mlp.zarr", (40,), saved=False)
    first, second = (base.with_name(f"mlp-fork40-seed{seed}.zarr") for seed in (1, 2))
    # Of other steps than the last ones, and of other runs than its base.
    save_between(first, [(first, 10), (base, 10)], options={"against": base.name, "at": "10"})
    save_between(first, [(first, 120), (second, 120)])
    # Of the base alone, and of the other fork up to where it is not finite.
    save_result(base, gradients_result((40,)), "model")
    save_result(first, gradients_result((20,)), "model")
    save_result(second, gradients_result((40,), stopped=100), "model")
    sweep = read(base).sweep
    assert [one.average for one in sweep.forks] == [None, None]
    assert [one.change for one in sweep.forks] == [{}, {}]


def test_forks_that_are_gone_or_replaced_are_named(tmp_path):
    base = family(tmp_path / "mlp.zarr", (0, 40), saved=False)
    shutil.rmtree(tmp_path / "mlp-fork0-seed1.zarr")
    shutil.rmtree(tmp_path / "mlp-fork40-seed2.zarr")
    finished(tmp_path / "mlp-fork40-seed2.zarr", 10)
    sweep = read(base).sweep
    assert [(one.same_until, one.seed) for one in sweep.forks] == [(0, 2), (40, 1)]
    assert ["mlp-fork0-seed1.zarr" in sweep.problems[0], "another trace" in sweep.problems[1]] == [True, True]
    shutil.rmtree(base)
    listed = read(finished(tmp_path / "mlp.zarr", 2, facts={"forks": [{"trace": "x"}]})).sweep
    assert listed.forks == ()
    assert "mlp.zarr does not list its forks" in listed.problems[0]
    shutil.rmtree(base)
    lonely = read(tmp_path / "mlp-fork0-seed2.zarr").sweep
    assert lonely.forks == ()
    assert "the run that it parts from" in lonely.problems[0]


def test_what_is_not_finite_can_be_shown(tmp_path):
    from tscope_tui.stages.run import RunStage
    from tui_host import FakeHost, screen

    path = finished(tmp_path / "run.zarr", 10)
    result = between_result([(path, 0), (path, 10)], fork=0)
    for name in ("loss_average_test", "loss_excess_test"):
        result.arrays[name].data[4] = np.inf
    result.arrays["loss_excess_train"].data[:] = np.nan
    result.scalars["barrier_loss_test"] = math.inf
    save_result(path, result, "model")
    along, moved = along_result(), gradients_result((0, 10), 10)
    along.arrays["loss_run_test"].data[:] = np.nan
    moved.arrays["change_layer_test"].data[:] = np.nan
    moved.arrays["change_test"].data[0] = np.inf
    save_result(path, along, "model")
    save_result(path, moved, "model")
    broken = between_result([(path, 0), (path, 10)])
    broken.provenance["members"] = ["a trace"]
    save_result(path, broken, "model")
    host = FakeHost()
    stage = RunStage(host, path)
    stage.start()
    stage.act("view:averaging", "5")
    assert "barrier inf at α 0.4; not all drawn" in screen(stage, host)
    assert any("saved result" in text for text in stage.data.problems)
    stage.act("view:averaging", "5")
    assert "no change of gradients: they vanish" in screen(stage, host)
    stage.act("view:averaging", "5")
    assert "held out loss (log) ━ r" in screen(stage, host)

"""What the metric says beside its figures, and what it does where a run or a trace falls short."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import tscope
from tests import models
from tests.traces import Probe, Run, train, write
from tscope.analyses.telescoping_notes import Grain, failure


def record(path, rate=0.05, steps=6, probe=None, **options):
    torch.manual_seed(1)
    module = models.mlp(1)
    x, y = models.signs(16)
    probes = {"held": probe or Probe((x[:5],), y[:5])}
    return train(
        path,
        module,
        torch.optim.SGD(module.parameters(), rate),
        [(x, y)] * steps,
        nn.functional.mse_loss,
        probes,
        **options,
    )


def said(result, text):
    return [note for note in result.notes if text in note]


def test_large_steps_are_called_a_failure(tmp_path):
    result = tscope.analyze(record(tmp_path / "run.zarr", rate=0.5, steps=20).path, "telescoping")
    assert said(result, "the telescoping model fails on this run: its final error")


@pytest.mark.parametrize(
    ("error", "lazy", "residual", "notes"),
    [
        (0.04, 0.65, 0.01, []),
        (1.7, 0.63, 0.2, ["fails on this run: its final error 1.7, no better than the lazy model, is"]),
        (0.3, 3.0, 0.2, ["fails on this run: its final error 0.3 is not small against the predictions"]),
        (0.01, 0.012, 0.2, ["hardly better than the lazy one"]),
        (0.04, 0.65, 0.42, ["42% of the change of a step is not first-order"]),
    ],
)
def test_the_verdict_weighs_the_error_against_the_lazy_one_and_the_scale(error, lazy, residual, notes):
    scalars = {
        "final_error_telescoped": error,
        "final_error_lazy": lazy,
        "prediction_scale": 1.0,
        "relative_residual": residual,
    }
    found = failure(scalars, Grain())
    assert len(found) == len(notes)
    assert all(part in note for part, note in zip(notes, found, strict=True))


FAILS = {
    "final_error_telescoped": 1.7,
    "final_error_lazy": 1.7,
    "prediction_scale": 1.0,
    "relative_residual": 0.5,
}


def test_a_coarse_sum_does_not_condemn_the_steps():
    notes = failure(FAILS, Grain(84, "`--replay` takes every recorded row"))
    assert notes[0].startswith(
        "a sum over intervals of up to 84 steps fails on this run: its final error 1.7"
    )
    assert notes[0].endswith("That says nothing of single steps: `--replay` takes every recorded row")
    assert notes[1] == "50% of the change of an interval is not first-order (‖Δf − JΔθ‖/‖Δf‖)"


def test_a_single_interval_is_the_lazy_model_and_no_news():
    same = {**FAILS, "final_error_telescoped": 0.01, "final_error_lazy": 0.01, "relative_residual": 0.1}
    assert failure(same, Grain(84)) == []
    assert len(failure(same, Grain(1))) == 1


@pytest.mark.parametrize(
    ("drift", "remedy", "cause"),
    [
        ("none", "as `--rule simpson`", "single steps are large, even where their errors cancel in the sum"),
        ("little", "as `--rule simpson`", "even where their errors cancel in the sum"),
        ("most", "does not follow: see `change_buffer`", "is the drift of buffers, not curvature along the"),
        ("unknown", "unless it is the drift of buffers: `--replay` tells", "or buffers drift (`--replay`"),
    ],
)
def test_the_drift_of_buffers_is_not_blamed_on_the_steps(drift, remedy, cause):
    fails, residual = failure(FAILS, Grain(drift=drift))
    assert fails.endswith(remedy)
    assert cause in residual
    assert ("smaller learning rate" in fails) == (drift != "most")


def test_batch_statistics_that_move_the_predictions_are_named(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=0.5), nn.Linear(8, 1))
    x = 5 + 3 * torch.randn(16, 4)
    sgd = torch.optim.SGD(module.parameters(), 1e-4)
    probes = {"held": Probe((x[:5],))}
    path = train(tmp_path / "run.zarr", module, sgd, [(x, x[:, :1])] * 4, nn.functional.mse_loss, probes).path
    assert said(tscope.analyze(path, "telescoping"), "unless it is the drift of buffers: `--replay` tells")
    replayed = tscope.analyze(path, "telescoping", replay=True)
    assert said(replayed, "most of it is the drift of buffers")
    assert not said(replayed, "learning rate")


def test_small_steps_are_not(tmp_path):
    result = tscope.analyze(record(tmp_path / "run.zarr", rate=0.01).path, "telescoping")
    assert not said(result, "fails")


def test_in_sample_probes_are_said_so(tmp_path):
    x, y = models.signs(5)
    path = record(tmp_path / "run.zarr", probe=Probe((x,), y, in_sample=True)).path
    assert said(tscope.analyze(path, "telescoping"), "held is in-sample: its examples were trained on")


def test_a_held_out_probe_set_is_preferred(tmp_path):
    torch.manual_seed(0)
    module = models.mlp(1)
    x, y = models.signs(8)
    probes = {"a": Probe((x,), y, in_sample=True), "b": Probe((x + 1,), y)}
    sgd = torch.optim.SGD(module.parameters(), 0.1)
    run = train(tmp_path / "run.zarr", module, sgd, [(x, y)] * 2, nn.functional.mse_loss, probes)
    assert tscope.analyze(run.path, "telescoping").scalars["probe"] == "b"
    assert tscope.analyze(run.path, "telescoping", probe="a").scalars["probe"] == "a"


@pytest.mark.parametrize("replay", [False, True])
def test_a_run_that_diverges_ends_at_its_last_finite_row(tmp_path, replay):
    run = record(tmp_path / "full.zarr")
    for state in run.states[4:]:
        state["0.weight"][0, 0] = float("nan")
    path = tmp_path / "run.zarr"
    x, y = models.signs(5)
    write(Run(path, run.module, run.states), (x,), {"held": Probe((x,), y)})
    result = tscope.analyze(path, "telescoping", replay=replay)
    assert result.arrays["step"].data.tolist() == [0, 1, 2, 3]
    assert said(result, "NaN or infinite at step 4; everything ends at step 3")
    assert all(np.isfinite(array.data).all() for array in result.arrays.values())


@pytest.mark.parametrize("replay", [False, True])
def test_a_run_that_starts_at_nan_is_refused(tmp_path, replay):
    run = record(tmp_path / "full.zarr")
    for state in run.states:
        state["0.weight"][0, 0] = float("nan")
    path = tmp_path / "run.zarr"
    x, y = models.signs(5)
    write(Run(path, run.module, run.states), (x,), {"held": Probe((x,), y)})
    with pytest.raises(tscope.AnalysisError, match="at step 0 are NaN or infinite"):
        tscope.analyze(path, "telescoping", replay=replay)


def test_rows_recorded_apart_are_said_to_be_coarse(tmp_path):
    run = record(tmp_path / "full.zarr")
    path = tmp_path / "run.zarr"
    x, y = models.signs(5)
    write(Run(path, run.module, run.states[::3]), (x,), {"held": Probe((x,), y)}, steps=[0, 3, 6])
    result = tscope.analyze(path, "telescoping")
    assert result.arrays["step"].data.tolist() == [0, 3, 6]
    assert result.scalars["steps"] == 6
    assert said(result, "recorded every 3 steps")


def test_every_thins_a_replay_and_keeps_its_last_row(tmp_path):
    path = record(tmp_path / "run.zarr", steps=7).path
    result = tscope.analyze(path, "telescoping", every=3)
    assert result.arrays["step"].data.tolist() == [0, 3, 6, 7]
    assert result.scalars["skipped_rows"] == 4
    assert said(result, "replayed every 3 rows: coarse intervals")


def test_a_run_of_no_steps_is_a_result_of_one_row(tmp_path):
    path = record(tmp_path / "run.zarr", steps=1).path
    module = models.mlp(1)
    x, y = models.signs(5)
    run = Run(tmp_path / "none.zarr", module)
    run.remember()
    write(run, (x,), {"held": Probe((x,), y)})
    result = tscope.analyze(run.path, "telescoping")
    assert result.arrays["step"].data.tolist() == [0]
    assert result.scalars["relative_residual"] == 0
    assert path.exists()


def test_labels_of_zero_and_one_name_the_threshold(tmp_path):
    x, y = models.signs(5)
    path = record(tmp_path / "run.zarr", probe=Probe((x,), (y > 0).float())).path
    assert said(tscope.analyze(path, "telescoping"), "class 1 is an output above 0.5; for logits")
    assert not said(tscope.analyze(path, "telescoping", threshold=0.0), "above 0.5")


def test_regression_has_errors_but_no_accuracy(tmp_path):
    x, _ = models.signs(5)
    path = record(tmp_path / "run.zarr", probe=Probe((x,), torch.randn(5, 1))).path
    result = tscope.analyze(path, "telescoping")
    assert not [name for name in result.arrays if name.startswith(("accuracy", "agreement"))]


def test_unlabelled_probes_have_agreement_only(tmp_path):
    x, _ = models.signs(5)
    result = tscope.analyze(record(tmp_path / "run.zarr", probe=Probe((x,))).path, "telescoping")
    assert "agreement_telescoped" in result.arrays
    assert "accuracy_actual" not in result.arrays


def test_results_are_saved_in_the_trace_and_read_back(tmp_path):
    path = record(tmp_path / "run.zarr").path
    result = tscope.analyze(path, "telescoping", replay=True)
    trace = tscope.open(path)
    assert [info.metric for info in trace.results()] == ["telescoping"]
    again = trace.result("telescoping")
    assert again.scalars == result.scalars
    assert again.notes == result.notes
    for name, array in result.arrays.items():
        assert again.arrays[name].dims == array.dims
        assert np.array_equal(again.arrays[name].data, array.data), name
    assert again.provenance["trace"] == trace.fingerprint
    assert again.provenance["layers"] == ["0", "2", "4"]
    assert again.provenance["rows_per_second"] > 0


def test_a_result_is_not_saved_unless_wanted(tmp_path):
    path = record(tmp_path / "run.zarr").path
    tscope.analyze(path, "telescoping", save=False)
    assert tscope.open(path).results() == []


def test_a_trace_that_cannot_be_written_still_gives_its_result(tmp_path):
    path = record(tmp_path / "run.zarr").path
    (path / "analysis").write_text("in the way")
    result = tscope.analyze(path, "telescoping")
    assert result.scalars["steps"] == 6
    assert said(result, "not saved in the trace: ")


def test_progress_reaches_the_number_of_rows(tmp_path):
    path = record(tmp_path / "run.zarr").path
    seen = []
    tscope.analyze(path, "telescoping", replay=True, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 7) for k in range(1, 8)]


def test_a_recorded_analysis_loads_no_torch(tmp_path):
    import subprocess
    import sys

    path = record(tmp_path / "run.zarr").path
    code = "import sys, tscope; tscope.analyze(sys.argv[1], 'telescoping'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_provenance_names_a_moved_trace_by_its_content(tmp_path):
    path = record(tmp_path / "run.zarr").path
    shutil.copytree(path, tmp_path / "copy.zarr")
    first, second = (
        tscope.analyze(place, "telescoping", save=False) for place in (path, tmp_path / "copy.zarr")
    )
    assert first.provenance["trace"] == second.provenance["trace"]
    assert second.provenance["path"] == "copy.zarr"

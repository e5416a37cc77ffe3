"""What is asked of updates: ranges, intervals, rows; what is refused, and what the notes say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tscope_format import chain, root_writer
from tscope_format.errors import AnalysisError, MissingDataError, TscopeError, UsageError

import tscope
from tests.analyses.updates_runs import LEARNED, close, make_run
from tests.optimizers.recorded import Recorder, data, mlp
from tests.reference.updates import TERMS
from tscope.analyses.updates import Options, influence
from tscope.analyses.updates import run as opened

mse = torch.nn.functional.mse_loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "3:5"}, "steps must be FIRST-LAST or a single step, got '3:5'"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"top": 0}, "top must be at least 1, got 0"),
        (
            {"influence": "1-3"},
            "influence must be none, all, or numbers of probe examples such as 0,3,17, got '1-3'",
        ),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"steps": "0-3"},
            "--steps 0-3: steps are counted from 1, the first must not be after the last; the ",
        ),
        ({"steps": "4-2"}, "the trace holds steps 1 to 6"),
        ({"steps": "2-9"}, "step 9 is not in the trace; it holds steps 0 to 6"),
        ({"influence": "1,5"}, "--influence 1,5: the probe set held has the examples 0 to 4"),
        ({"probe": "absent"}, "no probe set 'absent'"),
    ],
)
def test_requests_that_the_trace_does_not_hold_are_refused(tmp_path, options, message):
    with pytest.raises(UsageError) as caught:
        make_run(tmp_path).analysed(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["sgd", "nadam"])
def test_a_range_of_steps_is_that_part_of_the_run(tmp_path, name):
    run = make_run(tmp_path, name, 3)
    whole = run.analysed(influence="none")
    part = run.analysed(steps="3-5", influence="all")
    assert part.arrays["step"].data.tolist() == [3, 4, 5]
    assert (part.scalars["from_step"], part.scalars["steps"]) == (3, 5)
    assert close(part.arrays["terms"].data, whole.arrays["terms"].data[2:5])
    expected = whole.arrays["terms"].data[2:5].sum(0)
    assert close(part.arrays["total_term"].data, expected)
    f = run.predictions()
    assert close(part.arrays["total_change"].data, f[5] - f[2], np.abs(f).max())
    # Visits before the range count as far as the optimizer has them in memory, those after it do not.
    steps, J = run.observer.steps, run.jacobians()
    run.observer.steps = steps[:5]
    direct, later = run.influences(J[:5], first=2)
    found = part.arrays["influence"].data
    assert close(found, (direct + later)[:, :, part.arrays["train"].data])
    assert close(found.sum(2), expected[LEARNED].sum(0))
    assert later.any() == (name == "nadam")


def test_a_single_step(tmp_path):
    run = make_run(tmp_path, "adam")
    whole, one = run.analysed(influence="none"), run.analysed(steps="4")
    assert one.arrays["step"].data.tolist() == [4]
    assert close(one.arrays["terms"].data[0], whole.arrays["terms"].data[3])
    assert "influence" not in whole.arrays
    assert whole.scalars["influence_check"] is None


def test_steps_taken_together_are_projected_where_the_interval_begins(tmp_path):
    run = make_run(tmp_path, "nesterov", 3)
    result = run.analysed(every=4, influence="all")
    assert result.arrays["step"].data.tolist() == [4, 6]
    J = run.jacobians()
    J = [J[0]] * 4 + [J[4]] * 2
    expected = run.projected(J).sum(2)
    scale = np.abs(expected).max()
    rows = np.stack([expected[:4].sum(0), expected[4:].sum(0)])
    assert close(result.arrays["terms"].data, rows, scale)
    direct, later = run.influences(J)
    assert close(result.arrays["influence"].data, direct + later)
    assert close(result.arrays["influence_memory"].data, later)
    assert "4 steps are taken together: J where each interval begins, times the sum" in result.notes[-1]


def test_the_most_influential_examples_of_each_row(tmp_path):
    run = make_run(tmp_path, "sgd", 3)
    result = run.analysed(influence="1,3", top=3)
    assert result.arrays["traced"].data.tolist() == [1, 3]
    example, value = result.arrays["top_example"].data, result.arrays["top_influence"].data
    assert example.shape == (6, 2, 3)
    # Without a memory a visit acts in its own step only; the third batch has two examples.
    assert (example[[2, 5], :, 2] == -1).all()
    assert not value[[2, 5], :, 2].any()
    sizes = np.linalg.norm(value, axis=3)
    assert (np.diff(sizes, axis=2) <= 0).all()
    for step in range(1, 7):
        alone = run.analysed(steps=str(step), influence="1,3").arrays
        batch = np.linalg.norm(alone["influence"].data, axis=1)
        for row in range(2):
            order = np.argsort(-batch[row], kind="stable")[: 2 if step in (3, 6) else 3]
            named = alone["train"].data[order]
            assert example[step - 1, row, : len(order)].tolist() == named.tolist()
            expected = alone["influence"].data[row][:, order].T
            assert close(value[step - 1, row, : len(order)], expected)


def test_pieces_of_the_walk_back_and_of_the_rows_change_nothing(tmp_path, monkeypatch):
    run = make_run(tmp_path, "adam", 3, count=1)
    whole = run.analysed(influence="all").arrays
    walks = []

    def traced(run, rows, *rest):
        walks.append(len(rows))
        return influence.trace_back(run, rows, *rest)

    monkeypatch.setattr("tscope.analyses.updates.analysis.trace_back", traced)
    monkeypatch.setattr(influence, "_KEPT", 1 << 40)
    monkeypatch.setattr("tscope.analyses.updates.analysis.rows_that_fit", lambda run: 2)
    said: list[str] = []
    part = run.analysed(influence="all", say=said.append).arrays
    assert walks == [2, 2, 1]
    assert said[0].startswith("5 probe examples are traced in 3 walks back: memory is for 2 at a time")
    for name in ("influence", "influence_memory", "top_influence"):
        assert close(part[name].data, whole[name].data), name
    assert np.array_equal(part["top_example"].data, whole["top_example"].data)


def test_the_walk_back_goes_on_from_recorded_states(tmp_path, monkeypatch):
    for module in (chain, root_writer):
        monkeypatch.setattr(module, "ANCHOR_ROWS", 2)
    run = make_run(tmp_path, "nadam", 3)
    starts = []
    steps = opened.Run.steps

    def walked(self, start, stop):
        starts.append(start)
        return steps(self, start, stop)

    monkeypatch.setattr(opened.Run, "steps", walked)
    found = run.analysed(influence="all").arrays["influence"].data
    assert starts == [1, 5, 3, 1]  # forward, then back from anchor to anchor
    direct, later = run.influences(run.jacobians())
    assert close(found, direct + later)


def test_a_traced_example_that_does_not_fit_is_refused(tmp_path):
    run = make_run(tmp_path, outputs=3)
    with pytest.raises(AnalysisError) as caught:
        run.analysed(max_memory_mb=0.01, influence="0")
    assert str(caught.value) == (
        "tracing one probe example with 3 outputs takes 0.00734 MB of the 0.003 MB that there are for it; "
        "allow more (`--max-memory MB`), follow fewer outputs (`--probe-output`), or leave it out "
        "(`--influence none`)"
    )
    # Those that nobody asked for are left out, and the terms are there.
    result = run.analysed(max_memory_mb=0.01)
    assert result.notes[0] == f"no influences: {caught.value}"
    assert "influence" not in result.arrays
    assert close(result.arrays["terms"].data, run.analysed().arrays["terms"].data)


def test_without_layers_the_terms_are_the_same(tmp_path):
    run = make_run(tmp_path, "adamw")
    whole, plain = run.analysed(), run.analysed(layers=False)
    assert close(plain.arrays["terms"].data, whole.arrays["terms"].data)
    assert "layer_share" not in plain.arrays


@pytest.mark.parametrize("output", ["1", "logprob"])
def test_another_functional_of_the_output_is_followed(tmp_path, output):
    run = make_run(tmp_path, "adam", 3)
    labels = np.array([0, 1, 2, 0, 1])
    np.savez(run.held, x=run.points.numpy(), y=labels)
    result = run.analysed(probe_output=output, influence="all")
    first = run.first_order(run.jacobians())
    if output == "1":
        expected = first[:, :, 1:2]
    else:
        slope = np.eye(3)[labels] - torch.softmax(torch.from_numpy(run.predictions()[:-1]), 2).numpy()
        expected = (slope * first).sum(2, keepdims=True)
    terms = result.arrays["terms"].data
    assert close(terms.sum(1), expected, np.abs(terms).max())
    assert result.scalars["influence_check"] < 1e-12


def skipping(folder, make, steps=6, skipped=(3,)):
    module = mlp(1)
    x, y = data(1)
    recorder = Recorder(folder / "run.zarr", module, make(module.parameters()), x)
    for step in range(1, steps + 1):
        module.zero_grad()
        mse(recorder.forward(x[:4]), y[:4]).backward()
        recorder.step(skipped=step in skipped)
    np.savez(folder / "held.npz", x=x.numpy())
    return recorder.close()


def test_a_skipped_step_changes_nothing_and_keeps_the_memory(tmp_path):
    trace = skipping(tmp_path, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    result = tscope.analyze(trace, "updates", probe=str(tmp_path / "held.npz"), full=True, save=False)
    terms = result.arrays["terms"].data
    assert not terms[2].any()
    assert not result.arrays["share_gradient"].data[2]
    assert np.abs(terms[3, TERMS.index("memory")]).max() > np.abs(terms[3, 0]).max()
    assert (result.arrays["top_example"].data[2] == -1).all()
    assert result.scalars["influence_check"] < 1e-12
    assert result.scalars["decomposition_check"] < 1e-12 * np.abs(terms).max()


def test_a_run_in_float32_within_its_rounding(tmp_path):
    run = make_run(tmp_path, "adamw", dtype=torch.float32)
    for dtype in (None, "float64"):
        result = run.analysed(dtype=dtype, influence="all")
        terms = result.arrays["terms"].data.astype(np.float64)
        rounding = 1e-6 if dtype is None else 1e-12
        # Influences are of steps that were taken in float32: what the replay rounds comes on top.
        apart = 4e-6 if dtype is None else 1e-6
        assert result.scalars["decomposition_check"] < rounding * np.abs(terms).max()
        assert 0 < result.scalars["adapter_residual"] < 5e-6
        assert result.scalars["influence_check"] < apart


def test_steps_that_the_optimizer_does_not_give_are_refused(tmp_path):
    module = mlp(1)
    x, y = data(1)
    recorder = Recorder(tmp_path / "run.zarr", module, torch.optim.SGD(module.parameters(), lr=0.1), x)
    for _ in range(3):
        module.zero_grad()
        mse(recorder.forward(x), y).backward()
        recorder.step(lr=np.array([0.05]))
    np.savez(tmp_path / "held.npz", x=x.numpy())
    with pytest.raises(AnalysisError) as caught:
        tscope.analyze(recorder.close(), "updates", probe=str(tmp_path / "held.npz"), save=False)
    assert str(caught.value).startswith(
        "updates is not valid: at step 1 the optimizer's rule does not give the recorded steps, "
        "‖J(Δθ_rule − Δθ)‖/‖JΔθ‖ = 0.5 (at most 1e-08); something else changes the parameters"
    )


def test_influences_that_do_not_add_up_are_refused(tmp_path, monkeypatch):
    directions = influence._directions

    def halved(update, jacobian, adjoint, columns):
        found, parts = directions(update, jacobian, adjoint, columns)
        return {name: value / 2 for name, value in found.items()}, parts

    monkeypatch.setattr(influence, "_directions", halved)
    with pytest.raises(AnalysisError, match="do not add up to what gradients did, by 0"):
        make_run(tmp_path).analysed()
    result = make_run(tmp_path / "single", dtype=torch.float32).analysed()
    assert "add up to what gradients did within" in result.notes[0]


def test_a_trace_without_examples_to_look_at_is_refused(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(MissingDataError) as caught:
        tscope.analyze(run.trace, "updates", save=False)
    assert caught.value.exit_code == 4
    assert "lacks what updates needs: a probe set. Give examples now with `--probe FILE.npz`" in str(
        caught.value
    )


def test_a_run_that_ends_in_nan_is_looked_at_up_to_there(tmp_path):
    module = mlp(1)
    x, y = data(1)
    recorder = Recorder(tmp_path / "run.zarr", module, torch.optim.SGD(module.parameters(), lr=0.1), x)
    for step in range(4):
        module.zero_grad()
        mse(recorder.forward(x), y).backward()
        if step == 3:
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))
        recorder.step()
    np.savez(tmp_path / "held.npz", x=x.numpy())
    trace, probe = recorder.close(), str(tmp_path / "held.npz")
    result = tscope.analyze(trace, "updates", probe=probe, save=False)
    assert result.arrays["step"].data.tolist() == [1, 2, 3]
    assert result.scalars["stopped"] == 4
    assert result.scalars["influence_check"] < 1e-12
    assert any("NaN or infinite values at step 4; figures end before" in note for note in result.notes)
    with pytest.raises(AnalysisError, match="at step 4; there is no step before it to look at"):
        tscope.analyze(trace, "updates", probe=probe, steps="4", save=False)


def test_a_result_is_saved_and_found_again(tmp_path):
    run = make_run(tmp_path, "adam")
    saved = tscope.analyze(run.trace, "updates", probe=str(run.held))
    found = run.trace.result("updates")
    assert np.array_equal(found.arrays["influence"].data, saved.arrays["influence"].data)
    assert found.provenance["terms"] == list(TERMS)
    assert "terms" not in found.arrays


def test_notes_say_where_first_order_terms_fail(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    open_run = opened.open_run
    held = replace(open_run(run.trace, Options(probe=str(run.held))).held, attributes={"in_sample": True})
    monkeypatch.setattr("tscope.analyses.updates.notes._RESIDUAL", 0.0)
    monkeypatch.setattr(
        "tscope.analyses.updates.analysis.open_run", lambda *a: replace(open_run(*a), held=held)
    )
    notes = run.analysed().notes
    assert "of the change of a step is not first-order (‖Δf − JΔθ‖/‖Δf‖), and is in none of" in notes[0]
    assert "is in-sample: its examples were trained on" in notes[1]


def errors_of(trace, **options) -> TscopeError:
    with pytest.raises(TscopeError) as caught:
        tscope.analyze(trace, "updates", save=False, **options)
    return caught.value


def test_an_optimizer_without_an_adapter_is_refused_by_name(tmp_path):
    trace = skipping(tmp_path, lambda p: torch.optim.Adadelta(p, lr=1.0), skipped=())
    error = errors_of(trace, probe=str(tmp_path / "held.npz"))
    assert "the run was trained with Adadelta, whose steps are not known as linear maps" in str(error)
    assert error.exit_code == 1

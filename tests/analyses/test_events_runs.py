"""`events` on traces: planted ones, recorded training, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn, optim
from tscope_format.errors import MissingDataError, TscopeError, UsageError
from tscope_format.results import Array, Result, load_result, save_result

import tscope
from tests.analyses.event_curves import sigmoid
from tests.analyses.event_runs import FIT, ONSET, ROWS, SPIKE, grokking, losses, outputs, write
from tests.optimizers.recorded import Recorder, epochs, train
from tscope.trace import Trace


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Trace:
    return grokking(tmp_path_factory.mktemp("events") / "run.zarr")


def analysed(trace, **options) -> Result:
    return tscope.analyze(trace, "events", save=False, **options)


def refused(trace, kind: type[TscopeError], **options) -> str:
    with pytest.raises(kind) as caught:
        analysed(trace, **options)
    return str(caught.value)


def test_fit_grokking_and_spike_of_a_planted_run(run):
    found = analysed(run)
    kinds = [found.provenance["kinds"][kind] for kind in found.arrays["event_kind"].data]
    assert kinds == ["interpolation", "loss spike", "grokking"]
    # A sigmoid of width 0.05 is at 0.987 of its height at e^(0.05·4.3) of its middle; rows are 3 apart.
    assert abs(found.scalars["interpolation"] - FIT * np.exp(0.05 * 4.3)) <= 6
    assert found.scalars["loss_spike"] == SPIKE
    assert abs(found.scalars["grokking"] - ONSET) <= 6
    assert found.scalars["grokking_delay"] == found.scalars["grokking"] - found.scalars["interpolation"]
    steps, low, high = (found.arrays[f"event_{name}"].data for name in ("step", "low", "high"))
    assert (low <= steps).all()
    assert (steps <= high).all()
    assert (found.arrays["event_confidence"].data >= 0.99).all()
    assert found.scalars["fit_basis"] == "accuracy"
    assert found.provenance["source_train"] == "probe set seen"
    assert [item["event"] for item in found.provenance["missing"]] == [
        "effective-parameter peak",
        "alignment jump",
    ]
    assert "analyze" in found.provenance["missing"][1]["remedy"]
    assert any(
        note.startswith("not looked for: alignment jump. It lacks a saved kernel result; tscope analyze ")
        for note in found.notes
    )
    assert found.arrays["fit_test"].data[0] == pytest.approx(0.25, abs=0.01)
    assert len(found.arrays["step"].data) == 512


def test_each_kind_comes_with_its_definition_and_the_bounds_that_were_used(run):
    found = analysed(run, fit=0.97, rise=0.25, spike=3.0, diverge=7.0).provenance
    told = found["definitions"]
    assert list(told) == found["kinds"]
    bounds = ("0.97 or more", "0.25 or more", "2% above", "0.1 and half", "a loss 3 times", "ends 7 times")
    for sentence, bound in zip(told.values(), bounds, strict=True):
        assert bound in sentence


def test_options_move_the_bounds(run):
    assert analysed(run, spike=20.0).scalars["loss_spikes"] == 0
    assert analysed(run, rise=0.9).scalars["grokking"] is None
    earlier = analysed(run, fit=0.5)
    assert abs(earlier.scalars["interpolation"] - FIT * np.exp(-0.05 * np.log(2))) <= 6
    assert analysed(run, probe="seen").scalars["grokking"] is None


def test_peaks_and_jumps_come_from_saved_results_of_this_root(tmp_path):
    trace = grokking(tmp_path / "run.zarr")
    steps = np.r_[0, np.unique(np.geomspace(1, ROWS, 40).round().astype(int))]
    p = 50 * np.exp(-0.5 * (np.log(np.maximum(steps, 1) / 500) / 0.4) ** 2)
    alignment = 0.1 + 0.6 * sigmoid(steps, 550, 0.02)
    zero = np.zeros(len(steps))
    effective = {"step": steps, "p_train": np.linspace(0, 9, len(steps)), "p_train_se": zero}
    effective |= {"p_test": p, "p_test_se": zero}
    for metric, arrays in (
        ("effective-params", effective),
        ("kernel", {"step": steps, "alignment_train": alignment}),
    ):
        made = {name: Array(("step",), values) for name, values in arrays.items()}
        save_result(trace.path, Result(metric, {}, made, {}), "model")
        # Of another root: not looked at.
        save_result(trace.path, Result(metric, {}, {"step": made["step"]}, {}), "other")
    found = analysed(trace)
    assert abs(np.log(found.scalars["effective_parameter_peak"] / 500)) <= np.log(ROWS) / 39
    assert abs(np.log(found.scalars["alignment_jump"] / 550)) <= np.log(ROWS) / 39
    assert found.provenance["missing"] == []
    assert set(found.provenance["results"]) == {"effective-params", "kernel"}
    texts = [event["text"] for event in found.provenance["events"]]
    assert any(text.startswith("effective parameters of held-out examples peak at ") for text in texts)
    broken = save_result(trace.path, Result("kernel", {}, {}, {}), "model")
    found = analysed(trace)
    assert found.scalars["alignment_jump"] is None
    assert "the saved kernel result has no steps" in found.notes
    assert found.provenance["results"]["kernel"] == broken, "another search would not read it either"
    assert [item["event"] for item in found.provenance["missing"]] == ["alignment jump"]


def test_a_kernel_without_labels_tells_of_no_jump_and_one_of_sketches_of_its_probe_set(tmp_path):
    trace = grokking(tmp_path / "run.zarr")
    steps = np.r_[0, np.unique(np.geomspace(1, ROWS, 40).round().astype(int))]
    arrays = {"step": Array(("step",), steps)}
    save_result(trace.path, Result("kernel", {}, arrays, {}), "model")
    lacking = analysed(trace).provenance["missing"][-1]
    assert lacking["event"] == "alignment jump"
    assert lacking["lacks"] == "the alignment with labels in the saved kernel result"
    assert lacking["remedy"].endswith("--metric kernel --labels FILE.npz (x and y)")
    arrays["alignment_test"] = Array(("step",), 0.1 + 0.6 * sigmoid(steps, 550, 0.02))
    save_result(trace.path, Result("kernel", {}, arrays, {}), "model")
    assert analysed(trace).scalars["alignment_jump"] is None, "that of held-out examples is not looked at"
    save_result(trace.path, Result("kernel", {"form": "sketch"}, arrays, {}), "model")
    found = analysed(trace)
    assert abs(np.log(found.scalars["alignment_jump"] / 550)) <= np.log(ROWS) / 39
    texts = [event["text"] for event in found.provenance["events"]]
    assert any(
        text.startswith("the kernel's alignment with the probe set's labels changes") for text in texts
    )


def test_held_out_accuracy_comes_from_telescoping_where_no_probe_was_recorded(tmp_path):
    steps = np.arange(0, ROWS + 1, 5)
    trace = write(tmp_path / "run.zarr", losses())
    arrays = {"step": Array(("step",), steps)}
    arrays["accuracy_actual"] = Array(("step",), 0.2 + 0.7 * sigmoid(steps, ONSET, 0.05))
    known = {"probe": {"examples": 300, "in_sample": False}}
    save_result(trace.path, Result("telescoping", {"probe": "test"}, arrays, known), "model")
    found = analysed(trace, fit=0.5)
    assert abs(found.scalars["grokking"] - ONSET) <= 15
    assert found.provenance["source_test"] == "test in the telescoping result"
    assert found.scalars["fit_basis"] == "loss"
    known["probe"]["in_sample"] = True
    save_result(trace.path, Result("telescoping", {"probe": "test"}, arrays, known), "model")
    assert analysed(trace, fit=0.5).provenance["source_test"] is None


def test_a_probe_set_that_few_rows_were_projected_on_gives_way_to_a_result_of_more(tmp_path):
    steps = np.arange(0, ROWS + 1, 5)
    target = np.random.default_rng(1).integers(0, 4, 20)
    few = outputs(np.full(9, 0.3), target, 3)
    trace = write(tmp_path / "run.zarr", losses(), {"heldout": (few, target, False)})
    found = analysed(trace, fit=0.5)
    assert found.provenance["source_test"] == "probe set heldout"
    assert found.scalars["grokking"] is None
    (lack,) = (item for item in found.provenance["missing"] if item["event"] == "grokking")
    assert lack["lacks"] == "outputs of held-out examples at more than 3 of 1,201 rows"
    assert lack["remedy"] == f"tscope analyze {trace.path} --metric telescoping --replay"
    arrays = {"step": Array(("step",), steps)}
    arrays["accuracy_actual"] = Array(("step",), 0.2 + 0.7 * sigmoid(steps, ONSET, 0.05))
    known = {"probe": {"examples": 300, "in_sample": False}}
    save_result(trace.path, Result("telescoping", {"probe": "heldout"}, arrays, known), "model")
    found = analysed(trace, fit=0.5)
    assert found.provenance["source_test"] == "heldout in the telescoping result"
    assert abs(found.scalars["grokking"] - ONSET) <= 15
    assert not any(item["event"] == "grokking" for item in found.provenance["missing"])
    assert analysed(trace, fit=0.5, probe="heldout").provenance["source_test"] == "probe set heldout"


def test_batches_tell_the_fit_as_the_loop_itself_counted(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    x = torch.randn(24, 4, dtype=torch.float64)
    y = torch.randint(0, 3, (24,))
    optimizer = optim.Adam(module.parameters(), lr=0.02)
    right: list[int] = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        right.append(int((output.argmax(1) == target).sum()))
        return nn.functional.cross_entropy(output, target)

    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 8, 80), loss)
    found = analysed(trace)
    assert found.provenance["source_train"] == "outputs of the batches"
    # 24 examples: three batches of 8. Row t shows the batch of step t.
    shares = np.convolve(right, np.ones(3), "valid") / 24
    np.testing.assert_allclose(found.arrays["fit_train"].data[3:], shares, atol=1e-12)
    assert np.isnan(found.arrays["fit_train"].data[:3]).all()
    median = np.array([np.median(shares[max(0, k - 2) : k + 3]) for k in range(2, len(shares) - 2)])
    assert abs(found.scalars["interpolation"] - (3 + 2 + int((median >= 0.99).argmax()))) <= 1


def test_a_regression_is_told_by_its_explained_variance(tmp_path):
    torch.manual_seed(0)
    module = nn.Linear(4, 2).double()
    x = torch.randn(20, 4, dtype=torch.float64)
    y = x @ torch.randn(4, 2, dtype=torch.float64)
    outputs = []

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        outputs.append(float((output.detach() - target).square().sum(1).mean()))
        return nn.functional.mse_loss(output, target)

    optimizer = optim.SGD(module.parameters(), lr=0.1)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, y)] * 120, loss)
    found = analysed(trace)
    explained = np.maximum(0, 1 - np.array(outputs) / float(y.var(0, correction=0).sum()))
    assert found.scalars["fit_basis"] == "variance"
    np.testing.assert_allclose(found.arrays["fit_train"].data[1:], explained, atol=1e-6)
    assert abs(found.scalars["interpolation"] - (1 + int((explained >= 0.99).argmax()))) <= 3


def test_a_loss_that_was_not_recorded_to_the_end_is_no_divergence(tmp_path):
    loss = losses()
    loss[900:] = np.nan
    gone = write(tmp_path / "gone.zarr", loss)
    assert analysed(gone).scalars["divergence"] == 900
    values = np.random.default_rng(0).normal(size=(ROWS + 1, 8, 4)).astype(np.float32)
    probes = {"heldout": (values, np.arange(8) % 4, False)}
    found = analysed(write(tmp_path / "unseen.zarr", loss, probes))
    assert found.scalars["divergence"] is None
    assert "the training loss was not recorded after step 899" in found.notes
    # Outputs that are finite for a few steps more, or a loss that is infinite: it did diverge.
    values[910:] = np.nan
    found = analysed(write(tmp_path / "late.zarr", loss, probes))
    assert found.scalars["divergence"] == 900
    loss[905:] = np.inf
    values[:] = 0
    found = analysed(write(tmp_path / "infinite.zarr", loss, probes))
    assert found.scalars["divergence"] == 900


def test_gaps_and_losses_of_either_sign_are_said(tmp_path):
    loss = losses()
    loss[[400, 500]] = np.nan, np.inf
    loss[700] = -1
    notes = analysed(write(tmp_path / "run.zarr", loss)).notes
    assert "2 losses between finite ones are not finite, and are passed over" in notes
    assert "the training loss is not always positive: no spikes are looked for" in notes
    short = analysed(write(tmp_path / "short.zarr", losses()[:20]))
    assert "spikes need 48 rows of the loss; there are 19" in short.notes
    assert short.scalars["events"] == 0


def test_without_anything_to_look_at_it_is_refused_and_without_a_loss_the_rest_is_done(tmp_path):
    nothing = write(tmp_path / "nothing.zarr", np.full(60, np.nan))
    assert refused(nothing, MissingDataError) == (
        f"{nothing.path} lacks what events needs: losses, outputs of batches or of a probe set with labels, "
        "or saved results. Record with `tscope record --probe FILE.npz` (x and y), or compute another metric "
        "first: `tscope analyze TRACE --metric kernel`"
    )
    arrays = {name: Array(("step",), np.arange(60.0)) for name in ("step", "alignment_train")}
    save_result(nothing.path, Result("kernel", {}, arrays, {}), "model")
    lacking = {item["event"] for item in analysed(nothing).provenance["missing"]}
    assert lacking == {
        "interpolation",
        "grokking",
        "loss spike",
        "divergence",
        "effective-parameter peak",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": 0.0}, "fit must be a share above 0 and at most 1, got 0.0"),
        ({"rise": 1.5}, "rise must be a share above 0 and at most 1, got 1.5"),
        ({"sure": -1.0}, "sure must be a share above 0 and at most 1, got -1.0"),
        ({"spike": 1.0}, "spike must be a finite factor above 1, got 1.0"),
        ({"diverge": float("inf")}, "diverge must be a finite factor above 1, got inf"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there is auto, mse, cross_entropy, bce"),
        ({"probe": "x"}, "--probe x: no such probe set was recorded; there is heldout, seen"),
    ],
)
def test_bad_requests_are_one_line(run, options, message):
    assert refused(run, UsageError, **options) == message


def test_a_probe_set_without_labels_and_labels_that_cannot_be_used_are_refused(tmp_path):
    values = np.zeros((ROWS + 1, 8, 4), np.float32)
    trace = write(tmp_path / "run.zarr", losses(), {"heldout": (values, None, False)})
    assert refused(trace, UsageError, probe="heldout") == (
        "--probe heldout: its labels or its full outputs were not recorded, so it is not known how well it "
        "is predicted"
    )
    assert "no batch was recorded" in refused(trace, MissingDataError, loss="mse")


def test_a_result_without_events_is_saved_and_read_back(tmp_path):
    module, x = nn.Linear(4, 1), torch.zeros(2, 4)
    recorder = Recorder(tmp_path / "run.zarr", module, optim.SGD(module.parameters(), lr=0.1), x)
    nn.functional.mse_loss(recorder.forward(x), torch.zeros(2, 1)).backward()
    recorder.step(1.0)
    trace = recorder.close()
    tscope.analyze(trace, "events")
    found = load_result(trace.path, "events")
    assert found.scalars["events"] == 0
    assert found.arrays["event_step"].data.shape == (0,)

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from tscope_format import UsageError, open_trace
from tscope_format.disk import disk_size
from tscope_tui.data import run as run_module
from tscope_tui.data.curve import read_curve
from tscope_tui.data.entry import Entry, arranged, find, read_entry
from tscope_tui.data.events import Event, neighbour
from tscope_tui.data.facts import facts_at
from tscope_tui.data.filter import parse
from tscope_tui.data.quick_events import flag_events, loss_facts, spikes
from tscope_tui.data.run import RunSource
from tscope_tui.data.status import State, age, size, state_of
from tscope_tui.data.steps import Steps
from tscope_tui.data.tail import LONGEST, Backoff, signature
from tscope_tui.data.telescoping import Choice, Recorded, from_result, shares
from tui_traces import EXAMPLES, SPIKE, Run, finished, save_telescoping


@pytest.fixture(scope="module")
def trace(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("data") / "mlp.zarr")


@pytest.mark.parametrize(
    ("status", "silent", "pace", "state"),
    [
        ("recording", 2, 0.0, State.LIVE),
        ("recording", 40, 0.0, State.STALLED),
        ("recording", 40, 6.0, State.LIVE),
        ("complete", 1e6, 0.0, State.DONE),
        ("interrupted", 1, 0.0, State.INTERRUPTED),
        ("failed", 1, 0.0, State.FAILED),
    ],
)
def test_states(status, silent, pace, state):
    assert state_of(status, silent, pace) is state


def test_short_ages_and_sizes():
    assert [age(s) for s in (1, 45, 130, 7200, 2e5)] == ["now", "45s", "2m", "2h", "2d"]
    assert [size(b) for b in (812, 4200, 96 << 20, 4.1 * 2**30)] == ["812B", "4.1K", "96M", "4.1G"]


def test_an_entry_tells_state_steps_and_loss(trace):
    entry = read_entry(trace, time.time())
    assert (entry.name, entry.state, entry.steps) == ("mlp", State.DONE, 120)
    assert entry.loss == Run.loss(120)
    assert entry.seconds_per_row == pytest.approx(0.01)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "zarr.json").write_text("{ garbage"),
        lambda path: (path / "zarr.json").unlink(),
        lambda path: (path / "zarr.json").write_text('{"attributes": {"tscope": {"format": 99}}}'),
        lambda path: next((path / "model" / "loss" / "c").iterdir()).unlink(),
        lambda path: next((path / "model" / "loss" / "c").iterdir()).write_bytes(b"short"),
    ],
)
def test_a_damaged_trace_is_an_entry_with_the_reason(tmp_path, damage):
    path = finished(tmp_path / "x.zarr", 20)
    damage(path)
    entry = read_entry(path, time.time())
    assert entry.state is State.BAD
    assert entry.reason
    assert "\n" not in entry.reason
    data = RunSource(path).load(Choice(), None)
    assert data.problems
    assert facts_at(path)


def test_a_file_named_like_a_trace_is_a_bad_entry(tmp_path):
    path = tmp_path / "notes.zarr"
    path.write_text("hello")
    assert find([tmp_path]) == [path]
    assert read_entry(path, time.time()).state is State.BAD


def test_hostile_names_are_cleaned(tmp_path):
    path = finished(
        tmp_path / "x.zarr", 5, facts={"name": "\x1b[31mred\x07\x1b]0;owned\x07", "command": ["a\x1b[2J"]}
    )
    assert read_entry(path, time.time()).name == "red "
    assert all("\x1b" not in text for _, text in facts_at(path))


def test_traces_are_found_in_folders_and_by_name(tmp_path):
    inside = finished(tmp_path / "runs" / "a.zarr", 2)
    (tmp_path / "runs" / ".b.zarr.1234").mkdir()
    (tmp_path / "runs" / "notes").mkdir()
    assert find([tmp_path / "runs"]) == [inside]
    assert find([inside]) == [inside]
    assert find([tmp_path / "nowhere"]) == []
    assert disk_size(inside) > 1000


def entries():
    return [
        Entry(
            Path("a"), "mlp-grok", State.LIVE, steps=100, loss=0.05, bytes=10 << 20, committed=100, now=160
        ),
        Entry(Path("b"), "cnn", State.DONE, steps=5000, loss=0.5, bytes=1 << 30, committed=50, now=160),
        Entry(Path("c"), "bad", State.BAD, "broken", committed=10, now=160),
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["mlp-grok", "cnn", "bad"]),
        ("grok|cnn", ["mlp-grok", "cnn"]),
        ("CNN", ["cnn"]),
        ("loss<0.1", ["mlp-grok"]),
        ("state:live", ["mlp-grok"]),
        ("state:bad", ["bad"]),
        ("steps>=5k", ["cnn"]),
        ("size>500M", ["cnn"]),
        ("age<=1m", ["mlp-grok"]),
        ("loss<1 state:done", ["cnn"]),
    ],
)
def test_filters(text, names):
    assert [entry.name for entry in entries() if parse(text).matches(entry)] == names


@pytest.mark.parametrize(
    ("text", "message"), [("[", "is not a regular expression"), ("loss<1..2", "is no loss")]
)
def test_a_wrong_filter_says_what_is_wrong(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("age", ["mlp-grok", "cnn", "bad"]),
        ("name", ["bad", "cnn", "mlp-grok"]),
        ("steps", ["cnn", "mlp-grok", "bad"]),
        ("loss", ["mlp-grok", "cnn", "bad"]),
        ("size", ["cnn", "mlp-grok", "bad"]),
    ],
)
def test_orders(order, names):
    assert [entry.name for entry in arranged(entries(), order, ())] == names
    assert arranged(entries(), order, {Path("c")})[0].name == "bad"


def test_the_wait_grows_while_nothing_changes():
    backoff = Backoff()
    waits = [backoff.looked(changed=False) for _ in range(20)]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    assert backoff.looked(changed=True) == 0.5


def test_a_commit_changes_the_signature(tmp_path):
    run = Run(tmp_path / "x.zarr")
    before = signature(run.path)
    run.train(1)
    assert signature(run.path) != before
    assert signature(tmp_path / "none") is None


class Root:
    """A root with only steps."""

    def __init__(self, steps):
        self.steps = np.array(steps)

    def read(self, name, start=0, stop=None):
        return self.steps[start:stop]


@pytest.mark.parametrize(
    "steps",
    [[0], [0, 1], [0, 5], [0, 5, 7], list(range(3000)), [*range(0, 5000, 10), 4995], [0, 3, 4, 9, 20]],
)
def test_steps_of_rows_and_back(steps):
    found = Steps.read(Root(steps), len(steps))
    assert [found.at(row) for row in range(len(steps))] == steps
    assert found.of(np.arange(len(steps))).tolist() == steps
    assert [found.row(step) for step in steps] == list(range(len(steps)))
    assert found.row(-1) == 0
    assert found.row(steps[-1] + 100) == len(steps) - 1
    assert [found.row(step + 0.5) for step in steps] == list(range(len(steps)))


def test_a_norm_for_each_tensor_is_read_as_one(trace):
    root = open_trace(trace).root()
    curve = read_curve(root, "grad_norm", Steps.read(root, root.rows))
    norms = root.read("grad_norm")
    assert np.isnan(curve.values[0])
    assert curve.values[7] == pytest.approx(np.linalg.norm(norms[7].astype(float)))


def test_a_long_trace_is_read_from_its_pyramid(trace, monkeypatch):
    root = open_trace(trace).root()
    steps = Steps.read(root, root.rows)
    exact = read_curve(root, "loss", steps)
    monkeypatch.setattr("tscope_tui.data.curve.BUDGET", 64)
    coarse = read_curve(root, "loss", steps)
    assert (exact.block, coarse.block) == (1, 64)
    assert coarse.values.size < exact.values.size
    assert np.nanmax(coarse.values) == np.nanmax(exact.values)
    assert np.nanmin(coarse.values) == np.nanmin(exact.values)
    assert coarse.steps[-1] == 120
    # The last block is open, so its rows are exact.
    np.testing.assert_array_equal(coarse.values[coarse.steps >= 64], exact.values[64:])
    part = read_curve(root, "loss", steps, 30, 60)
    np.testing.assert_array_equal(part.values, exact.values[30:60])


def test_a_growing_trace_costs_its_new_rows_only(tmp_path, monkeypatch):
    run = Run(tmp_path / "x.zarr")
    run.train(50)
    source = RunSource(run.path)
    assert source.load(Choice(), None).last == 50
    reads = []
    real = run_module.read_curve
    monkeypatch.setattr(
        run_module,
        "read_curve",
        lambda root, name, steps, *rows: reads.append(rows) or real(root, name, steps, *rows),
    )
    run.train(30)
    data = source.load(Choice(), None)
    assert data.last == 80
    assert set(reads) == {(51,)}
    fresh = RunSource(run.path).load(Choice(), None)
    for name, curve in fresh.curves.items():
        np.testing.assert_array_equal(data.curves[name].values, curve.values)
    np.testing.assert_allclose(data.telescoping.errors["telescoped"], fresh.telescoping.errors["telescoped"])


def test_a_window_is_read_in_detail(trace, monkeypatch):
    monkeypatch.setattr("tscope_tui.data.curve.BUDGET", 64)
    source = RunSource(trace)
    data = source.load(Choice(), (10.0, 20.0))
    assert data.curves["loss"].block == 64
    assert data.curve("loss", (10.0, 20.0)).block == 1
    assert data.curve("loss", (10.0, 90.0)).block == 64
    assert data.curve("loss", None).block == 64


def test_telescoping_from_recorded_projections(trace):
    root = open_trace(trace).root()
    recorded = Recorded(root, "heldout", Choice(2, 0))
    assert recorded.advance(root)
    assert not recorded.advance(root)
    told = recorded.result()
    actual = np.stack([Run.output(step) for step in range(121)]).astype(float)[:, 2, 0]
    jvp = root.read("probe/heldout/jvp").astype(float)[:, 2, 0]
    np.testing.assert_allclose(told.curves["actual"], actual)
    np.testing.assert_allclose(told.curves["telescoped"], actual[0] + np.cumsum(jvp), rtol=1e-12)
    np.testing.assert_allclose(
        told.errors["telescoped"], np.abs(actual - actual[0] - np.cumsum(jvp)), atol=1e-12
    )
    assert told.single
    assert told.relative_residual == pytest.approx(0.02, rel=1e-3)
    assert told.worst(1) == [1]


def test_many_predictions_are_shown_as_the_distance_from_the_start(trace):
    told = RunSource(trace).load(Choice(), None).telescoping
    actual = np.stack([Run.output(step) for step in range(121)]).astype(float)
    moved = np.sqrt(((actual - actual[0]) ** 2).mean((1, 2)))
    np.testing.assert_allclose(told.curves["actual"], moved, rtol=1e-6)
    assert not told.single
    assert set(told.accuracy) == {"actual", "telescoped", "lazy"}
    np.testing.assert_allclose(
        told.accuracy["actual"], ((actual[..., 0] > 0) == (np.arange(EXAMPLES) % 2 == 0)).mean(1)
    )


def test_blocks_do_not_change_the_sums(trace, monkeypatch):
    whole = RunSource(trace).load(Choice(), None).telescoping
    monkeypatch.setattr("tscope_tui.data.telescoping._BLOCK_BYTES", 500)
    parts = RunSource(trace).load(Choice(), None).telescoping
    np.testing.assert_allclose(parts.errors["telescoped"], whole.errors["telescoped"], rtol=1e-12)
    np.testing.assert_allclose(parts.residual, whole.residual, rtol=1e-12)


def test_predictions_end_where_they_are_not_finite(tmp_path, monkeypatch):
    real = Run.output
    monkeypatch.setattr(Run, "output", staticmethod(lambda step: real(step) * (np.nan if step >= 15 else 1)))
    data = RunSource(finished(tmp_path / "x.zarr", 30)).load(Choice(), None)
    assert data.telescoping.step[-1] == 14
    assert data.telescoping.stopped == 15
    assert Event(15, "!", "predictions are not finite") in data.events


def test_saved_layers_are_shown_over_a_range(tmp_path):
    path = finished(tmp_path / "x.zarr")
    save_telescoping(path)
    told = RunSource(path).load(Choice(), None).telescoping
    assert told.source == "saved result"
    parts = shares(told, 10, 60)
    assert [part.name for part in parts] == ["fc1", "head", "residual"]
    assert sum(part.share for part in parts[:2]) == pytest.approx(1)
    assert parts[0].share == pytest.approx(1 / 1.2)
    assert parts[0].values.size == 50
    assert shares(told, 60, 60) == []


def test_a_run_that_went_on_keeps_its_layers(tmp_path):
    run = Run(tmp_path / "x.zarr")
    run.train(40)
    save_telescoping(run.path, 40)
    run.train(40)
    told = RunSource(run.path).load(Choice(), None).telescoping
    assert told.source == "recorded"
    assert told.step[-1] == 80
    assert told.layers == ("fc1", "head")


def test_a_result_without_the_arrays_of_the_metric_is_refused(trace):
    from tscope_format import Result

    with pytest.raises(KeyError):
        from_result(Result("telescoping", {}, {}, {}), "saved", Choice())


def test_events_are_what_the_numbers_show(tmp_path):
    run = Run(tmp_path / "x.zarr")
    run.train(80)
    run.train(2, skipped=True)
    run.train(3, loss=math.nan)
    data = RunSource(run.close("failed", "boom")).load(Choice(), None)
    told = {(event.step, event.kind) for event in data.events}
    assert (SPIKE, "s") in told
    assert (82, "m") in told
    assert {(81, "k"), (82, "k"), (83, "!"), (1, "w")} <= told
    assert len([event for event in data.events if event.kind == "s"]) == 1


def test_a_constant_or_missing_loss_has_no_spike():
    from tscope_tui.data.curve import Curve

    steps = np.arange(200.0)
    for values, kinds in ((np.ones(200), ["m"]), (np.full(200, np.nan), [])):
        assert [event.kind for event in loss_facts(Curve(steps, values))] == kinds
        assert spikes(Curve(steps, values)) == []


def test_many_flags_become_one_event_with_their_number():
    assert [event.text for event in flag_events(np.arange(3), "k", "skipped")] == ["skipped"] * 3
    assert flag_events(np.arange(9), "k", "skipped") == [Event(0, "k", "skipped (first of 9)")]


def test_neighbours_among_events():
    events = [Event(5, "m", ""), Event(9, "s", "")]
    assert neighbour(events, 5, 1) == Event(9, "s", "")
    assert neighbour(events, 9, -1) == Event(5, "m", "")
    assert neighbour(events, 9, 1) is None


def test_facts_say_what_was_recorded_and_what_is_lacking(trace):
    facts = dict(facts_at(trace))
    assert facts["model"] == "MLP, 20 parameters in 3 tensors"
    assert facts["optimizer"] == "SGD momentum 0.9"
    assert facts["lr"] == "0.1"
    assert "probe heldout (6 examples × 1 outputs)" in facts["has"]
    assert "model as data" in facts["lacks"]
    assert facts["command"] == "python train.py --lr 0.1"
    assert facts["git"] == "a1b2c3d4e5"


def test_a_trace_without_a_model_says_so(tmp_path):
    from tscope_format import TraceWriter

    writer = TraceWriter.create(tmp_path / "x.zarr", facts={})
    writer.close("complete", "no optimizer step was taken")
    data = RunSource(tmp_path / "x.zarr").load(Choice(), None)
    assert data.problems == ("no model was trained yet",)
    assert read_entry(tmp_path / "x.zarr", time.time()).steps == 0

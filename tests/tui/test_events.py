"""Events on the scrubber: recorded facts, quick rules, and a saved search that takes their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tscope_format import Array, Result, save_result
from tscope_tui.data.curve import Curve
from tscope_tui.data.events import DEFINITIONS, NAMES, Event, in_order, neighbour, percent, told
from tscope_tui.data.quick_events import crossing, fork_events, jump, peak, spikes
from tscope_tui.data.run import RunData, RunSource
from tscope_tui.data.saved_events import LETTERS, Found, from_result
from tscope_tui.data.telescoping import Choice
from tui_traces import SPIKE, Run, finished, save_effective, save_kernel, save_telescoping

import tscope
from tests.analyses.event_curves import falling, sigmoid, white
from tests.analyses.event_runs import SPIKE as PLANTED
from tests.analyses.event_runs import grokking
from tscope.analyses.events import peaks
from tscope.analyses.events.event import KINDS
from tscope.analyses.events.losses import spikes as sure_spikes

FOUND = [
    {"kind": "interpolation", "step": 30, "low": 29, "high": 30, "confidence": 0.9996, "text": "fitted"},
    {"kind": "grokking", "step": 80, "low": 60, "high": 100, "confidence": 1.0, "text": "they follow"},
]


def search(steps: int = 120, events: object = FOUND, **provenance: object) -> Result:
    """Return a result of the metric as it saves them; by default nothing was missing."""
    known = {"events": events, "missing": [], "definitions": {"grokking": "half of the way"}, **provenance}
    return Result("events", {"steps": steps}, {}, known, ("a note",))


def load(path: Path) -> RunData:
    return RunSource(path).load(Choice(), None)


def marks(data: RunData) -> set[tuple[int, str, str]]:
    return {(event.step, event.kind, event.source) for event in data.events}


def test_every_kind_of_the_metric_has_a_letter_of_its_own_and_every_mark_a_definition():
    assert set(LETTERS) == set(KINDS)
    assert set(DEFINITIONS) | set(LETTERS.values()) == set(NAMES)


def test_what_the_metric_finds_is_what_the_browser_shows(tmp_path):
    trace = grokking(tmp_path / "run.zarr")
    before = load(tmp_path / "run.zarr")
    assert (before.found, before.stale) == (None, "")
    assert (PLANTED, "s", "quick") in marks(before)
    result = tscope.analyze(trace, "events")
    data = load(tmp_path / "run.zarr")
    saved = [event for event in data.events if event.source == "saved"]
    expected = result.provenance["events"]
    assert [(event.step, NAMES[event.kind], event.text) for event in saved] == [
        (entry["step"], entry["kind"], entry["text"]) for entry in expected
    ]
    assert [(*event.between, event.confidence) for event in saved] == [
        (entry["low"], entry["high"], entry["confidence"]) for entry in expected
    ]
    assert [event.defined for event in saved] == [
        result.provenance["definitions"][entry["kind"]] for entry in expected
    ]
    assert not [event for event in data.events if event.source == "quick"]
    assert data.found.notes == result.notes
    assert data.stale == ""


def test_saved_events_take_the_place_of_the_rules_and_recorded_facts_stay(tmp_path):
    run = Run(tmp_path / "x.zarr")
    run.train(119)
    run.train(1, skipped=True)
    path = run.close()
    save_kernel(path, matrices=())
    save_effective(path)
    quick = {(SPIKE, "s", "quick"), (60, "K", "quick"), (4, "a", "quick")}
    facts = {(1, "w", "recorded"), (120, "k", "recorded"), (120, "m", "recorded")}
    assert quick | facts <= marks(load(path))
    save_result(path, search(), "model")
    found = {(30, "i", "saved"), (80, "g", "saved")}
    assert marks(load(path)) == facts | found


def test_rules_stay_for_what_was_not_looked_for_and_beyond_what_was_seen(tmp_path):
    path = finished(tmp_path / "x.zarr")
    save_kernel(path, matrices=())
    missing = [{"event": "alignment jump", "lacks": "a result", "remedy": "kernel"}]
    save_result(path, search(missing=missing), "model")
    kept = {event for event in marks(load(path)) if event[2] == "quick"}
    assert kept == {(60, "K", "quick")}
    save_result(path, search(SPIKE - 1), "model")
    kept = {event for event in marks(load(path)) if event[2] == "quick"}
    assert kept == {(SPIKE, "s", "quick"), (60, "K", "quick")}


def test_a_divergence_replaces_the_mark_of_the_first_row_that_is_not_finite():
    facts = [Event(7, "!", "loss is NaN"), Event(9, "!", "predictions are not finite")]
    diverged = Event(7, "D", "the loss is NaN from here on", "saved")
    assert Found((diverged,), 9, frozenset("D")).among(facts) == (diverged, facts[1])


def test_a_search_that_the_run_or_another_result_has_overtaken_says_so(tmp_path):
    path = finished(tmp_path / "x.zarr")
    save_result(path, search(100), "model")
    assert load(path).stale == "looked up to step 100 of 120"
    kernel = save_kernel(path, matrices=())
    save_result(path, search(results={"kernel": kernel}), "model")
    assert load(path).stale == ""
    save_kernel(path, matrices=())
    assert load(path).stale == "a result of kernel was saved since"
    save_effective(path)
    assert load(path).stale == "a result of effective-params was saved since"


def test_predictions_of_held_out_examples_count_where_the_search_had_none(tmp_path):
    path = finished(tmp_path / "x.zarr")
    missing = [{"event": "grokking", "lacks": "labels", "remedy": "telescoping"}]
    for known, stale in (({}, ""), ({"missing": missing}, "a result of telescoping was saved since")):
        save_result(path, search(**known), "model")
        telescoping = save_telescoping(path)
        assert load(path).stale == stale
    save_result(path, search(missing=missing, results={"telescoping": telescoping}), "model")
    assert load(path).stale == ""


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (Result("events", {"steps": 120}, {}, {}), "'events'"),
        (Result("events", {}, {}, {"events": []}), "'steps'"),
        (search(events=[{"kind": "grokking"}]), "'step'"),
        (search(events=[{**FOUND[0], "kind": "earthquake"}]), "'earthquake'"),
        (search(events=7), "its events are not what the metric saves"),
        (search(missing=[3]), "its events are not what the metric saves"),
        (search(steps=None), "its last step is no number"),
    ],
)
def test_a_damaged_search_is_named_and_the_one_before_it_shown(tmp_path, result, why):
    path = finished(tmp_path / "x.zarr", 20)
    save_result(path, search(20, FOUND[:1]), "model")
    broken = save_result(path, result, "model")
    data = load(path)
    assert data.problems == (f"saved result {broken}: {why}",)
    assert [event.step for event in data.events if event.source == "saved"] == [30]


def test_text_of_a_result_is_cleaned():
    entry = {**FOUND[1], "text": "t\x1b[2J"}
    (event,) = from_result(search(events=[entry], definitions={"grokking": "d\x1b[1m"})).events
    assert (event.text, event.defined) == ("t", "d")


@pytest.mark.parametrize("seed", range(5))
def test_quick_spikes_are_where_the_metric_finds_them(seed):
    steps = np.arange(1, 1001)
    loss = falling(1000) * np.exp(0.05 * white(np.random.default_rng(seed), 1000))
    for row, factor in ((150, 4.0), (400, 10.0), (801, 40.0)):
        loss[row : row + 10] *= 1 + (factor - 1) * np.exp(-np.arange(10) / 3)
    sure = sure_spikes(steps, loss, 2.0, 0.99)
    assert len(sure) == 3
    quick = in_order(spikes(Curve(steps.astype(float), loss)))
    assert [event.step for event in quick] == [event.step for event in sure]


@pytest.mark.parametrize("seed", range(5))
def test_quick_peaks_and_jumps_are_where_the_metric_finds_them(seed):
    random = np.random.default_rng(seed)
    steps = np.r_[0, np.unique(np.geomspace(1, 1000, 24).round().astype(int))]
    p = 100 * (1 + np.exp(-0.5 * (np.log(np.maximum(steps, 1) / 60) / 0.7) ** 2)) + white(random, len(steps))
    sure = peaks.peak(steps, p, np.zeros(len(p)), "held-out", 0.99)
    at = peak(p, np.zeros(len(p)))
    assert steps[at] == sure.step
    middle = random.integers(20, 400)
    alignment = 0.2 + 0.4 * sigmoid(steps, middle, 0.03) + 0.01 * white(random, len(steps))
    found = peaks.jump(steps, alignment, 0.99)
    row, change = jump(alignment)
    # The metric dates between the two rows what the browser marks at the later one.
    assert found.low <= steps[row - 1] < steps[row] <= found.high
    assert np.sign(change) == np.sign(found.value - found.before)


def test_what_changes_little_or_slowly_has_no_quick_event():
    assert jump(np.linspace(0, 0.5, 12)) is None
    assert jump(np.array([0.0, 0.09, 0.09])) is None
    assert jump(np.r_[np.linspace(0, 0.9, 10), 0.77]) is None, "less than half of its range"
    assert jump(np.array([np.nan, np.nan])) is None
    assert jump(np.array([0.2])) is None
    assert peak(np.array([1.0, 10.1, 10.0]), np.zeros(3)) is None


def test_an_accuracy_is_marked_where_it_has_half_of_what_it_gains():
    steps = np.arange(0.0, 200)
    late = 0.1 + 0.8 * (steps >= 150)
    assert crossing(steps, late, "heldout") == [
        Event(150, "a", "accuracy on heldout passes 0.50, half of its way", "quick")
    ]
    early = late.copy()
    early[5:9] = 0.9
    assert crossing(steps, early, "heldout")[0].step == 150, "it does not stay there"
    late[3] = np.nan
    assert crossing(steps, late, "heldout")[0].step == 150
    for flat in (0.5 + 0 * steps, 0.5 + 0.15 * (steps > 9), 0.9 - 0.8 * (steps > 70), np.full(200, np.nan)):
        assert crossing(steps, flat, "heldout") == []


def test_forks_are_marked_where_they_part():
    own = {"base": "run.zarr", "seed": 3, "step": 100, "same_until": 104, "verified": True}
    assert fork_events({"fork": own}) == [Event(104, "Y", "parts from run.zarr (seed 3)")]
    assert fork_events({"fork": {**own, "verified": False}}) == []
    assert fork_events({"fork": {**own, "same_until": None}}) == []
    others = [{"trace": f"{name}\x1b.zarr", "same_until": at} for name, at in (("a", 5), ("b", 9), ("c", 9))]
    assert fork_events({"forks": others}) == [
        Event(5, "Y", "a .zarr parts from this run"),
        Event(9, "Y", "2 forks part from this run"),
    ]
    assert fork_events({"fork": 3, "forks": "x"}) == fork_events({"forks": [7, {}]}) == []


def test_forks_of_the_facts_are_on_the_scrubber(tmp_path):
    fork = {"base": "run.zarr", "seed": 1, "same_until": 10, "verified": True}
    data = load(finished(tmp_path / "x.zarr", 20, facts={"fork": fork}))
    assert Event(10, "Y", "parts from run.zarr (seed 1)") in data.events


def test_an_event_is_told_with_what_is_known_of_it():
    sure = Event(5, "g", "they follow", "saved", (1200, 9000), 0.9999)
    quick = Event(5, "s", "loss spike 3", "quick")
    events = [Event(5, "m", "loss minimum 1"), quick, sure, Event(6, "w", "")]
    assert told(events, 5) == (
        "step 5: loss minimum 1; [quick rule] loss spike 3; [99.9%, 1,200–9,000] they follow"
    )
    assert [percent(share) for share in (1.0, 0.9999, 0.5)] == ["100%", "99.9%", "50%"]
    assert neighbour(events, 5, 1).kind == "w"
    assert neighbour(events, 5, -1) is None


def test_results_of_another_root_are_not_shown(tmp_path):
    path = finished(tmp_path / "x.zarr", 20)
    save_result(path, search(20), "other")
    save_result(path, Result("events", {"steps": 20}, {"step": Array(("step",), np.arange(3))}, {}), "other")
    data = load(path)
    assert (data.found, data.problems) == (None, ())

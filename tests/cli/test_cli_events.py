"""`tscope analyze --metric events` and the short list in `tscope info`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Runner
from tscope_format.results import Result, save_result

from tests.analyses.event_runs import ROWS, SPIKE, grokking, losses, write
from tscope.trace import Trace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return grokking(tmp_path_factory.mktemp("events") / "run.zarr")


def test_events_are_a_table_with_their_confidence_and_words(tscope: Runner, run: Trace) -> None:
    outcome = tscope("analyze", run.path, "--metric", "events", "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    start = lines.index("what happened")
    assert lines[start + 1].split() == ["step", "event", "confidence", "between", "what"]
    found = "\n".join(lines[start : start + 5])
    assert "interpolation" in lines[start + 2]
    assert f"{SPIKE}  loss spike" in found
    assert "grokking" in lines[start + 4]
    assert "100 %" in found
    words = " ".join(outcome.out.split())
    assert "Training examples are fitted at step 7" in words
    assert "steps later: grokking." in words
    assert "how well examples are predicted" in words
    assert "loss spike: a loss 2 times the median of the 24 rows before it or more" in words
    assert "divergence: " not in words, "only what was found is defined"
    assert "note: not looked for: effective-parameter peak. It lacks a saved effective-params result" in words


def test_options_reach_the_metric_and_json_csv_and_the_figure_hold_events(
    tscope: Runner, run: Trace, tmp_path: Path
) -> None:
    figure = tmp_path / "events.svg"
    asked = ["--fit", 0.5, "--rise", 0.9, "--spike", 20, "--diverge", 5, "--sure", 0.9, "--probe", "heldout"]
    written = ["--json", "--csv", tmp_path / "csv", "--plot", figure, "--no-save"]
    outcome = tscope("analyze", run.path, "-m", "events", *asked, *written)
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert found["provenance"]["options"] == {
        "fit": 0.5,
        "rise": 0.9,
        "spike": 20.0,
        "diverge": 5.0,
        "sure": 0.9,
        "probe": "heldout",
        "threshold": None,
        "loss": "auto",
        "labels": None,
    }
    assert (found["scalars"]["loss_spikes"], found["scalars"]["grokking"]) == (0, None)
    assert len(found["arrays"]["event_step"]["data"]) == found["scalars"]["events"] == 1
    assert found["provenance"]["events"][0]["kind"] == "interpolation"
    rows = (tmp_path / "csv" / "events_event.csv").read_text().splitlines()
    assert rows[0].startswith("event,event_kind,event_step,event_low,event_high,event_confidence")
    assert len(rows) == 2
    assert "training loss" in figure.read_text()


def test_info_lists_what_the_newest_result_found(tscope: Runner, tmp_path: Path) -> None:
    trace = grokking(tmp_path / "run.zarr")
    assert "step " + str(SPIKE) not in tscope("info", trace.path).out
    assert tscope("analyze", trace.path, "-m", "events", "-q").code == 0
    shown = tscope("info", trace.path).out
    assert f"step {SPIKE}: loss spike: " in shown
    assert "held-out examples follow " in shown
    events = [{"step": 1, "kind": "x", "confidence": 1, "low": 0, "high": 1, "text": "t\x1b[2J"}] * 8
    save_result(trace.path, Result("events", {"steps": ROWS - 1}, {}, {"events": events}), "model")
    shown = tscope("info", trace.path).out
    assert shown.count("step 1: t[2J") + shown.count("step 1: t\n") == 6
    assert "and 2 more events" in shown
    assert f"the run went on after step {ROWS - 1:,}, as far as was looked" in shown
    save_result(trace.path, Result("events", {"steps": ROWS}, {}, {}), "model")
    assert "nothing stands out" in tscope("info", trace.path).out


def test_info_says_that_a_result_was_saved_after_the_search(tscope: Runner, tmp_path: Path) -> None:
    trace = write(tmp_path / "run.zarr", losses())
    save_result(trace.path, Result("events", {"steps": ROWS}, {}, {"events": []}), "model")
    assert "looks again" not in tscope("info", trace.path).out
    kernel = save_result(trace.path, Result("kernel", {}, {}, {}), "model")
    assert "kernel saved since: `--metric events` looks again" in tscope("info", trace.path).out
    save_result(trace.path, Result("telescoping", {}, {}, {}), "model")
    lacks = {"missing": [{"event": "grokking"}], "results": {"kernel": kernel}}
    save_result(trace.path, Result("events", {"steps": ROWS}, {}, lacks), "model")
    assert "telescoping saved since" in tscope("info", trace.path).out
    read = {"events": [], "results": {"kernel": kernel}}
    save_result(trace.path, Result("events", {"steps": ROWS}, {}, read), "model")
    assert "looks again" not in tscope("info", trace.path).out


def test_a_run_without_events_says_so(tscope: Runner, tmp_path: Path) -> None:
    quiet = losses()
    quiet[SPIKE : SPIKE + 4] /= 8
    outcome = tscope("analyze", write(tmp_path / "run.zarr", quiet).path, "-m", "events", "--no-save")
    assert outcome.code == 0
    assert "what happened" not in outcome.out
    assert "Nothing stands out in what was looked at." in outcome.out


def test_refusals_have_their_exit_codes(tscope: Runner, run: Trace, tmp_path: Path) -> None:
    assert tscope("analyze", run.path, "-m", "events", "--fit", 2).code == 2
    nothing = write(tmp_path / "nothing.zarr", np.full(60, np.nan))
    outcome = tscope("analyze", nothing.path, "-m", "events")
    assert outcome.code == 4
    assert "lacks what events needs" in outcome.err
    assert "events: lacks losses, outputs" in tscope("info", nothing.path).out

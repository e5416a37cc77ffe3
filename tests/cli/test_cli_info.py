"""`tscope info`: what a trace is and holds, as text and JSON."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from cli_runner import Runner
from cli_traces import write_trace
from tscope_cli.holdings import Probe, probe_line


def test_info_says_what_the_trace_is(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr")
    outcome = tscope("info", trace)
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines()]
    found = {words[0]: words[1] for words in lines if len(words) == 2}
    assert found["status"] == "complete"
    assert found["command"] == "python train.py --lr 0.1"
    assert found["model"] == "Linear, 6 parameters in 1 tensor"
    assert found["steps"] == "300 (301 rows, the state before training included)"
    assert found["loss"] == "0.003333 at the last step"
    assert found["probes"].startswith("heldout: 8 examples, 2 outputs, labels, from what the script")
    assert found["program"] == "none: it was never exported"
    assert found["metrics"] == "telescoping: ready"
    assert found["next:"] == f"tscope analyze {trace} --metric telescoping"


def test_info_says_what_was_not_projected_and_what_is_in_sample(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr", in_sample=True, projected=100, labels=False)
    (line,) = [line for line in tscope("info", trace).out.splitlines() if "heldout:" in line]
    assert "no labels, IN-SAMPLE: these rows are also trained on" in line
    assert line.endswith("projected at 101 rows, 200 not (analyze --replay fills them)")


def test_a_probe_set_that_was_never_projected_has_no_outputs_to_count() -> None:
    probe = Probe(
        "train",
        examples=128,
        outputs=0,
        functional="full",
        labels=False,
        in_sample=True,
        source="the training rows",
        rows=0,
        missing=31,
    )
    line = "train: 128 examples, no labels, IN-SAMPLE: these rows are also trained on, from the training rows"
    assert probe_line(probe) == f"{line}, not projected"


def test_info_shows_what_recording_cost_and_its_errors(tscope: Runner, tmp_path: Path) -> None:
    facts = {
        "recorder": {"share": 0.043, "seconds": 250.0, "wait_seconds": 0.5},
        "reports": [{"where": "backward", "error": f"ValueError: {index}"} for index in range(7)],
        "options": {"every": 10},
        "python": "3.11.7",
    }
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", facts=facts)).out
    assert "4.3 % of the run's 4 min 10 s; the run waited 0.5 s for it\n" in outcome
    assert "only every 10th step is recorded\n" in outcome
    assert "python 3.11.7\n" in outcome
    assert "errors         backward: ValueError: 0\n" in outcome
    assert "and 2 more reports; --json lists all\n" in outcome


def test_info_names_optimizers_with_what_sets_them_apart(tscope: Runner, tmp_path: Path) -> None:
    hyper = {"lr": 0.1, "betas": [0.9, 0.999], "weight_decay": 0, "foreach": None, "nesterov": False}
    groups = [{"hyper": hyper}, {"hyper": {**hyper, "weight_decay": 0.01}}]
    attributes = {"optimizers": [{"class": "AdamW", "groups": groups}]}
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", attributes=attributes)).out
    assert "  AdamW, betas (0.9, 0.999), weight_decay 0/0.01\n" in outcome


def test_info_says_why_there_is_no_program(tscope: Runner, tmp_path: Path) -> None:
    attributes = {"program": {"ok": False, "reason": "data-dependent control flow"}}
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", attributes=attributes)).out
    assert "none: data-dependent control flow\n" in outcome


def test_info_of_a_recorder_that_died_says_stalled(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr", status=None)
    assert "recording (last commit " in tscope("info", trace).out
    an_hour_ago = time.time() - 3600
    os.utime(trace / "zarr.json", (an_hour_ago, an_hour_ago))
    assert "stalled (last commit 1 h ago)" in tscope("info", trace).out


def test_info_says_what_a_metric_lacks(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", probe=None))
    assert outcome.code == 0
    assert "telescoping: lacks " in outcome.out
    assert "--probe" in outcome.out


def test_info_gives_the_reason_of_a_failure(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", status="failed", reason="disk full\x1b[2J"))
    assert "  failed: disk full\n" in outcome.out


def test_info_shows_every_root(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", roots=("generator", "critic")))
    assert "generator: Linear" in outcome.out
    assert "critic: Linear" in outcome.out
    assert "telescoping of critic: ready" in outcome.out


def test_info_of_a_trace_without_training_says_so(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("info", write_trace(tmp_path / "run.zarr", roots=()))
    assert outcome.code == 0
    assert "none: nothing was trained while this was recorded" in outcome.out
    assert outcome.out.endswith("next: tscope record -- python train.py\n")


def test_names_with_terminal_escapes_are_shown_without_them(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "run.zarr",
        facts={"name": "\x1b[2Jrun", "command": ["python", "\x1b]0;title\x07train.py"]},
        attributes={"class": "Net\x1b[31m"},
        parameter="weight\x9b2J",
    )
    for arguments in (("info", trace), ("ls", tmp_path), ("analyze", trace), ("verify", trace)):
        outcome = tscope(*arguments)
        assert outcome.code == 0
        shown = outcome.out + outcome.err
        assert not any(
            ord(character) < 32 or 127 <= ord(character) < 160 for character in shown if character != "\n"
        )


def test_info_json_is_versioned_and_complete(tscope: Runner, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run.zarr")
    content = json.loads(tscope("info", trace, "--json").out)
    assert content["schema"] == 1
    assert content["path"] == str(trace)
    assert content["status"] == "complete"
    (root,) = content["roots"]
    assert (root["name"], root["model"], root["parameters"], root["steps"]) == ("model", "Linear", 6, 300)
    assert content["holdings"]["model"]["probes"][0]["examples"] == 8
    metric, effective, *_ = content["metrics"]
    assert (metric["name"], metric["root"], metric["lacks"]) == ("telescoping", "model", [])
    assert (effective["name"], effective["root"]) == ("effective-params", "model")
    assert any("--outputs all" in lack for lack in effective["lacks"])
    assert content["results"] == []

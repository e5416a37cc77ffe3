"""`tscope analyze`: the result as table, JSON, CSV and figure, where it is kept, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cli_runner import Runner
from cli_traces import write_trace
from tscope_format import list_results

from tscope.analyses import registry

KNOWN = ", ".join(sorted(metric.name for metric in registry.metrics()))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "run.zarr")


def test_the_result_is_shown_saved_and_the_next_command_named(tscope: Runner, trace: Path) -> None:
    outcome = tscope("analyze", trace)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("telescoping of run\n")
    (saved,) = list_results(trace)
    assert f"saved: {trace}/analysis/telescoping/{saved.id}\n" in outcome.out
    assert outcome.out.endswith(f"next: tscope browse {trace}\n")


def test_quiet_leaves_table_and_figures_only(tscope: Runner, trace: Path) -> None:
    outcome = tscope("analyze", trace, "--quiet")
    assert outcome.code == 0
    assert "next:" not in outcome.out
    assert "━" not in outcome.out


def test_no_save_leaves_the_trace_as_it_was(tscope: Runner, trace: Path) -> None:
    assert tscope("analyze", trace, "--no-save").code == 0
    assert list_results(trace) == []


def test_save_to_keeps_the_result_elsewhere(tscope: Runner, trace: Path, tmp_path: Path) -> None:
    outcome = tscope("analyze", trace, "--save-to", tmp_path / "results")
    assert outcome.code == 0
    assert f"saved: {tmp_path}/results/analysis/telescoping/" in outcome.out
    assert list_results(trace) == []
    assert len(list_results(tmp_path / "results")) == 1


def test_saving_into_a_file_is_refused(tscope: Runner, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    outcome = tscope("analyze", trace, "--save-to", tmp_path / "taken")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith(
        f"tscope: --save-to: cannot save the result in {tmp_path / 'taken'}: not a directory"
    )


def test_a_trace_that_cannot_be_written_is_analysed_and_the_message_names_save_to(
    tscope: Runner, trace: Path
) -> None:
    (trace / "analysis").write_text("in the way")
    outcome = tscope("analyze", trace)
    assert outcome.code == 0
    assert "saved:" not in outcome.out
    assert outcome.err == (
        f"tscope: cannot save the result in {trace}: not a directory; use --save-to to keep it elsewhere\n"
    )


def test_json_is_the_result_of_the_design(tscope: Runner, trace: Path) -> None:
    content = json.loads(tscope("analyze", trace, "--json").out)
    assert content["schema"] == 1
    assert content["metric"] == "telescoping"
    assert content["arrays"]["step"]["dims"] == ["step"]
    assert content["arrays"]["step"]["data"] == list(range(301))
    assert len(content["arrays"]["error_telescoped"]["data"]) == 301
    assert content["scalars"]["final_error_lazy"] > content["scalars"]["final_error_telescoped"]
    assert content["provenance"]["root"] == "model"


def test_csv_and_figure_are_written_beside_the_table(tscope: Runner, trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcome = tscope("analyze", trace, "--csv", tmp_path / "tables", "--plot", tmp_path / "f.svg")
    assert outcome.code == 0
    assert f"tscope: wrote {tmp_path / 'f.svg'}\n" in outcome.err
    assert (tmp_path / "tables" / "telescoping_step.csv").is_file()
    assert (tmp_path / "f.svg").is_file()


def test_the_metrics_are_listed_with_their_needs_and_options(tscope: Runner) -> None:
    outcome = tscope("analyze", "--list")
    assert outcome.code == 0
    assert outcome.out.startswith("telescoping: ")
    content = json.loads(tscope("analyze", "--metrics", "--json").out)
    assert content["metrics"][0]["name"] == "telescoping"
    assert "rule" in content["metrics"][0]["options"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "frob"), f"tscope: unknown metric 'frob'; there is {KNOWN}\n"),
        (("--rule", "euler"), "tscope: unknown rule 'euler'; there is left, midpoint, simpson, gauss3\n"),
        (("--dtype", "int8"), "tscope: unknown dtype 'int8'; there is float32, float64\n"),
        (("--every", "0"), "tscope: every must be at least 1, got 0\n"),
        (("--no-save", "--save-to", "x"), "tscope: --no-save and --save-to contradict each other\n"),
        (("--plot", "f.gif"), "tscope: --plot f.gif: the name must end in .svg, .png or .pdf\n"),
        (
            ("--probe", "frob"),
            "tscope: no probe set 'frob'; the trace has heldout, and a file must be named *.npz\n",
        ),
    ],
)
def test_a_bad_option_is_refused_in_one_line(
    tscope: Runner, trace: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = tscope("analyze", trace, *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", message)


def test_an_option_that_a_metric_does_not_take_is_refused(
    tscope: Runner, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True)
    class Options:
        probe: str | None = None

    plain = replace(registry.metric("telescoping"), name="plain", options=Options)
    monkeypatch.setitem(registry._METRICS, "plain", plain)
    outcome = tscope("analyze", trace, "--metric", "plain", "--rule", "simpson", "--replay")
    assert (outcome.code, outcome.err) == (2, "tscope: plain has no option replay, rule; it has probe\n")


def test_analyze_without_a_trace_says_how_to_find_one(tscope: Runner) -> None:
    outcome = tscope("analyze")
    assert outcome.code == 2
    assert outcome.err == (
        "tscope: which trace? Give its folder: tscope analyze TRACE (`tscope ls` lists those in ./runs)\n"
    )


def test_an_unknown_root_lists_the_roots(tscope: Runner, trace: Path) -> None:
    outcome = tscope("analyze", trace, "--root", "critic")
    assert (outcome.code, outcome.err) == (2, f"tscope: {trace} has no root 'critic'; it has model\n")


def test_a_trace_that_lacks_what_the_metric_needs_ends_with_4_and_names_the_option(
    tscope: Runner, tmp_path: Path
) -> None:
    outcome = tscope("analyze", write_trace(tmp_path / "bare.zarr", probe=None))
    assert (outcome.code, outcome.out) == (4, "")
    (line,) = outcome.err.splitlines()
    assert "--probe" in line
    outcome = tscope("analyze", write_trace(tmp_path / "run.zarr"), "--replay")
    assert (outcome.code, outcome.out) == (4, "")


def test_a_trace_without_training_ends_with_4(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("analyze", write_trace(tmp_path / "empty.zarr", roots=()))
    assert outcome.code == 4
    assert "nothing was trained" in outcome.err

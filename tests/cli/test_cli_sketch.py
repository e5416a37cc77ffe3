"""Traces without updates, with sketches: what `info`, `ls`, `verify` and `analyze` make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_runner import Runner
from cli_traces import write_trace
from tscope_format import MissingDataError, open_trace
from tscope_tui.data.facts import facts_of

from tests.traces import Probe, train
from tscope import open as open_run


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    batches = [(torch.randn(8, 4), torch.randn(8, 2))] * 6
    probes = {"held": Probe((torch.randn(5, 4),), torch.randn(5, 2), columns=512)}
    path = tmp_path_factory.mktemp("sketch") / "run.zarr"
    return train(path, module, optimizer, batches, torch.nn.functional.mse_loss, probes, updates=False).path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sketch", "5"), "--sketch must be 16 to 65536 columns, got 5"),
        (("--updates", "some"), "--updates must be all or none, got 'some'"),
        (
            ("--sketch", "64", "--probe", "none"),
            "--sketch sketches the probe set, and --probe none takes none",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_the_command_starts(
    tscope: Runner, options: tuple[str, ...], message: str
) -> None:
    outcome = tscope("record", *options, "--", "no-such-command")
    assert outcome.code == 125
    assert outcome.err.startswith(f"tscope: {message}")


def test_info_says_what_is_kept_and_what_is_not(tscope: Runner, trace: Path) -> None:
    lines = tscope("info", trace).out
    assert "parameters at 5 rows: 0, powers of two, the last; bit for bit (float32)" in lines
    assert "lacks          parameters at every row (record without --updates none)" in lines
    assert "projected at 7 rows, sketched at 7 rows in 512 columns" in lines
    assert "kernel: ready" in lines
    assert "telescoping: ready" in lines
    for metric in ("effective-params", "updates", "layers"):
        line = next(line for line in lines.splitlines() if f"{metric}: lacks" in line)
        assert "parameters at every row" in line
        assert "--updates none" in line


def test_info_says_why_there_are_no_sketches(tscope: Runner, tmp_path: Path) -> None:
    path = write_trace(
        tmp_path / "run.zarr", attributes={"sketches_failed": "the logprob\x1b[2J is followed"}
    )
    assert "sketches of the tangent kernel: the logprob is followed" in tscope("info", path).out


def test_the_browser_says_what_is_kept_and_what_is_not(trace: Path) -> None:
    reader = open_trace(trace)
    facts = dict(facts_of(reader, reader.root()))
    assert "parameters at a few rows" in facts["has"]
    assert "sketches at 7 rows (512 columns)" in facts["has"]
    assert facts["lacks"].startswith("updates (record without --updates none)")


def test_the_trace_is_listed_and_verified(tscope: Runner, trace: Path) -> None:
    assert tscope("ls", trace.parent).code == 0
    outcome = tscope("verify", trace)
    assert outcome.code == 0
    assert outcome.out.startswith("ok ")


def test_estimates_are_told_as_a_table_with_their_error(tscope: Runner, trace: Path) -> None:
    outcome = tscope("analyze", trace, "--metric", "kernel", "--no-save")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    titles = "step trace eff. rank align movement distance velocity ± of K"
    assert lines[1].split() == titles.split()
    assert [line.split()[0] for line in lines[2:9]] == list("0123456")
    words = " ".join(outcome.out.split())
    assert "These are estimates, of the probe set held: at most" in words
    assert "off exact blocks at step 0, 1, 4, 6; the halves of the columns put the error at" in words
    assert "note: ESTIMATES from sketches of 512 columns" in words
    assert "kernels estimated from sketches of 512 columns at 7 steps, of 5 examples of held" in outcome.err


def test_the_figure_has_the_spectrum_and_the_matrix_of_the_probe_set(
    tscope: Runner, trace: Path, tmp_path: Path
) -> None:
    figure = tmp_path / "k.svg"
    outcome = tscope(
        *("analyze", trace, "--metric", "kernel", "--no-save", "--matrix", "last", "--plot", figure, "-q")
    )
    assert outcome.code == 0
    text = figure.read_text()
    for title in ("trace (estimate)", "spectrum", "largest eigenvalues, examples of the probe set"):
        assert f"<!-- {title} -->" in text
    assert "<!-- examples by label -->" in text


def test_json_holds_the_errors(tscope: Runner, trace: Path) -> None:
    outcome = tscope("analyze", trace, "--metric", "kernel", "--form", "sketch", "--no-save", "--json", "-q")
    found = json.loads(outcome.out)
    assert found["scalars"]["form"] == "sketch"
    assert found["arrays"]["exact_step"]["data"] == [0, 1, 4, 6]
    assert len(found["arrays"]["error_test"]["data"]) == 7


@pytest.mark.parametrize(
    "options",
    [
        ("--metric", "kernel", "--form", "exact"),
        ("--metric", "effective-params"),
        ("--metric", "updates"),
        ("--metric", "layers"),
        ("--metric", "gradients"),
        ("--metric", "telescoping", "--replay"),
    ],
)
def test_what_needs_every_row_ends_with_4_and_names_the_option(
    tscope: Runner, trace: Path, options: tuple[str, ...]
) -> None:
    outcome = tscope("analyze", trace, *options)
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.startswith(f"tscope: {trace} lacks what ")
    assert "`--updates none`" in outcome.err


def test_a_state_that_was_not_kept_is_named(trace: Path) -> None:
    found = open_run(trace)
    assert set(found.state_dict(6)) == set(found.theta(0))
    with pytest.raises(MissingDataError, match="at row 3 were not kept"):
        found.theta(3)


def test_recorded_projections_need_no_updates(tscope: Runner, trace: Path) -> None:
    assert tscope("analyze", trace, "--metric", "telescoping", "--no-save", "-q").code == 0

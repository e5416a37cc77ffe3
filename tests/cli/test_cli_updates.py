"""`tscope analyze --metric updates`: what is shown, which options reach it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from cli_runner import Runner
from cli_traces import write_trace
from tscope_cli import csvfile, figure, report, sketch, views
from tscope_format.results import Array, Result

TERMS = ("gradient", "clipping", "preconditioning", "memory", "coupled_decay", "decoupled_decay")


def result(**shares: float) -> Result:
    """Return a result with these shares at every step."""
    steps = 5
    arrays = {
        "step": Array(("step",), np.arange(1, steps + 1)),
        "first_order": Array(("step",), np.full(steps, 2.0)),
        "residual_relative": Array(("step",), np.full(steps, 0.01)),
        "traced": Array(("traced",), np.array([3])),
        "train": Array(("train",), np.array([10, 11, 14, 17])),
        "influence": Array(("traced", "output", "train"), np.array([[[0, 0, 0.1, 0], [-2.0, 0.5, 1.0, 0]]])),
    }
    for term in TERMS:
        share = np.full(steps, shares.get(term, 0.0))
        arrays |= {
            f"share_{term}": Array(("step",), share),
            f"effect_{term}": Array(("step",), 2 * abs(share)),
        }
    scalars = {f"share_{term}": shares.get(term, 0.0) for term in TERMS} | {"from_step": 1, "steps": steps}
    return Result("updates", scalars, arrays, {})


def test_terms_that_the_run_has_not_are_left_out() -> None:
    found = result(gradient=0.1, memory=1.2, decoupled_decay=-0.3)
    head = report.table(found)[0].split()
    assert head == ["step", "gradient", "memory", "decay", "‖J", "Δθ‖", "residual"]
    assert "precond." not in sketch.draw(found, 100, ascii=False)[0]


def test_the_reading_names_the_terms_and_the_most_influential_examples() -> None:
    found = result(gradient=0.1, memory=1.2, decoupled_decay=-0.3, clipping=0.0004)
    assert views.view_of(found).reading(found) == (
        "Of the first-order change of the predictions over steps 1 to 5: gradient 10.0 %, memory 120 %, "
        "decoupled decay -30.0 %.",
        "Output 1 of probe example 3 was moved most by the training examples 10 (-2), 14 (+1), 11 (+0.5).",
    )
    still = result()
    assert views.view_of(still).reading(still) == ("To first order the predictions did not change.",)
    halves = np.tile([[0.9, -0.1]], (5, 1, 1)) * [[[1.0, 2.0]]]
    provenance = {"layers": ["fc1", "head"]}
    layered = {**found.arrays, "layer_share": Array(("step", "term", "layer"), halves)}
    text = views.view_of(found).reading(replace(found, arrays=layered, provenance=provenance))[1]
    assert text == "By layer: fc1 90.0 %, head -20.0 %."
    untraced = replace(found, arrays={n: a for n, a in found.arrays.items() if n != "influence"})
    assert len(views.view_of(untraced).reading(untraced)) == 1


def test_files_and_figures_hold_terms_and_influences(tmp_path: Path) -> None:
    found = result(gradient=0.1, memory=0.9)
    names = {path.name for path in csvfile.write(found, tmp_path)}
    assert {"updates_step.csv", "updates_traced_output_train.csv"} <= names
    lines = (tmp_path / "updates_traced_output_train.csv").read_text().splitlines()
    assert lines[:2] == ["traced,output,train,influence", "3,0,10,0.0"]
    figure.save(found, tmp_path / "updates.svg", "updates of run")
    assert "what each term does to the probe" in (tmp_path / "updates.svg").read_text()


def test_the_options_reach_the_metric(tscope: Runner, tmp_path: Path) -> None:
    from tests.analyses.updates_runs import make_run

    run = make_run(tmp_path, "adam", 3)
    outcome = tscope(
        *("analyze", run.trace.path, "--metric", "updates", "--probe", run.held, "--steps", "2-5"),
        *("--every", "2", "--influence", "1,4", "--top", "2", "--no-layers", "--no-save", "--json"),
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["arrays"]["step"]["data"] == [3, 5]
    assert found["arrays"]["traced"]["data"] == [1, 4]
    assert found["arrays"]["top_example"]["shape"] == [2, 2, 2]
    assert "layer_share" not in found["arrays"]


def test_a_trace_that_lacks_what_updates_need(tscope: Runner, tmp_path: Path) -> None:
    outcome = tscope("analyze", write_trace(tmp_path / "run.zarr"), "--metric", "updates")
    assert outcome.code == 4
    assert "lacks what updates needs: the model as data (program)" in outcome.err
    outcome = tscope("analyze", tmp_path / "run.zarr", "--metric", "updates", "--steps", "all")
    assert outcome.code == 2
    assert "steps must be FIRST-LAST or a single step, got 'all'" in outcome.err

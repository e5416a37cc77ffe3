"""The optimizer's terms in the telescoping view and the influences in view 7, without a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tscope_tui.data.classes import Classes
from tscope_tui.data.updates import from_result
from tscope_tui.jobs.analysis import Analysis
from tscope_tui.panes.influence import InfluencePane
from tscope_tui.panes.pane import Draw
from tscope_tui.panes.terms import TermsPane
from tscope_tui.spans import cells, plain
from tscope_tui.stages.repro import repro
from tscope_tui.stages.run import RunStage
from tui_host import FakeHost, screen
from tui_traces import finished, save_updates, updates_result


@pytest.fixture
def run(tmp_path, monkeypatch) -> tuple[RunStage, FakeHost]:
    monkeypatch.chdir(tmp_path)
    host = FakeHost()
    stage = RunStage(host, finished(tmp_path / "mlp.zarr"))
    stage.start()
    return stage, host


@pytest.fixture
def updates(run) -> tuple[RunStage, FakeHost]:
    stage, host = run
    save_updates(stage.path, options={"probe": "my set.npz", "influence": "0,2,5", "top": 5})
    stage.act("view:examples", "7")
    stage.reload()
    return stage, host


@pytest.mark.parametrize("view", ["telescoping", "examples"])
def test_updates_that_are_missing_say_what_would_provide_them(run, view):
    stage, host = run
    stage.act(f"view:{view}", "")
    # The synthetic traces have neither program nor batches.
    assert "this trace cannot give terms" in screen(stage, host)
    stage.data = replace(stage.data, updates_lacks=())
    text = screen(stage, host)
    # The command breaks where the trace's path makes it.
    _, _, remedy = text.partition("no terms of updates are saved")
    assert "--metric" in remedy
    assert "updates" in remedy


def test_terms_are_weighed_over_the_marked_range_and_read_at_the_cursor(updates):
    stage, _ = updates
    stage.act("view:telescoping", "2")
    found = stage.data.updates
    for step in (60, 90):
        stage.go(step)
        stage.act("mark_range", "m")
    pane = stage.panes()["terms"]
    assert (pane.steps, pane.step, pane.left) == ((61, 90), 90, ())
    assert [term.name for term in pane.terms] == ["gradient", "preconditioning", "memory", "decoupled_decay"]
    weight = np.square(found.first_order[60:90])
    share = found.share["memory"]
    memory = pane.terms[2]
    assert memory.share == pytest.approx((share[60:90] * weight).sum() / weight.sum(), rel=1e-12)
    assert memory.here == share[89]
    assert sum(term.share for term in pane.terms) == pytest.approx(1.0, abs=1e-12)
    stage.act("step:-10", "")
    assert stage.panes()["terms"].terms[2].here == share[79]


def part_of(stage: RunStage, first: int, last: int, every: int = 1) -> None:
    """Show the updates of some of the run's steps only, in intervals."""
    shown = stage.data.updates
    rows = slice(first + every - 2, last, every)
    stage.data = replace(
        stage.data,
        updates=replace(
            shown,
            step=shown.step[rows],
            first=first,
            share={name: values[rows] for name, values in shown.share.items()},
            effect={name: values[rows] for name, values in shown.effect.items()},
            first_order=shown.first_order[rows],
            options={**shown.options, "steps": f"{first}-{last}"},
        ),
    )
    stage.state = replace(stage.state, band=None, range_start=None)


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
@pytest.mark.parametrize(
    ("saved", "marked", "shown", "left"),
    [
        ((1, 100), None, "1–100", "101–120"),
        ((1, 100), (60, 110), "61–100", "101–110"),
        ((1, 100), (60, 90), "61–90", ""),
        ((31, 100), (0, 120), "31–100", "1–30, 101–120"),
        ((31, 100), None, "31–100", "1–30, 101–120"),
        ((31, 100), (10, 60), "31–60", "11–30"),
        # Intervals of 10 steps: those that end in the range are shown whole.
        ((1, 100, 10), (64, 95), "61–90", "91–95"),
    ],
)
def test_the_range_of_the_terms_is_that_of_the_saved_result(updates, size, saved, marked, shown, left):
    stage, host = updates
    host.dimensions = size
    stage.act("view:telescoping", "2")
    part_of(stage, *saved)
    if marked:
        stage.state = replace(stage.state, band=tuple(map(float, marked)))
    text = screen(stage, host)
    assert f" JΔθ by term, steps {shown} " in text
    # The layers beside them are of the whole range.
    low, high = marked or (0, 120)
    assert f"by layer, steps {low}–{high} " in text
    assert ("not covered" in text) == bool(left)
    assert f"not covered: steps {left} " in text or not left
    assert "precond." in text


@pytest.mark.parametrize("marked", [(100, 120), (105, 120), (5, 20)])
def test_a_marked_range_outside_the_saved_result_says_what_covers_it(updates, marked):
    stage, host = updates
    host.dimensions = (160, 48)
    stage.act("view:telescoping", "2")
    part_of(stage, 31, 100)
    stage.state = replace(stage.state, band=tuple(map(float, marked)))
    pane = stage.panes()["terms"]
    assert (pane.terms, pane.steps) == ((), None)
    first, last = marked[0] + 1, marked[1]
    assert pane.empty[0] == (
        f"steps {first}–{last} are not covered: the saved result is of steps 31–100; for all steps, run:"
    )
    # As the saved one was made, but for the steps.
    assert pane.empty[1].endswith("mlp.zarr --metric updates --probe 'my set.npz' --influence 0,2,5")
    text = screen(stage, host)
    assert f"steps {first}–{last} are not covered" in text
    assert " JΔθ by term ─" in text


def test_a_marked_range_without_the_end_of_an_interval_or_without_steps_says_so(updates):
    stage, _ = updates
    part_of(stage, 1, 100, 10)
    stage.state = replace(stage.state, band=(61.0, 65.0))
    assert stage.panes()["terms"].empty == (
        "the saved result is of steps 1–100, in intervals, and none ends in steps 62–65: mark more",
    )
    stage.state = replace(stage.state, band=(61.0, 61.0))
    assert stage.panes()["terms"].empty == ("no step is marked",)


def test_the_cursor_is_in_the_interval_that_ends_at_or_after_it():
    found = from_result(updates_result(6))
    thin = replace(found, step=np.array([4.0, 6.0]))
    assert [thin.row(step) for step in (0, 1, 4, 5, 6, 9)] == [0, 0, 0, 1, 1, 1]


def chosen(stage: RunStage, example: int, pane: str = "influence") -> None:
    """Choose an example, and a pane."""
    choice = replace(stage.state.choice, example=example)
    stage.state = replace(stage.state, choice=choice, focus=pane)


def test_influences_of_the_chosen_example_and_output(updates):
    stage, host = updates
    found = stage.data.updates
    stage.state = replace(stage.state, example_order="influence")
    totals = np.abs(found.influence).sum((1, 2))
    traced = [(0, 2, 5)[place] for place in np.argsort(-totals)]
    for example in traced:
        assert f"influence on f[0] of example {example}" in screen(stage, host)
        stage.act("down", "j")
    # Behind the traced ones come the others, by number.
    assert stage.state.choice.example == 1
    text = screen(stage, host)
    assert "example 1 was not traced, only 0, 2," in text
    assert stage.panes()["influence"].empty[1].endswith("mlp.zarr --metric updates --influence 1")
    chosen(stage, 5, "examples")
    for output in (0, 1):
        stage.act("output", "o")
        assert f"f[{output}] of example 5" in screen(stage, host)
    pane = stage.panes()["influence"]
    values = found.influence[2, 1]
    assert np.array_equal(pane.value, values[np.argsort(-np.abs(values), kind="stable")])
    assert np.array_equal(pane.memory, 0.4 * pane.value)
    assert pane.example[0] == 100 + np.abs(values).argmax()
    assert "add up to" in screen(stage, host)


def test_influences_are_on_the_output_of_the_examples_class(updates):
    stage, _ = updates
    examples = stage.data.examples
    classes = Classes(np.array([0, 0, 1, 0, 0, 1]), None)
    both = np.repeat(examples.outputs, 2, axis=2)
    stage.data = replace(stage.data, examples=replace(examples, outputs=both, classes=classes, measure=""))
    for example, output in ((0, 0), (2, 1), (5, 1)):
        chosen(stage, example)
        assert stage.panes()["influence"].title.startswith(f"influence on f[{output}] of example {example},")
    stage.act("output", "o")
    assert stage.panes()["influence"].title.startswith("influence on f[0] of example 5,")


def test_predictions_of_another_probe_set_are_told_apart(updates):
    stage, host = updates
    chosen(stage, 0)
    assert "example 0, 3 traced · probe heldout · 1 note (r)" in screen(stage, host)
    stage.data = replace(stage.data, updates=replace(stage.data.updates, probe="mine"))
    assert "probe mine · f(x) of heldout · 1 note (r)" in screen(stage, host)
    # Its own first one is shown, whichever example of the other set is chosen.
    chosen(stage, 4)
    assert "influence on f[0] of example 0" in screen(stage, host)


def test_visits_are_those_of_the_row_at_the_cursor(updates):
    stage, host = updates
    stage.drill(0)
    stage.go(50)
    pane = stage.panes()["visits"]
    value = stage.data.updates.top_influence[49, 0, :4, 0]
    assert "by visits @50" in screen(stage, host)
    assert sorted(pane.value.tolist()) == sorted(value.tolist())
    assert set(pane.example.tolist()) == {101, 102, 103, 104}


def test_the_list_of_influences_scrolls_to_its_end_and_no_further(updates):
    stage, host = updates
    chosen(stage, 0)
    room = stage.rects(80, 24)["influence"].height - 2
    for _ in range(60):
        stage.act("down", "j")
    assert stage.state.first_influence == 40 - room
    last = stage.panes()["influence"].example[-1]
    assert f"#{last}" in screen(stage, host)
    stage.act("yank", "y")
    lines = host.copied[-1].splitlines()
    assert lines[0] == "example\tinfluence\tthrough_memory"
    assert len(lines) == 11


def test_results_without_influences_say_how_to_get_them(run):
    stage, host = run
    save_updates(stage.path, influences=False)
    stage.act("view:examples", "7")
    stage.reload()
    assert "no influences were traced" in screen(stage, host)


def test_updates_are_reproduced_with_their_options(updates):
    stage, host = updates
    chosen(stage, 0)
    stage.act("repro", "r")
    text = "\n".join(host.shown[-1][1]).replace("\\\n", "")
    assert "--metric updates" in text
    assert "--probe 'my set.npz'" in text
    assert "--influence 0,2,5" in text
    assert "--top" not in text
    assert "# note: 12% of the change is not first-order" in text
    for name in ("terms", "influence", "visits"):
        lines = repro(name, stage.path, options={"steps": "3-9"}, band=(2, 9), step=5)
        assert any("--steps 3-9" in line for line in lines)
        compile("\n".join(lines[lines.index("# Python") :]), "repro", "exec")


def test_an_analysis_is_started_from_the_view_and_from_the_pane_of_the_terms(updates, monkeypatch):
    stage, _ = updates
    commands = []
    monkeypatch.setattr(Analysis, "run", lambda self, progress: commands.append(self.command))
    chosen(stage, 0)
    stage.act("analyse", "a")
    # One that was not traced is traced beside the others.
    stage.drill(3)
    stage.state = replace(stage.state, focus="influence")
    stage.act("analyse", "a")
    assert commands.pop()[-1] == "0,2,3,5"
    stage.act("view:telescoping", "2")
    stage.state = replace(stage.state, focus="terms")
    stage.act("analyse", "a")
    stage.state = replace(stage.state, focus="prediction")
    stage.act("analyse", "a")
    options = ["--metric", "updates", "--probe", "my set.npz", "--influence", "0,2,5"]
    assert [command[5:] for command in commands[:2]] == [options, options]
    assert commands[2][5:7] == ["--metric", "telescoping"]


@pytest.mark.parametrize("width", [4, 12, 26, 40, 80, 130])
@pytest.mark.parametrize("height", [2, 3, 12])
def test_the_panes_fill_their_room_at_any_size(width, height):
    found = from_result(updates_result())
    whole = found.influences(1, 0)
    panes = (
        TermsPane(tuple(found.terms(0, 120, 60)), (1, 120), 60),
        TermsPane(tuple(found.terms(0, 120, 60)), (31, 100), 60, ((1, 30), (101, 120))),
        TermsPane((), None, 60, empty=("nothing is saved",)),
        InfluencePane("influence", whole.example, whole.value, whole.memory, foot="40 add up"),
        InfluencePane("influence", np.zeros(0, np.int64), np.zeros(0), empty=("nothing is saved",)),
    )
    for pane in panes:
        lines = pane.lines(width, height, Draw())
        assert len(lines) == height
        assert {cells(plain(line)) for line in lines} == {width}


def test_steps_that_are_not_covered_are_named_without_giving_up_a_bar():
    found = from_result(updates_result())
    pane = TermsPane(tuple(found.terms(0, 120, 60)), (31, 100), 60, ((1, 30), (101, 120)))
    for width, height in ((40, 8), (40, 7), (24, 8)):
        text = [plain(line) for line in pane.lines(width, height, Draw())]
        assert " ".join(line.strip("│ ") for line in text).count("not covered: steps 1–30, 101–120") == 1
        assert all(any(name in line for line in text) for name in ("gradient", "precond.", "memory", "decay"))
        assert any("@60" in line for line in text) == ((width, height) == (40, 8))


def test_values_that_are_not_finite_are_drawn(tmp_path: Path):
    result = updates_result(5)
    arrays = dict(result.arrays)
    for name in ("influence", "first_order", "share_memory", "top_influence"):
        data = np.full(arrays[name].data.shape, np.nan)
        arrays[name] = replace(arrays[name], data=data)
    found = from_result(replace(result, arrays=arrays))
    whole = found.influences(0, 0)
    visits = found.visits(0, 0, 3.0)
    for pane in (
        TermsPane(tuple(found.terms(0, 5, 3)), (1, 5), 3),
        InfluencePane("influence", whole.example, whole.value, whole.memory),
        InfluencePane("visits", visits.example, visits.value),
    ):
        assert len(pane.lines(60, 10, Draw())) == 10

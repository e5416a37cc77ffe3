"""A result as a table, a chart, CSV files and figures."""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_results import telescoping
from tscope_cli import csvfile, figure, report, sketch, views
from tscope_format import Result, UsageError
from tscope_format.results import Array


def test_the_table_has_a_dozen_steps_with_the_first_and_the_last() -> None:
    lines = report.table(telescoping())
    assert lines[0].split("  ")[-1] == "agree lazy"
    assert len(lines) == 13
    assert lines[1].split()[0] == "0"
    assert lines[-1].split()[0] == "40"
    assert lines[-1].endswith("2.0 %       100 %      50.0 %")


def test_a_metric_without_a_view_is_shown_by_its_series() -> None:
    result = replace(telescoping(layers=False), metric="other")
    titles = [curve.title for curve in views.view_of(result).columns]
    assert "error lazy" in titles
    assert "actual" not in titles
    assert report.table(result)[0].split() == ["step", *" ".join(titles).split()]


def test_the_reading_compares_the_two_models() -> None:
    (errors, agreement) = views.view_of(telescoping()).reading(telescoping())
    assert errors.endswith(", 50 times as far.")
    assert agreement.startswith(
        "The telescoped model predicts the network's class on 100 % of the probe's examples"
    )


def test_the_reading_says_when_telescoping_is_worse() -> None:
    result = telescoping()
    scalars = {**result.scalars, "final_error_telescoped": 2.0, "final_error_lazy": 1.0}
    lines = views.view_of(result).reading(replace(result, scalars=scalars))
    assert "telescoping is the worse of the two" in lines[0]
    scalars["final_error_telescoped"] = float("inf")
    assert "not finite" in views.view_of(result).reading(replace(result, scalars=scalars))[0]


def effective(error: float) -> Result:
    """Return a result of effective parameters, exact where `error` is 0."""
    step = np.arange(5)
    p, se = np.linspace(0, 8.125, 5), np.full(5, error)
    curves = {"p_train": p, "p_train_se": se, "p_test": 2 * p, "p_test_se": se, "gap": p, "gap_se": se / 4}
    curves |= {"discrepancy_telescoped": 0.01 * p, "prediction_scale": p}
    arrays = {name: Array(("step",), values) for name, values in {"step": step, **curves}.items()}
    scalars = {name: float(values[-1]) for name, values in curves.items()} | {"examples_train": 100}
    return Result("effective-params", scalars, arrays, {})


def test_the_reading_gives_effective_parameters_with_their_errors() -> None:
    exact, estimate = (views.view_of(effective(error)).reading(effective(error)) for error in (0.0, 0.5))
    assert exact[0] == (
        "At the last step predictions of the 100 training examples use 8.125 effective parameters, those of "
        "held-out examples 16.25."
    )
    assert "8.125 ± 0.50 effective parameters" in estimate[0]
    assert exact[1].startswith("They are those of the telescoping model, 1.0 % of the predictions' size away")
    assert estimate[1].startswith("The gap is 8.125 ± 0.12: the same probes measured both")
    diverged = replace(effective(0.0), scalars={"p_train": float("nan")})
    assert views.view_of(diverged).reading(diverged) == ("The effective parameters are not finite.",)


def test_the_table_of_a_metric_with_a_view_needs_no_other_arrays() -> None:
    needed = views.needed("effective-params")
    assert needed is not None
    assert {"step", "p_train", "gap_se"} <= set(needed)
    assert "norms_train" not in needed
    assert views.needed("another") is None


def test_effective_parameters_have_a_table_and_a_chart() -> None:
    lines = report.table(effective(0.5))
    assert "p train" in lines[0]
    assert "p held-out" in lines[0]
    assert "± gap" in lines[0]
    assert "held-out" in sketch.draw(effective(0.5), 60, ascii=False)[0]


def test_the_chart_fits_its_width_and_has_no_escapes() -> None:
    lines = sketch.draw(telescoping(), 60, ascii=False)
    assert len(lines) == sketch.HEIGHT
    assert max(map(len, lines)) <= 60
    assert "telescoped" in lines[0]
    assert "lazy" in lines[0]
    assert not any("\x1b" in line for line in lines)


def test_a_coloured_chart_is_the_plain_one_with_colours() -> None:
    plain = sketch.draw(telescoping(), 60, ascii=False)
    painted = sketch.draw(telescoping(), 60, ascii=False, colour=True)
    assert {code for line in painted for code in re.findall(r"\x1b\[(3\d)m", line)} == {"33", "35"}
    assert [re.sub(r"\x1b\[\d+m", "", line).rstrip() for line in painted] == plain


def test_the_chart_has_a_form_in_ascii() -> None:
    lines = [*sketch.draw(telescoping(), 60, ascii=True), *sketch.bars(telescoping(), 60, ascii=True)]
    drawing = [line for line in lines if "‖" not in line]
    assert all(line.isascii() for line in drawing)


def test_one_step_draws_no_chart() -> None:
    assert sketch.draw(telescoping(steps=0), 60, ascii=False) == []


def test_bars_give_the_share_of_each_layer_with_clean_names() -> None:
    lines = sketch.bars(telescoping(), 60, ascii=False)
    assert [line.split()[0] for line in lines[1:]] == ["fc1", "head$"]
    assert [line.split()[-2] for line in lines[1:]] == ["75.0", "25.0"]


def test_the_screen_shows_table_scalars_chart_reading_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(telescoping(), "telescoping of a run")
    shown = capsys.readouterr().out
    assert shown.startswith("telescoping of a run\n")
    assert "  final error lazy        " in shown
    assert "note: a note of the analysis\n" in shown
    assert "\x1b" not in shown
    report.show(telescoping(), "telescoping of a run", quiet=True)
    assert "━" not in capsys.readouterr().out


def test_csv_has_one_file_a_table_in_long_form(tmp_path: Path) -> None:
    result = telescoping(steps=3, examples=2)
    paths = csvfile.write(result, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "telescoping_scalars.csv",
        "telescoping_step.csv",
        "telescoping_step_example_output.csv",
        "telescoping_step_layer.csv",
    ]
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2
    assert list(rows[0]) == ["step", "example", "output", "actual", "telescoped", "lazy"]
    values = np.array([float(row["actual"]) for row in rows]).reshape(4, 2, 2)
    np.testing.assert_array_equal(values, result.arrays["actual"].data)
    assert (rows[-1]["step"], rows[-1]["example"], rows[-1]["output"]) == ("3", "1", "1")


def test_csv_uses_the_coordinate_of_a_dimension(tmp_path: Path) -> None:
    result = telescoping(steps=2)
    result = replace(result, arrays={**result.arrays, "step": Array(("step",), np.array([0, 10, 20]))})
    (_, curves, *_) = csvfile.write(result, tmp_path)
    with curves.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "10", "20"]


def test_csv_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError) as caught:
        csvfile.write(telescoping(), tmp_path / "taken")
    assert str(caught.value) == f"cannot write CSV files into {tmp_path / 'taken'}: File exists"


def test_figures_are_written_as_svg_and_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure.save(telescoping(), tmp_path / "f.svg", "title with a $ and \x1b[2J")
    figure.save(telescoping(), tmp_path / "f.png", "title")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "f.svg").read_text()
    assert "<svg" in drawn
    assert "\x1b" not in drawn


def test_the_same_result_gives_the_same_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        figure.save(telescoping(), tmp_path / name, "title")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_run_without_steps_has_a_figure_without_layers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure.save(telescoping(steps=0), tmp_path / "f.svg", "title")
    assert "contribution" not in (tmp_path / "f.svg").read_text()


def test_a_result_without_series_has_no_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="a result of other has no series to draw"):
        figure.save(replace(telescoping(), metric="other", arrays={}), tmp_path / "f.svg", "title")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("f.gif", "--plot {path}: the name must end in .svg, .png or .pdf"),
        ("no/f.svg", "--plot {path}: there is no folder {path.parent}"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        figure.check(tmp_path / name)
    assert str(caught.value) == message.format(path=tmp_path / name)


def test_without_matplotlib_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError) as caught:
        figure.check(tmp_path / "f.svg")
    assert str(caught.value) == "--plot needs matplotlib, which is not installed: pip install 'tscope[plot]'"

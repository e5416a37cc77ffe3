"""The case study of regimes: its tasks, what its tables read, and each part at a tiny size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_case_studies import columns, load


def write_digits(folder: Path, each: int = 30) -> None:
    """Write pictures of ten digits that are easy to tell apart: noise around a picture of their own."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, 200, (10, 28, 28))
    labels = np.tile(np.arange(10, dtype=np.uint8), each)
    pictures = (own[labels] + rng.integers(0, 55, (len(labels), 28, 28))).astype(np.uint8)
    np.savez(
        folder / "mnist10k.npz", x_train=pictures, y_train=labels, x_test=pictures[:100], y_test=labels[:100]
    )


def test_skills_come_in_shares_and_whitened_inputs_have_the_identity_as_covariance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = load("train_linear", monkeypatch)
    generator = torch.Generator().manual_seed(0)
    V = script.orthonormal(5, 3, generator)
    x = script.skills(1000, V, 1.0, generator)
    share = (x @ V).square().mean(0)
    np.testing.assert_allclose(share, np.array([6, 3, 2]) / 11, atol=0.5 / 1000)
    np.testing.assert_allclose(x.T @ x / 1000, V @ torch.diag(share) @ V.T, atol=1e-12)
    x = script.whitened(40, torch.eye(5, dtype=torch.float64), generator)
    np.testing.assert_allclose(x.T @ x / 40, np.eye(5), atol=1e-12)


def test_as_many_of_each_digit_are_drawn_and_too_few_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("train_digits", monkeypatch)
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    write_digits(tmp_path)
    x, y, x_test, y_test = script.load_digits(200, 50, seed=1)
    assert np.bincount(y).tolist() == [20] * 10
    assert (tuple(x.shape), tuple(x_test.shape)) == ((200, 196), (50, 196))
    assert not torch.equal(script.load_digits(200, 50, seed=2)[0], x)
    with np.load(tmp_path / "mnist10k.npz") as data:
        first = data["x_test"][0].reshape(14, 2, 14, 2).mean((1, 3)).ravel() / 255
        assert y_test.tolist() == data["y_test"][:50].tolist()
    np.testing.assert_allclose(x_test[0], (first - 0.13) / 0.27, atol=1e-6)
    with pytest.raises(SystemExit, match=r"^mnist10k\.npz holds too few pictures for 400 and 50, "):
        script.load_digits(400, 50, seed=1)


def series(**arrays: list[float]) -> dict[str, object]:
    return {
        "scalars": {},
        "provenance": {},
        "arrays": {name: {"dims": ["step"], "data": values} for name, values in arrays.items()},
    }


def test_the_table_of_the_collapse_is_of_the_row_at_which_the_last_seed_fits_and_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, subject = load("regimes_collapse", monkeypatch), load("subject", monkeypatch)
    found = []
    for made in part.subjects(quick=True, seeds=range(2)):
        names = [f"{name}_{p}" for name in part.COLUMNS for p in ("train", "test")]
        arrays = {name: [0.4, 0.3, 0.2, 0.1 + made.seed / 50] for name in names}
        accuracy = [0.1, 0.999, 1, 1] if made.seed else [0.1, 0.5, 1, 1]
        arrays |= {"step": [0, 10, 20, 40], "accuracy_train": accuracy}
        found.append(subject.Found(made, {"neural-collapse": series(**arrays)}))
    assert part.fitted(found, "entropy") == [20, 10]
    lines = part.table(found).splitlines()[2:]
    assert len(lines) == 6
    same = " | ".join(["0.2 / 0.2"] * 4)
    assert lines[2] == f"| cross-entropy | 20 | 100.0% / 20.0% | {same} | 20.0% / 20.0% |"
    assert lines[3].startswith("| cross-entropy | 40 | 100.0% / 11.0% | 0.11 / 0.11 | ")
    part.tabulate(found, tmp_path / "table.csv")
    rows = columns(tmp_path / "table.csv")
    assert [row["step"] for row in rows[:4]] == ["0", "10", "20", "40"]
    assert rows[3]["nc1_train"] == "0.1"


def test_the_marks_of_the_grokking_are_those_of_held_out_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    part, subject = load("regimes_grokking", monkeypatch), load("subject", monkeypatch)
    told = [
        ("interpolation", 4, "training examples are fitted: accuracy 1"),
        ("effective-parameter peak", 5, "effective parameters of training examples peak at 9"),
        ("effective-parameter peak", 6, "effective parameters of held-out examples peak at 8"),
        ("loss spike", 8, "a spike"),
    ]
    results = {
        metric: series(step=[0, 5, 10], **{name: [1.0, 2.0, 3.0] for name in names})
        for metric, names in part.SERIES.items()
    }
    results["events"]["provenance"] = {
        "events": [
            {"kind": kind, "step": step, "low": 1, "high": 9, "text": text} for kind, step, text in told
        ]
    }
    (made,) = part.subjects(quick=True, seeds=[3])
    found = [subject.Found(made, results)]
    assert {name: event["step"] for name, event in part.events(found[0]).items()} == {
        "interpolation": 4,
        "peak": 6,
    }
    lines = part.table(found).splitlines()[2:]
    assert lines[0].startswith("| 3 | training examples fitted | 4 | 1–9 | 200% / 200% | ")
    assert lines[1] == "| 3 | p held-out peaks | 6 | 1–9 | 300% / 300% | 3.0 / 3.0 | 3.00 | 3.000 | 3.00 |"
    assert lines[2].startswith("| 3 | end | 10 |  | 300% / 300% | 3.0 / 3.0 | ")


def test_a_command_holds_every_value_of_an_option_and_the_identity_tells_runs_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = load("subject", monkeypatch)
    given = {"--targets": (1.0, 2.0), "--norm": (), "--rate": 0.1}
    made = subject.Subject("x", "train_linear.py", given, 7, {"regime": ("--every", "1")})
    words = made.command()
    assert words[2:] == ["--seed", "7", "--targets", "1.0", "2.0", "--norm", "--rate", "0.1"]
    for other in (
        replace(made, seed=8),
        replace(made, metrics={"regime": ()}),
        replace(made, record=("--every", "2")),
        replace(made, modules=("images.py",)),
    ):
        assert other.identity() != made.identity()
    assert replace(made, name="y").identity() == made.identity()


@pytest.mark.slow
@pytest.mark.timeout(900)  # some twenty processes
def test_linear_networks_follow_their_closed_forms_in_every_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    part, runs = load("regimes_linear", monkeypatch), load("linear_runs", monkeypatch)
    subject = load("subject", monkeypatch)
    monkeypatch.setattr(part, "SKILLS", 3)
    few = {"--inputs": 3, "--targets": (1, 1, 1), "--examples": 200, "--steps": 400}
    skills = runs.skills(0, 0)
    subjects = [
        *(runs.saxe(start, rate, 0) for start in ("aligned", "random") for rate in (0.04, 0.02)),
        replace(skills, arguments={**skills.arguments, **few}),
        *(runs.lazy(index, 0) for index in (0.0, 10.0)),
    ]
    found = subject.examine(subjects, tmp_path, jobs=2)
    assert capfd.readouterr().err.count(": done") == 7
    by_name = {run.subject.name: run for run in found}
    # The error falls with the step, and the exact identity holds although Q moves.
    coarse, fine = (by_name[f"aligned-{rate}-0"].scalar("regime", "closed_off") for rate in ("0.04", "0.02"))
    assert coarse / fine == pytest.approx(2, rel=0.15)
    moved = [runs.balance_drift(by_name[f"random-{rate}-0"]) for rate in ("0.04", "0.02")]
    assert moved[0] / moved[1] == pytest.approx(2, rel=0.2)
    assert by_name["random-0.04-0"].scalar("layers", "balance_check") < 1e-14
    half, closed = (by_name["skills-0"].array("regime", name) for name in ("half_step", "half_step_closed"))
    np.testing.assert_allclose(half, closed, rtol=0.15)
    rich, lazy = (by_name[f"lazy-{index}-0"] for index in (0, 10))
    distances = [run.scalar("regime", "kernel_distance_train") for run in (rich, lazy)]
    assert distances[0] > 100 * distances[1]
    assert lazy.scalar("regime", "unbalanced_off") < 0.05
    part.draw(found, [tmp_path / "figure.svg"])
    part.tabulate(found, tmp_path / "table.csv")
    assert (tmp_path / "figure.svg").stat().st_size > 0
    assert len(columns(tmp_path / "table.csv")) == 7 * 3
    text = part.table(found)
    again = subject.examine(subjects, tmp_path, jobs=1)
    assert capfd.readouterr().err == ""
    assert part.table(again) == text


@pytest.mark.slow
@pytest.mark.timeout(900)  # the same
def test_grokking_and_collapse_are_recorded_analysed_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = load("subject", monkeypatch)
    monkeypatch.setenv("TSCOPE_DATA", str(tmp_path))
    write_digits(tmp_path)
    grokking, collapse = load("regimes_grokking", monkeypatch), load("regimes_collapse", monkeypatch)
    monkeypatch.setattr(grokking, "TEST_EXAMPLES", 20)
    (made,) = grokking.subjects(quick=True, seeds=[0])
    small = {"--train": 10, "--test": 20, "--width": 4, "--steps": 120}
    held_out = grokking.held_out
    made = replace(made, arguments={**made.arguments, **small}, held_out=lambda: held_out(10, 0))
    (run,) = grokking_runs = subject.examine([made], tmp_path, jobs=1)
    assert run.array("effective-params", "p_train")[-1] > 0
    assert run.array("events", "fit_test")[-1] == run.array("telescoping", "accuracy_actual")[-1]
    monkeypatch.setattr(collapse, "VARIANTS", {v: collapse.VARIANTS[v] for v in ("squared", "norm")})
    own = {"--train": 100, "--test": 50, "--epochs": 20}
    digits = [
        replace(made, arguments={**made.arguments, **own}, held_out=lambda: collapse.held_out(100, 50, 0))
        for made in collapse.subjects(quick=True, seeds=[0])
    ]
    collapsed = subject.examine(digits, tmp_path, jobs=2)
    for run in collapsed:
        nc1 = run.array("neural-collapse", "nc1_train")
        assert nc1[-1] < nc1[0]
        assert run.array("neural-collapse", "accuracy_train")[-1] == 1
    for part, found in ((grokking, grokking_runs), (collapse, collapsed)):
        name = part.__name__
        part.draw(found, [tmp_path / f"{name}.svg"])
        part.tabulate(found, tmp_path / f"{name}.csv")
        assert (tmp_path / f"{name}.svg").stat().st_size > 0
        steps = {row["step"] for row in columns(tmp_path / f"{name}.csv")}
        assert steps >= {"0", "120" if part is grokking else "20"}
        assert "end" in part.table(found) or part is collapse

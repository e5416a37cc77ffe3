"""What is asked of effective parameters, what is refused, and what the notes say."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tscope_format.errors import AnalysisError, MissingDataError, UsageError

import tscope
from tests.analyses.effective_runs import make_run
from tests.traces import Probe
from tscope.analyses import metric, plan
from tscope.analyses.effective import Options
from tscope.analyses.effective.plan import Size, Traits, choose


def analysed(run, **options):
    options.setdefault("probe", str(run.held))
    return tscope.analyze(run.trace, "effective-params", save=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "dense"}, "unknown form 'dense'; there is auto, kernel, parameter, probes"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; there is auto, mse, cross_entropy, bce"),
        ({"decay": "none"}, "unknown decay 'none'; there is propagated, frozen"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; there is float32, float64"),
        ({"rtol": 0.0}, "rtol must lie between 0 and 1, got 0.0"),
        ({"max_memory_mb": 0}, "max_memory_mb must be positive, got 0"),
        ({"test": 0}, "test must be at least 1, got 0"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"seed": -1}, "seed must lie between 0 and 2**63 - 1, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert str(caught.value) == message


def test_every_thins_the_kept_rows_only(tmp_path):
    run = make_run(tmp_path)
    whole, thin = analysed(run), analysed(run, every=4)
    assert thin.arrays["step"].data.tolist() == [0, 4, 8, 9]
    assert np.array_equal(thin.arrays["p_train"].data, whole.arrays["p_train"].data[[0, 4, 8, 9]])


def test_a_subset_of_the_held_out_examples_is_drawn_by_seed(tmp_path):
    run = make_run(tmp_path)
    whole = analysed(run).arrays["norms_test"].data
    first, same, other = (analysed(run, test=2, seed=seed) for seed in (0, 0, 3))
    assert first.scalars["examples_test"] == 2
    assert np.array_equal(first.arrays["norms_test"].data, same.arrays["norms_test"].data)
    assert not np.array_equal(first.arrays["norms_test"].data, other.arrays["norms_test"].data)
    for column in first.arrays["norms_test"].data.T:
        assert np.isclose(whole.T, column, rtol=1e-12).all(1).any()
    # Training rows are never thinned: the recursion needs them all.
    assert first.scalars["p_train"] == pytest.approx(analysed(run).scalars["p_train"], rel=1e-12)


def test_without_held_out_examples_only_the_training_rows_are_measured(tmp_path):
    run = make_run(tmp_path)
    result = tscope.analyze(run.trace, "effective-params", save=False)
    assert result.scalars["p_train"] == pytest.approx(analysed(run).scalars["p_train"], rel=1e-12)
    assert "p_test" not in result.scalars
    assert "norms_test" not in result.arrays
    assert any("no held-out examples: give some with `--probe FILE.npz`" in note for note in result.notes)


def test_the_kernel_form_is_refused_where_it_is_not_exact(tmp_path):
    with pytest.raises(AnalysisError, match="kernel form is not exact for an optimizer with momentum; use"):
        analysed(make_run(tmp_path / "a", optimizer="momentum"), form="kernel")
    with pytest.raises(AnalysisError, match=r"weight decay that acts on label-dependent .*`--decay frozen`"):
        analysed(make_run(tmp_path / "b", optimizer="sgd decay"), form="kernel")


def test_momentum_that_comes_later_is_found(tmp_path, monkeypatch):
    from tscope.analyses.effective import analysis

    run = make_run(tmp_path, optimizer="momentum")
    truth = analysed(run).scalars["p_train"]
    prepare = analysis.prepare
    monkeypatch.setattr(analysis, "prepare", lambda *a: replace(prepare(*a), traits=Traits()))
    assert analysed(run).scalars["p_train"] == pytest.approx(truth, rel=1e-12)
    with pytest.raises(AnalysisError, match=r"took up .* on the way, where the kernel form is not exact"):
        analysed(run, form="kernel")


SIZE = Size(points=200, outputs=1, directions=100, parameters=10_000, batch=10, steps=50, bytes=8)


def test_the_cheapest_exact_form_that_fits_is_taken_else_probes():
    def form(traits: Traits, limit: float, frozen: bool = False) -> str:
        return choose("auto", SIZE, traits, frozen=frozen, limit=limit).form

    assert form(Traits(), 1e9) == "kernel"
    assert form(Traits(decay=True), 1e9) == "parameter"
    assert form(Traits(decay=True), 1e9, frozen=True) == "kernel"
    assert form(Traits(momentum=True), 1e9) == "parameter"
    assert form(Traits(momentum=True), 5e6) == "probes"
    plan = choose("auto", SIZE, Traits(momentum=True), frozen=False, limit=5e6)
    assert 8 <= plan.columns < 100
    assert plan.memory <= 5e6


@pytest.mark.parametrize(
    ("asked", "traits", "limit", "message"),
    [
        (
            "parameter",
            Traits(momentum=True),
            1e5,
            r"8 columns of the parameter form need \S+ MB of the 0.1 MB",
        ),
        (
            "kernel",
            Traits(),
            1e5,
            r"the kernel form needs 0.685 MB of the 0.1 MB allowed \(`--max-memory MB`\)",
        ),
        (
            "kernel",
            Traits(),
            5e5,
            r"needs 0.685 MB .*; `--form parameter` \(0.495 MB\) or `--form probes` fits; fewer",
        ),
        (
            "kernel",
            Traits(),
            4.7e5,
            r"needs 0.685 MB .*; `--form parameter`, in passes, or `--form probes` fits; fewer",
        ),
        ("auto", Traits(momentum=True), 1e5, r"8 probes need \S+ MB of the 0.1 MB allowed"),
        ("probes", Traits(momentum=True), 1e5, r"8 probes need \S+ MB .*fewer held-out examples"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_with_what_would(asked, traits, limit, message):
    with pytest.raises(AnalysisError, match=message):
        choose(asked, SIZE, traits, frozen=False, limit=limit)


def test_the_parameter_form_that_does_not_fit_is_taken_in_passes():
    def plan(limit: float, workers: int = 1):
        traits = Traits(momentum=True)
        return choose("parameter", SIZE, traits, frozen=False, limit=limit, workers=workers)

    whole, parts = plan(1e9), plan(5e6)
    assert (whole.passes, whole.columns) == (1, 100)
    assert (parts.passes, parts.columns) == (3, 34)
    assert parts.memory <= 5e6 < whole.memory
    assert str(parts) == "parameter form (exact, 100 label directions in 3 passes of 34)"
    # Each pass follows the columns of the checks too, and in each process.
    assert parts.flops / whole.flops == pytest.approx(3 * (34 + 4) / (100 + 4))
    shared = plan(5e6, workers=2)
    assert shared.flops / whole.flops == pytest.approx(3 * (34 + 8) / (100 + 4))
    assert parts.memory < shared.memory <= 5e6


def test_not_enough_memory_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    from tscope.analyses.effective import analysis

    run = make_run(tmp_path)
    monkeypatch.setattr(analysis, "exactly", None)
    message = r"^the kernel form needs 0.00\d+ MB of the 0.001 MB allowed \(`--max-memory MB`\)"
    with pytest.raises(AnalysisError, match=message):
        analysed(run, form="kernel", max_memory_mb=0.001)


def test_passes_over_the_columns_give_the_same_figures(tmp_path):
    run = make_run(tmp_path, optimizer="adamw", outputs=3, loss="cross_entropy")
    whole = analysed(run, form="parameter", smoother="last")
    limit = 0.032
    assert "20 label directions in 2 passes of 10" in plan(
        run.trace, "effective-params", probe=str(run.held), form="parameter", max_memory_mb=limit
    )
    parts = analysed(run, form="parameter", max_memory_mb=limit)
    assert (whole.scalars["passes"], parts.scalars["passes"]) == (1, 2)
    assert parts.scalars["exact"]
    for name, array in parts.arrays.items():
        assert np.allclose(array.data, whole.arrays[name].data, rtol=1e-11, atol=1e-14), name


def test_the_plan_says_the_form_and_its_cost(tmp_path):
    run = make_run(tmp_path)
    text = plan(run.trace, "effective-params", probe=str(run.held))
    assert text.startswith(
        "kernel form (exact, 10 label directions): about 0 s of arithmetic at 9 steps, 15 "
    )
    assert "37 parameters" in text
    probes = plan(run.trace, "effective-params", probe=str(run.held), form="probes")
    assert probes.startswith(
        "probes form (estimate, up to 10 probes a pass): about 0 s of arithmetic for the first 10 probes"
    )
    assert plan(run.trace, "telescoping") is None


def test_an_analysis_opens_the_run_once_and_says_its_plan(tmp_path, monkeypatch):
    from tscope.analyses.effective import analysis

    run = make_run(tmp_path)
    prepared, said = [], []
    prepare = analysis.prepare
    monkeypatch.setattr(analysis, "prepare", lambda *a: prepared.append(a) or prepare(*a))
    analysed(run, say=said.append)
    assert len(prepared) == 1
    assert len(said) == 1
    assert said[0].startswith("kernel form (exact, 10 label directions): about ")


def test_a_coarse_answer_comes_first(tmp_path):
    run = make_run(tmp_path, optimizer="momentum", outputs=3)
    said: list[str] = []
    result = analysed(run, form="probes", rtol=0.05, say=said.append)
    assert result.scalars["probes"] == 30
    assert re.fullmatch(r"16 probes: p_train \S+ ± \S+, p_test \S+ ± \S+; 14 more for 5%", said[1])
    assert len(said) == 2


def test_a_trace_without_batches_lacks_what_the_metric_needs(tmp_path):
    from tests import models
    from tests.traces import train

    torch.manual_seed(0)
    module = models.mlp(1)
    run = train(
        tmp_path / "run.zarr",
        module,
        torch.optim.SGD(module.parameters(), 0.1),
        models.batches(models.signs, 2),
        torch.nn.functional.mse_loss,
        {"held": Probe((torch.randn(3, 4),))},
    )
    with pytest.raises(MissingDataError) as caught:
        tscope.analyze(run.path, "effective-params", save=False)
    assert "--outputs all" in str(caught.value)
    assert "--max-examples" in str(caught.value)
    assert "label" not in metric("effective-params").needs


def test_a_run_that_diverges_ends_before_and_says_where(tmp_path):
    from tests.optimizers.recorded import data, epochs, mlp, train

    module = mlp(1)
    x, y = data(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    steps = {"taken": 0}

    def poison(optimizer, args, kwargs):
        steps["taken"] += 1
        if steps["taken"] == 6:
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))

    optimizer.register_step_post_hook(poison)
    trace = train(tmp_path / "run.zarr", module, optimizer, epochs(x, y, 4, 3), torch.nn.functional.mse_loss)
    result = tscope.analyze(trace, "effective-params", loss="mse", save=False)
    assert result.scalars["stopped"] == 6
    assert result.arrays["step"].data.tolist() == [0, 1, 2, 3, 4, 5]
    assert any("NaN or infinite values at step 6" in note for note in result.notes)


def test_a_model_that_the_telescoping_model_does_not_follow_is_noted(tmp_path, monkeypatch):
    from tscope.analyses.effective import notes

    run = make_run(tmp_path)
    assert not any("does not follow the network" in note for note in analysed(run).notes)
    monkeypatch.setattr(notes, "_SCALE", 1e-6)
    (note,) = (note for note in analysed(run).notes if "does not follow the network" in note)
    assert "p describes the model, and the network little" in note


def test_weight_decay_says_what_it_acts_on(tmp_path):
    run = make_run(tmp_path, optimizer="adamw")
    assert any("acts on label-dependent parameters" in note for note in analysed(run).notes)
    assert any("acts on the recorded parameters" in note for note in analysed(run, decay="frozen").notes)
    assert analysed(run).scalars["decay"] == "propagated"

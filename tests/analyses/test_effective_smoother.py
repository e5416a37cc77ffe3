"""The smoother itself at chosen steps, against autograd through the unrolled training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tscope_format.errors import AnalysisError, UsageError

import tscope
from tests.analyses.effective_runs import Run, make_run
from tscope.analyses import plan
from tscope.analyses.effective import Options


def analysed(run: Run, **options: object):
    return tscope.analyze(run.trace, "effective-params", probe=str(run.held), save=False, **options)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_smoother_is_that_of_unrolled_training(tmp_path, optimizer):
    run = make_run(tmp_path, optimizer=optimizer, outputs=3)
    result = analysed(run, smoother="last")
    S = run.reference().smoother.numpy()  # (point, output, train, output)
    n = run.train
    for part, expected in (("train", S[:n]), ("test", S[n:])):
        found = result.arrays[f"smoother_{part}"]
        assert found.dims == ("smoother_step", part, "output", "label", "label_output")
        assert np.abs(found.data[0] - expected).max() < 1e-12
        norms = np.square(found.data[0]).sum((1, 2, 3))
        assert norms == pytest.approx(result.arrays[f"norms_{part}"].data[-1], rel=1e-12)
    assert result.arrays["smoother_step"].data.tolist() == [9]


def test_cross_entropy_s_smoother_is_of_changes_along_the_simplex(tmp_path):
    run = make_run(tmp_path, optimizer="momentum", outputs=3, loss="cross_entropy")
    result = analysed(run, smoother="last", form="parameter", max_memory_mb=0.05)
    assert result.scalars["passes"] > 1
    S = run.reference().smoother[: run.train]
    expected = (S - S.mean(3, keepdim=True)).numpy()
    assert np.abs(result.arrays["smoother_train"].data[0] - expected).max() < 1e-12
    assert np.abs(result.arrays["smoother_train"].data.sum(-1)).max() < 1e-12


def test_steps_are_chosen_by_their_number_and_kept_beside_every(tmp_path):
    run = make_run(tmp_path)
    result = analysed(run, smoother="3,9", every=4)
    assert result.arrays["step"].data.tolist() == [0, 3, 4, 8, 9]
    assert result.arrays["smoother_step"].data.tolist() == [3, 9]
    for row, step in ((1, 0), (4, 1)):
        norms = np.square(result.arrays["smoother_test"].data[step]).sum((1, 2, 3))
        assert norms == pytest.approx(result.arrays["norms_test"].data[row], rel=1e-12)
    with pytest.raises(UsageError, match="step 10 is not in the trace; it holds steps 0 to 9"):
        analysed(run, smoother="10")


def test_the_smoother_is_estimated_first_and_needs_an_exact_form(tmp_path):
    run = make_run(tmp_path, optimizer="momentum", outputs=3)
    probe = str(run.held)
    # 15 points of 3 outputs, 30 labels, in float64, once as columns and once as labels.
    text = plan(run.trace, "effective-params", probe=probe, smoother="last")
    assert text.endswith(", and 0.0216 MB for the smoother that is kept")
    # Without the smoother so little memory would give probes.
    tight = {"probe": probe, "max_memory_mb": 0.06}
    assert plan(run.trace, "effective-params", **tight).startswith("parameter form (exact, 30 ")
    tight["max_memory_mb"] = 0.05
    assert plan(run.trace, "effective-params", **tight).startswith("probes form")
    assert " passes of " in plan(run.trace, "effective-params", smoother="last", **tight)
    with pytest.raises(
        AnalysisError, match=r"the smoother at 1 steps takes 0.0216 MB of the 0.02 MB allowed"
    ):
        analysed(run, smoother="last", max_memory_mb=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoother": "first"}, "smoother must be `last` or steps separated by commas, got 'first'"),
        ({"smoother": "3,"}, "smoother must be `last` or steps separated by commas, got '3,'"),
        (
            {"smoother": "last", "form": "probes"},
            "probes give no smoother: leave out `--form probes` or `--smoother`",
        ),
        ({"workers": 0}, "workers must lie between 1 and 1024, got 0"),
    ],
)
def test_what_cannot_be_asked(options, message):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert str(caught.value) == message


def test_a_part_of_the_basis_is_a_part_of_it():
    from tscope.analyses.effective.directions import Directions
    from tscope.optimizers import Loss

    loss = Loss("cross_entropy", 1.0, "mean", torch.zeros(4, 3))
    directions = Directions.of(loss, 4, 3, torch.float64)
    whole = directions.basis()
    parts = [directions.basis(start, min(start + 3, 8)) for start in range(0, 8, 3)]
    assert torch.equal(torch.cat(parts, 2), whole)
    centre = torch.eye(3, dtype=torch.float64) - 1 / 3
    labelled = directions.labelled(whole)
    for example in range(4):
        assert torch.allclose(labelled[example, :, example], centre, atol=1e-15)

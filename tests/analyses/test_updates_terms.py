"""The terms of updates against torch's own optimizers and dense Jacobians, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analyses.updates_runs import LEARNED, OPTIMIZERS, close, make_run
from tests.reference.updates import TERMS

OUTPUTS = {name: 3 if index % 2 else 1 for index, name in enumerate(OPTIMIZERS)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_terms_layers_and_influences_of_every_optimizer(tmp_path, name):
    run = make_run(tmp_path, name, OUTPUTS[name])
    result = run.analysed(influence="all")
    arrays = {key: array.data for key, array in result.arrays.items()}
    J = run.jacobians()
    expected = run.projected(J)
    scale = np.abs(expected).max()
    assert result.provenance["terms"] == list(TERMS)
    assert result.provenance["layers"] == ["0", "2"]
    assert close(arrays["terms"], expected.sum(2), scale)
    # They add up to J·Δθ of the recorded parameters, and so do the layers' parts.
    first = run.first_order(J)
    assert close(arrays["terms"].sum(1), first, scale)
    assert close(arrays["first_order"], np.sqrt(np.square(first).sum((1, 2))), scale)
    assert result.scalars["decomposition_check"] <= 1e-12 * scale
    assert close(arrays["total_term"], expected.sum((0, 2)), scale)
    square = np.square(first).sum((1, 2))
    share = np.einsum("stlxc,sxc->stl", expected, first) / square[:, None, None]
    assert close(arrays["layer_share"], share)
    assert np.abs(arrays["layer_share"].sum((1, 2)) - 1).max() < 1e-12 * np.abs(share).max()
    assert close(arrays["layer_effect"], np.sqrt(np.square(expected).sum((3, 4))))
    for index, term in enumerate(TERMS):
        assert close(arrays[f"share_{term}"], share.sum(2)[:, index], np.abs(share).max())
        effect = np.sqrt(np.square(expected.sum(2)[:, index]).sum((1, 2)))
        assert close(arrays[f"effect_{term}"], effect, scale)
    # Each training example's part, by a moment of its own for each of them.
    direct, later = run.influences(J)
    whole = np.abs(direct).max()
    assert close(arrays["influence"], direct + later, whole)
    assert close(arrays["influence_memory"], later, whole)
    learned = expected.sum(2)[:, LEARNED].sum((0, 1))
    assert close(arrays["influence"].sum(2), learned, whole)
    assert result.scalars["influence_check"] < 1e-12
    assert result.scalars["adapter_residual"] < 1e-12


def test_terms_that_a_run_has_not_are_zero(tmp_path):
    arrays = make_run(tmp_path, "sgd", clip=None).analysed().arrays
    assert (arrays["effect_gradient"].data > 0).all()
    for term in TERMS[1:-1]:
        assert not arrays[f"effect_{term}"].data.any(), term
    assert np.abs(arrays["share_gradient"].data - 1).max() < 1e-12
    assert not arrays["influence_memory"].data.any()


def test_a_clip_takes_back_what_it_cuts(tmp_path):
    arrays = make_run(tmp_path, "sgd", clip=0.01).analysed().arrays
    gradient, clipping = (arrays["terms"].data[:, index] for index in (0, 1))
    rho = 1 + (clipping * gradient).sum((1, 2)) / np.square(gradient).sum((1, 2))
    assert (rho < 0.1).all()
    assert close(clipping, (rho - 1)[:, None, None] * gradient)


def test_the_gradient_of_micro_batches_is_one(tmp_path):
    run = make_run(tmp_path, "momentum", 3, micro=2)
    result = run.analysed(influence="all")
    J = run.jacobians()
    expected = run.projected(J)
    assert close(result.arrays["terms"].data, expected.sum(2), np.abs(expected).max())
    direct, later = run.influences(J)
    assert close(result.arrays["influence"].data, direct + later)


def test_change_and_residual_are_those_of_the_network(tmp_path):
    run = make_run(tmp_path, "adam", 3)
    result = run.analysed()
    f, first = run.predictions(), run.first_order(run.jacobians())
    change = np.diff(f, axis=0)
    norms = np.sqrt(np.square(change).sum((1, 2)))
    rest = np.sqrt(np.square(change - first).sum((1, 2)))
    assert close(result.arrays["change"].data, norms, np.abs(f).max())
    assert close(result.arrays["residual"].data, rest, np.abs(f).max())
    assert close(result.arrays["residual_relative"].data, rest / norms, 10)
    assert close(result.arrays["total_change"].data, f[-1] - f[0], np.abs(f).max())
    expected = np.sqrt(np.square(rest).sum() / np.square(norms).sum())
    assert result.scalars["relative_residual"] == pytest.approx(expected, rel=1e-9)

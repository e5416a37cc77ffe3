"""The metric `boosting` against explicit Jacobians, weights by hand, and scores by their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tscope
from tests.analyses.boosting_pairs import HELD, STEPS, TRAIN, Pair, ensemble, make_pair, network, problem
from tests.boosting.tree_traces import PENALTY, RATE, TREES, tree, walk
from tests.reference import boosting as reference
from tests.reference import jacobians
from tscope.analyses.boosting.irregularity import RTOL, mahalanobis, pca
from tscope.analyses.boosting.subsets import draw, mean_errors, normalized_maxima

EXACT = {"rtol": 1e-12, "atol": 0}


@pytest.fixture(scope="module", params=[1, 3])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"), request.param)


def compared(pair: Pair, **options):
    return tscope.analyze(pair.net, "boosting", save=False, against=str(pair.trees.path), **options)


def network_norms(pair: Pair) -> np.ndarray:
    """‖k_t(x, ·)‖ (step, point) before each step."""
    points = torch.from_numpy(np.concatenate([pair.x, pair.held]))
    found = []
    for step in range(STEPS):
        pair.module.load_state_dict(pair.net.state_dict(step))
        found.append(reference.network_norms(jacobians.jacobian(pair.module, [points]), TRAIN))
    return np.array(found)


def tree_norms(pair: Pair) -> np.ndarray:
    """‖k_t(x, ·)‖ (tree, point)."""
    points = np.concatenate([pair.x, pair.held])
    leaves = [[walk(row, tree(number)) for row in points] for number in range(TREES)]
    return np.array(
        [[reference.tree_norm(own, leaf[:TRAIN], np.ones(TRAIN), PENALTY) for own in leaf] for leaf in leaves]
    )


def predictions(pair: Pair) -> dict[str, np.ndarray]:
    """The network's and the trees' own (test, output)."""
    pair.module.load_state_dict(pair.net.state_dict(STEPS))
    with torch.no_grad():
        net = pair.module(torch.from_numpy(pair.held)).numpy()
    values = np.tile(pair.y.mean(0), (HELD, 1))
    train = np.tile(pair.y.mean(0), (TRAIN, 1))
    for number in range(TREES):
        own = [walk(row, tree(number)) for row in pair.x]
        left_over, before = pair.y - train, values.copy()
        for place, row in enumerate([*pair.held, *pair.x]):
            inside = [i for i in range(TRAIN) if own[i] == walk(row, tree(number))]
            mean = sum(left_over[i] for i in inside) / (len(inside) + PENALTY) if inside else 0.0
            if place < HELD:
                values[place] = before[place] + RATE * mean
            else:
                train[place - HELD] = train[place - HELD] + RATE * mean
    return {"net": net, "trees": values}


def test_weights_and_errors_are_those_of_their_definitions(pair: Pair) -> None:
    # At one half each, the sets of the smallest and the largest share are known without drawing.
    result = compared(pair, irregular=0.5, shares="0,0.3,1", draws=7)
    scores = reference.first_component(pair.x, pair.held)
    np.testing.assert_allclose(result.arrays["score"].data, scores, rtol=1e-9)
    order = np.argsort(-scores)
    sets = {0: order[HELD // 2 :], -1: order[: HELD // 2]}
    assert sorted(np.flatnonzero(result.arrays["irregular"].data)) == sorted(sets[-1])
    norms = {"net": network_norms(pair), "trees": tree_norms(pair)}
    errors = {name: ((f - pair.held_y) ** 2).mean(1) for name, f in predictions(pair).items()}
    for name, norm in norms.items():
        train, test = norm[:, :TRAIN], norm[:, TRAIN:]
        mean = result.arrays[f"weight_norm_test_{name}"].data
        np.testing.assert_allclose(mean, test.mean(0), **EXACT)
        np.testing.assert_allclose(result.arrays[f"weight_norm_train_{name}"].data, train.mean(0), **EXACT)
        np.testing.assert_allclose(result.arrays[f"weight_norm_max_train_{name}"].data, train.max(1), **EXACT)
        np.testing.assert_allclose(result.arrays[f"weight_norm_max_test_{name}"].data, test.max(1), **EXACT)
        np.testing.assert_allclose(result.arrays[f"squared_error_{name}"].data, errors[name], rtol=1e-10)
        for place, members in sets.items():
            expected = reference.normalized_maximum(test, train, members)
            assert result.arrays[f"norm_{name}"].data[place] == pytest.approx(expected, rel=1e-12)
            assert result.arrays[f"norm_{name}_sd"].data[place] == pytest.approx(0, abs=1e-14)
            expected = errors[name][members].mean()
            assert result.arrays[f"error_{name}"].data[place] == pytest.approx(expected, rel=1e-10)
        assert result.scalars[f"norm_{name}_last"] == result.arrays[f"norm_{name}"].data[-1]
        assert result.scalars[f"error_{name}_all"] == pytest.approx(errors[name].mean(), rel=1e-10)
    net, trees = (result.arrays[f"error_{name}"].data for name in ("net", "trees"))
    np.testing.assert_allclose(result.arrays["gap"].data, net - trees, rtol=1e-10)
    np.testing.assert_allclose(result.arrays["relative_increase"].data, net / trees - 1, rtol=1e-9)
    assert result.arrays["step_net"].data.tolist() == list(range(STEPS))
    assert result.arrays["step_trees"].data.tolist() == list(range(TREES))


def test_scores_leave_out_directions_that_are_only_rounding() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(40, 4)), rng.normal(size=(15, 4)) * 3
    for inputs in (train, test):
        inputs[:, 3] = np.float32(inputs[:, 0] - 2 * inputs[:, 1]).astype(np.float64)
        inputs[:, :3] *= [5.0, 1.0, 1e-3]
    np.testing.assert_allclose(pca(train, test), reference.first_component(train, test), rtol=1e-9)
    found = mahalanobis(train, test)
    np.testing.assert_allclose(found, reference.mahalanobis(train, test, RTOL), rtol=1e-10)
    # The copy adds nothing: three features say it all.
    np.testing.assert_allclose(found, reference.mahalanobis(train[:, :3], test[:, :3], RTOL), rtol=4e-7)


def test_sets_have_one_size_and_their_share_of_the_most_irregular() -> None:
    scores = np.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    shares = (0.0, 0.25, 0.5, 1.0)
    subsets = draw(scores, 0.4, shares, 20, seed=1)
    assert np.flatnonzero(subsets.irregular).tolist() == [4, 5, 7, 8]
    assert subsets.places.shape == (4, 20, 4)
    for row, share in enumerate(shares):
        for members in subsets.places[row]:
            assert len(set(members)) == 4
            assert subsets.irregular[members].sum() == round(4 * share)
    for place in range(20):  # the regular ones that stay are the same
        for less, more in zip(subsets.places[:-1, place], subsets.places[1:, place], strict=True):
            assert set(more[~subsets.irregular[more]]) <= set(less[~subsets.irregular[less]])
            assert set(less[subsets.irregular[less]]) <= set(more[subsets.irregular[more]])
    assert len({tuple(sorted(members)) for members in subsets.places[1]}) > 5
    assert np.array_equal(subsets.places, draw(scores, 0.4, shares, 20, seed=1).places)
    assert not np.array_equal(subsets.places, draw(scores, 0.4, shares, 20, seed=2).places)
    rng = np.random.default_rng(5)
    test, train, errors = rng.uniform(size=(6, 10)), rng.uniform(size=(6, 8)), rng.uniform(size=10)
    maxima, means = normalized_maxima(test, train, subsets), mean_errors(errors, subsets)
    for row in range(4):
        for place in range(20):
            members = subsets.places[row, place]
            expected = reference.normalized_maximum(test, train, members)
            assert maxima[row, place] == pytest.approx(expected, rel=1e-13)
            assert means[row, place] == pytest.approx(sum(errors[members]) / 4, rel=1e-13)


def test_a_column_of_the_user_ranks_the_examples(pair: Pair, tmp_path: Path) -> None:
    scores = np.arange(HELD) % 7
    np.savez(tmp_path / "s.npz", age=scores, other=np.zeros(3))
    result = compared(pair, irregularity=f"{tmp_path}/s.npz:age")
    assert result.arrays["score"].data.tolist() == scores.tolist()
    assert np.flatnonzero(result.arrays["irregular"].data).tolist() == [6, 13]
    np.savez(tmp_path / "one.npz", scores[:, None])
    assert np.array_equal(compared(pair, irregularity=f"{tmp_path}/one.npz").arrays["score"].data, scores)


def test_mahalanobis_is_of_the_training_inputs(pair: Pair) -> None:
    result = compared(pair, irregularity="mahalanobis")
    expected = reference.mahalanobis(pair.x, pair.held, RTOL)
    np.testing.assert_allclose(result.arrays["score"].data, expected, rtol=1e-10)
    assert result.provenance["mahalanobis_rtol"] == 1e-10


def test_strips_and_drawn_examples_give_the_same_as_the_kernel(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, adam=True)
    whole = compared(pair, preconditioned=True, train=12, seed=3, every=2)
    kernels = tscope.analyze(
        pair.net, "kernel", save=False, preconditioned=True, train=12, test=HELD, seed=3, at="0,2,4"
    )
    assert whole.arrays["step_net"].data.tolist() == [0, 2, 4]
    for name in ("train", "test"):
        found = whole.arrays[f"weight_norm_{name}_net"].data
        np.testing.assert_allclose(found, kernels.arrays[f"weight_norm_{name}"].data.mean(0), **EXACT)
    strips = compared(pair, preconditioned=True, train=12, seed=3, every=2, max_memory_mb=0.002)
    for name in ("norm_net", "weight_norm_test_net"):
        np.testing.assert_allclose(strips.arrays[name].data, whole.arrays[name].data, **EXACT)


def test_float32_examples_of_the_network_are_those_of_the_trees(tmp_path: Path) -> None:
    """Trees keep float64, networks are trained on the same numbers as float32."""
    x, y, held, held_y = problem()
    small = np.float32(x).astype(np.float64), np.float32(held).astype(np.float64)
    net, _ = network(tmp_path / "net.zarr", small[0], y, {"held": (small[1], None)})
    trees = ensemble(tmp_path / "trees.zarr", x, y, (held, held_y))
    result = tscope.analyze(net, "boosting", save=False, against=str(trees.path))
    assert result.provenance["shared_examples"] == TRAIN
    assert result.notes[0].startswith("irregularity is along the first principal component")

"""Every series of the metric `neural-collapse` against full matrices, and an exact frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

import tscope
from tests.optimizers.recorded import epochs, train
from tests.reference.collapse import collapse, simplex
from tscope.analyses.collapse.measures import Means, duality, variability
from tscope.analyses.collapse.measures import simplex as angles
from tscope.trace import Trace

CLASSES = 3


@dataclass
class Run:
    trace: Trace
    module: nn.Module
    held: Path
    points: Tensor
    labels: Tensor


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = torch.randn(count, 4, generator=random, dtype=torch.float64) + 0.8 * y[:, None]
    return x, y


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("collapse")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, CLASSES)).double()
    optimizer = optim.SGD(module.parameters(), lr=0.5)
    batches = epochs(*data(17, seed=1), size=6, count=3)
    trace = train(folder / "run.zarr", module, optimizer, batches, nn.functional.cross_entropy)
    points, labels = data(11, seed=2)
    np.savez(folder / "held.npz", x=points.numpy(), y=labels.numpy())
    return Run(trace, module, folder / "held.npz", points, labels)


def test_every_series_against_full_matrices(run):
    found = tscope.analyze(run.trace, "neural-collapse", save=False, every=1, probe=str(run.held))
    assert found.arrays["step"].data.tolist() == list(range(10))
    known = {tuple(row): int(label) for row, label in zip(*(v.tolist() for v in data(17, 1)), strict=True)}
    x = torch.from_numpy(run.trace["examples/input/0"])
    classes = np.array([known[tuple(row)] for row in x.tolist()])
    assert np.array_equal(found.arrays["class_train"].data, classes)
    assert np.array_equal(found.arrays["class_test"].data, run.labels.numpy())
    sets = {"train": (x, classes), "test": (run.points, run.labels.numpy())}
    for row in range(10):
        run.module.load_state_dict(run.trace.state_dict(row))
        W = run.module[2].weight.detach().numpy()
        features = {name: run.module[:2](points).detach().numpy() for name, (points, _) in sets.items()}
        centres = np.stack([features["train"][classes == c].mean(0) for c in range(CLASSES)])
        for name, (points, labels) in sets.items():
            expected = collapse(features[name], labels, W, centres)
            predicted = run.module(points).argmax(1).numpy()
            nearest = np.array(expected.pop("nearest"))
            expected |= {
                "nc4": np.mean(predicted != nearest),
                "accuracy": np.mean(predicted == labels),
                "rank": CLASSES - 1,
            }
            for kind, value in expected.items():
                assert found.arrays[f"{kind}_{name}"].data[row] == pytest.approx(value, rel=1e-11, abs=1e-13)
    assert found.scalars["nc3_test"] == found.arrays["nc3_test"].data[-1]
    assert (found.scalars["layer"], found.scalars["features"]) == ("2", 7)


@pytest.mark.parametrize(("classes", "features"), [(2, 2), (4, 6), (10, 64), (5, 4)])
def test_an_exact_frame_has_collapsed(classes, features):
    if features < classes:
        # C vectors of a simplex lie in C − 1 dimensions.
        wide = simplex(classes, classes)
        basis = np.linalg.svd(wide, full_matrices=False)[2][: classes - 1]
        frame = torch.from_numpy(wide @ basis.T)
    else:
        frame = torch.from_numpy(simplex(classes, features))
    labels = torch.arange(classes).repeat(3)
    h = 3.0 * frame[labels] + 0.7
    means = Means.of(h, labels, classes)
    nc1, within, between, rank = variability(h, means)
    assert rank == classes - 1
    assert max(nc1, within, *angles(means), duality(2.0 * frame, means)) <= 1e-12
    assert between == pytest.approx(9.0, rel=1e-14)
    assert torch.equal(means.nearest(h), labels)


def test_spread_within_classes_of_known_size():
    # Each class is its mean ± δ along one direction of the frame: Σ_W = δ²uuᵀ.
    frame = torch.from_numpy(simplex(4, 5))
    labels = torch.arange(4).repeat(2)
    direction = frame[0]
    h = frame[labels] + 0.1 * torch.tensor([1.0] * 4 + [-1.0] * 4).double()[:, None] * direction
    means = Means.of(h, labels, 4)
    nc1, within, _, _ = variability(h, means)
    assert within == pytest.approx(0.01, rel=1e-12)
    # Σ_B of a frame is 1/(C − 1) on its span, so tr(Σ_W Σ_B⁺)/C = δ²(C − 1)/C.
    assert nc1 == pytest.approx(0.01 * 3 / 4, rel=1e-12)


def test_directions_without_class_means_are_left_out():
    # Means on one line: Σ_B has rank 1, and what lies across the line does not count.
    line = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    labels = torch.arange(3).repeat(2)
    across = torch.tensor([[0.1, 0.5, 0.2]] * 3 + [[-0.1, -0.5, -0.2]] * 3, dtype=torch.float64)
    h = line[labels] + across
    nc1, within, between, rank = variability(h, Means.of(h, labels, 3))
    assert rank == 1
    assert within == pytest.approx(0.3, rel=1e-12)
    assert between == pytest.approx(2 / 3, rel=1e-12)
    # Along the line 0.1² of spread over ⅔, divided by three classes.
    assert nc1 == pytest.approx(0.01 / (2 / 3) / 3, rel=1e-12)


def test_every_class_counts_the_same():
    torch.manual_seed(0)
    h = torch.randn(40, 5, dtype=torch.float64)
    labels = torch.tensor([0] * 30 + [1] * 6 + [2] * 4)
    twice = torch.cat([h, h[30:]]), torch.cat([labels, labels[30:]])
    first, second = (variability(part, Means.of(part, of, 3)) for part, of in ((h, labels), twice))
    assert first == pytest.approx(second, rel=1e-13)
    expected = collapse(h.numpy(), labels.numpy(), np.ones((3, 5)), np.zeros((3, 5)))
    assert first[0] == pytest.approx(expected["nc1"], rel=1e-12)


def test_features_that_are_all_the_same_have_no_nc1():
    h = torch.ones(6, 3, dtype=torch.float64)
    nc1, within, between, rank = variability(h, Means.of(h, torch.arange(3).repeat(2), 3))
    assert np.isnan(nc1)
    assert (within, between, rank) == (0.0, 0.0, 0)

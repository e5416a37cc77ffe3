"""Balancedness of convolutions: of channels, through ReLU and pooling, and where it does not hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

from tests.analyses.layer_runs import make_run
from tests.optimizers.recorded import exported
from tscope.analyses.layerwise.pairs import find_pairs
from tscope.program import Program

RATE = 0.05


def network(*between: nn.Module, after: tuple[nn.Module, ...] = (nn.Flatten(),)) -> nn.Module:
    """Two convolutions and a linear layer: four inputs as a line, with places of their own behind each."""
    torch.manual_seed(2)
    first, second = nn.Conv1d(1, 3, 2, padding=1), nn.Conv1d(3, 4, 2, padding=1)
    start = nn.Sequential(nn.Unflatten(1, (1, 4)), first, *between, second, *after)
    width = start(torch.zeros(1, 4)).shape[1]
    return nn.Sequential(*start, nn.Linear(width, 3)).double()


def channels(tensors: dict[str, Tensor], below: str, above: str) -> np.ndarray:
    """Q (channel, channel) by sums over what each channel reads, and over what reads it."""
    W1, b, W2 = tensors[f"{below}.weight"], tensors[f"{below}.bias"], tensors[f"{above}.weight"]
    count = len(W1)
    if W2.dim() == 2:  # a weight for each place of a channel, channel by channel
        W2 = torch.stack(W2.split(W2.shape[1] // count, 1), 1)
    Q = np.zeros((count, count))
    for m in range(count):
        for k in range(count):
            Q[m, k] = float((W2[:, m] * W2[:, k]).sum() - (W1[m] * W1[k]).sum() - b[m] * b[k])
    return Q


CASES = {
    "direct": ((), (nn.Flatten(),), (True, True)),
    "relu": ((nn.ReLU(),), (nn.LeakyReLU(0.2), nn.Flatten()), (False, False)),
    "means": ((nn.AvgPool1d(2),), (nn.AdaptiveAvgPool1d(2), nn.Flatten()), (True, True)),
    "maxima": ((nn.MaxPool1d(2, stride=1),), (nn.ReLU(), nn.AvgPool1d(2), nn.Flatten()), (False, False)),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_follow_the_identity_of_gradient_descent(name: str, tmp_path: Path) -> None:
    between, after, linear = CASES[name]
    made = network(*between, after=after)
    layers = [key for key, value in made.named_children() if isinstance(value, nn.Conv1d | nn.Linear)]
    run = make_run(tmp_path, lambda p: optim.SGD(p, lr=RATE), made)
    found = run.analysed(parts="balance", every=1)
    assert found.provenance["linear_pairs"] == list(linear)
    for pair, (below, above) in enumerate(itertools.pairwise(layers)):
        kept = np.ones(1, bool) if linear[pair] else np.eye(len(run.thetas[0][f"{below}.weight"]), dtype=bool)
        Q = channels(run.thetas[0], below, above) * kept
        for row, seen in enumerate(run.steps, 1):
            Q = Q + RATE**2 * channels(seen.used, below, above) * kept
            here = channels(run.thetas[row], below, above) * kept
            assert found.arrays["balance"].data[row, pair] == pytest.approx(np.linalg.norm(here), rel=1e-12)
            np.testing.assert_allclose(here, Q, atol=1e-13)  # the identity itself, without tscope
    assert found.arrays["balance_off"].data.max() <= 1e-13
    assert 0 < found.scalars["balance_check"] <= 1e-14


def test_of_a_relu_or_maximum_only_the_diagonal_holds(tmp_path: Path) -> None:
    for name in ("relu", "maxima"):
        (tmp_path / name).mkdir()
        between, after, _ = CASES[name]
        run = make_run(tmp_path / name, lambda p: optim.SGD(p, lr=RATE), network(*between, after=after))
        below, above = "1", "3"
        expected = channels(run.thetas[0], below, above)
        for seen in run.steps:
            expected = expected + RATE**2 * channels(seen.used, below, above)
        off = np.abs(channels(run.thetas[-1], below, above) - expected)
        assert np.diag(off).max() < 1e-13
        assert off.max() > 1e-4


def pairs(module: nn.Module, x: Tensor) -> list[str]:
    return [str(pair) for pair in find_pairs(Program.load(*exported(module.double(), x.double())))]


class Token(nn.Module):
    """A linear layer over the places of each channel, not over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(1, 3, 2), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x)).flatten(1)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv1d(1, 3, 2), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 2, 2), nn.Flatten()),
        nn.Sequential(nn.Conv1d(1, 4, 2), nn.Conv1d(4, 2, 2, groups=2), nn.Flatten()),
        nn.Sequential(nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Conv1d(3, 2, 2), nn.Flatten()),
        nn.Sequential(nn.Conv1d(1, 3, 2), nn.ConvTranspose1d(3, 2, 2), nn.Flatten()),
        Token(),
    ],
    ids=["norm", "groups", "tanh", "transposed", "places"],
)
def test_layers_that_are_not_tied_are_no_pair(module: nn.Module) -> None:
    assert pairs(module, torch.zeros(2, 1, 4)) == []


def test_places_that_are_flattened_in_two_dimensions_are_weights_of_their_channel(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    assert pairs(module, torch.zeros(2, 1, 5, 5)) == ["0 → 4"]

"""The lazy limit: in NTK parametrisation a wider network's kernel moves less, and its shares stay."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn, optim

import tscope
from tests.optimizers.recorded import data, train

WIDTHS = (32, 256, 2048)
SEEDS = range(3)


class Wide(nn.Module):
    """f(x) = v·tanh(Wx/√d)/√width with all weights N(0, 1): the NTK parametrisation of a hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(width, 4, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(1, width, dtype=torch.float64))

    def extra_repr(self) -> str:
        """Recorded runs share the graph of modules that print alike (tests/optimizers/recorded.py)."""
        return f"width={len(self.inner)}"

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ self.inner.T / 2)
        return hidden @ self.outer.T / self.outer.shape[1] ** 0.5


def movement(folder, width: int, seed: int) -> float:
    torch.manual_seed(seed)
    module, batch = Wide(width), data(1)
    optimizer = optim.SGD(module.parameters(), lr=0.5)
    trace = train(folder / f"{width}-{seed}.zarr", module, optimizer, [batch] * 20, nn.functional.mse_loss)
    result = tscope.analyze(trace, "kernel", save=False, at="last", layers=False)
    return float(result.scalars["movement_train"])


def test_the_kernel_of_a_wide_network_moves_as_one_over_its_width(tmp_path):
    """O(1/√width) is the bound [Jacot18]; the exponent itself is −1 [Dyer20], measured −1.03."""
    moved = [np.sqrt(np.mean([movement(tmp_path, width, seed) ** 2 for seed in SEEDS])) for width in WIDTHS]
    exponent = np.polyfit(np.log(WIDTHS), np.log(moved), 1)[0]
    assert -1.15 < exponent < -0.85

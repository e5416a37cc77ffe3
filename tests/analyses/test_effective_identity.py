"""What inferred examples and labels may hide: variants of inputs, copies, broadcasting, divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn, optim

import tscope
from tests.optimizers.recorded import train
from tscope.optimizers import infer_loss

N, INPUTS, EPOCHS, BATCH = 24, 3, 4, 6

Batches = list[tuple[Tensor, Tensor]]


def draw(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, INPUTS, generator=generator, dtype=torch.float64)
    return x, torch.randn(N, 1, generator=generator, dtype=torch.float64)


def epochs(x: Tensor, y: Tensor, last: int = N) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(EPOCHS):
        order = torch.randperm(N, generator=generator)[:last]
        for start in range(0, last, BATCH):
            yield x[order[start : start + BATCH]], y[order[start : start + BATCH]]


def mirrored(batches: Iterator[tuple[Tensor, Tensor]]) -> Batches:
    generator = torch.Generator().manual_seed(2)

    def signs(rows: int) -> Tensor:
        return 1 - 2 * torch.randint(2, (rows, 1), generator=generator)

    return [(signs(len(x)) * x, y) for x, y in batches]


def notes(
    path: Path, batches: Batches, loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss
) -> list[str]:
    """Train a linear model, and return what is said of its training inputs and labels."""
    torch.manual_seed(0)
    module = nn.Linear(INPUTS, 1).double()
    trace = train(path / "run.zarr", module, optim.SGD(module.parameters(), lr=0.05), batches, loss)
    np.savez(path / "held.npz", x=np.random.default_rng(3).standard_normal((4, INPUTS)))
    result = tscope.analyze(trace, "effective-params", probe=str(path / "held.npz"), save=False)
    words = ("training inputs", "more than once", "all labels")
    return [note for note in result.notes if any(word in note for word in words)]


def test_epochs_need_no_word(tmp_path: Path) -> None:
    assert notes(tmp_path, [*epochs(*draw())]) == []


def test_epochs_that_leave_out_their_last_batch_need_no_word(tmp_path: Path) -> None:
    assert notes(tmp_path, [*epochs(*draw(), last=N - BATCH // 2)]) == []


def test_inputs_that_are_mirrored_at_random_are_noted(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, mirrored(epochs(*draw())))
    assert "were first used after others had come again" in note
    assert "each variant counts as an example with a label of its own" in note


def test_inputs_that_are_new_each_time_are_noted(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    batches = [
        (x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype), (y > 0).double())
        for x, y in epochs(*draw())
    ]
    (note,) = notes(tmp_path, batches, nn.functional.binary_cross_entropy_with_logits)
    assert note.startswith(f"each of the {N * EPOCHS} training inputs was used once: if inputs are augmented")


def test_inputs_that_are_equal_are_noted(tmp_path: Path) -> None:
    x, y = draw()
    pair = torch.cat([x, x[:5]]), torch.cat([y, y[:5]])
    (note,) = notes(tmp_path, [pair] * 6)
    assert note.startswith(f"a batch holds an input more than once: equal inputs count as one of the {N}")


def test_labels_that_were_broadcast_are_noted(tmp_path: Path) -> None:
    x, y = draw()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - target[:, 0]).square().mean()

    (note,) = notes(tmp_path, [(x, y)] * 6, loss)
    assert note.startswith("all labels are the same, as inferred from the gradients")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_run_that_diverges_is_followed_to_where_it_ends(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, y = (value.to(dtype) for value in draw())
    module = nn.Sequential(nn.Linear(INPUTS, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
    optimizer = optim.SGD(module.parameters(), lr=1e3 if dtype is torch.float32 else 1e9)
    trace = train(tmp_path / "run.zarr", module, optimizer, [(x, y)] * 60, nn.functional.mse_loss)
    loss = infer_loss(trace)
    order = [int(np.flatnonzero((row == x.numpy()).all(1))[0]) for row in trace["examples/input/0"]]
    rounding = 20 * float(torch.finfo(dtype).eps)
    assert float((loss.labels - y[order].double()).abs().max()) < rounding * float(loss.labels.abs().max())
    held = tmp_path / "held.npz"
    np.savez(held, x=np.random.default_rng(3).standard_normal((4, INPUTS)).astype(x.numpy().dtype))
    result = tscope.analyze(trace, "effective-params", probe=str(held), save=False)
    assert 1 <= int(result.scalars["steps"]) < 60
    assert math.isfinite(float(result.scalars["p_train"]))
    assert any("; figures end" in note for note in result.notes)

"""The three training runs that are timed: an MLP, and the CNN and Transformer of `examples/`."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import cnn_adadelta  # noqa: E402
import transformer_lm  # noqa: E402

PROBES = 256


@dataclass(frozen=True)
class Workload:
    """One run: a model, its optimizer, its batches, and held-out inputs.

    Attributes:
        loss: From the model's output and a batch's last tensor, the labels.
        batch: Draws the next batch: the model's inputs, then the labels.
        probe: Held-out model inputs, each (PROBES, …).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor | tuple[Tensor, Tensor], Tensor], Tensor]
    batch: Callable[[], tuple[Tensor, ...]]
    probe: tuple[Tensor, ...]
    clip: float | None = None


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    match name:
        case "sgd":
            return torch.optim.SGD(model.parameters(), lr=0.05)
        case "momentum":
            return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), lr=1e-3)
        case "adadelta":
            return torch.optim.Adadelta(model.parameters(), lr=0.5)
    raise ValueError(f"no optimizer {name!r}")


def load_images(side: int) -> tuple[Tensor, Tensor]:
    """The handwritten digits, as they are (side 8) or enlarged to the size and margins of MNIST (28)."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images))
    x = torch.tensor(images / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)[order]
    if side == 28:
        x = nn.functional.pad(nn.functional.interpolate(x, (20, 20), mode="bilinear"), (4, 4, 4, 4))
    return x, torch.tensor(labels)[order]


def classify(model: nn.Module, optimizer: str, images: Tensor, labels: Tensor, size: int) -> Workload:
    x, y = images[PROBES:], labels[PROBES:]

    def batch() -> tuple[Tensor, ...]:
        rows = torch.randint(len(x), (size,))
        return x[rows], y[rows]

    def loss(output: Tensor | tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target)  # log-softmax twice changes nothing

    return Workload(model, make_optimizer(optimizer, model), loss, batch, (images[:PROBES],))


def mlp(optimizer: str) -> Workload:
    images, labels = load_images(28)
    model = nn.Sequential(nn.Linear(784, 180), nn.ReLU(), nn.Linear(180, 80), nn.ReLU(), nn.Linear(80, 10))
    return classify(model, optimizer, images.flatten(1), labels, 256)


def cnn(optimizer: str) -> Workload:
    return classify(cnn_adadelta.Net(), optimizer, *load_images(8), 64)


def transformer(optimizer: str) -> Workload:
    text = transformer_lm.write_text(2000, random.Random(0))
    alphabet = sorted(set(text))
    data = torch.tensor([alphabet.index(character) for character in text])
    model = transformer_lm.GPT(len(alphabet))
    split = int(0.9 * len(data))

    def batch() -> tuple[Tensor, ...]:
        x, y = transformer_lm.get_batch(data[:split], 24, model.context)
        return x, y, y

    def loss(output: Tensor | tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return output[1]

    probe = transformer_lm.get_batch(data[split:], PROBES, model.context)
    return Workload(model, make_optimizer(optimizer, model), loss, batch, probe, clip=1.0)


WORKLOADS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
OPTIMIZERS = {"mlp": "adamw", "cnn": "adadelta", "transformer": "adamw"}

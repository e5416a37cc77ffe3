"""Train the 784-200-200-1 network on the squared error: the script whose effective parameters are timed.

Even digits of MNIST against odd ones, where TSCOPE_DATA names the folder with `mnist10k.npz`; else random
inputs, labelled by the sign of a random linear map.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

RATES = {"sgd": 0.05, "adamw": 1e-4}


def data_name() -> str:
    return "random inputs" if mnist() is None else "MNIST, even against odd"


def mnist() -> Path | None:
    folder = os.environ.get("TSCOPE_DATA")
    path = Path(folder) / "mnist10k.npz" if folder else None
    return path if path is not None and path.is_file() else None


def load(count: int, *, held_out: bool) -> tuple[Tensor, Tensor]:
    """Inputs (example, 784) and labels -1 or +1 (example, 1)."""
    path = mnist()
    if path is None:
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(784, 1, generator=generator)
        x = torch.randn(2 * count, 784, generator=generator)[count * held_out : count * (1 + held_out)]
        return x, (x @ direction).sign()
    part = "test" if held_out else "train"
    with np.load(path) as data:
        images, digits = data[f"x_{part}"][:count], data[f"y_{part}"][:count]
    if len(images) < count:
        raise SystemExit(f"{path.name} holds {len(images)} {part} pictures, got {count}")
    x = torch.from_numpy(images.reshape(count, 784)).float() / 255
    return x, 1.0 - 2.0 * torch.from_numpy(digits.astype(np.float32) % 2)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimizer", choices=list(RATES), required=True)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()

    torch.manual_seed(0)
    x, y = load(args.train, held_out=False)
    model = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 1))
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[args.optimizer]
    optimizer = kind(model.parameters(), lr=RATES[args.optimizer])
    order = torch.randperm(args.train)
    for _ in range(args.steps):
        if len(order) < args.batch:
            order = torch.randperm(args.train)
        batch, order = order[: args.batch], order[args.batch :]
        loss = nn.functional.mse_loss(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()

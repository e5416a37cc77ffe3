"""Train 784-200-200-1 on random inputs for many steps: the run whose kernel series is timed."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from benchmarks.train_curve import load

EXAMPLES, BATCH = 1024, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    x, y = load(EXAMPLES, held_out=False)
    model = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(args.steps):
        batch = torch.randint(len(x), (BATCH,))
        loss = nn.functional.mse_loss(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()

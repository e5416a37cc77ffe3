"""Regression on (β·x)²/2 with a layer of units h + εh²/2, averaged: grokking without decay [Kumar24].

At initialisation the tangent kernel is nearly linear in x for small ε, and badly aligned with the task, which
is quadratic. The network first fits the training set with that kernel, and learns the direction β later. A
large α, with which the output is scaled, makes it lazier. The readout is fixed; only the units are trained.

Source: Kumar, Bordelon, Gershman & Pehlevan, "Grokking as the Transition from Lazy to Rich Training
Dynamics".
"""

import argparse
from pathlib import Path

import torch
from progress import Log
from torch import Tensor, nn


class AveragedUnits(nn.Module):
    """f(x) = α/N Σ_i φ(w_i·x) minus its value at initialisation, φ(h) = h + εh²/2; x (example, input)."""

    start: Tensor

    def __init__(self, inputs: int, units: int, epsilon: float, alpha: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.alpha = alpha
        self.units = nn.Linear(inputs, units, bias=False)
        nn.init.normal_(self.units.weight, std=inputs**-0.5)
        self.register_buffer("start", self.units.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self._average(self.units(x)) - self._average(nn.functional.linear(x, self.start))

    def _average(self, h: Tensor) -> Tensor:
        return self.alpha * (h + self.epsilon / 2 * h * h).mean(1, keepdim=True)


def make_task(inputs: int, train: int, test: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaussian inputs with their targets: x_train, y_train, x_test, y_test."""
    generator = torch.Generator().manual_seed(seed)
    beta = torch.randn(inputs, generator=generator)
    x = torch.randn(train + test, inputs, generator=generator)
    y = (x @ (beta / beta.norm())).square()[:, None] / 2
    return x[:train], y[:train], x[train:], y[train:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=60)
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--train", type=int, default=220, help="training examples")
    parser.add_argument("--test", type=int, default=300, help="test examples")
    parser.add_argument("--epsilon", type=float, default=0.25, help="alignment of the kernel with the task")
    parser.add_argument("--alpha", type=float, default=1.0, help="scale of the output: large is lazy")
    parser.add_argument("--steps", type=int, default=2048)
    parser.add_argument(
        "--lr", type=float, default=1.0, help="in units in which the first kernel does not depend on sizes"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, metavar="FILE", help="write losses here, as CSV")
    parser.add_argument("--log-every", type=int, default=8, metavar="STEPS")
    args = parser.parse_args()

    x, y, x_test, y_test = make_task(args.inputs, args.train, args.test, args.seed)
    torch.manual_seed(args.seed)
    model = AveragedUnits(args.inputs, args.units, args.epsilon, args.alpha)
    lr = args.lr * args.units / (args.alpha**2 * args.inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    log = Log(args.log, args.log_every, (x, y, x_test, y_test))
    log.at(0, args.steps, model)
    for step in range(1, args.steps + 1):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.at(step, args.steps, model)
    log.write()


if __name__ == "__main__":
    main()

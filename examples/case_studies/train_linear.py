"""A linear network of two layers on a task whose modes have closed forms, in float64.

Labels are Y = U diag(s) Vᵀx, with orthonormal U and V. The inputs are whitened, or each holds one skill: x is
±v_k, and skill k is in a share D_k ∝ k^(−power) of the examples. The start is aligned with the task,
W₁ = first·R Vᵀ and W₂ = second·U Rᵀ, or random, with entries of these standard deviations.

Source: Nam et al., "Position: Solve Layerwise Linear Models First to Understand Neural Dynamical Phenomena".
"""

import argparse

import torch
from torch import Tensor, nn


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A random matrix (row, column) whose columns are orthonormal."""
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64))[0]


def whitened(examples: int, V: Tensor, generator: torch.Generator) -> Tensor:
    """Inputs x (example, input) with XᵀX/n = I."""
    return orthonormal(examples, len(V), generator) * examples**0.5


def skills(examples: int, V: Tensor, power: float, generator: torch.Generator) -> Tensor:
    """Inputs x = ±v_k (example, input), those of skill k in a share of them ∝ k^(−power), in random order."""
    share = torch.arange(1, V.shape[1] + 1, dtype=torch.float64) ** -power
    ends = (share.cumsum(0) / share.sum() * examples).round().long()
    which = torch.searchsorted(ends, torch.randperm(examples, generator=generator), right=True)
    sign = torch.randint(0, 2, (examples, 1), generator=generator) * 2 - 1
    return sign * V.T[which]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=8)
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--targets", type=float, nargs="+", default=[4.0, 2.0, 1.0], help="s, one an output")
    parser.add_argument("--task", choices=["whitened", "skills"], default="whitened")
    parser.add_argument("--power", type=float, default=1.5, help="of skills: how fast shares fall")
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--batch-size", type=int, help="default: all examples")
    parser.add_argument("--start", choices=["aligned", "random"], default="aligned")
    parser.add_argument("--first", type=float, default=0.2, help="scale of the first layer's weights")
    parser.add_argument("--second", type=float, default=0.2, help="scale of the second layer's weights")
    parser.add_argument("--rate", type=float, default=0.01, help="time of gradient flow that a step is")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(args.seed)
    outputs, modes = len(args.targets), min(args.inputs, len(args.targets))
    U, V = orthonormal(outputs, modes, generator), orthonormal(args.inputs, modes, generator)
    R = orthonormal(args.units, modes, generator)
    if args.task == "whitened":
        x = whitened(args.examples, torch.eye(args.inputs, dtype=torch.float64), generator)
    else:
        x = skills(args.examples, V, args.power, generator)
    y = x @ V @ torch.diag(torch.tensor(args.targets[:modes], dtype=torch.float64)) @ U.T

    first = nn.Linear(args.inputs, args.units, bias=False, dtype=torch.float64)
    second = nn.Linear(args.units, outputs, bias=False, dtype=torch.float64)
    with torch.no_grad():
        if args.start == "aligned":
            first.weight.copy_(args.first * R @ V.T)
            second.weight.copy_(args.second * U @ R.T)
        else:
            first.weight.normal_(std=args.first, generator=generator)
            second.weight.normal_(std=args.second, generator=generator)
    model = nn.Sequential(first, second)
    # The mean over outputs, too, makes a step of lr worth 2·lr/outputs of the flow on ½‖y − f‖².
    optimizer = torch.optim.SGD(model.parameters(), lr=args.rate * outputs / 2)
    size = args.batch_size or args.examples
    order = torch.empty(0, dtype=torch.long)
    for _ in range(args.steps):
        if len(order) < size:
            order = torch.randperm(args.examples, generator=generator)
        batch, order = order[:size], order[size:]
        loss = nn.functional.mse_loss(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.4g} after {args.steps} steps")


if __name__ == "__main__":
    main()

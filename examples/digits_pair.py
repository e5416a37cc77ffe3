"""Threes against fives: a 64-200-200-1 ReLU network, squared error on labels of -1 and +1."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def load_pair(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The digits 3 and 5, split in half: x_train, y_train, x_test, y_test."""
    images, labels = load_digits(return_X_y=True)
    pair = (labels == 3) | (labels == 5)
    x = torch.tensor(images[pair] / 16.0, dtype=torch.float32)
    y = torch.tensor(labels[pair] - 4, dtype=torch.float32).unsqueeze(1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, test = order[: len(x) // 2], order[len(x) // 2 :]
    return x[train], y[train], x[test], y[test]


def make_network(hidden: int = 200) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )


def make_optimizer(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=lr)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9 if name == "momentum" else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--optimizer", choices=["sgd", "momentum", "adamw"], default="sgd")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", metavar="FILE", help="write the trained state_dict here")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    x_train, y_train, x_test, y_test = load_pair()
    model = make_network()
    optimizer = make_optimizer(args.optimizer, model, args.lr)

    order = torch.randperm(len(x_train))
    for step in range(1, args.steps + 1):
        if len(order) < args.batch_size:
            order = torch.randperm(len(x_train))
        batch, order = order[: args.batch_size], order[args.batch_size :]
        loss = nn.functional.mse_loss(model(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            with torch.no_grad():
                accuracy = (model(x_test).sign() == y_test).float().mean().item()
            print(f"step {step:4d}  loss {loss.item():.4f}  test accuracy {accuracy:.3f}")

    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()

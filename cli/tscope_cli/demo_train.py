# mypy: allow-untyped-calls
"""A small, ordinary training script, for `tscope demo`: two spirals, told apart by a two-layer network.

Nothing in it knows about tscope. The classes can only be separated by a very curved boundary, so the network
has to leave its linearisation at initialisation far behind: that is what the demonstration shows.
"""

import argparse
import math

import torch
from torch import nn
from torch.nn import functional as F


def spirals(count: int, noise: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points on two interleaved spirals, and which of them each point is on."""
    label = torch.randint(0, 2, (count,), generator=generator)
    turn = torch.rand(count, generator=generator).sqrt()
    angle = 3.0 * math.pi * turn + math.pi * label
    point = torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1)
    return point + noise * torch.randn(count, 2, generator=generator), label


class Net(nn.Module):
    """Two hidden layers of tanh units, one logit a class."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, width)
        self.fc2 = nn.Linear(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map points (example, 2) to logits (example, 2)."""
        x = torch.tanh(self.fc1(4.0 * x))
        x = torch.tanh(self.fc2(x))
        logits: torch.Tensor = self.head(x)
        return logits


@torch.no_grad()
def evaluate(model: Net, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return loss and accuracy on held-out points."""
    model.eval()
    logits = model(x)
    model.train()
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def main() -> None:
    """Train, and report on held-out points every ten epochs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(args.seed)
    train_x, train_y = spirals(800, 0.02, generator)
    test_x, test_y = spirals(200, 0.02, generator)

    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-3)

    for epoch in range(1, args.epochs + 1):
        order = torch.randperm(len(train_x), generator=generator)
        for batch in order.split(args.batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(train_x[batch]), train_y[batch])
            loss.backward()
            optimizer.step()
        if epoch % 10 == 0:
            test_loss, accuracy = evaluate(model, test_x, test_y)
            print(f"epoch {epoch:3d}  loss {loss.item():.4f}  test {test_loss:.4f}  accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()

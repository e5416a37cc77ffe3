"""An LSTM that tells noisy waveforms apart (sine, square, triangle, sawtooth), trained with Adam."""

import argparse
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NAMES = ("sine", "square", "triangle", "sawtooth")


def make_waves(count: int, length: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    label = rng.integers(len(NAMES), size=count)
    frequency = rng.uniform(1.5, 3.0, size=(count, 1))
    phase = rng.uniform(0.0, 1.0, size=(count, 1))
    turns = frequency * np.arange(length) / length + phase
    saw = 2.0 * (turns % 1.0) - 1.0
    shapes = np.stack(
        [np.sin(2.0 * math.pi * turns), np.sign(saw), 2.0 * np.abs(saw) - 1.0, saw]
    )  # (shape, count, length)
    waves = shapes[label, np.arange(count)] + rng.normal(0.0, 0.15, size=(count, length))
    return torch.from_numpy(waves).float().unsqueeze(-1), torch.from_numpy(label)


class Classifier(nn.Module):
    def __init__(self, hidden: int = 32, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, num_layers=layers, batch_first=True, dropout=dropout)
        self.linear = nn.Linear(hidden, len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.lstm(x)  # (batch, time, hidden)
        return self.linear(hidden[:, -1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", metavar="FILE", help="write the trained state_dict here")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    train_set = TensorDataset(*make_waves(args.examples, args.length, rng))
    x_test, y_test = make_waves(256, args.length, rng)
    loader = DataLoader(train_set, batch_size=args.batch_size, shuffle=True)

    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    for epoch in range(1, args.epochs + 1):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            model.eval()
            accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
        print(f"epoch {epoch}: last batch loss {loss.item():.4f}, held-out accuracy {accuracy:.3f}")

    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()

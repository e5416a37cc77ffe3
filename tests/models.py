"""Small models and data for tests: fixed seeds, batches of a few examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """A convolution with BatchNorm, whose buffers move while it trains."""

    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = act()
        self.head = nn.Linear(3 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.conv(x))).flatten(1))


class Attention(nn.Module):
    """Embedding, one attention block and a tied output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.head(self.norm(x).mean(1))


class Recurrent(nn.Module):
    """An LSTM classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def mlp(outputs: int, act: type[nn.Module] = nn.Tanh, inputs: int = 4, width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width), act(), nn.Linear(width, width), act(), nn.Linear(width, outputs)
    )


def batches(make, steps: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    return [make(size) for _ in range(steps)]


def signs(size: int, inputs: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, inputs)
    return x, (x[:, :1] * x[:, 1:2]).sign()


def classes(size: int, outputs: int = 3, inputs: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, inputs)
    return x, x[:, :outputs].argmax(1)


def images(size: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 1, 4, 4)
    return x, (x.mean((1, 2, 3)) > 0).long()


def tokens(size: int) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 7, (size, 5))
    return x, x[:, 2]


def sequences(size: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 6, 3)
    return x, (x.sum((1, 2)) > 0).long()

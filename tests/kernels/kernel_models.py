"""Models that use their parameters in every way a layer-wise kernel must know, or must not be fooled by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tscope.program import Program, export

DOUBLE = torch.float64


class Convolutions(nn.Module):
    """Stride, dilation, groups, padding of every kind; one, two and three dimensions."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4)
        self.dilated = nn.Conv2d(8, 6, (2, 3), dilation=(2, 1), padding=(0, 2), groups=2, bias=False)
        self.same = nn.Conv2d(6, 4, (2, 4), padding="same", dilation=(3, 1))
        self.volume = nn.Conv3d(1, 3, (2, 2, 1), padding=(1, 0, 0))
        self.line = nn.Conv1d(3, 2, 5, stride=3)
        self.up = nn.ConvTranspose1d(2, 2, 3, stride=2)
        self.out = nn.LazyLinear(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.dilated(torch.tanh(self.depthwise(x))))
        x = torch.tanh(self.same(x))
        x = torch.tanh(self.volume(x[:, None])).flatten(2)
        return self.out(torch.tanh(self.up(torch.tanh(self.line(x)))).flatten(1))


class Frames(nn.Module):
    """Images of a clip folded into the batch; tokens in front of the examples, and behind them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3)
        self.first = nn.Linear(12, 4)
        self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4)
        self.out = nn.Linear(20, outputs)

    def forward(self, x: Tensor) -> Tensor:
        rows, frames = x.shape[:2]
        x = self.norm(self.conv(x.flatten(0, 1)[:, None])).flatten(1)
        x = torch.tanh(self.first(x)).view(rows, frames, -1)
        x = torch.tanh(self.second(x.transpose(0, 1).reshape(rows * frames, -1)))
        x = torch.tanh(self.third(x.view(frames, rows, -1)))
        return self.out(x.transpose(0, 1).flatten(1))


class Tokens(nn.Module):
    """Two tables (one with padding, one used once a row), a class token, learned positions, tied weights."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.words, self.kind = nn.Embedding(11, 6, padding_idx=0), nn.Embedding(3, 6)
        self.positions, self.cls = nn.Parameter(torch.randn(1, 5, 6)), nn.Parameter(torch.randn(1, 1, 6))
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(6, 2, batch_first=True, kdim=6, vdim=4)
        self.mix = nn.Linear(6, 6)
        self.values = nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.randn(6))
        self.out = nn.Linear(6, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kind = self.kind(x[:, 0] % 3)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.words(x)], 1) + self.positions
        x = x + self.attention(self.norm(x), self.norm(x), self.norm(x), need_weights=False)[0]
        x = x + self.cross(x, x, self.values(x), need_weights=False)[0]
        x = torch.tanh(self.mix(torch.tanh(self.mix(x)))) * self.scale - kind[:, None]
        return self.out(x[:, 0])


class Matrices(nn.Module):
    """Weights without layers: on the right, transposed, on the left, shared by transposition, scalars."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.right, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5))
        self.turned = nn.Parameter(torch.randn(3, 5))
        self.shared = nn.Parameter(torch.randn(3, 6))
        self.left = nn.Parameter(torch.randn(3, 3))
        self.factor, self.gate = nn.Parameter(torch.randn(())), nn.Parameter(torch.randn(3))
        self.unused = nn.Parameter(torch.randn(2))
        self.frozen = nn.Parameter(torch.randn(outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(torch.addmm(self.bias, x, self.right))
        x = torch.tanh(x @ self.turned.T) * self.factor
        x = torch.tanh(torch.tanh(x @ self.shared) @ self.shared.t())
        x = (self.left @ x[..., None])[..., 0] * (self.gate * self.gate) / self.gate.exp()
        return F.linear(x, self.frozen)


class Norms(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.group, self.instance = nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True)
        self.batch, self.layer, self.rms = nn.BatchNorm1d(4), nn.LayerNorm((4, 5)), nn.RMSNorm(5)
        self.out = nn.Linear(20, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.instance(self.group(x)))
        return self.out(self.rms(torch.tanh(self.layer(self.batch(x)))).flatten(1))


class Sequence(nn.Module):
    """A recurrent network in (position, example, feature)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(3, 4), nn.GRU(4, 3, bidirectional=True)
        self.plain = nn.RNN(6, 3, num_layers=2, nonlinearity="relu", bias=False, batch_first=True)
        self.tanh = nn.RNN(3, 3, batch_first=True)
        self.each, self.out = nn.Linear(3, 4), nn.Linear(4, outputs)
        self.start = nn.Parameter(torch.randn(1, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        x, (_, cell) = self.lstm(x.transpose(0, 1))
        x = self.plain(self.gru(x)[0].transpose(0, 1))[0]
        x = self.tanh(x, self.start.expand(-1, x.shape[0], -1))[0]
        return self.out(torch.tanh(self.each(x))[:, -1]) + cell.sum((0, 2))[:, None]


class Projected(nn.Module):
    """Recurrent in a way that is not written out as linear maps."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, proj_size=2, batch_first=True)
        self.cell = nn.GRUCell(2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.lstm(x)[0].sum(1))


def _floats(*shape: int) -> Callable[[int], tuple[Any, ...]]:
    return lambda rows: (torch.randn(rows, *shape),)


def _padded(rows: int) -> tuple[Any, ...]:
    tokens = torch.randint(1, 11, (rows, 4))
    tokens[:, -1] = 0
    return (tokens,)


def mlp(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, outputs))


BUILT: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], tuple[Any, ...]]]] = {
    "mlp": (mlp, _floats(6)),
    "convolutions": (Convolutions, _floats(4, 9, 8)),
    "frames": (Frames, _floats(5, 3, 3)),
    "tokens": (Tokens, _padded),
    "matrices": (Matrices, _floats(4)),
    "norms": (Norms, _floats(4, 5)),
    "sequence": (Sequence, _floats(5, 3)),
    "projected": (Projected, _floats(5, 3)),
}


@dataclass(frozen=True)
class Case:
    """A float64 module, and its program."""

    module: nn.Module
    program: Program
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    inputs: list[Tensor]


def case(name: str, outputs: int, rows: int = 5) -> Case:
    """Return a model with moved statistics and parameters, so that none has a special value."""
    torch.manual_seed(0)
    make, arguments = BUILT[name]
    module = make(outputs)
    with torch.no_grad():
        module.train()(*arguments(rows))
        for value in module.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return exported(module, arguments(rows))


def exported(module: nn.Module, args: tuple[Tensor, ...]) -> Case:
    program = Program.load(*export(module, args, {}, output=None, gradient_path=None)).to(DOUBLE)
    module = module.double().eval()
    return Case(
        module,
        program,
        {name: value.detach() for name, value in module.named_parameters()},
        dict(module.named_buffers()),
        [value.double() if value.is_floating_point() else value for value in args],
    )

"""Networks whose tangent kernels are timed, and the flops that their kernel blocks need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from tscope.kernels import Jacobian
from tscope.program import OutputFunctional, Program, export


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them, initialised so that deep ones stay in scale."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
    return nn.Sequential(*layers[:-1])


def convolutional() -> nn.Sequential:
    """Two convolutions with pooling and two linear layers, on 28x28 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )


class Transformer(nn.Module):
    """A classifier of sequences: embedding, pre-norm blocks, mean, one output."""

    def __init__(self, depth: int, width: int, context: int = 32, vocabulary: int = 64) -> None:
        super().__init__()
        self.tokens, self.positions = (
            nn.Embedding(vocabulary, width),
            nn.Parameter(torch.zeros(context, width)),
        )
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean(1))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


@dataclass(frozen=True, eq=False)
class Network:
    """A module and its program.

    Attributes:
        program: The exported module.
        draw: Makes inputs (example, …), so many.
    """

    module: nn.Module
    program: Program
    draw: Callable[[int], Tensor]

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.module.named_parameters()}

    @property
    def size(self) -> int:
        return sum(value.numel() for value in self.module.parameters())

    @property
    def outputs(self) -> int:
        with torch.no_grad():
            return self.module(self.draw(2)).shape[1]

    def jacobian(self) -> Jacobian:
        return Jacobian(self.program, OutputFunctional(), self.parameters, dict(self.module.named_buffers()))


def network(make: Callable[[], nn.Module], draw: Callable[[int], Tensor]) -> Network:
    torch.manual_seed(0)
    module = make().eval()
    graph, constants = export(module, (draw(3),), {}, output=None, gradient_path=None)
    arrays = {name: value.numpy() for name, value in constants.items()}
    return Network(module, Program.load(graph, arrays), draw)


def normals(*shape: int) -> Callable[[int], Tensor]:
    return lambda rows: torch.randn(rows, *shape)


def indices(context: int = 32, vocabulary: int = 64) -> Callable[[int], Tensor]:
    return lambda rows: torch.randint(vocabulary, (rows, context))


def block_flops(found: Network, rows: int, columns: int, preconditioned: bool) -> float:
    """Flops that the kernel block of linear layers and convolutions needs, by the cheaper way for each.

    Forward 2·(N+B)·s·i·o; backward the same for every output, but not below the first layer; then the
    Gram products of pairs, 2·N·B·s²·(i + C²·o), or the Jacobians, C·(N+B)·s·i·o multiplications and as many
    additions where there are positions, and their product 2·N·B·C²·i·o. N rows, B columns, C outputs, s
    positions, i and o features of a layer. Biases and activations are left out.
    """
    c, both, pairs = found.outputs, rows + columns, rows * columns
    total = 0.0
    for k, (s, i, o) in enumerate(_layers(found)):
        total += 2 * both * s * i * o * (1 if k == 0 else 1 + c)
        gram = 2 * pairs * s * s * (i + c * c * o)
        formed = c * both * i * o * (1 if s == 1 else 2 * s) + 2 * pairs * c * c * i * o
        total += formed if preconditioned else min(gram, formed)
    return total


def _layers(found: Network) -> Sequence[tuple[int, int, int]]:
    """Positions, input and output features of each linear layer and convolution, in order."""
    sizes = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        positions = output[0, 0].numel() if isinstance(layer, nn.Conv2d) else output[0].numel() // len(weight)
        sizes.append((positions, weight[0].numel(), len(weight)))

    hooks = [
        layer.register_forward_hook(note)
        for layer in found.module.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    with torch.no_grad():
        found.module(found.draw(1))
    for hook in hooks:
        hook.remove()
    return sizes

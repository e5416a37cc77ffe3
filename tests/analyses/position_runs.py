"""Small float64 models with a label at each position, and runs of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import tscope
from tests.optimizers.recorded import Recorder

LENGTH, TOKENS, IGNORE = 5, 7, -100


class Tagger(nn.Module):
    """Scores (example, position, class) of tokens; or flat, or classes first."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.tokens = nn.Embedding(TOKENS, 6)
        self.mix = nn.Linear(LENGTH, LENGTH)
        self.head = nn.Linear(6, 3)
        self.double()

    def extra_repr(self) -> str:
        return self.layout  # programs are exported once for each repr

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.mix(self.tokens(x).transpose(1, 2)).transpose(1, 2))
        f = self.head(h)
        if self.layout == "first":
            return f.transpose(1, 2)
        return f.flatten(1) if self.layout == "flat" else f


def tagged(count: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randint(0, TOKENS, (count, LENGTH), generator=random)
    y = (x + x.roll(1, 1)) % 3
    hidden = torch.rand(count, LENGTH, generator=random) < 0.3
    return x, y.masked_fill(hidden, IGNORE)


def loss_of(f: Tensor, y: Tensor) -> Tensor:
    if f.dim() == 2:
        f = f.view(len(f), LENGTH, 3)
    if f.shape[1] != 3:
        f = f.transpose(1, 2)
    return functional.cross_entropy(f, y, ignore_index=IGNORE)


def short_run(path: Path, loss, *, keep: bool = True, steps: int = 3) -> tscope.Trace:
    """A run on the same examples in each batch; `loss(f, y, step)`."""
    torch.manual_seed(0)
    module = Tagger("last")
    x, y = tagged(6)
    recorder = Recorder(path, module, torch.optim.SGD(module.parameters(), lr=0.5), x)
    for step in range(steps):
        recorder.optimizer.zero_grad()
        loss(recorder.forward(x), y, step).backward()
        if not keep:
            for micro in recorder.micro:
                object.__setattr__(micro, "output", None)
                object.__setattr__(micro, "output_grad", None)
        recorder.step()
    return recorder.close()

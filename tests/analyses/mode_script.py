"""A script that trains a linear network of six modes, and the same by six pairs of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

TARGET = np.array([2.0, 1.5, 1.2, 1.0, 1.0, 1.0])
"""S of each mode; the last three are skills of the frequencies 1, ½, ¼."""
FREQUENCY = np.array([1.0, 1.0, 1.0, 1.0, 0.5, 0.25])
BELOW = np.array([0.2, 0.1, 0.3, 0.25, 0.25, 0.25])
"""How far W₁ is along each mode at the start; W₂ is by `ABOVE`. The second is lazy, the third between."""
ABOVE = np.array([0.2, 2.5, 0.9, 0.25, 0.25, 0.25])
OUTPUTS = 6

SCRIPT = f"""
import sys
import torch
from torch import nn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
rate, steps = float(sys.argv[1]), int(sys.argv[2])
S, D, a, b = (torch.tensor(values) for values in {[v.tolist() for v in (TARGET, FREQUENCY, BELOW, ABOVE)]})

def orthogonal(rows, columns):
    return torch.linalg.qr(torch.randn(rows, columns))[0]

U, V, R = orthogonal({OUTPUTS}, 6), orthogonal(8, 6), orthogonal(9, 6)
# Some examples come more than once: they have the same input, bit for bit.
times = torch.tensor([4, 4, 4, 8, 4, 2])
mode = torch.arange(6).repeat_interleave(times)
size = (D * len(mode) / times).sqrt()
x = size[mode, None] * V.T[mode]
y = x @ V @ torch.diag(S) @ U.T
model = nn.Sequential(nn.Linear(8, 9, bias=False), nn.Linear(9, {OUTPUTS}, bias=False))
with torch.no_grad():
    model[0].weight.copy_(R @ torch.diag(a) @ V.T)
    model[1].weight.copy_(U @ torch.diag(b) @ R.T)
optimizer = torch.optim.SGD(model.parameters(), lr=rate)
for step in range(steps):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()
"""


def time_of(rate: float) -> float:
    """The time of a step: mse_loss is 2/C times ½E‖y − f‖² of C outputs."""
    return rate * 2 / OUTPUTS


def descent(rate: float, steps: int) -> tuple[Values, Values]:
    """The same steps of a and b (step, mode), each mode by itself."""
    h, a, b = time_of(rate), [BELOW], [ABOVE]
    for _ in range(steps):
        off = h * FREQUENCY * (TARGET - a[-1] * b[-1])
        a.append(a[-1] + off * b[-1])
        b.append(b[-1] + off * a[-2])
    return np.stack(a), np.stack(b)

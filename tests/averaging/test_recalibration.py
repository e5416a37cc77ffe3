"""BatchNorm's statistics computed anew, against `torch.optim.swa_utils.update_bn`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tscope_format.errors import AnalysisError

from tscope.averaging import Recalibration
from tscope.program import Program, export


class Residual(nn.Module):
    """Convolutions whose normalisation is used twice, once before and once after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.BatchNorm1d(4, affine=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = (x + self.norm(self.inner(x))).mean((2, 3))
        return self.head(self.last(x))


class Untracked(nn.Module):
    """A normalisation without running statistics: there is nothing to recalibrate."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def program(module: nn.Module, x: Tensor) -> Program:
    graph, constants = export(module, (x,), {}, output=None, gradient_path=None)
    return Program.load(graph, constants)


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, Program, Tensor]:
    torch.manual_seed(0)
    module = Residual().double()
    x = torch.randn(23, 1, 5, 5, dtype=torch.float64)
    return module, program(module, x[:4]), x


def test_the_statistics_are_those_of_update_bn(residual):
    module, graph, x = residual
    theta = {name: value.detach() + 0.1 for name, value in module.named_parameters()}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    batches = [x[start : start + 8] for start in range(0, 23, 8)]  # the last one is partial
    found = Recalibration(graph)(theta, buffers, [(batch,) for batch in batches])
    module.load_state_dict({**theta, **buffers})
    update_bn(batches, module)
    for name, value in module.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert torch.equal(found[name], buffers[name])
            continue
        assert not torch.allclose(value, buffers[name])
        torch.testing.assert_close(found[name], value, rtol=1e-13, atol=1e-14)
    module.eval()
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(graph(theta, found, (x,)), expected, rtol=1e-12, atol=1e-13)


def test_the_program_itself_is_left_alone(residual):
    module, graph, x = residual
    theta, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    with torch.no_grad():
        before = graph(theta, buffers, (x,))
        recalibration = Recalibration(graph)
        recalibration(theta, buffers, [(x,)])
        assert torch.equal(graph(theta, buffers, (x,)), before)
    assert recalibration.layers == 3


def test_a_batch_of_one_example_has_no_variance(residual):
    module, graph, x = residual
    theta, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    with pytest.raises(AnalysisError, match=r"one value for each channel of BatchNorm 'last.running_mean'"):
        Recalibration(graph)(theta, buffers, [(x[:1],)])
    with pytest.raises(AnalysisError, match="there are no training examples"):
        Recalibration(graph)(theta, buffers, [])


def test_without_running_statistics_nothing_is_recalibrated():
    torch.manual_seed(0)
    module, x = Untracked().double(), torch.randn(6, 3, dtype=torch.float64)
    recalibration = Recalibration(program(module, x))
    assert recalibration.layers == 0
    assert recalibration(dict(module.named_parameters()), {}, [(x,)]) == {}

"""Walking a recorded run again gives its states bit for bit, from any row."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tscope
from tests import models
from tests.traces import Probe, Run, train, write
from tscope.replay import Replay

STEPS = 300  # more than one block of rows and one anchor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    module = models.Conv()
    sgd = torch.optim.SGD(module.parameters(), 0.05)
    data = models.batches(models.images, STEPS)
    x, y = models.images(4)
    path = tmp_path_factory.mktemp("replay") / "run.zarr"
    probes = {"held": Probe((x,), y, projected=False)}
    return train(path, module, sgd, data, nn.functional.cross_entropy, probes)


def equal(found, expected):
    if found.keys() != expected.keys():
        return False
    pairs = [(found[name], expected[name]) for name in found]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_every_row_is_the_state_of_the_loop_bit_for_bit(run):
    rows = list(Replay(tscope.open(run.path)).rows())
    assert [row for row, _, _ in rows] == list(range(STEPS + 1))
    for row, theta, buffers in rows:
        assert equal(theta, run.thetas[row])
        assert equal(buffers, run.buffers[row])


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 9), (255, 260), (298, 301), (7, 7)])
def test_a_walk_may_start_anywhere(run, start, stop):
    rows = list(Replay(tscope.open(run.path)).rows(start, stop))
    assert [row for row, _, _ in rows] == list(range(start, stop))
    assert all(equal(theta, run.thetas[row]) for row, theta, _ in rows)


@pytest.mark.parametrize("wanted", [[0, 299], [3, 4, 290], [7], []])
def test_chosen_rows_near_and_far_apart(run, wanted):
    rows = list(Replay(tscope.open(run.path)).at(wanted))
    assert [row for row, _, _ in rows] == wanted
    for row, theta, buffers in rows:
        assert equal(theta, run.thetas[row])
        assert equal(buffers, run.buffers[row])


def test_tensors_share_the_blocks_memory(run):
    _, theta, _ = next(Replay(tscope.open(run.path)).rows())
    storages = {value.untyped_storage().data_ptr() for value in theta.values()}
    assert len(storages) == 1


def test_floating_tensors_are_cast_and_integers_are_not(run):
    _, theta, buffers = next(Replay(tscope.open(run.path), dtype=torch.float64).rows())
    assert {value.dtype for value in theta.values()} == {torch.float64}
    assert buffers["norm.num_batches_tracked"].dtype == torch.int64
    assert buffers["norm.running_mean"].dtype == torch.float64


def test_rows_that_do_not_exist_are_refused(run):
    with pytest.raises(tscope.UsageError, match=r"rows 0 to 400 were asked .* the trace holds rows 0 to 301"):
        list(Replay(tscope.open(run.path)).rows(0, 400))


def test_parameters_of_several_dtypes(tmp_path):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.half = nn.Linear(3, 3).to(torch.bfloat16)
            self.wide = nn.Linear(3, 2).double()
            self.one = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.wide(self.half(x.to(torch.bfloat16)).double()) * self.one

    torch.manual_seed(0)
    run = Run(tmp_path / "mixed.zarr", Mixed())
    for _ in range(3):
        run.remember()
        for value in run.module.parameters():
            value.data.add_(torch.randn_like(value))
    write(run, (torch.zeros(2, 3),), {}, program=False)
    for row, theta, _ in Replay(tscope.open(run.path)).rows():
        assert equal(theta, run.thetas[row])

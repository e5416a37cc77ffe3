"""Several processes: the same figures as one, errors that arrive, and nobody left behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tscope_format.errors import AnalysisError

import tscope
from tests.analyses.effective_runs import Run, make_run
from tscope.analyses.effective import ahead, crew
from tscope.analyses.effective.crew import Crew
from tscope.analyses.effective.options import Options
from tscope.analyses.effective.worker import Opening


def analysed(run: Run, **options: object):
    return tscope.analyze(run.trace, "effective-params", probe=str(run.held), save=False, **options)


def children() -> list[str]:
    """Return the commands of this process's children."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [Path(f"/proc/{child}/cmdline").read_text() for child in found]


def same(a, b, rtol: float) -> None:
    assert a.scalars["form"] == b.scalars["form"]
    for name, array in a.arrays.items():
        scale = np.abs(array.data).max()
        assert np.abs(b.arrays[name].data - array.data).max() <= rtol * scale, name


def test_kernel_blocks_of_workers_give_the_same_bits(tmp_path, monkeypatch):
    run = make_run(tmp_path, outputs=3, optimizer="adagrad")
    alone = analysed(run)
    taken = []
    blocks = Crew.blocks

    def counted(self, *, wait):
        for block in blocks(self, wait=wait):
            taken.append(block[0])
            yield block

    monkeypatch.setattr(Crew, "blocks", counted)
    # As if this process had always something better to do: all blocks come from the worker.
    monkeypatch.setattr(ahead, "_OUTSTANDING", 9)
    together = analysed(run, workers=2)
    assert taken
    same(alone, together, 0.0)
    assert together.scalars["adapter_residual"] == alone.scalars["adapter_residual"]
    assert not any("worker" in command for command in children())


@pytest.mark.parametrize(
    ("loss", "form"), [("cross_entropy", "parameter"), pytest.param("mse", "probes", marks=pytest.mark.slow)]
)
def test_parts_of_the_columns_give_the_same_figures(tmp_path, loss, form):
    run = make_run(tmp_path, optimizer="adamw", outputs=3, loss=loss)
    alone, together = (analysed(run, form=form, loss=loss, workers=workers) for workers in (1, 2))
    same(alone, together, 1e-12)
    assert together.scalars["probes"] == alone.scalars["probes"]
    assert together.scalars["label_residual"] < 1e-12


def test_an_error_of_a_worker_is_raised_here(tmp_path):
    run = make_run(tmp_path)
    opening = Opening(str(run.trace.path), run.trace.name, Options(probe="nothing.npz"))
    with Crew(opening, 1, print) as members:
        members.least_busy(1)
        with pytest.raises(tscope.UsageError, match=r"nothing\.npz"):
            list(members.blocks(wait=True))
    assert not any("worker" in command for command in children())


def test_a_worker_that_is_killed_is_named(tmp_path):
    run = make_run(tmp_path)
    opening = Opening(str(run.trace.path), run.trace.name, Options(probe=str(run.held)))
    with Crew(opening, 1, print) as members:
        members.least_busy(1)
        members._members[0].process.kill()
        with pytest.raises(AnalysisError, match=r"a worker process .* ended \(exit code -9\); if memory ran"):
            list(members.blocks(wait=True))


def test_workers_end_when_the_process_that_asks_is_gone(tmp_path):
    run = make_run(tmp_path)
    opening = Opening(str(run.trace.path), run.trace.name, Options(probe=str(run.held)))
    with Crew(opening, 1, print) as members:
        members.least_busy(1)
        (member,) = members._members
        member.connection.close()
        assert member.process.wait(timeout=60) == 0
        member.connection = crew.Connection(os.open(os.devnull, os.O_RDWR))


def test_a_run_that_still_grows_is_followed_by_one_process(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    monkeypatch.setattr(type(run.trace), "status", "recording")
    monkeypatch.setattr(Crew, "_start", None)
    assert analysed(run, workers=2).provenance["workers"] == 1

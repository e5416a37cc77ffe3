"""Recorded runs are the bare runs, bit for bit, and their traces end where the scripts did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from recorded_example import Example, recorder, run_script

import tscope


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def differences(left: Mapping[str, object], right: Mapping[str, object]) -> list[str]:
    """The names whose values are not the same: tensors by dtype, shape and bits, all else by equality."""
    found = sorted(left.keys() ^ right.keys())
    for name in left.keys() & right.keys():
        a, b = left[name], right[name]
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
        else:
            same = type(a) is type(b) and a == b
        if not same:
            found.append(name)
    return found


def test_a_recorded_run_is_bit_identical(example: Example) -> None:
    assert differences(example.bare.state, example.recorded.state) == []


def test_the_dump_sees_what_could_differ(example: Example) -> None:
    kinds = {name.split(".")[1] for name in example.bare.state if name.startswith("module")}
    assert kinds >= {"parameter", "grad", "training"}
    assert any(name.startswith("optimizer") for name in example.bare.state)
    gradients = [v for k, v in example.bare.state.items() if ".grad." in k]
    assert all(isinstance(gradient, torch.Tensor) for gradient in gradients)


def test_output_and_exit_code_are_the_scripts_own(example: Example) -> None:
    assert example.recorded.code == example.bare.code == 0
    assert example.recorded.stdout == example.bare.stdout != ""


def test_the_recorder_adds_only_its_own_lines_to_stderr(example: Example) -> None:
    added = [
        line for line in example.recorded.stderr.splitlines() if line not in example.bare.stderr.splitlines()
    ]
    assert added
    assert all(line.startswith("tscope: ") for line in added), example.recorded.stderr


def test_the_replayed_state_dict_is_the_saved_one(example: Example) -> None:
    trace = tscope.open(example.trace)
    assert trace.steps.tolist() == list(range(example.steps + 1))
    replayed = trace.state_dict(int(trace.steps[-1]))
    assert differences(replayed, example.recorded.saved) == []


@pytest.mark.parametrize("workers", [2])
def test_data_loader_workers_change_nothing_and_are_not_recorded(tmp_path: Path, workers: int) -> None:
    arguments = ["--epochs", "1", "--batch-size", "180", "--workers", str(workers)]
    trace = tmp_path / "trace.zarr"
    bare = run_script(tmp_path / "bare", "resnet_batchnorm", arguments, [])
    recorded = run_script(tmp_path / "recorded", "resnet_batchnorm", arguments, recorder(trace))
    assert differences(bare.state, recorded.state) == []
    assert recorded.stdout == bare.stdout
    assert differences(tscope.open(trace).state_dict(7), recorded.saved) == []

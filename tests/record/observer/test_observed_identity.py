"""With and without the observer a run ends with the same bits, and the frames hold those bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_parent import Run, python
from observed_scripts import SCRIPTS, write

# Of these the model is exported in the forked copy too; of the others a copy is forked, and exports nothing.
EXPORTED = ("sgd", "dropout_scheduler", "batchnorm", "tied", "ema_and_averages")

_alone: dict[str, tuple[subprocess.CompletedProcess[str], bytes]] = {}


def bare(script: Path, out: str) -> subprocess.CompletedProcess[str]:
    """Run a script by itself; the same one again has the same end."""
    text = script.read_text()
    if text not in _alone:
        done = subprocess.run(
            [sys.executable, str(script), out],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        _alone[text] = done, Path(out).read_bytes()
    done, saved = _alone[text]
    Path(out).write_bytes(saved)
    return done


def assert_same(one: Any, other: Any, where: str = "state") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        facts = [(t.dtype, t.shape, t.stride()) for t in (one, other)]
        assert facts[0] == facts[1], where
        same = (
            one.contiguous().reshape(-1).view(torch.uint8),
            other.contiguous().reshape(-1).view(torch.uint8),
        )
        assert torch.equal(*same), where
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}.{number}")
    else:
        assert one == other or one != one, where


def both(tmp_path: Path, script: Path, **options: Any) -> tuple[Run, dict[str, Any]]:
    alone = bare(script, str(tmp_path / "bare.pt"))
    recorded = python(script, str(tmp_path / "recorded.pt"), **options)
    assert recorded.stdout == alone.stdout
    assert recorded.code == alone.returncode == 0, recorded.stderr
    assert recorded.stderr == alone.stderr
    state = torch.load(tmp_path / "recorded.pt", weights_only=False)
    assert_same(torch.load(tmp_path / "bare.pt", weights_only=False), state)
    return recorded, state


def flat(entries: list[dict[str, Any]], state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for entry in entries:
        if entry["name"] in state:
            parts.setdefault(entry["dtype"], []).append(state[entry["name"]].detach().numpy().reshape(-1))
    return {dtype: np.concatenate(arrays) for dtype, arrays in parts.items()}


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_run_is_bit_identical_and_frames_end_with_its_parameters(tmp_path: Path, name: str) -> None:
    recorded, state = both(tmp_path, write(tmp_path, name), export=name in EXPORTED)
    assert not recorded.of("report")
    roots = recorded.of("root")
    assert roots
    found = []
    for root in roots:
        last = recorded.of("step", root["root"])[-1]
        parameters = {k[6:]: v for k, v in last.arrays.items() if k.startswith("theta:")}
        for module in state["modules"]:
            names = {entry["name"] for entry in root["parameters"]}
            if names <= set(module["state"]):
                expected = flat(root["parameters"], module["state"])
                if all(
                    np.array_equal(parameters[d].view(np.uint8), expected[d].view(np.uint8)) for d in expected
                ):
                    found.append(root["root"])
                    break
    assert found == [root["root"] for root in roots]


@pytest.mark.parametrize("name", ["sgd", "batchnorm", "tied"])
def test_row_zero_is_the_state_before_training(tmp_path: Path, name: str) -> None:
    script = write(tmp_path, name)
    text = script.read_text().replace(
        "opt = torch",
        "torch.save(net.state_dict(), sys.argv[1] + '.0')\nopt = torch",
    )
    script.write_text(text)
    recorded = python(script, str(tmp_path / "out.pt"), export=False)
    (root,) = recorded.of("root")
    state = torch.load(tmp_path / "out.pt.0")
    for prefix, entries in (("theta:", root["parameters"]), ("buffer:", root["buffers"])):
        for dtype, expected in flat([e for e in entries if e.get("persistent", True)], state).items():
            got = root.arrays[prefix + dtype][: len(expected)]
            assert np.array_equal(got.view(np.uint8), expected.view(np.uint8))


def test_buffers_follow_the_module(tmp_path: Path) -> None:
    recorded, state = both(tmp_path, write(tmp_path, "batchnorm"), export=False)
    (root,) = recorded.of("root")
    last = [step for step in recorded.steps if "buffer:float32" in step.arrays][-1]
    assert last is recorded.steps[-1]
    persistent = [entry for entry in root["buffers"] if entry["persistent"]]
    expected = flat(persistent, state["modules"][0]["state"])
    assert np.array_equal(last.arrays["buffer:float32"], expected["float32"])
    assert {entry["name"] for entry in root["buffers"] if not entry["persistent"]} == {"calls"}


@pytest.mark.parametrize("options", [{"every": 4}, {"outputs": 0}, {"outputs": -1}, {"export": "process"}])
def test_options_change_nothing_either(tmp_path: Path, options: dict[str, Any]) -> None:
    export = options.get("export") == "process"
    recorded, _ = both(tmp_path, write(tmp_path, "dropout_scheduler"), options=options, export=export)
    assert not recorded.of("report")

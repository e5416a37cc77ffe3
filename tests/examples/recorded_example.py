"""Running the examples, bare and under `tscope record`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"

# Small sizes: a few dozen steps, and at least one evaluation on held-out data after a first epoch.
ARGUMENTS = {
    "digits_mlp": ["--epochs", "2"],
    "cnn_adadelta": ["--epochs", "2"],
    "resnet_batchnorm": ["--epochs", "2", "--batch-size", "180"],
    "transformer_lm": ["--steps", "24", "--eval-every", "12"],
    "lstm_classifier": ["--epochs", "2", "--examples", "512"],
}
STEPS = {
    "digits_mlp": 46,
    "cnn_adadelta": 46,
    "resnet_batchnorm": 14,
    "transformer_lm": 24,
    "lstm_classifier": 32,
}


@dataclass(frozen=True)
class Outcome:
    """What one run left behind."""

    code: int
    stdout: str
    stderr: str
    state: dict[str, object]
    saved: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """One example, bare and recorded."""

    name: str
    bare: Outcome
    recorded: Outcome
    trace: Path

    @property
    def steps(self) -> int:
        return STEPS[self.name]


def run_script(folder: Path, name: str, arguments: list[str], recorder: list[str]) -> Outcome:
    """Run an example in `folder`, with the same command line whether recorded or not."""
    folder.mkdir()
    script = [str(HERE / "dump_state.py"), "state.pt", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(
        [*recorder, sys.executable, *script, "--save", "saved.pt", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (folder / "state.pt").exists(), done.stderr
    state = torch.load(folder / "state.pt", weights_only=True)
    return Outcome(
        done.returncode, done.stdout, done.stderr, state, torch.load(folder / "saved.pt", weights_only=True)
    )


def recorder(trace: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tscope_cli", "record", "-o", str(trace), *options, "--"]


def load_example(name: str) -> ModuleType:
    """The example's file as a module, without running its `main`."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def build_network(name: str, saved: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The example's network with the parameters and buffers it saved, in eval mode."""
    module = load_example(name)
    network: torch.nn.Module
    match name:
        case "digits_mlp":
            network = module.MLP()
        case "cnn_adadelta":
            network = module.Net()
        case "resnet_batchnorm":
            network = module.ResNet()
        case "transformer_lm":
            network = module.GPT(vocabulary=len(saved["tokens.weight"]))
        case "lstm_classifier":
            network = module.Classifier()
    network.load_state_dict(saved)
    return network.eval()

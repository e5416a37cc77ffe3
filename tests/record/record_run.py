"""A recording whose processes are played by the test: it connects to the socket and sends frames."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tscope.program.export import export
from tscope.record.frames import Blob, write_frame
from tscope.record.ingest import Ingest
from tscope.record.options import RecordOptions
from tscope.record.outcome import Outcome
from tscope.record.session import Session

ROWS = 8
FEATURES = 4
OUTPUTS = 3


def await_that(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Return when `condition` holds; fail after a generous time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, 5), torch.nn.Tanh(), torch.nn.Linear(5, OUTPUTS))


def flat(module: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()


class Script:
    """One process of the run: a connection, and a model that it trains."""

    def __init__(self, address: Path, *, hello: Mapping[str, Any] | None = None) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(str(address))
        self.module = model()
        self.random = np.random.default_rng(0)
        self.theta = flat(self.module)
        self.states = [self.theta]
        self.step_number = 0
        self.send("hello", {"pid": 1, "python": "3", "torch": "2", "rank": None, **(hello or {})})

    def send(
        self, kind: str, fields: Mapping[str, Any], blobs: Mapping[str, np.ndarray] | None = None
    ) -> None:
        arrays = {name: Blob(array, str(array.dtype)) for name, array in (blobs or {}).items()}
        write_frame(self.connection, kind, fields, arrays)

    def root(self, number: int = 0, kind: str = "Sequential") -> None:
        entries = [
            {"name": name, "shape": list(p.shape), "dtype": "float32", "requires_grad": True, "tied": []}
            for name, p in self.module.named_parameters()
        ]
        fields = {"root": number, "class": kind, "parameters": entries, "buffers": [], "time": time.time()}
        self.send("root", fields, {"theta:float32": self.theta})

    def optimizer(self, **hyper: object) -> None:
        group = {"hyper": {"lr": 0.1, **hyper}, "tensors": [0, 1, 2, 3]}
        fields = {"root": 0, "optimizer": 0, "class": "SGD", "groups": [group], "step": self.step_number}
        self.send("optimizer", fields)

    def step(self, inputs: np.ndarray | None = None, **fields: object) -> None:
        self.step_number += 1
        self.theta = self.theta + 0.01 * self.random.standard_normal(len(self.theta)).astype(np.float32)
        self.states.append(self.theta)
        blobs = {"theta:float32": self.theta, "grad_norm": np.ones(4, np.float32)}
        if inputs is not None:
            blobs["input:0:0"] = inputs
        micro = {"size": ROWS if inputs is None else len(inputs), "scale": 1.0, "inputs": inputs is not None}
        self.send(
            "step",
            {
                "root": 0,
                "optimizer": 0,
                "step": self.step_number,
                "time": time.time(),
                "loss": 0.5,
                "lr": [[0.1]],
                "micro": [micro],
                "skipped": False,
                "foreign": False,
                "hook_ns": 1000 * self.step_number,
                "wait_ns": 10 * self.step_number,
                **fields,
            },
            blobs,
        )

    def evaluate(self, inputs: np.ndarray) -> None:
        fields = {"root": 0, "step": self.step_number, "mode": "eval"}
        self.send("eval", fields, {"input:0": inputs, "output": np.zeros((len(inputs), OUTPUTS), np.float32)})

    def program(self) -> None:
        inputs = (torch.zeros(ROWS, FEATURES),)
        graph, constants = export(self.module, inputs, {}, output=None, gradient_path=None)
        blobs = {f"constant:{name}": value.numpy() for name, value in constants.items()}
        self.send("program", {"root": 0, "ok": True, "graph": graph, "output_path": ""}, blobs)

    def no_program(self, reason: str = "control flow") -> None:
        self.send("program", {"root": 0, "ok": False, "reason": reason})

    def leave(self) -> None:
        self.connection.close()


def rows(count: int, seed: int) -> np.ndarray:
    """Return input rows (example, feature) that differ for every seed."""
    return np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32)


class Run:
    """A recording without a command."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.out = settings.pop("out", folder / "trace.zarr")
        self.said: list[str] = []
        self.scripts: list[Script] = []
        self.folder = folder / "session"
        self.folder.mkdir(mode=0o700)
        self.address = self.folder / "s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.address))
        listener.listen()
        probe = settings.pop("probe", None)
        self.ingest = Ingest(
            Session(self.folder, listener, {}),
            self.out,
            RecordOptions(out=self.out, **settings),
            probe=probe,
            command=["python", "train.py", "\x1b[31m"],
            pid=1,
            say=self.said.append,
        )
        self.listener = listener
        self.ingest.start()

    def script(self, **hello: object) -> Script:
        for stage in ("hello", "torch"):
            (self.folder / f"{stage}.1").touch()
        self.scripts.append(Script(self.address, hello=hello))
        return self.scripts[-1]

    def finish(self, status: Any = "complete", reason: str | None = None) -> Outcome:
        outcome = self.ingest.finish(status, reason)
        self.listener.close()
        for script in self.scripts:
            script.leave()
        return outcome

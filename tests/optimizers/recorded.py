"""Runs with a real optimizer of torch, written as traces in the way the recorder writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tscope_format import Micro, Row, TraceWriter, example_hash, root_writer, table

import tscope
from tscope.program import Program, export
from tscope.trace import Trace

Loss = Callable[[Tensor, Tensor], Tensor]

_EXPORTED: dict[str, Any] = {}


def exported(module: nn.Module, example: Tensor) -> Any:
    """Return the module's graph and constants, which do not depend on the values of its parameters."""
    key = f"{module} {example.dtype} {example.shape[1:]}"
    if key not in _EXPORTED:
        training = module.training
        _EXPORTED[key] = export(module, (example,), {}, output=None, gradient_path=None)
        module.train(training)
    return _EXPORTED[key]


@dataclass
class Recorder:
    """Writes a run as it goes on."""

    path: Path
    module: nn.Module
    optimizer: torch.optim.Optimizer
    example: Tensor
    attributes: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    updates: bool = True

    def __post_init__(self) -> None:
        self.entries = table(
            [
                (name, tuple(p.shape), str(p.dtype)[6:], (), p.requires_grad)
                for name, p in self.module.named_parameters()
            ]
        )
        self.buffers = table(
            [(n, tuple(b.shape), str(b.dtype)[6:], (), False) for n, b in self.module.named_buffers()]
        )
        self.index = {id(p): k for k, p in enumerate(self.module.parameters())}
        self.known: dict[bytes, int] = {}
        self.micro: list[Micro] = []
        self.step_number = 0
        self.scale = 1.0
        self.changes: list[dict[str, Any]] = []
        self.hyper = self._hyper()
        graph, constants = exported(self.module, self.example)
        self.writer = TraceWriter.create(self.path, facts=dict(self.facts))
        optimizer = {
            "optimizer": 0,
            "class": type(self.optimizer).__qualname__,
            "step": 0,
            "groups": [
                {"hyper": hyper, "tensors": [self.index[id(p)] for p in entry["params"]]}
                for hyper, entry in zip(self.hyper, self.optimizer.param_groups, strict=True)
            ],
            "columns": list(range(len(self.hyper))),
        }
        self.root = self.writer.add_root(
            "model",
            parameters=self.entries,
            buffers=self.buffers,
            groups=len(self.hyper),
            theta=self._flats(self.entries, dict(self.module.named_parameters())),
            buffer=self._flats(self.buffers, dict(self.module.named_buffers())),
            time=0.0,
            attributes={
                "optimizers": [optimizer],
                "optimizer_changes": [],
                "optimizer_changes_dropped": 0,
                "output_path": "",
                **self.attributes,
            },
            updates=self.updates,
        )
        self.root.set_program(json.dumps(graph).encode(), {n: v.numpy() for n, v in constants.items()})

    def forward(self, x: Tensor, *, identified: bool = True) -> Tensor:
        """Call the module on a micro-batch; its output's gradient will be recorded."""
        output = self.module(x)
        held = output.detach().clone().reshape(len(x), -1).numpy()
        ids = self._identify(x) if identified else None
        part = {"gradient": None}

        def arrived(gradient: Tensor) -> None:
            part["gradient"] = gradient.detach().clone().reshape(len(x), -1).numpy()
            self.micro.append(Micro(len(x), self.scale, ids, held, part["gradient"]))

        output.register_hook(arrived)
        return output

    def step(self, loss: float = 1.0, *, skipped: bool = False, foreign: bool = False, **row: Any) -> None:
        """Let the optimizer step (unless it is skipped), and write the row."""
        norms = [np.nan if p.grad is None else float(p.grad.norm()) for p in self.module.parameters()]
        rates = np.array([float(entry["lr"]) for entry in self.optimizer.param_groups])
        self._note_changes()
        if not skipped:
            self.optimizer.step()
        self.step_number += 1
        values = {
            "step": self.step_number,
            "time": float(self.step_number),
            "loss": loss,
            "lr": rates,
            "theta": self._flats(self.entries, dict(self.module.named_parameters())),
            "buffer": self._flats(self.buffers, dict(self.module.named_buffers())) or None,
            "grad_norm": np.array(norms),
            "skipped": skipped,
            "foreign": foreign,
            "micro": self.micro,
        }
        self.root.append(Row(**{**values, **row}))
        self.step_number = values["step"] if "step" not in row else row["step"]
        self.micro = []
        if self.step_number % root_writer.ANCHOR_ROWS == 0:
            self._write_state()

    def close(self) -> Trace:
        self.root.attributes["optimizer_changes"] = self.changes
        self.writer.close("complete")
        return tscope.open(self.path)

    def _identify(self, x: Tensor) -> np.ndarray:
        rows = x.numpy()
        ids = []
        for row in rows:
            digest = example_hash([row])
            if digest not in self.known:
                self.known[digest] = len(self.known)
                hashes = np.frombuffer(digest, np.uint8)[None]
                self.root.add_examples([row[None]], hashes, self.step_number + 1)
            ids.append(self.known[digest])
        return np.array(ids, np.int64)

    def _hyper(self) -> list[dict[str, Any]]:
        return [
            json.loads(json.dumps({k: v for k, v in entry.items() if k != "params"}))
            for entry in self.optimizer.param_groups
        ]

    def _note_changes(self) -> None:
        now = self._hyper()
        groups = []
        for place, (new, old) in enumerate(zip(now, self.hyper, strict=True)):
            hyper = {k: v for k, v in new.items() if k != "lr" and v != old[k]}
            if hyper:
                groups.append({"group": place, "hyper": hyper})
        if groups:
            self.changes.append({"optimizer": 0, "step": self.step_number, "groups": groups})
        self.hyper = now

    def _write_state(self) -> None:
        states: dict[str, dict[str, np.ndarray]] = {}
        scalars: dict[str, list[float | None]] = {}
        parameters = list(self.module.parameters())
        for entry, p in zip(self.entries, parameters, strict=True):
            for name, value in self.optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor) and value.shape == p.shape and p.dim():
                    size = sum(e.size for e in self.entries if e.dtype == entry.dtype)
                    blank = np.full(size, np.nan, entry.dtype)
                    flat = states.setdefault(name, {}).setdefault(entry.dtype, blank)
                    flat[entry.offset : entry.offset + entry.size] = value.numpy().reshape(-1)
                elif value is not None:
                    scalars.setdefault(name, [None] * len(parameters))[self.index[id(p)]] = float(value)
        self.root.append_anchor_state(self.step_number, states, {"scalars": scalars})

    def _flats(self, entries: Any, values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        pieces: dict[str, list[Tensor]] = {}
        for entry in entries:
            pieces.setdefault(entry.dtype, []).append(values[entry.name].detach().reshape(-1))
        return {dtype: torch.cat(parts).numpy() for dtype, parts in pieces.items()}


def train(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    *,
    clip: float | None = None,
    scheduler: Any = None,
    micro: int = 1,
    updates: bool = True,
) -> Trace:
    """Train on the batches, each in `micro` parts, and return the trace."""
    recorder = None
    for x, y in batches:
        recorder = recorder or Recorder(path, module, optimizer, x, updates=updates)
        optimizer.zero_grad()
        total = 0.0
        for part_x, part_y in zip(x.chunk(micro), y.chunk(micro), strict=True):
            value = loss(recorder.forward(part_x), part_y) / micro
            value.backward()
            total += value.item()
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        recorder.step(total)
        if scheduler is not None:
            scheduler.step()
    return recorder.close()


def epochs(x: Tensor, y: Tensor, size: int, count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return shuffled mini-batches of several epochs, the last of each being partial."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        order = torch.randperm(len(x), generator=random)
        found += [(x[part], y[part]) for part in order.split(size)]
    return found


def mlp(outputs: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))
    return net.to(dtype)


def data(outputs: int, count: int = 10, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    x = torch.randn(count, 4, generator=random, dtype=dtype)
    return x, torch.randn(count, outputs, generator=random, dtype=dtype)


def program_of(trace: Trace, dtype: torch.dtype = torch.float64) -> Program:
    return trace.program().to(dtype)

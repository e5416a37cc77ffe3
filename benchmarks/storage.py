"""What a step weighs in a trace, and how fast the format writes and reads θ."""

from __future__ import annotations

import io
import lzma
import shutil
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from tscope_format import RootReader, Row, TraceWriter, dtype_of, open_trace
from tscope_format.ulp import encode

from benchmarks.report import Section, Table, run_alone
from benchmarks.runs import disk_size, recorder, train

RUNS = (
    ("mlp", "sgd", 512),
    ("mlp", "momentum", 512),
    ("mlp", "adamw", 512),
    ("cnn", "adadelta", 1024),
    ("transformer", "adamw", 1024),
)
ROWS = 1024  # of θ, held in memory, to time the format alone
BLOCK = 64  # rows that are compressed by xz

TEXT = """
Bytes on disk per recorded step against a checkpoint of the same state per step (`torch.save` and
safetensors of the `state_dict`, uncompressed as they are). *θ*: the updates and anchors alone, which replay
θ bit for bit. *All*: also batch outputs, output gradients, examples, norms, optimizer state at anchors and
the program.
Aim: θ ≤ 0.4 of a checkpoint on AdamW. *xz*: the same updates, shuffled as ours are, by xz at its default
level, which takes hundreds of times as long. *Low bits*: what the bits below the leading one of each
update take as they are. Neither says what is possible in principle, but a trace is not far from them.

*Encode* and *replay*: raw bytes of θ per second of CPU time, through `TraceWriter.append` and
`RootReader.theta_blocks`, without training. Aim: encode ≥ 450 MB/s a core.
"""


def checkpoint_sizes(state: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Bytes of one `torch.save` and of one safetensors file of the state."""
    file = io.BytesIO()
    torch.save(state, file)
    # Tied tensors are one in the file, as safetensors' own save_model does it.
    unique = {tensor.data_ptr(): (name, tensor) for name, tensor in state.items()}
    return len(file.getvalue()), len(safetensors.torch.save(dict(unique.values())))


def held_rows(root: RootReader) -> NDArray[np.float32]:
    """The last rows of θ (row, param), in memory."""
    first = max(0, root.rows - ROWS)
    return np.concatenate([block["float32"] for _, block in root.theta_blocks(first)])


def floors(theta: NDArray[np.float32]) -> tuple[float, float]:
    """Bytes per byte of θ (row, param): updates compressed by xz, and the bits below their leading ones."""
    rows = theta[-BLOCK - 1 :]
    updates = np.stack([encode(*pair, dtype_of("float32")) for pair in pairwise(rows)], axis=1)
    shuffled = updates.reshape(-1).view(np.uint8).reshape(-1, 4).T
    lengths = np.frexp(updates.astype(np.float64))[1]  # in bits; 0 of no update
    low = np.maximum(lengths - 1, 0).sum() / 8
    return len(lzma.compress(np.ascontiguousarray(shuffled))) / updates.nbytes, low / updates.nbytes


def encode_rate(folder: Path, root: RootReader, theta: NDArray[np.float32]) -> float:
    """MB of θ appended to a new trace per second of CPU time, closing it included."""
    nothing: dict[str, NDArray[Any]] = {}
    shutil.rmtree(folder / "encoded.zarr", ignore_errors=True)
    start = time.process_time()
    writer = TraceWriter.create(folder / "encoded.zarr", facts={}, overwrite=False)
    target = writer.add_root(
        "model",
        parameters=root.parameters,
        buffers=(),
        groups=1,
        theta={"float32": theta[0]},
        buffer=nothing,
        time=0.0,
        attributes={},
    )
    norm = np.zeros(len(root.parameters), np.float32)
    for step, row in enumerate(theta[1:], 1):
        target.append(
            Row(
                step=step,
                time=float(step),
                loss=0.0,
                lr=np.zeros(1),
                theta={"float32": row},
                buffer=None,
                grad_norm=norm,
                skipped=False,
                foreign=False,
                micro=(),
            )
        )
    writer.close("complete")
    return theta[1:].nbytes / 1e6 / (time.process_time() - start)


def replay_rate(root: RootReader) -> float:
    """MB of θ decoded per second of CPU time, from disk to contiguous rows."""
    start = time.process_time()
    size = sum(block["float32"].nbytes for _, block in root.theta_blocks())
    return size / 1e6 / (time.process_time() - start)


def measure_run(folder: Path, workload: str, optimizer: str, steps: int) -> list[str]:
    trace = folder / f"{workload}-{optimizer}.zarr"
    prefix = recorder(trace, "--probe", "none")
    train(folder, workload, steps, prefix=prefix, options=["--optimizer", optimizer])
    root = open_trace(trace).root()
    theta = disk_size(trace / root.name / "theta")
    rows = root.rows - 1
    state = {name: torch.from_numpy(array) for name, array in named_rows(root).items()}
    saved, safe = checkpoint_sizes(state)
    held = held_rows(root)
    rates = [(encode_rate(folder, root, held), replay_rate(root)) for _ in range(3)]
    xz, low = floors(held)
    coding, replay = (max(rate) for rate in zip(*rates, strict=True))
    return [
        f"{workload}, {optimizer}",
        f"{sum(entry.size for entry in root.parameters):,}",
        f"{saved / 1e3:.0f} kB",
        f"{safe / 1e3:.0f} kB",
        f"{theta / rows / 1e3:.0f} kB",
        f"{disk_size(trace) / rows / 1e3:.0f} kB",
        f"{theta / rows / saved:.2f}",
        f"{theta / rows / safe:.2f}",
        f"{xz:.2f}",
        f"{low:.2f}",
        f"{coding:.0f} MB/s",
        f"{replay:.0f} MB/s",
    ]


def named_rows(root: RootReader) -> dict[str, NDArray[Any]]:
    """The parameters at the last row, by name."""
    flat = root.theta(root.rows - 1)
    return {
        entry.name: flat[entry.dtype][entry.offset : entry.offset + entry.size].reshape(entry.shape).copy()
        for entry in root.parameters
    }


def measure(quick: bool) -> Section:
    with tempfile.TemporaryDirectory() as name:
        rows = [
            measure_run(Path(name), workload, optimizer, steps // 8 if quick else steps)
            for workload, optimizer, steps in (RUNS[2:3] if quick else RUNS)
        ]
    head = [
        *("run", "parameters", "torch.save", "safetensors", "θ a step", "all a step"),
        *("θ / torch.save", "θ / safetensors", "xz", "low bits", "encode", "replay"),
    ]
    return Section("storage", "What a step weighs", TEXT, [Table("Bytes per step:", head, rows)])


if __name__ == "__main__":
    run_alone(measure, __doc__)

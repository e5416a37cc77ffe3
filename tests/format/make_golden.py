"""Writes the golden trace: a small run in format 1, and the values that must come out of it for ever.

Run by hand, once for each format version: `python tests/format/make_golden.py`. An existing golden trace is
never rewritten: it stands for the traces that people have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tscope_format import Array, Micro, Result, Row, TraceWriter, example_hash, save_result, table
from tscope_format.dtypes import NDArray

FOLDER = Path(__file__).parent / "golden"
ROWS = 300  # past an anchor row, and not a whole number of blocks
PARAMETERS = table(
    [
        ("layer.weight", (3, 4), "float32", ("head.weight",), True),
        ("layer.bias", (3,), "float32", (), True),
        ("scale", (2,), "bfloat16", (), True),
    ]
)
BUFFERS = table([("mean", (2,), "float32", (), False), ("mask", (2,), "bool", (), False)])


def make(path: Path) -> dict[str, NDArray]:
    """Record the run.

    Returns:
        What must be read from it: the parameters and buffers at every row, and some arrays.
    """
    random = np.random.default_rng(7)
    theta = random.standard_normal((ROWS, 15)).astype(np.float32).cumsum(axis=0, dtype=np.float32)
    theta[5, :4] = [np.nan, np.inf, -0.0, 1e-42]
    half = random.integers(0, 2**16, (ROWS, 2), dtype=np.uint16)
    mean = (
        np.where(np.arange(ROWS)[:, None] < 100, 0, np.arange(ROWS)[:, None] / 8)
        .repeat(2, 1)
        .astype(np.float32)
    )
    mask = np.array([True, False])
    loss = random.random(ROWS)
    loss[0] = np.nan

    trace = TraceWriter.create(
        path, facts={"id": "golden-1", "name": "golden", "command": ["python", "train.py"]}
    )
    root = trace.add_root(
        "model",
        parameters=PARAMETERS,
        buffers=BUFFERS,
        groups=1,
        theta={"float32": theta[0], "bfloat16": half[0]},
        buffer={"float32": mean[0], "bool": mask},
        time=1000.0,
        attributes={"class": "Golden"},
    )
    inputs = random.standard_normal((6, 4)).astype(np.float32)
    root.add_examples([inputs], np.array([np.frombuffer(example_hash([x]), np.uint8) for x in inputs]), 1)
    probe = root.add_probe(
        "heldout", inputs=[inputs[:2]], target=np.array([0, 1]), attributes={"source": "golden"}
    )
    output = random.standard_normal((ROWS, 2, 3)).astype(np.float32)
    probe.append(0, output[0], output[0] * 0, output[0] * 0)
    for step in range(1, ROWS):
        slots = 2 if step < 50 else 3
        examples = np.arange(step, step + slots) % 6
        grad = np.full(3, 1 / step, np.float32)
        root.append(
            Row(
                step=step,
                time=1000.0 + step,
                loss=float(loss[step]),
                lr=np.full(1, 0.1),
                theta={"float32": theta[step], "bfloat16": half[step]},
                buffer={"float32": mean[step]} if step >= 100 else None,
                grad_norm=grad,
                skipped=step == 9,
                foreign=step == 11,
                micro=[Micro(slots, 1.0, examples, output[step, :1].repeat(slots, 0), None)],
            )
        )
        if step == 256:
            root.append_anchor_state(
                step, {"exp_avg": {"float32": theta[step] / 2}}, {"scalars": {"step": [step] * 3}}
            )
        if step % 100 == 0:
            probe.append(step, output[step], output[step] / 2, output[step] / 4)
            trace.commit()
    root.set_program(b'{"version": 1, "nodes": []}', {"constant": np.array([1.5, 2.5])})
    trace.close("complete")
    save_result(path, Result("golden", {"answer": 42}, {"step": Array(("step",), np.arange(3))}, {}), "model")
    return {
        "theta_float32": theta,
        "theta_bfloat16": half,
        "buffer_float32": mean,
        "buffer_bool": mask,
        "loss": loss,
        "inputs": inputs,
        "output": output[[0, 100, 200]],
    }


if __name__ == "__main__":
    trace = FOLDER / "format-1.zarr"
    if trace.exists():
        raise SystemExit(f"{trace} exists: a golden trace is never rewritten")
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "format-1.npz", allow_pickle=False, **make(trace))

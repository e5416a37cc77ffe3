"""Traces written directly, without training: a linear model of two outputs and its held-out projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tscope_format import Row, TraceWriter, table

FACTS = {"name": "linear", "command": ["python", "train.py", "--lr", "0.1"], "created": 1.7e9}


def write_trace(
    path: Path,
    *,
    rows: int = 300,
    facts: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    parameter: str = "weight",
    probe: str | None = "heldout",
    labels: bool = True,
    in_sample: bool = False,
    projected: int | None = None,
    roots: Sequence[str] = ("model",),
    status: Literal["complete", "interrupted", "failed"] | None = "complete",
    reason: str | None = None,
) -> Path:
    """Write a trace of `rows` updates of a 3x2 weight, the first `projected` projected; return its path."""
    rng = np.random.default_rng(0)
    writer = TraceWriter.create(path, facts={**FACTS, **(facts or {})})
    for name in roots:
        theta = rng.normal(size=6).astype(np.float32)
        root = writer.add_root(
            name,
            parameters=table([(parameter, (3, 2), "float32", (), True)]),
            buffers=(),
            groups=1,
            theta={"float32": theta},
            buffer={},
            time=1.7e9,
            attributes={"class": "Linear", **(attributes or {})},
        )
        x = rng.normal(size=(8, 3)).astype(np.float32)
        first = last = x @ theta.reshape(3, 2)
        followed = None
        if probe is not None:
            followed = root.add_probe(
                probe,
                inputs=[x],
                target=rng.integers(0, 2, 8) if labels else None,
                attributes={"kind": "heldout", "in_sample": in_sample},
            )
            followed.append(0, first, np.zeros_like(first), np.zeros_like(first))
        for step in range(1, rows + 1):
            theta = theta + rng.normal(scale=0.01, size=6).astype(np.float32)
            root.append(
                Row(
                    step=step,
                    time=1.7e9 + step,
                    loss=1.0 / step,
                    lr=np.array([0.1]),
                    theta={"float32": theta},
                    buffer=None,
                    grad_norm=np.ones(1, np.float32),
                    skipped=False,
                    foreign=False,
                    micro=(),
                )
            )
            if followed is not None and (projected is None or step <= projected):
                output = x @ theta.reshape(3, 2)
                followed.append(step, output, 0.99 * (output - last), 0.5 * (output - first))
                last = output
    if status is None:
        writer.commit()
    else:
        writer.close(status, reason)
    return path

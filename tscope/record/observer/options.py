"""What the recorder asks of the observer, through the environment."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, Optional


class Options:
    """The options of `$TSCOPE_OPTIONS`.

    Attributes:
        socket: The recorder's socket.
        every: Only every so many steps are sent, and the last.
        outputs: Bytes of outputs and their gradients a step may have to be sent; -1: any.
        output: Path of the output to record; None: the one whose gradient arrives.
        anchor: The optimizer's state is sent every so many rows.
        eval_rows: Rows of evaluations to send before they are thinned out.
        queue_bytes: What may wait to be sent before a step waits for it.
        shared_bytes: Memory to share with the recorder, so that arrays need not pass the socket; 0: none.
        export: "fork", or "process": the model is exported at the end of the run, without a fork.
        fork: The step, seed and generators of a fork of the run (`ForkPoint`); None: the run is not changed.
    """

    def __init__(self, socket: str, values: Mapping[str, Any]) -> None:
        self.socket = socket
        self.every = max(1, int(values.get("every", 1)))
        self.outputs = int(values.get("outputs", 1 << 20))
        self.output: Optional[str] = values.get("output")
        self.anchor = max(1, int(values.get("anchor", 256)))
        self.eval_rows = int(values.get("eval_rows", 512))
        self.queue_bytes = int(values.get("queue_bytes", 64 << 20))
        self.shared_bytes = int(values.get("shared_bytes", 0))
        self.export = str(values.get("export", "fork"))
        self.fork: Optional[Mapping[str, Any]] = values.get("fork")

    @classmethod
    def from_environment(cls) -> Options:
        """Read the environment."""
        values: Dict[str, Any] = json.loads(os.environ.get("TSCOPE_OPTIONS") or "{}")
        return cls(os.environ["TSCOPE_SOCKET"], values)

"""Replay: walk a recorded run again, and evaluate its model and Jacobians at any row.

`Replay` yields parameters and buffers; `probing` puts a probe set under the model; `project` says what each
step did to the probe set's outputs. Needs torch.
"""

from tscope.replay.evaluation import Evaluation
from tscope.replay.lazy import LazyModel
from tscope.replay.probing import probing, replay_dtype
from tscope.replay.projection import Projection, project
from tscope.replay.replay import Replay

__all__ = [
    "Evaluation",
    "LazyModel",
    "Projection",
    "Replay",
    "probing",
    "project",
    "replay_dtype",
]

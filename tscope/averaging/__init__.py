"""Averages of models, of several runs or of one run's rows: their normalisation, and their units' order.

Everything here works on named tensors and a recorded program; what it means is in
`tscope.analyses.averaging`.
"""

from tscope.averaging.combination import combine
from tscope.averaging.curvature import Curvature, bend, linearised
from tscope.averaging.fork import last_common_step
from tscope.averaging.interpolation import State, highest, mixed
from tscope.averaging.matching import Matching, match
from tscope.averaging.recalibration import Recalibration
from tscope.averaging.schedules import Schedule, checkpoints, ema, lawa, swa, tail
from tscope.averaging.units import Units, find_units

__all__ = [
    "Curvature",
    "Matching",
    "Recalibration",
    "Schedule",
    "State",
    "Units",
    "bend",
    "checkpoints",
    "combine",
    "ema",
    "find_units",
    "highest",
    "last_common_step",
    "lawa",
    "linearised",
    "match",
    "mixed",
    "swa",
    "tail",
]

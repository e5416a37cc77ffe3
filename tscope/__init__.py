"""A flight recorder for neural-network training, and the analyses on top.

`open` a trace, ask it for arrays, parameters and the model at any step, or `analyze` it. Importing this
package loads neither torch nor zarr: each name below is imported when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tscope_format.errors import (
        AnalysisError,
        MissingDataError,
        RecordError,
        TraceError,
        TscopeError,
        UsageError,
    )

    from tscope.analyses import Metric, analyze, metrics
    from tscope.probes import ProbeSet
    from tscope.replay import Replay
    from tscope.trace import Trace, open

_HOMES = {
    "Metric": "tscope.analyses",
    "analyze": "tscope.analyses",
    "metrics": "tscope.analyses",
    "ProbeSet": "tscope.probes",
    "Replay": "tscope.replay",
    "Trace": "tscope.trace",
    "open": "tscope.trace",
    "AnalysisError": "tscope_format.errors",
    "MissingDataError": "tscope_format.errors",
    "RecordError": "tscope_format.errors",
    "TraceError": "tscope_format.errors",
    "TscopeError": "tscope_format.errors",
    "UsageError": "tscope_format.errors",
}

__all__ = [
    "AnalysisError",
    "Metric",
    "MissingDataError",
    "ProbeSet",
    "RecordError",
    "Replay",
    "Trace",
    "TraceError",
    "TscopeError",
    "UsageError",
    "analyze",
    "metrics",
    "open",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("tscope")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

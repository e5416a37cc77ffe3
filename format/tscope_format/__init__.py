"""The trace on disk: schema, writer, reader, codecs, verification and saved results.

numpy and numcodecs only; nothing here knows torch. `format/SPEC.md` is the specification. Names are loaded
when they are first used, so that reading a trace does not pay for writing one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tscope_format.errors import (
    AnalysisError,
    MissingDataError,
    RecordError,
    TraceError,
    TscopeError,
    UsageError,
    clean,
)

if TYPE_CHECKING:
    from tscope_format.batch import UNKNOWN, Micro
    from tscope_format.chain import ANCHOR_ROWS
    from tscope_format.dtypes import JSON, Dtype, NDArray, dtype_of
    from tscope_format.metadata import FORMAT
    from tscope_format.probe import ProbeWriter
    from tscope_format.reader import TraceReader, open_trace
    from tscope_format.results import (
        Array,
        Result,
        ResultInfo,
        last_values,
        list_results,
        load_result,
        save_result,
    )
    from tscope_format.root_reader import ArrayInfo, RootReader
    from tscope_format.root_writer import RootWriter
    from tscope_format.rows import Row
    from tscope_format.tensors import Tensor, lengths, table
    from tscope_format.verification import Problem, VerifyReport, example_hash, verify
    from tscope_format.writer import TraceWriter, is_trace

_HOMES = {
    "batch": ("UNKNOWN", "Micro"),
    "chain": ("ANCHOR_ROWS",),
    "dtypes": ("JSON", "Dtype", "NDArray", "dtype_of"),
    "metadata": ("FORMAT",),
    "probe": ("ProbeWriter",),
    "reader": ("TraceReader", "open_trace"),
    "results": (
        "Array",
        "Result",
        "ResultInfo",
        "last_values",
        "list_results",
        "load_result",
        "save_result",
    ),
    "root_reader": ("ArrayInfo", "RootReader"),
    "root_writer": ("RootWriter",),
    "rows": ("Row",),
    "tensors": ("Tensor", "lengths", "table"),
    "verification": ("Problem", "VerifyReport", "example_hash", "verify"),
    "writer": ("TraceWriter", "is_trace"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ANCHOR_ROWS",
    "FORMAT",
    "JSON",
    "UNKNOWN",
    "AnalysisError",
    "Array",
    "ArrayInfo",
    "Dtype",
    "Micro",
    "MissingDataError",
    "NDArray",
    "ProbeWriter",
    "Problem",
    "RecordError",
    "Result",
    "ResultInfo",
    "RootReader",
    "RootWriter",
    "Row",
    "Tensor",
    "TraceError",
    "TraceReader",
    "TraceWriter",
    "TscopeError",
    "UsageError",
    "VerifyReport",
    "clean",
    "dtype_of",
    "example_hash",
    "is_trace",
    "last_values",
    "lengths",
    "list_results",
    "load_result",
    "open_trace",
    "save_result",
    "table",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

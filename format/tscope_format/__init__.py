"""The trace on disk: schema, writer, reader, codecs, verification and saved results.

numpy and numcodecs only; nothing here knows torch. `format/SPEC.md` is the specification.
"""

from tscope_format.errors import (
    AnalysisError,
    MissingDataError,
    RecordError,
    TraceError,
    TscopeError,
    UsageError,
    clean,
)

__all__ = [
    "AnalysisError",
    "MissingDataError",
    "RecordError",
    "TraceError",
    "TscopeError",
    "UsageError",
    "clean",
]

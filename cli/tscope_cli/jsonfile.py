"""JSON as every reading command prints it: one object, versioned, NaN and infinities as null."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping

SCHEMA = 1


def dump(content: Mapping[str, object]) -> None:
    """Print `content` on stdout as one JSON object, with its schema version first."""
    dump_strict(finite({"schema": SCHEMA, **content}))


def dump_strict(document: object) -> None:
    """Print a document that is strict JSON already, such as that of a result."""
    # json escapes what is not ASCII, so that control characters of a trace never reach the terminal as such.
    sys.stdout.write(json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")


def finite(value: object) -> object:
    """Return `value` with every float that JSON has no word for replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value

"""JSON as every reading command prints it: one object, versioned, NaN and infinities as null."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping

SCHEMA = 1


def dump(content: Mapping[str, object]) -> None:
    """Print `content` on stdout as one JSON object, with its schema version first."""
    # Strings are escaped by json, so that control characters of a trace never reach the terminal as such.
    json.dump(finite({"schema": SCHEMA, **content}), sys.stdout, allow_nan=False, separators=(",", ":"))
    sys.stdout.write("\n")


def finite(value: object) -> object:
    """Return `value` with every float that JSON has no word for replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value

"""Facts that become known of a run only after its recording has ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tscope_format.disk import Disk
from tscope_format.dtypes import JSON
from tscope_format.errors import RecordError
from tscope_format.metadata import dump
from tscope_format.tree import RECORD


def amend(path: Path, facts: Mapping[str, JSON], *, durable: bool = False) -> None:
    """Add facts to the commit record of a trace, or replace those of the same names.

    Only for who recorded it, after the end: a trace has one writer.

    Raises:
        RecordError: It is still recorded, is no trace, or its record cannot be replaced.
    """
    try:
        document = json.loads((path / RECORD).read_bytes())
        known = document["attributes"]["tscope"]
        if known["status"] == "recording":
            raise RecordError(f"{path} is still being recorded: its facts are its recorder's")
        known.update(facts)
        Disk(path, durable=durable).write(RECORD, [dump(document).encode()])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is not a trace whose facts can be added to") from error
    except OSError as error:
        raise RecordError(f"{path}: facts cannot be added: {error.strerror or error}") from error

"""Opening a trace: only what its commit record says exists."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from tscope_format.dtypes import JSON
from tscope_format.errors import TraceError, UsageError
from tscope_format.metadata import FORMAT, ArrayMetadata
from tscope_format.root_reader import RootReader
from tscope_format.tree import RECORD

_DEFAULT_ROOT = "model"


def open_trace(path: str | os.PathLike[str]) -> TraceReader:
    """Open a trace for reading.

    Raises:
        TraceError: it is not a trace, is damaged, or is of a newer format.
    """
    return TraceReader(Path(path))


class TraceReader:
    """A trace at one commit.

    Attributes:
        path: the trace's folder.
        facts: JSON facts about the run, with `format`, `status` and `rows`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = b""
        self.facts: dict[str, JSON] = {}
        self._arrays: dict[str, ArrayMetadata] = {}
        self._groups: dict[str, Mapping[str, JSON]] = {}
        self._roots: dict[str, RootReader] = {}
        self.refresh()

    @property
    def status(self) -> str:
        """`recording`, `complete`, `interrupted` or `failed`; a killed recorder leaves `recording`."""
        return str(self.facts.get("status", "unknown"))

    @property
    def roots(self) -> tuple[str, ...]:
        """Names of the recorded root modules, in the order in which they came."""
        return tuple(self.facts["rows"])

    @property
    def fingerprint(self) -> str:
        """A name for this recording, the same at every commit and in every copy."""
        stable = {key: self.facts.get(key) for key in ("id", "format")}
        return hashlib.blake2b(json.dumps(stable, sort_keys=True).encode(), digest_size=16).hexdigest()

    def root(self, name: str | None = None) -> RootReader:
        """Return a root as it was committed when this reader was opened or last refreshed.

        Args:
            name: its name; by default `model` if there is one, else the first.

        Raises:
            UsageError: there is no root of that name.
            TraceError: there is no root at all, or its part of the commit record is damaged.
        """
        if not self.roots:
            raise TraceError(f"{self.path}: nothing was recorded (status: {self.status})")
        if name is None:
            name = _DEFAULT_ROOT if _DEFAULT_ROOT in self.roots else self.roots[0]
        if name not in self.roots:
            raise UsageError(f"{self.path} has no root {name!r}; it has {', '.join(self.roots)}")
        if name not in self._roots:
            inside = name + "/"
            arrays = {
                path[len(inside) :]: self._arrays[path] for path in self._arrays if path.startswith(inside)
            }
            groups = {
                path[len(inside) :]: self._groups[path] for path in self._groups if path.startswith(inside)
            }
            groups[""] = self._groups.get(name, {})
            self._roots[name] = RootReader(self.path, name, int(self.facts["rows"][name]), arrays, groups)
        return self._roots[name]

    def refresh(self) -> bool:
        """Read the commit record again.

        Roots that were handed out stay as they are; `root` returns the new ones.

        Returns:
            Whether it changed.

        Raises:
            TraceError: it cannot be read any more.
        """
        data = _read_record(self.path)
        if data == self._data:
            return False
        facts, arrays, groups = _parse(self.path, data)
        self._data, self.facts, self._arrays, self._groups = data, facts, arrays, groups
        self._roots = {}
        return True


def _read_record(path: Path) -> bytes:
    try:
        return (path / RECORD).read_bytes()
    except FileNotFoundError:
        what = f"has no {RECORD}" if path.is_dir() else "does not exist"
    except NotADirectoryError:
        what = "is a file, and a trace is a folder"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    raise TraceError(f"{path} is not a trace: it {what}")


def _parse(
    path: Path, data: bytes
) -> tuple[dict[str, JSON], dict[str, ArrayMetadata], dict[str, Mapping[str, JSON]]]:
    """Return the facts, the arrays and the groups' attributes of a commit record."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise TraceError(f"{path}: the commit record {RECORD} is not JSON ({error})") from error
    facts = _facts(path, document)
    arrays: dict[str, ArrayMetadata] = {}
    groups: dict[str, Mapping[str, JSON]] = {}
    try:
        members = document["consolidated_metadata"]["metadata"]
        rows = {str(name): int(count) for name, count in facts["rows"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TraceError(f"{path}: the commit record {RECORD} lacks {error}") from error
    for key, member in members.items():
        try:
            _check_key(key)
            if member["node_type"] == "group":
                groups[key] = dict(member["attributes"])
            else:
                arrays[key] = ArrayMetadata.from_json(member)
        except (KeyError, TypeError, ValueError) as error:
            raise TraceError(f"{path}: the commit record's entry for {key!r} is invalid ({error})") from error
    return {**facts, "rows": rows}, arrays, groups


def _facts(path: Path, document: JSON) -> dict[str, JSON]:
    attributes = document.get("attributes") if isinstance(document, dict) else None
    facts = attributes.get("tscope") if isinstance(attributes, dict) else None
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise TraceError(f"{path} is not a trace: its {RECORD} was not written by tscope")
    if facts["format"] > FORMAT:
        raise TraceError(
            f"{path} is in trace format {facts['format']}, and this tscope reads up to format {FORMAT}: "
            "upgrade tscope"
        )
    return facts


def _check_key(key: str) -> None:
    """Refuse keys that lead out of the trace's folder."""
    if any(part in ("", ".", "..") or "\0" in part for part in key.split("/")):
        raise ValueError("not a path within the trace")

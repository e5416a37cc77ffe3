"""What a trace holds at one moment, and how it is committed.

The order is: chunks, then each array's `zarr.json`, then each group's from the innermost out, then the
root's. The last one is the commit record; whatever a kill leaves before it lies beyond the committed shapes,
and nobody reads it. A group's own document carries the metadata of its subtree, so that a stock reader of one
group sees a consistent state too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from tscope_format.disk import Disk
from tscope_format.dtypes import JSON
from tscope_format.metadata import ArrayMetadata, consolidated, dump, group_json

RECORD = "zarr.json"


class Part(Protocol):
    """A part of a trace that knows its arrays and groups."""

    @property
    def bytes_raw(self) -> int:
        """Size of everything appended, uncompressed."""
        ...

    def flush(self) -> None:
        """Write everything appended so far."""
        ...

    def arrays(self) -> Mapping[str, ArrayMetadata]:
        """Return the metadata of the arrays, by path within the trace."""
        ...

    def groups(self) -> Mapping[str, Mapping[str, JSON]]:
        """Return the attributes of the groups that have some, by path within the trace."""
        ...


class Tree:
    """The committed state of a folder, and the way to the next one."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._written: dict[str, str] = {}
        self._texts: dict[str, tuple[ArrayMetadata, str]] = {}
        self._members: dict[str, str] = {}

    def commit(self, parts: Iterable[Part], attributes: Mapping[str, JSON]) -> None:
        """Flush `parts` and commit them with the root's `attributes`.

        Raises:
            OSError: something could not be written; the former commit stands.
        """
        arrays: dict[str, ArrayMetadata] = {}
        groups: dict[str, Mapping[str, JSON]] = {}
        for part in parts:
            part.flush()
            arrays.update(part.arrays())
            groups.update(part.groups())
        for path in arrays:
            for parent in _parents(path):
                groups.setdefault(parent, {})
        members = {path: self._text(path, metadata) for path, metadata in arrays.items()}
        for path, text in members.items():
            self._replace(f"{path}/{RECORD}", text)
        members |= {path: dump(group_json(own)) for path, own in groups.items()}
        members = dict(sorted(members.items()))
        for path in sorted(groups, key=lambda path: -path.count("/")):
            inside = path + "/"
            below = {key.removeprefix(inside): members[key] for key in members if key.startswith(inside)}
            self._replace(inside + RECORD, consolidated(group_json(groups[path]), below))
        if not self._replace(RECORD, consolidated(group_json(attributes), members)):
            # Readers take the record's age for the recorder's pulse.
            self._disk.touch(RECORD)
        self._members = members

    def recommit(self, attributes: Mapping[str, JSON]) -> None:
        """Commit other attributes of the root, with everything else as it was committed last.

        Raises:
            OSError: the record could not be written; the former commit stands.
        """
        self._replace(RECORD, consolidated(group_json(attributes), self._members))

    def _text(self, path: str, metadata: ArrayMetadata) -> str:
        former = self._texts.get(path)
        # Metadata is replaced whenever a shape changes, so identity or equality settles it cheaply.
        if former is not None and (former[0] is metadata or former[0] == metadata):
            return former[1]
        text = dump(metadata.to_json())
        self._texts[path] = metadata, text
        return text

    def _replace(self, key: str, text: str) -> bool:
        """Write a document if it differs from what is there; return whether it did."""
        if self._written.get(key) == text:
            return False
        self._disk.write(key, [text.encode()])
        self._written[key] = text
        return True


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]

"""The traces in some folders, kept up to date: only what changed is read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tscope_format.disk import disk_size

from tscope_tui.data.entry import Entry, find, read_entry
from tscope_tui.data.status import State
from tscope_tui.data.tail import Backoff, Signature, signature
from tscope_tui.stages.host import Host

# Sizes are counted by walking the folder, which is dear on network file systems: at most this often for each.
_SIZE_SECONDS = 20.0
_BATCH = 16


@dataclass(frozen=True)
class _News:
    """What a look at the folders brought: entries read anew, and every trace there is."""

    entries: tuple[Entry, ...]
    signatures: dict[Path, Signature | None]
    paths: tuple[Path, ...]
    rest: tuple[Path, ...]


class Catalogue:
    """Entries by path; `changed` is called in the screen's thread with the paths that were read anew."""

    def __init__(
        self, host: Host, folders: Sequence[Path], changed: Callable[[Sequence[Path]], None]
    ) -> None:
        self.entries: dict[Path, Entry] = {}
        self.read = False
        self._host, self._folders, self._changed = host, tuple(folders), changed
        self._signatures: dict[Path, Signature | None] = {}
        self._sized: dict[Path, float] = {}
        self._backoff = Backoff()
        self._timer: Callable[[], None] | None = None
        self._stopped = True

    def start(self) -> None:
        """Look now, and again later."""
        self._stopped = False
        self._look()

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer()

    def _look(self, rest: tuple[Path, ...] = (), paths: tuple[Path, ...] | None = None) -> None:
        known = dict(self._signatures)
        folders = self._folders
        self._host.background("catalogue", lambda: _search(folders, known, rest, paths), self._take)

    def _take(self, news: _News) -> None:
        if self._stopped:
            return
        present = set(news.paths)
        gone = [path for path in self.entries if path not in present]
        for path in gone:
            del self.entries[path]
        for entry in news.entries:
            before = self.entries.get(entry.path)
            self.entries[entry.path] = entry if before is None else replace(entry, bytes=before.bytes)
        self._signatures = {path: known for path, known in self._signatures.items() if path in present}
        self._signatures.update(news.signatures)
        changed = [entry.path for entry in news.entries]
        self.read = self.read or not news.rest
        aged = self._age()
        if changed or gone or aged or not news.rest:
            self._changed(changed)
        if news.rest:
            self._look(news.rest, news.paths)
            return
        self._count()
        self._timer = self._host.later(self._backoff.looked(changed=bool(changed or gone)), self._look)

    def _age(self) -> bool:
        """Let every entry grow older; return whether a state changed."""
        now = time.time()
        aged = {path: entry.seen(now) for path, entry in self.entries.items()}
        changed = any(aged[path].state is not entry.state for path, entry in self.entries.items())
        self.entries = aged
        return changed

    def _count(self) -> None:
        now = time.monotonic()
        due = [
            path
            for path, entry in self.entries.items()
            if entry.bytes is None
            or (entry.state is State.LIVE and now - self._sized.get(path, 0.0) > _SIZE_SECONDS)
        ]
        if due:
            self._host.background("sizes", lambda: {path: disk_size(path) for path in due}, self._counted)

    def _counted(self, sizes: dict[Path, int]) -> None:
        now = time.monotonic()
        for path, count in sizes.items():
            self._sized[path] = now
            if path in self.entries:
                self.entries[path] = replace(self.entries[path], bytes=count)
        if not self._stopped:
            self._changed(())


def _search(
    folders: Sequence[Path],
    known: dict[Path, Signature | None],
    rest: tuple[Path, ...],
    paths: tuple[Path, ...] | None,
) -> _News:
    """Find the traces, or go on with the rest of the last search, and read some of those that changed."""
    if paths is None:
        paths = tuple(find(folders))
        rest = tuple(path for path in paths if path not in known or signature(path) != known[path])
    now = time.time()
    signatures, entries = {}, []
    for path in rest[:_BATCH]:
        # Before the entry is read: what is committed meanwhile is noticed at the next look.
        signatures[path] = signature(path)
        entries.append(read_entry(path, now))
    return _News(tuple(entries), signatures, paths, rest[_BATCH:])

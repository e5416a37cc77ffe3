"""The memory that a recorded process shares with the recorder: its two sides, against each other."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from record_run import await_that

from tscope.record.frames import PREFIX, FrameError, read_frame
from tscope.record.inbox import Inbox
from tscope.record.observer.arena import HEAD, Arena, shared
from tscope.record.observer.batch import copied
from tscope.record.observer.blocks import Pool
from tscope.record.observer.sender import Sender
from tscope.record.observer.wire import Frame, send
from tscope.record.receiver import Received, Receiver
from tscope.record.shared_memory import SharedMemory, Stream

KB = 1 << 10
MB = 1 << 20


def numbers(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def frame(pool: Pool, tensor: torch.Tensor, **fields: object) -> Frame:
    return Frame("step", dict(fields), [copied(pool, tensor).blob("theta:float32")])


class Line:
    """Both ends of a recording's connection, in one process."""

    def __init__(self, folder: Path, *, memory: int = MB, limit: int = MB, inbox: int = 64 * MB) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "s"))
        self.listener.listen()
        self.inbox: Inbox[Received] = Inbox(limit=inbox, fewest=1)
        self.receiver = Receiver(self.listener, self.inbox)
        self.receiver.start()
        self.arena = Arena(memory)
        self.failed: list[Exception] = []
        self.sender = Sender(str(folder / "s"), limit, lambda _, error: self.failed.append(error), self.arena)
        self.pool = Pool()
        self.pool.arena = self.arena

    def get(self) -> np.ndarray:
        received = self.inbox.get(30.0)
        assert received is not None, "nothing came"
        assert received.frame is not None, received.problem
        return received.frame.blobs["theta:float32"].array

    def close(self) -> None:
        self.receiver.close()
        self.inbox.close()
        self.listener.close()


@contextmanager
def line(folder: Path, **settings: int) -> Iterator[Line]:
    made = Line(folder, **settings)
    try:
        yield made
    finally:
        made.close()


def test_arrays_come_back_and_their_memory_is_used_again(tmp_path: Path) -> None:
    with line(tmp_path, memory=MB, limit=MB // 2) as both:
        offsets = set()
        for step in range(50):  # 50 × 100 kB through 1 MB
            sent = frame(both.pool, numbers(25_000, step))
            offsets.add(sent.blobs[0].block.offset)
            both.sender.put(sent)
            del sent
            assert both.get().tobytes() == numbers(25_000, step).numpy().tobytes()
        both.sender.close()
        assert 0 not in offsets
        assert len(offsets) <= 9


def test_what_finds_no_room_passes_through_the_socket(tmp_path: Path) -> None:
    with line(tmp_path, memory=HEAD + 128 * KB, limit=4 * MB) as both:
        frames = [frame(both.pool, numbers(16_000, step)) for step in range(6)]
        assert [sent.blobs[0].block.offset > 0 for sent in frames] == [True, True, False, False, False, False]
        for sent in frames:
            both.sender.put(sent)
        for step in range(6):
            assert both.get().tobytes() == numbers(16_000, step).numpy().tobytes()
        both.sender.close()
        assert not both.failed


def test_the_senders_thread_has_ended_when_it_is_closed(tmp_path: Path) -> None:
    with line(tmp_path, inbox=1) as both:
        for step in range(5):
            both.sender.put(frame(both.pool, numbers(25_000, step)))
        both.sender.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "tscope-sender"]


def test_capacities_are_few_so_that_batches_of_many_lengths_share_memory() -> None:
    pool = Pool()
    pool.arena = Arena(64 * MB)
    offsets = set()
    for size in range(3_000_000, 3_100_000, 1000):
        offsets.add(pool.take(size).offset)
    assert len(offsets) == 1


def test_whoever_adds_waits_until_the_recorder_has_read(tmp_path: Path) -> None:
    with line(tmp_path, limit=250 * KB, inbox=1) as both:  # the recorder reads two, and holds the second
        for step in range(4):
            both.sender.put(frame(both.pool, numbers(25_000, step)))
        waiting = threading.Thread(target=both.sender.put, args=(frame(both.pool, numbers(25_000, 4)),))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "the queue took more than its limit"
        for step in range(5):
            assert both.get().tobytes() == numbers(25_000, step).numpy().tobytes()
        waiting.join(30)
        assert not waiting.is_alive()
        assert both.sender.wait_ns > 0


def test_frames_that_were_sent_are_read_after_the_sender_has_ended(tmp_path: Path) -> None:
    with line(tmp_path, inbox=1) as both:
        for step in range(5):
            both.sender.put(frame(both.pool, numbers(25_000, step)))
        both.sender.close()  # returns while the recorder has read two
        for step in range(5):
            assert both.get().tobytes() == numbers(25_000, step).numpy().tobytes()


def test_a_recorder_that_dies_with_frames_unread_is_noticed(tmp_path: Path) -> None:
    with line(tmp_path, limit=250 * KB, inbox=1) as both:
        for step in range(3):
            both.sender.put(frame(both.pool, numbers(16_000, step)))
        both.close()
        await_that(lambda: both.sender.gone)
        both.sender.put(frame(both.pool, numbers(16_000, 3)))  # does not wait for room that nobody makes
        both.sender.close()


def test_no_descriptor_is_left_in_the_script() -> None:
    def descriptors() -> list[str]:
        return [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]

    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        before = sum("memfd:tscope" in name for name in descriptors())
        Arena(MB).offer(theirs)
    assert sum("memfd:tscope" in name for name in descriptors()) == before


def test_a_system_without_such_memory_uses_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared(0) is None

    def refuse(*_: object) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert shared(MB) is None


# --- what another process may send: nothing is believed unchecked


def offer(descriptor: int | None) -> SharedMemory:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        attached = []
        if descriptor is not None:
            attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        send(theirs, Frame("memory", {}).pieces(), attached)
        stream = Stream(ours)
        try:
            assert read_frame(stream.receive) is not None
            return SharedMemory(stream.descriptor())
        finally:
            stream.close()


def memory_file(size: int, *, sealed: bool) -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    if sealed:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


@pytest.mark.parametrize(
    ("size", "sealed", "message"),
    [
        (8192, False, "shared memory whose size can change"),
        (100, True, "100 bytes of shared memory, fewer than 4096"),
    ],
)
def test_memory_that_could_be_taken_away_is_refused(size: int, sealed: bool, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        offer(memory_file(size, sealed=sealed))


def test_a_file_instead_of_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="cannot be mapped"):
        offer(os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(FrameError, match="offers shared memory, and sends none"):
        offer(None)


def text(entry: str) -> bytes:
    header = f'{{"type":"step","blobs":[{entry}]}}'.encode()
    return PREFIX.pack(b"tsc1", len(header), 0) + header


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        ("0", "bytes 0 to 400 of 8192 that are shared"),
        ("8000", "bytes 8000 to 8400 of 8192"),
        ("-400", r"has an array at \[-400\]"),
        ('"x"', r"has an array at \['x'\]"),
    ],
)
def test_an_array_outside_of_the_memory_is_refused(offset: str, message: str) -> None:
    memory = offer(memory_file(8192, sealed=True))
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        theirs.sendall(text(f'["a","float32",[100],{offset}]'))
        with pytest.raises(FrameError, match=message):
            read_frame(ours.recv_into, memory)


def test_an_array_in_memory_that_nobody_shares_is_refused() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        theirs.sendall(text('["a","float32",[100],4096]'))
        with pytest.raises(FrameError, match="`a` in memory that is not shared"):
            read_frame(ours.recv_into)

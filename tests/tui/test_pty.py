"""End to end in a pseudo-terminal, as pyte sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from tui_traces import Run, finished, save_telescoping

SHOWN, HIDDEN, LEFT = "\x1b[?25h", "\x1b[?25l", "\x1b[?1049l"


class Terminal:
    """A program in a pseudo-terminal, and the screen it draws."""

    def __init__(self, arguments: list[str], width: int, height: int, cwd: Path, **environment: str) -> None:
        self.screen = pyte.Screen(width, height)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        known = {
            key: value
            for key, value in os.environ.items()
            if key not in ("NO_COLOR", "SSH_CONNECTION", "TMUX")
        }
        known |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **environment}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            code = "import sys; from tscope_cli.main import run; sys.exit(run(sys.argv[1:]))"
            os.execve(sys.executable, [sys.executable, "-c", code, "browse", *arguments], known)
        self.status: int | None = None

    def pump(self, seconds: float = 0.05) -> int:
        """Feed the screen with what was written; return the number of bytes."""
        count = 0
        while select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            if not data:
                break
            count += len(data)
            self.raw += data
            # pyte does not know private modes with intermediates ($p) nor kitty's keyboard modes.
            self.stream.feed(data.replace(b"\x1b[?2026$p", b"").replace(b"\x1b[?2048$p", b""))
            seconds = 0.02
        return count

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, condition: Callable[[str], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.pump()
            if condition(self.text()):
                return
        raise AssertionError(f"{what} did not come:\n{self.text()}")

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(height, width)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for the end and return the exit code."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline:
            self.pump()
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pump(0.2)
                self.status = os.waitstatus_to_exitcode(status)
        assert self.status is not None, f"the program did not end:\n{self.text()}"
        return self.status

    def restored(self) -> bool:
        """Return whether the alternate screen was left, the cursor shown, and lines are edited again."""
        tail = self.raw.decode("utf-8", "replace")
        flags = termios.tcgetattr(self.fd)[3]
        return (
            tail.rfind(LEFT) > tail.rfind("\x1b[?1049h")
            and tail.rfind(SHOWN) > tail.rfind(HIDDEN)
            and bool(flags & termios.ECHO)
            and bool(flags & termios.ICANON)
        )

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Terminal]]:
    running: list[Terminal] = []

    def begin(*arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> Terminal:
        running.append(Terminal([*arguments], *size, tmp_path, **environment))
        return running[-1]

    yield begin
    for terminal in running:
        terminal.close()


def followed(text: str) -> int:
    """Return the step of a cursor that is on the last one; 0 when it is not."""
    found = re.search(r"step ([\d,]+)/\1 ", text)
    return int(found[1].replace(",", "")) if found else 0


def test_browsing_a_run_while_it_is_recorded(tmp_path, start):
    run = Run(tmp_path / "runs" / "live.zarr")
    run.train(40)
    stop = threading.Event()

    def train() -> None:
        while not stop.wait(0.3):
            run.train(5)

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        terminal = start()
        terminal.until(lambda text: "● live" in text and "loss of live" in text, "the browser")
        terminal.press("\r")
        terminal.until(lambda text: "LIVE" in text and "[1 Overview]" in text and "follow" in text, "the run")
        first = run.step
        terminal.until(lambda text: followed(text) > first, "growth")
        terminal.press("\x1b[1;2D")
        terminal.until(lambda text: " new" in text, "the count of new steps")
        terminal.press("++")
        terminal.until(lambda text: "━━◆" in text or "◆━━" in text, "the zoom")
        terminal.press("2")
        terminal.until(lambda text: "[2 Telescoping]" in text and "‖f−f₀‖ rms" in text, "telescoping")
        terminal.resize(60, 15)
        terminal.until(
            lambda text: text.count("┏") == 1 and "┌" not in text and "› telescoping" in text, "one pane"
        )
        terminal.resize(160, 48)
        terminal.until(
            lambda text: "recorded" in text and "fc1" not in text and text.count("┌") >= 4, "the side bar"
        )
        terminal.press("q")
        assert terminal.wait() == 0
        assert terminal.restored()
    finally:
        stop.set()
        trainer.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_restores_the_terminal(tmp_path, start, number, code):
    finished(tmp_path / "a.zarr", 20)
    terminal = start("a.zarr")
    terminal.until(lambda text: "[1 Overview]" in text and "done" in text, "the run")
    os.kill(terminal.pid, number)
    assert terminal.wait() == code
    assert terminal.restored()


def test_the_terminal_is_believed_more_than_the_environment(tmp_path, start):
    finished(tmp_path / "a.zarr", 20)
    terminal = start("a.zarr", COLUMNS="100", LINES="30")
    terminal.until(lambda text: "[1 Overview]" in text and "done" in text, "the run")
    terminal.resize(60, 15)
    terminal.until(lambda text: text.count("┏") == 1 and "┌" not in text, "one pane")
    terminal.resize(80, 24)
    terminal.until(lambda text: text.count("┏") == 1 and "┌" in text, "several panes")
    terminal.press("q")
    assert terminal.wait() == 0


def test_ctrl_c_quits(tmp_path, start):
    finished(tmp_path / "a.zarr", 20)
    terminal = start("a.zarr")
    terminal.until(lambda text: "[1 Overview]" in text and "done" in text, "the run")
    terminal.press("\x03")
    assert terminal.wait() == 0
    assert terminal.restored()


def test_nothing_is_written_while_nothing_happens_and_a_move_is_cheap(tmp_path, start):
    save_telescoping(finished(tmp_path / "a.zarr"))
    terminal = start("a.zarr")
    terminal.until(lambda text: "[1 Overview]" in text and "done" in text, "the run")
    terminal.press("2")
    terminal.until(lambda text: "fc1" in text, "the layers")
    # Whatever was under way has been drawn when nothing came for a second.
    while terminal.pump(1.0):
        pass
    assert terminal.pump(2.0) == 0
    terminal.press("\x1b[D")
    count = 0
    deadline = time.monotonic() + 20
    while "step 119/120" not in terminal.text() and time.monotonic() < deadline:
        count += terminal.pump()
    assert 0 < count + terminal.pump(0.3) < 6000


def test_without_colour_nothing_is_coloured(tmp_path, start):
    finished(tmp_path / "a.zarr", 20)
    terminal = start("a.zarr", NO_COLOR="1")
    terminal.until(lambda text: "[1 Overview]" in text and "done" in text, "the run")
    terminal.press("q")
    assert terminal.wait() == 0
    assert "38;2" not in terminal.raw.decode("utf-8", "replace")
    assert "38;5" not in terminal.raw.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "environment", [{"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}]
)
def test_ascii_by_option_and_by_locale(tmp_path, start, environment):
    finished(tmp_path / "a.zarr", 20)
    terminal = start("a.zarr", *([] if environment else ["--ascii"]), **environment)
    terminal.until(lambda text: "[1 Overview]" in text and "done" in text, "the run")
    assert terminal.text().isascii()
    terminal.press("q")
    assert terminal.wait() == 0


def test_a_dumb_terminal_is_refused_in_one_line(tmp_path, start):
    finished(tmp_path / "a.zarr", 5)
    terminal = start("a.zarr", TERM="dumb")
    assert terminal.wait() == 2
    assert terminal.text().count("tscope:") == 1
    assert "\x1b" not in terminal.raw.decode()
    assert "tscope ls" in terminal.text().replace("\n", " ")


def test_without_a_terminal_it_is_refused_in_one_line(tmp_path):
    import subprocess

    code = "import sys; from tscope_cli.main import run; sys.exit(run(['browse']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "browse needs a terminal" in done.stderr
    assert "tscope ls" in done.stderr


def test_a_path_that_is_not_there_is_refused(tmp_path, start):
    terminal = start("nowhere.zarr")
    assert terminal.wait() == 2
    assert "no such trace or folder" in terminal.text().replace("\n", " ")

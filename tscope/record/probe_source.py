"""Probe sets that the person names: an `.npz` file, or a function that is called in a process of its own."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tscope_format.dtypes import JSON
from tscope_format.errors import RecordError, UsageError, clean

from tscope.record.frames import Blob, Frame, FrameError, read_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEYS = "`x` (or `x0`, `x1`, … for a model of several inputs) and optionally `y`"


@dataclass(frozen=True)
class ProbeArrays:
    """A probe set as it is handed to the recorder.

    Attributes:
        name: Its name in the trace.
        inputs: The model's inputs, each (example, …).
        target: The labels (example, …), where known.
        attributes: Where it comes from, for the trace.
    """

    name: str
    inputs: tuple[Blob, ...]
    target: Blob | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """The number of rows."""
        return len(self.inputs[0].array)


def is_function(spec: str) -> bool:
    """Return whether `--probe SPEC` names a function rather than a file."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec) is not None and not Path(spec).exists()


def load_file(path: Path) -> ProbeArrays:
    """Read the probe file `path`; RecordError says in one line what is wrong with it."""
    from tscope.probes import read_probe_file

    try:
        probe = read_probe_file(path)
    except UsageError as error:
        raise RecordError(str(error)) from error
    inputs = tuple(Blob(array, str(array.dtype)) for array in probe.inputs)
    target = None if probe.target is None else Blob(probe.target, str(probe.target.dtype))
    return ProbeArrays("probe", inputs, target, {"kind": "file", "source": path.name, "in_sample": False})


def load_function(spec: str, command: Sequence[str], folder: Path) -> ProbeArrays:
    """Call `module:function` with the interpreter that `command` uses, in a process of its own.

    Args:
        spec: `module:function`.
        command: The command to be recorded; the module is looked for beside its script, then in the working
            folder.
        folder: Where the result may be put.

    Raises:
        RecordError: The function cannot be found, raised, or returned something else than arrays.
    """
    name = f"--probe {clean(spec)}"
    result = folder / "probe"
    helper = Path(__file__).with_name("probe_function.py")
    run = [interpreter(command), str(helper), spec, str(result), *_import_folders(command)]
    try:
        done = subprocess.run(run, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        reason = f"{clean(run[0])} cannot be started: {clean(error.strerror)}"
        raise RecordError(f"{name}: {reason}") from error
    if not result.exists():
        raise RecordError(f"{name}: its process ended with code {done.returncode} and returned nothing")
    try:
        frame = _read(result)
    except FrameError as error:
        raise RecordError(f"{name}: what it returned cannot be held: {error}") from error
    if frame.kind != "probe":
        raise RecordError(f"{name} raised {clean(frame.text('error'))}")
    return checked(name, frame.blobs, {"kind": "function", "source": spec, "in_sample": False})


def checked(name: str, arrays: Mapping[str, Blob], attributes: Mapping[str, JSON]) -> ProbeArrays:
    """Return the probe set made of these arrays; RecordError names what is wrong with them."""
    numbered = sorted((key for key in arrays if re.fullmatch(r"x\d+", key)), key=lambda key: int(key[1:]))
    names = ["x"] if "x" in arrays else numbered
    gaps = names != ["x"] and names != [f"x{k}" for k in range(len(names))]
    if not names or gaps or set(arrays) - {"y", *names}:
        found = ", ".join(clean(key) for key in sorted(arrays)) or "nothing"
        raise RecordError(f"{name} must give {_KEYS}; it gives {found}")
    counts = {blob.array.shape[:1] for blob in arrays.values()}
    if len(counts) != 1 or counts <= {(), (0,)}:
        shapes = ", ".join(f"{key} {list(blob.array.shape)}" for key, blob in arrays.items())
        raise RecordError(
            f"{name}: every array must have the same number of examples, at least one; got {shapes}"
        )
    for key, blob in arrays.items():
        bad = np.argwhere(~np.isfinite(_as_numbers(blob)))
        if len(bad):
            raise RecordError(
                f"{name}: `{key}` holds {len(bad)} NaN or infinite value(s), the first in example "
                f"{bad[0][0]}; remove those examples"
            )
    return ProbeArrays("probe", tuple(arrays[key] for key in names), arrays.get("y"), attributes)


def _as_numbers(blob: Blob) -> NDArray[Any]:
    """Return values whose finiteness is the blob's; bfloat16 is the upper half of a float32."""
    if blob.dtype == "bfloat16":
        return (blob.array.astype(np.uint32) << 16).view(np.float32)
    if blob.array.dtype.kind == "f":
        return blob.array
    return np.zeros(blob.array.shape[:1], np.float32)


def interpreter(command: Sequence[str]) -> str:
    """Return the Python of `command`: itself, what its first line names, else the one on the path."""
    program = shutil.which(command[0]) or command[0]
    if re.fullmatch(r"python[\d.]*t?|pypy[\d.]*", Path(command[0]).name):
        return program
    with contextlib.suppress(OSError, UnicodeDecodeError), open(program, "rb") as file:
        first = file.readline(256).decode().removeprefix("#!").split()
        if first and "python" in first[-1]:
            return shutil.which(first[-1]) or first[-1]
    return shutil.which("python") or shutil.which("python3") or sys.executable


def _import_folders(command: Sequence[str]) -> list[str]:
    """Return where the script itself would import from: its own folder, and the working one."""
    script = next((argument for argument in command[1:] if argument.endswith(".py")), None)
    own = [] if script is None else [str(Path(script).absolute().parent)]
    return [*own, str(Path.cwd())]


def _read(path: Path) -> Frame:
    with path.open("rb", buffering=0) as file:
        frame = read_frame(file.readinto)
    if frame is None:
        raise FrameError("nothing was written")
    return frame

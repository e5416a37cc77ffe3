"""Calls `module:function` and sends what it returns: run in the script's interpreter, not in tscope's.

Stand-alone: only the standard library, Python 3.9 or newer; torch and numpy are used if the function's result
is made of them. Usage: python probe_function.py MODULE:FUNCTION RESULT FOLDER… (the folders to import from).
The result file holds one frame (see `frames.py`): `probe` with the arrays, or `error` with one line.
"""

import array
import ctypes
import importlib
import json
import os
import struct
import sys
from typing import Any, List, Tuple  # noqa: UP035 - Python 3.9

Plain = Tuple[str, str, List[int], bytes]  # noqa: UP006 - name, dtype, shape, values


def main() -> None:
    """Call the function and write the result file."""
    spec, result, folders = sys.argv[1], sys.argv[2], sys.argv[3:]
    # In place of this file's own folder; the script itself would not see it either.
    sys.path[0:1] = folders
    # What the function prints is a message for the person: stdout may be piped into another program.
    os.dup2(2, 1)
    try:
        module, _, function = spec.partition(":")
        value = importlib.import_module(module)  # type: Any
        for part in function.split("."):
            value = getattr(value, part)
        arrays = plain_arrays(value())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _write(result, "error", {"error": f"{type(error).__name__}: {error}"}, [])
        return
    _write(result, "probe", {}, arrays)


def plain_arrays(value: Any) -> List[Plain]:  # noqa: UP006
    """Return the arrays of a function's result: x, (x, y), or a dict of x (or x0, x1, …) and y."""
    if isinstance(value, dict):
        named = value
    elif isinstance(value, (tuple, list)) and len(value) == 2 and not isinstance(value[0], (int, float)):
        named = {"x": value[0], "y": value[1]}
    else:
        named = {"x": value}
    return [_plain(str(name), item) for name, item in named.items() if item is not None]


def _plain(name: str, value: Any) -> Plain:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        # Not by way of numpy: it may be missing, and knows no bfloat16.
        size = value.numel() * value.element_size()
        data = ctypes.string_at(value.data_ptr(), size) if size else b""
        return name, str(value.dtype).replace("torch.", ""), list(value.shape), data
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        data = b"" if value.dtype == object else value.tobytes()
        return name, str(value.dtype), list(value.shape), data
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (int, float)) for item in value):
        whole = all(isinstance(item, int) for item in value)
        dtype, code = ("int64", "q") if whole else ("float32", "f")
        return name, dtype, [len(value)], array.array(code, value).tobytes()
    raise TypeError(
        f"`{name}` is a {type(value).__name__}; the function must return x, (x, y) or a dict of x (or x0, "
        "x1, …) and y, made of tensors or arrays"
    )


def _write(path: str, kind: str, fields: Any, arrays: List[Plain]) -> None:  # noqa: UP006
    blobs = [[name, dtype, shape] for name, dtype, shape, _ in arrays]
    header = json.dumps(dict(fields, type=kind, blobs=blobs)).encode()
    size = sum(len(data) for _, _, _, data in arrays)
    with open(path, "wb") as file:
        file.write(struct.pack("<4sIQ", b"tsc1", len(header), size) + header)
        for _, _, _, data in arrays:
            file.write(data)


if __name__ == "__main__":
    main()

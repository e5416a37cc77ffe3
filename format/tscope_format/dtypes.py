"""Element types: the names torch gives them, and how each is held in numpy and in Zarr.

Torch has types that numpy lacks (bfloat16, the float8 family). Their bits are held in the unsigned integer of
the same width, and the true name goes into the array's `dtype` attribute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tscope_format.errors import RecordError

NDArray: TypeAlias = npt.NDArray[Any]
"""An array whose element type is known only at run time."""

JSON: TypeAlias = Any
"""A JSON value. Only a name: a recursive alias would make every reader narrow at every level."""

Kind = Literal["float", "integer"]


@dataclass(frozen=True)
class Dtype:
    """One element type.

    Attributes:
        name: torch's name, such as `"bfloat16"`.
        numpy: the type of the arrays that callers pass and get.
        kind: `"float"` differences count representable values; `"integer"` differences wrap around.
        words: stored words per element (a complex number is two floats).
    """

    name: str
    numpy: np.dtype[Any]
    kind: Kind
    words: int = 1

    @property
    def word(self) -> np.dtype[Any]:
        """The type of one stored word: `numpy` itself, except that complex is held as its float parts."""
        return np.dtype(f"f{self.numpy.itemsize // 2}") if self.numpy.kind == "c" else self.numpy

    @property
    def unsigned(self) -> np.dtype[Any]:
        """The unsigned integer as wide as a stored word: the type of encoded differences."""
        return np.dtype(f"u{self.word.itemsize}")


def _known() -> dict[str, Dtype]:
    types = [Dtype(name, np.dtype(name), "float") for name in ("float16", "float32", "float64")]
    types.append(Dtype("bfloat16", np.dtype("uint16"), "float"))
    types += [Dtype(name, np.dtype(name), "float", words=2) for name in ("complex64", "complex128")]
    for width in (8, 16, 32, 64):
        types += [Dtype(f"{sign}int{width}", np.dtype(f"{sign}int{width}"), "integer") for sign in ("", "u")]
    types.append(Dtype("bool", np.dtype("bool"), "integer"))
    types += [
        Dtype(name, np.dtype("uint8"), "integer")
        for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
    ]
    return {dtype.name: dtype for dtype in types}


_KNOWN = _known()


def dtype_of(name: str) -> Dtype:
    """Return the element type that torch calls `name`.

    Raises:
        RecordError: the type cannot be held in a trace.
    """
    try:
        return _KNOWN[name]
    except KeyError:
        raise RecordError(
            f"the element type {name!r} cannot be recorded; known types: {', '.join(sorted(_KNOWN))}"
        ) from None


def words(array: NDArray, dtype: Dtype) -> NDArray:
    """View a C-contiguous array of `dtype` as its stored words, complex last axis twice as long."""
    return array.view(dtype.word) if dtype.words > 1 else array


def to_real(array: NDArray, dtype: Dtype) -> NDArray:
    """Return the values of stored words as float32, or float64 where they are wider, for norms.

    Integers and bit patterns are converted as the numbers that they are in numpy.
    """
    if dtype.name == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)

"""The input of one example, and whether it can be shown as an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tscope_format import RootReader

# Images have sides of so many pixels, and are not much longer than wide.
_SIDES = (6, 512)
_RATIO = 4


@dataclass(frozen=True, eq=False)
class Shown:
    """One example of a probe set.

    Attributes:
        example: Its number in the set.
        values: Its first input, of its own shape.
        image: The same as (height, width, channel), channels being 1 or 3; None where it is no image.
        flat: Whether the input is a vector, shown as the square that it would be.
    """

    example: int
    values: NDArray[Any]
    image: NDArray[np.float64] | None
    flat: bool = False


def read_shown(root: RootReader, probe: str, example: int) -> Shown | None:
    """Read the first input of an example; None where it was not recorded.

    Raises:
        TraceError: It cannot be read.
    """
    name = f"probe/{probe}/input/0"
    if name not in root.arrays() or not 0 <= example < root.arrays()[name].shape[0]:
        return None
    values = np.asarray(root.read(name, example, example + 1))[0]
    return Shown(example, values, image_of(values), values.ndim == 1)


def image_of(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return an input as (height, width, channel), or None where it does not look like an image.

    (height, width), (channel, height, width) and (height, width, channel) with 1 or 3 channels are images; a
    vector of real numbers is one if its length is a square: digits are often stored so.
    """
    if values.dtype.kind not in "fu" and not (values.dtype.kind == "i" and values.ndim > 1):
        return None
    if values.ndim == 1:
        side = math.isqrt(values.size)
        found = values.reshape(side, side, 1) if side * side == values.size else None
    elif values.ndim == 2:
        found = values[:, :, None]
    elif values.ndim == 3 and values.shape[0] in (1, 3):
        found = values.transpose(1, 2, 0)
    elif values.ndim == 3 and values.shape[2] in (1, 3):
        found = values
    else:
        return None
    if found is None:
        return None
    low, high = sorted(found.shape[:2])
    if low < _SIDES[0] or high > _SIDES[1] or high > _RATIO * low:
        return None
    return found.astype(np.float64)

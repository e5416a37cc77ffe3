"""From the flat vectors of a trace to named torch tensors, without copying.

A trace holds all parameters of one dtype as one flat vector; the table says where each tensor lies in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tscope_format.errors import TraceError, clean

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tscope_format.tensors import Tensor as Entry

Tensors = dict[str, torch.Tensor]


def tensor(flat: NDArray[Any], dtype: str) -> torch.Tensor:
    """Return `flat` as a torch tensor of the dtype with torch's name `dtype`.

    The memory is shared where it can be: torch refuses read-only arrays, and other layouts would be slow.
    """
    if not (flat.flags.writeable and flat.flags.c_contiguous):
        flat = np.array(flat, order="C")
    plain = torch.from_numpy(flat)
    return plain.view(torch.bfloat16) if dtype == "bfloat16" else plain


def named(
    table: Sequence[Entry], flats: Mapping[str, NDArray[Any]], dtype: torch.dtype | None = None
) -> Tensors:
    """Return views of the flat vectors, by name.

    Args:
        table: The parameters or buffers of a root.
        flats: One flat vector for each dtype in the table.
        dtype: Cast floating-point tensors to this; None keeps what was recorded.

    Returns:
        One tensor for each entry of the table, in its order.

    Raises:
        TraceError: A tensor of the table does not lie within its vector.
    """
    vectors: Tensors = {}
    for name, flat in flats.items():
        vector = tensor(flat, name)
        vectors[name] = vector if dtype is None or not vector.is_floating_point() else vector.to(dtype)
    views: Tensors = {}
    for entry in table:
        vector = vectors.get(entry.dtype, torch.empty(0))
        if entry.offset + entry.size > len(vector):
            raise TraceError(
                f"tensor {clean(entry.name)} ({entry.dtype}) ends at {entry.offset + entry.size}, beyond the "
                f"{len(vector)} recorded values; `tscope verify` says more"
            )
        views[entry.name] = vector[entry.offset : entry.offset + entry.size].view(entry.shape)
    return views

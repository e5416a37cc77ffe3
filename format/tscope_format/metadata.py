"""Zarr v3 metadata: what one array or group says about itself, and the consolidated form.

Only what format 1 uses is produced and accepted; anything else in a trace is an error with a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tscope_format.codecs import Codec
from tscope_format.dtypes import JSON

FORMAT = 1
"""The major version written, and the newest that can be read."""

_CHUNK_KEYS: JSON = {"name": "default", "configuration": {"separator": "/"}}


@dataclass(frozen=True)
class ArrayMetadata:
    """One array: its axes, chunks and codecs.

    Attributes:
        dims: a name for each axis.
        shape: the committed shape.
        chunks: the shape of one chunk.
        dtype: the element type as stored.
        codec: how chunks become bytes.
        attributes: JSON attributes; `dtype` holds torch's name where numpy has none.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: Codec
    attributes: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def fill(self) -> Any:
        """The value of elements that nothing was recorded for."""
        return fill_of(self.dtype, str(self.attributes.get("dtype", "")), self.attributes.get("padding"))

    def with_shape(self, shape: tuple[int, ...]) -> ArrayMetadata:
        """Return the same array with another shape."""
        return replace(self, shape=shape)

    def to_json(self) -> JSON:
        """Return the document of this array's `zarr.json`."""
        fill = self.fill
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunks)}},
            "chunk_key_encoding": _CHUNK_KEYS,
            "fill_value": "NaN" if isinstance(fill, float) else fill,
            "codecs": self.codec.to_json(self.dtype),
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }

    @classmethod
    def from_json(cls, document: JSON) -> ArrayMetadata:
        """Read the document of an array.

        Raises:
            KeyError, TypeError, ValueError: it is not an array of format 1.
        """
        if document["chunk_key_encoding"] != _CHUNK_KEYS:
            raise ValueError("an unknown chunk key encoding")
        dtype = np.dtype(document["data_type"])
        if dtype.kind not in "biuf":
            raise ValueError(f"data type {dtype.name}")
        dims = tuple(str(name) for name in document["dimension_names"])
        shape = tuple(int(length) for length in document["shape"])
        chunks = tuple(int(length) for length in document["chunk_grid"]["configuration"]["chunk_shape"])
        if not len(dims) == len(shape) == len(chunks) or min((*shape, 0)) < 0 or min((*chunks, 1)) < 1:
            raise ValueError(f"shape {shape} with chunks {chunks} and dimensions {dims}")
        codec = Codec.from_json(document["codecs"], dtype)
        if codec.order is not None and sorted(codec.order) != list(range(len(shape))):
            raise ValueError(f"axis order {codec.order} of {len(shape)} axes")
        return cls(dims, shape, chunks, dtype, codec, document["attributes"])


def fill_of(dtype: np.dtype[Any], name: str, padding: JSON) -> Any:
    """Return the fill value: NaN for floats, so that nothing unrecorded looks like a number.

    Args:
        dtype: the stored type.
        name: torch's name of the element type where numpy has none, else empty.
        padding: an explicit value (−1 for padded identities), or None.
    """
    if padding is not None:
        return padding
    if dtype.kind == "f":
        return float("nan")
    if name == "bfloat16":
        return 0x7FC0
    return False if dtype.kind == "b" else 0


def group_json(attributes: Mapping[str, JSON]) -> JSON:
    """Return the document of a group inside a consolidated record."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def dump(document: JSON) -> str:
    """Return a document as compact ASCII JSON, so that lone surrogates in arguments survive."""
    return json.dumps(document, separators=(",", ":"))


def consolidated(group: Mapping[str, JSON], members: Mapping[str, str]) -> str:
    """Return a group's `zarr.json` with the metadata of everything below it inline.

    Args:
        group: the group's own document.
        members: the JSON text of every array and group below, by relative path.
    """
    inner = ",".join(f"{json.dumps(path)}:{text}" for path, text in members.items())
    outer = dump(group)
    return (
        f'{outer[:-1]},"consolidated_metadata":'
        f'{{"kind":"inline","must_understand":false,"metadata":{{{inner}}}}}}}'
    )

"""The ulp-delta codec gives back every bit, whatever the bits are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tscope_format import dtype_of, ulp
from tscope_format.dtypes import NDArray

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint32", "bool", "float8_e4m3fn"]
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1e-45, 1.0, -1.0]


def bits(array: NDArray) -> NDArray:
    return array.view(f"u{array.itemsize}")


@st.composite
def rows(draw: Any, names: list[str]) -> tuple[str, NDArray]:
    name = draw(st.sampled_from(names))
    dtype = dtype_of(name)
    shape = (draw(st.integers(2, 5)), draw(st.sampled_from([0, 1, 3, 511, 513])))
    limit = 1 if name == "bool" else 2 ** (8 * dtype.word.itemsize) - 1
    raw = draw(arrays(dtype.unsigned, shape, elements=st.integers(0, limit)))
    return name, raw.view(dtype.word)


@settings(deadline=None, max_examples=60)
@given(rows(FLOATS + INTEGERS))
def test_any_bits_come_back_row_by_row(case: tuple[str, NDArray]) -> None:
    name, values = case
    dtype = dtype_of(name)
    previous = values[0]
    for current in values[1:]:
        deltas = ulp.encode(previous, current, dtype)
        assert deltas.dtype == dtype.unsigned
        previous = ulp.decode(previous, deltas, dtype)
        assert np.array_equal(bits(previous), bits(current))


@settings(deadline=None, max_examples=60)
@given(rows(FLOATS + INTEGERS))
def test_blocks_hold_the_same_deltas_transposed_and_come_back(case: tuple[str, NDArray]) -> None:
    name, values = case
    dtype = dtype_of(name)
    count = len(values) - 1
    chunk = np.zeros((values.shape[1], count + 2), dtype.unsigned)
    ulp.encode_block(values, chunk, dtype)
    for row in range(count):
        assert np.array_equal(chunk[:, row], ulp.encode(values[row], values[row + 1], dtype))
    assert not chunk[:, count:].any()
    out = np.empty((count, values.shape[1]), dtype.word)
    ulp.decode_block(values[0], chunk, out, dtype)
    assert np.array_equal(bits(out), bits(values[1:]))


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_special_values_come_back_from_one_another(name: str) -> None:
    dtype = dtype_of(name)
    with np.errstate(over="ignore"):
        special = np.array(SPECIAL).astype(dtype.word)
    before, after = (side.ravel().copy() for side in np.meshgrid(special, special))
    restored = ulp.decode(before, ulp.encode(before, after, dtype), dtype)
    assert np.array_equal(bits(restored), bits(after))


@pytest.mark.parametrize("name", FLOATS)
def test_neighbouring_floats_differ_by_one(name: str) -> None:
    dtype = dtype_of(name)
    start = np.array([1.0]).astype(np.float32)
    if name == "bfloat16":
        value = np.array([0x3F80], np.uint16)
        above, below = value + np.uint16(1), value - np.uint16(1)
    else:
        value = start.astype(dtype.word)
        above, below = np.nextafter(value, np.inf, dtype=dtype.word), np.nextafter(value, 0, dtype=dtype.word)
    assert ulp.encode(value, value, dtype)[0] == 0
    assert ulp.encode(value, above, dtype)[0] == 2
    assert ulp.encode(value, below, dtype)[0] == 1


def test_zero_and_negative_zero_are_neighbours() -> None:
    dtype = dtype_of("float32")
    zero, negative = np.array([0.0], np.float32), np.array([-0.0], np.float32)
    assert ulp.encode(negative, zero, dtype)[0] == 2
    assert ulp.encode(zero, negative, dtype)[0] == 1

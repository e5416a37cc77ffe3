from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tscope.record.examples import row_hashes
from tscope.record.known_rows import KnownRows


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(1,), (2,), (3, 5), (8,), ()]),
    st.sampled_from(["uint8", "float32", "int64", "bool"]),
    st.integers(0, 9),
    st.integers(1, 2),
)
def test_hashes_are_those_of_the_rows_however_often_they_were_seen(seed, shape, dtype, most_rows, inputs):
    rng = np.random.default_rng(seed)
    known = KnownRows(most_rows)
    pool = [rng.integers(0, 3, (7, *shape)).astype(dtype) for _ in range(inputs)]
    for _ in range(6):
        slots = rng.integers(0, 7, rng.integers(0, 9))
        batch = [array[slots] for array in pool]
        assert known.hashes(batch) == row_hashes(batch)


def test_a_row_seen_before_is_not_hashed_again(monkeypatch):
    known = KnownRows(most_rows=2)
    batch = np.arange(12.0).reshape(3, 4)
    expected = known.hashes([batch])
    hashed: list[int] = []

    def counted(inputs):
        hashed.append(len(inputs[0]))
        return row_hashes(inputs)

    monkeypatch.setattr("tscope.record.known_rows.row_hashes", counted)
    assert known.hashes([batch[:2]]) == expected[:2]
    assert hashed == []
    assert known.hashes([batch]) == expected
    assert hashed == [1]  # the third did not fit


def test_rows_of_another_size_are_hashed():
    known = KnownRows()
    known.hashes([np.zeros((4, 8))])
    other = np.arange(12.0).reshape(4, 3)
    assert known.hashes([other]) == row_hashes([other])


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_a_batch_without_rows_or_values_has_its_hashes(shape):
    batch = np.zeros(shape, np.float32)
    assert KnownRows().hashes([batch]) == row_hashes([batch])

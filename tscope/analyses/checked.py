"""Checks of options that several metrics have, each with one message everywhere."""

from __future__ import annotations

import re

from tscope_format.errors import UsageError, clean

LOSSES = ("auto", "mse", "cross_entropy", "bce")
_DTYPES = ("float32", "float64")
_STEPS = re.compile(r"(\d+|last)(,(\d+|last))*")


def check_steps(**named: str | None) -> None:
    """Refuse what is not a list of steps: numbers separated by commas, `last` among them.

    Raises:
        UsageError: One of them is none.
    """
    for name, value in named.items():
        if value is not None and not _STEPS.fullmatch(value):
            raise UsageError(f"{name} must be steps separated by commas, or `last`; got {clean(value)!r}")


def check_rows(at: str | None, every: int | None) -> None:
    """Refuse two ways to choose the rows at once.

    Raises:
        UsageError: Both are given.
    """
    if at is not None and every is not None:
        raise UsageError("at and every both choose the rows; leave out one of the two")


def check_counts(**named: int | None) -> None:
    """Refuse numbers below one.

    Raises:
        UsageError: One of them is.
    """
    for name, value in named.items():
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")


def check_loss(loss: str) -> None:
    """Refuse a loss that is not known.

    Raises:
        UsageError: It is not; the message lists those that are.
    """
    if loss not in LOSSES:
        raise UsageError(f"unknown loss {clean(loss)!r}; there is {', '.join(LOSSES)}")


def check_replay(dtype: str | None, max_memory_mb: float) -> None:
    """Refuse a dtype that nothing is replayed in, and no memory at all.

    Raises:
        UsageError: One of the two is so.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(f"unknown dtype {clean(dtype)!r}; there is {', '.join(_DTYPES)}")
    if not max_memory_mb > 0:
        raise UsageError(f"max_memory_mb must be positive, got {max_memory_mb}")


def check_seed(seed: int) -> None:
    """Refuse what numpy takes for no seed.

    Raises:
        UsageError: It is negative, or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed must lie between 0 and 2**63 - 1, got {seed}")

"""Filtering the browser: a regular expression on the name, and terms such as `p_test>500 state:live`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tscope_format.errors import UsageError, clean

if TYPE_CHECKING:
    from tscope_tui.data.entry import Entry

_TERM = re.compile(r"^(loss|p_train|p_test|steps|size|age)(<=|>=|<|>|=)([-+.0-9eE]+)([kKMGTsmhd]?)$")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_BYTES = {"": 1.0, "k": 1024.0, "K": 1024.0, "M": 1024.0**2, "G": 1024.0**3, "T": 1024.0**4}
_COUNT = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Filter:
    """A parsed filter; `matches` tells whether an entry passes every term."""

    text: str
    terms: tuple[Callable[[Entry], bool], ...]

    def matches(self, entry: Entry) -> bool:
        """Return whether every term holds."""
        return all(term(entry) for term in self.terms)


def parse(text: str) -> Filter:
    """Parse a filter.

    Raises:
        UsageError: A term is neither a comparison, `state:…`, nor a regular expression.
    """
    return Filter(text, tuple(_term(word) for word in text.split()))


def _term(word: str) -> Callable[[Entry], bool]:
    if word.startswith("state:"):
        wanted = word.removeprefix("state:").lower()
        return lambda entry: entry.state.value.lower().startswith(wanted)
    match = _TERM.match(word)
    if match is not None:
        field, sign, number, unit = match.groups()
        return _comparison(word, field, sign, number, unit)
    try:
        pattern = re.compile(word, re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"filter {clean(word)!r} is not a regular expression: {error}") from error
    return lambda entry: pattern.search(entry.name) is not None


def _comparison(word: str, field: str, sign: str, number: str, unit: str) -> Callable[[Entry], bool]:
    units = {"size": _BYTES, "age": _SECONDS}.get(field, _COUNT)
    try:
        bound = float(number) * units[unit]
    except (ValueError, KeyError) as error:
        raise UsageError(f"filter {clean(word)!r}: {clean(number + unit)!r} is no {field}") from error
    compare = _COMPARE[sign]

    def term(entry: Entry) -> bool:
        value = entry.number(field)
        return value is not None and compare(value, bound)

    return term

"""The errors of tscope: one base, one subclass for each exit code.

A message says what happened, what was expected against what was found, where, and what to do next, in one
line.
"""

from __future__ import annotations

import re

# C0 and C1 control characters, and the bidirectional overrides that can reorder a terminal line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# A whole escape sequence goes, not only its first byte: "\x1b[31m" must not leave "[31m" behind.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


class TscopeError(Exception):
    """Base of every error that tscope raises on purpose."""

    exit_code = 1


class UsageError(TscopeError):
    """The command line or the arguments of a function make no sense."""

    exit_code = 2


class TraceError(TscopeError):
    """A trace cannot be read: not a trace, a newer format, or damaged."""

    exit_code = 3


class AnalysisError(TscopeError):
    """An analysis cannot be carried out."""

    exit_code = 1


class MissingDataError(AnalysisError):
    """The trace lacks what a metric needs; the message names the option that would have captured it."""

    exit_code = 4


class RecordError(TscopeError):
    """Recording could not start, or could not go on."""

    exit_code = 125


def clean(text: object) -> str:
    """Return `text` on one line, without terminal escapes or control characters.

    Names, arguments and messages in a trace come from someone else's process, and must not steer the
    reader's terminal.
    """
    return _CONTROL.sub(" ", _ESCAPE.sub("", str(text)))

"""What running a command gives, and the type of the fixtures that run one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, and what it wrote."""

    code: int
    out: str
    err: str


Runner = Callable[..., Outcome]

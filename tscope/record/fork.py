"""Forks as they are asked for: runs of the same command that part from a first one after some step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tscope_format.dtypes import JSON
from tscope_format.errors import RecordError, clean

LARGEST_SEED = 2**32 - 1  # of numpy's global generator


@dataclass(frozen=True)
class Fork:
    """One run that parts from another.

    Attributes:
        step: The optimizer step after which random generators are reseeded; 0: before the first.
        seed: What they are reseeded with.
        generators: Reseed generators that the script made itself, too.
        base: Name of the trace that it parts from, in the same folder.
        base_id: That trace's identity.
    """

    step: int
    seed: int
    generators: bool
    base: str
    base_id: str

    def asked(self) -> Mapping[str, JSON]:
        """Return what the observer needs to know."""
        return {"step": self.step, "seed": self.seed, "generators": self.generators}

    def facts(self) -> dict[str, JSON]:
        """Return what the trace says of it before anything is known of the run."""
        return {**self.asked(), "base": self.base, "base_id": self.base_id, "verified": False}


@dataclass(frozen=True)
class Forks:
    """All forks that a command is recorded with: one for each step and seed.

    Attributes:
        steps: The steps to part at, ascending.
        seeds: The seeds of the runs that part at each.
        generators: Reseed generators that the script made itself, too.
    """

    steps: tuple[int, ...]
    seeds: tuple[int, ...] = (1,)
    generators: bool = False

    def __post_init__(self) -> None:
        for option, values in (("--fork-at", self.steps), ("--seeds", self.seeds)):
            if not values:
                raise RecordError(f"{option} names nothing: give whole numbers such as 1,2")
            if len(set(values)) < len(values):
                raise RecordError(f"{option} names a number twice: {','.join(map(str, values))}")
        if min(self.seeds) < 0 or max(self.seeds) > LARGEST_SEED:
            raise RecordError(f"--seeds must be 0 to {LARGEST_SEED}, got {','.join(map(str, self.seeds))}")
        if min(self.steps) < 0:
            raise RecordError(f"--fork-at must not be negative, got {min(self.steps)}")

    def check(self, every: int, *, updates: bool) -> None:
        """Refuse forks of a recording in which the parameters at the forks are not kept.

        Raises:
            RecordError: A step falls between the rows of `--every`, or updates are not recorded.
        """
        between = next((step for step in self.steps if step % every), None)
        if between is not None:
            raise RecordError(
                f"--fork-at {between} is no row with --every {every}: the parameters at a fork must be "
                f"recorded; take a multiple of {every}"
            )
        if not updates:
            raise RecordError(
                "--fork-at compares the parameters up to the fork, and --updates none does not keep them: "
                "leave one out"
            )

    def outs(self, base: Path) -> dict[tuple[int, int], Path]:
        """Return where the run of each step and seed goes: beside `base`, named after it."""
        return {
            (step, seed): base.with_name(f"{base.name.removesuffix('.zarr')}-fork{step}-seed{seed}.zarr")
            for step in self.steps
            for seed in self.seeds
        }


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers of `1,2,10`, ascending.

    Raises:
        RecordError: That is not what it is.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]+", word) for word in words):
        raise RecordError(f"{option} takes whole numbers such as 1,2, got {clean(text)!r}")
    return tuple(sorted(map(int, words)))

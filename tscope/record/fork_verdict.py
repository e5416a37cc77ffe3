"""What came of a fork: whether it is one, and in which words that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tscope_format.dtypes import JSON

from tscope.record.fork import Fork
from tscope.record.outcome import counted

if TYPE_CHECKING:
    from tscope.record.fork_comparison import Parting


@dataclass(frozen=True)
class Verdict:
    """What came of a fork.

    Attributes:
        verified: The run is the same as its base up to the fork, and another one after it.
        text: What is said of it.
        same_until: The last step at which the parameters are the same, None if they never are.
        facts: What its trace says of it.
    """

    verified: bool
    text: str
    same_until: int | None
    facts: Mapping[str, JSON]


def verdict(fork: Fork, base: str, parting: Parting, reseeded: Mapping[str, JSON] | None) -> Verdict:
    """Judge a fork.

    Args:
        fork: The fork.
        base: What the run that it parts from is called.
        parting: Where the two part.
        reseeded: What the observer reseeded; None: it never got to the fork.
    """
    problem = _problem(fork, base, parting, reseeded)
    same = parting.same_until
    said = f"parameters are those of {base} up to step {same}, and others after it; {_batches(fork, parting)}"
    facts = {
        **fork.facts(),
        "reseeded": None if reseeded is None else dict(reseeded),
        "verified": problem is None,
        "problem": problem,
        "same_until": same,
        "batches_from": parting.batches_from,
    }
    return Verdict(problem is None, said if problem is None else problem, same, facts)


def _problem(fork: Fork, base: str, parting: Parting, reseeded: Mapping[str, JSON] | None) -> str | None:
    """Return why this run is no fork, None if it is."""
    same = parting.same_until
    if same is None:
        return (
            f"this is no fork, the script does not repeat itself: its parameters differ from those of {base} "
            "from the start. It may not seed its generators (torch.manual_seed)"
        )
    if same < min(fork.step, parting.end):
        return (
            f"this is no fork, the script does not repeat itself: its parameters differ from those of {base} "
            f"after step {same} already"
        )
    if parting.end <= fork.step:
        return f"never reached: the run ended at step {parting.end}"
    if reseeded is None:
        return "nothing was reseeded: the observer failed or was disconnected before; `tscope info` says more"
    if same < parting.end:
        return None
    alike = parting.batches_from is None and parting.batches
    what = "parameters and batches" if alike else "parameters"
    return (
        f"this is no fork, the script ignores the reseeding: its {what} are those of {base} up to the end, "
        f"{counted(parting.end - fork.step, 'step')} later. {_why(fork, reseeded)}"
    )


def _batches(fork: Fork, parting: Parting) -> str:
    first = parting.batches_from
    if first is not None:
        drawn = " (until then in an order drawn before the fork)" if parting.batches > 1 else ""
        return f"batches differ from step {first} on{drawn}"
    if not parting.batches:
        return "whether batches differ is not known, since their examples were not identified"
    hint = "" if fork.generators else "; --reseed-generators looks for generators that the script made"
    return (
        f"the {parting.batches:,} batches after the fork are the same in both: the order of the data is "
        f"fixed, or was not reseeded{hint}"
    )


def _why(fork: Fork, reseeded: Mapping[str, JSON]) -> str:
    if not fork.generators:
        return (
            "It draws nothing at random, seeds anew by itself, or draws from generators of its own: "
            "--reseed-generators looks for those"
        )
    found = sum(int(number) for number in (reseeded.get("own") or {}).values())
    return (
        f"It draws nothing at random, seeds anew by itself, or draws from a generator that is not among "
        f"the {found} of its own that were found"
    )

"""What each kind of event is, in one sentence, with the bounds that were used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tscope.analyses.events.losses import WINDOW
from tscope.analyses.events.peaks import JUMP, PROMINENCE, STRETCH

if TYPE_CHECKING:
    from tscope.analyses.events.options import Options


def definitions(options: Options) -> dict[str, str]:
    """Return the definition of each kind, in the order of `KINDS`; `docs/metrics/events.md` has the rest."""
    return {
        "interpolation": f"the first row at which the fit of the training examples is {options.fit:g} or "
        "more, there and in at least half of all later rows",
        "grokking": "the first row, at twice the step of interpolation or later, from which held-out "
        f"examples have half of what they gain after it, which is {options.rise:g} or more",
        "effective-parameter peak": f"the largest p of a set within the run, {PROMINENCE:.0%} above both "
        "ends at least",
        "alignment jump": f"half of the largest change of the kernel's alignment within {STRETCH:g} times "
        f"its first step, {JUMP:g} and half of its whole range at least",
        "loss spike": f"a loss {options.spike:g} times the median of the {WINDOW} rows before it or more, "
        "of which half is lost again",
        "divergence": f"the last row at twice the lowest level of a loss that ends {options.diverge:g} times "
        "above it or more, or is not finite to the end",
    }

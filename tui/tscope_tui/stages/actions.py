"""From the action of a key to the method that carries it out."""

from __future__ import annotations


def perform(stage: object, action: str) -> bool:
    """Call `do_<action>` of a stage with the action's argument.

    Returns:
        Whether the stage knows the action.
    """
    name, _, argument = action.partition(":")
    method = getattr(stage, f"do_{name}", None)
    if method is None:
        return False
    if argument:
        method(_value(argument))
    else:
        method()
    return True


def _value(argument: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(argument)
        except ValueError:
            continue
    return argument

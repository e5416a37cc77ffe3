"""Which module an optimizer trains."""

from __future__ import annotations

import gc
from typing import FrozenSet, Iterable, List, Optional, Tuple

import torch

from .called import Called, unwrapped


def choose(optimizer: torch.optim.Optimizer, called: Iterable[Called]) -> Optional[torch.nn.Module]:
    """Return the module that holds most of the optimizer's parameters, and among those the smallest.

    Modules that the script itself called go first. If none of them holds all the parameters (LBFGS calls
    the model inside `step` only; `model.encoder` and `model.decoder` may be called one by one), the living
    modules are searched.
    """
    wanted = frozenset(id(p) for group in optimizer.param_groups for p in group["params"])
    best: Optional[torch.nn.Module] = None
    score = (0, 0)
    for entry in called:
        module = entry.module
        if module is not None:
            got = _score(module, wanted)
            if got > score:
                best, score = module, got
    if best is not None and score[0] == len(wanted):
        return best
    alive: List[torch.nn.Module] = []
    for thing in gc.get_objects():
        # Never isinstance: it asks `__class__`, and a dead weak proxy raises.
        if issubclass(type(thing), torch.nn.Module):
            alive.append(thing)
    tied: List[torch.nn.Module] = []
    for module in alive:
        got = _score(module, wanted)
        if got > score:
            score, tied = got, [module]
        elif got == score and tied:
            tied.append(module)
    if tied:
        # The outermost of those with the very same parameters: that is what will be called.
        inner = {id(part) for module in tied for part in _parts(module) if part is not module}
        best = next((module for module in tied if id(module) not in inner), tied[0])
    return None if best is None else unwrapped(best)


def _parts(module: torch.nn.Module) -> Iterable[torch.nn.Module]:
    return torch.nn.Module.modules(module)


def _score(module: torch.nn.Module, wanted: FrozenSet[int]) -> Tuple[int, int]:
    try:
        own = {id(p) for p in torch.nn.Module.parameters(module)}
    except Exception:
        return 0, 0  # half-built or half-deleted: no candidate
    return len(own & wanted), -len(own)

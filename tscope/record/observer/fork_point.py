"""The one place where the observer changes a run: at a fork that was asked for, generators are reseeded."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import random
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch

from .memory import quiet
from .wire import Frame

_NUMPY_SEEDS = 1 << 32
# Where libraries hold generators: sympy comes with torch, and names of temporary files are random.
_OTHERS = (
    ("random", "_inst"),
    ("numpy.random.mtrand", "_rand"),
    ("tempfile", "_name_sequence._rng"),
    ("sympy.core.random", "rng"),
    ("sympy.core.random", "_assumptions_rng"),
    ("sympy.core.symbol", "Dummy._prng"),
)
_AT_ONCE = 1000  # objects whose references are listed together


class ForkPoint:
    """The step after which this process draws other random numbers than the run that it repeats.

    Args:
        values: `step`; `seed`; and `generators`, whether those that the script made itself are reseeded too.

    Attributes:
        step: Steps of the first root to let pass; 0: the fork is where the first optimizer is made.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.step = int(values["step"])
        rank = os.environ.get("RANK", "")
        # Processes that train together differ in their noise, and go on doing so.
        self._seed = int(values["seed"]) + (int(rank) if rank.isdecimal() else 0)
        self._generators = bool(values["generators"])
        self._done = False
        self._untold: Optional[Dict[str, Any]] = None

    def optimizer_made(self) -> None:
        """An optimizer is there, so its parameters are: before the first step nothing else tells that."""
        if self.step == 0:
            self._reseed()

    def stepped(self, root: int, steps: int) -> Optional[Frame]:
        """Reseed if the first root made the step; return what to tell the recorder, once."""
        if root == 0 and steps >= self.step > 0:
            self._reseed()
        untold, self._untold = self._untold, None
        return None if untold is None else Frame("fork", untold)

    def _reseed(self) -> None:
        if self._done:
            return
        self._done = True
        # Listed first: seeding a generator makes others, of numpy for one, that are not the script's.
        own = own_generators() if self._generators else []
        torch.manual_seed(self._seed)
        random.seed(self._seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(self._seed % _NUMPY_SEEDS)
        counts: Dict[str, int] = {}
        for generator in own:
            with quiet():
                reseed(generator, self._seed)
            name = "{}.{}".format(type(generator).__module__.split(".")[0], type(generator).__name__)
            counts[name] = counts.get(name, 0) + 1
        self._untold = {"numpy": numpy is not None, "own": counts}


def own_generators() -> List[Any]:
    """Return the random generators of this process but those of torch, numpy, Python and sympy.

    Generators of torch are unknown to the garbage collector, so that they are looked for in what all objects
    that it knows refer to, and in the variables of the functions that run.
    """
    kinds: Tuple[type, ...] = (torch.Generator, random.Random)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kinds += (numpy.random.Generator, numpy.random.RandomState)
    shared = set(map(id, _of_libraries()))
    found: Dict[int, Any] = {}

    def look(candidates: Any) -> None:
        for candidate in candidates:
            kind = type(candidate)  # not isinstance, which asks dead weak references
            if issubclass(kind, kinds) and not issubclass(kind, random.SystemRandom):
                found[id(candidate)] = candidate

    known = gc.get_objects()
    for start in range(0, len(known), _AT_ONCE):
        look(gc.get_referents(*known[start : start + _AT_ONCE]))
    for frame in sys._current_frames().values():
        running: Any = frame
        while running is not None:
            look(running.f_locals.values())
            running = running.f_back
    return [generator for place, generator in found.items() if place not in shared]


def _of_libraries() -> List[Any]:
    """Return generators that others than the script hold: the global ones, and those that come with torch."""
    found = [torch.default_generator, *torch.cuda.default_generators]
    for module, path in _OTHERS:
        holder: Any = sys.modules.get(module)
        for name in path.split("."):
            holder = getattr(holder, name, None)
        found.append(holder)
    return found


def reseed(generator: Any, seed: int) -> None:
    """Seed a generator by `seed` and its own state: two that differed differ, in whatever order they come."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(_mixed(seed, generator.get_state().tolist()))
    elif isinstance(generator, random.Random):
        generator.seed(_mixed(seed, generator.getstate()))
    elif hasattr(generator, "bit_generator"):
        bits = generator.bit_generator
        bits.state = type(bits)(_mixed(seed, bits.state)).state
    else:
        generator.seed(_mixed(seed, generator.get_state()) % _NUMPY_SEEDS)


def _mixed(seed: int, state: Any) -> int:
    text = pickle.dumps((seed, state), protocol=4)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

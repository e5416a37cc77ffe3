"""The modules that the script calls, by identity."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import torch

from .called import Called, unwrapped
from .evaluation import Budget

if TYPE_CHECKING:
    from .recorder import Recorder


class Modules:
    """What is known of each called module, while it lives.

    Args:
        recorder: The process's recorder.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._called: Dict[int, Tuple[Any, Optional[Called]]] = {}

    def all(self) -> List[Called]:
        """Return all called modules that have parameters, each once."""
        return list({id(c): c for _, c in list(self._called.values()) if c is not None}.values())

    def pending(self) -> bool:
        """Tell whether any of them has a loss or a batch that no step took."""
        for _, called in self._called.values():
            if called is not None and (called.pending or called.losses):
                return True
        return False

    def forget(self, some: List[Called]) -> None:
        """Look at these modules anew when they are called again."""
        for number, (_, called) in list(self._called.items()):
            if called in some:
                del self._called[number]

    def meet(self, module: torch.nn.Module) -> Optional[Called]:
        """Return what is known of a module, itself or within a wrapper; None: it has no parameters."""
        known = self._called.get(id(module))
        if known is not None:
            return known[1]
        inner = unwrapped(module)
        called: Optional[Called] = None
        if inner is not module:
            called = self.meet(inner)
        else:
            parameters = list(torch.nn.Module.parameters(module))
            if any(torch.nn.parameter.is_lazy(p) for p in parameters) or not all(
                isinstance(p, torch.nn.Parameter) for p in parameters
            ):
                return (
                    None  # not built yet, or called with other parameters in their place: ask again next time
                )
            if parameters:
                called = Called(module, self._forgetter(id(module)), Budget(self._recorder.options.eval_rows))
        gone = called.reference if called is not None and inner is module else None
        reference = gone or weakref.ref(module, self._forgetter(id(module)))
        self._called[id(module)] = (reference, called)
        if called is not None and called.root is None:
            for root in self._recorder.roots:
                if root.accepts(called):
                    root.adopt(called)
        return called

    def _forgetter(self, number: int) -> Any:
        table = self._called

        def forget(reference: Any) -> None:
            known = table.get(number)
            if known is not None and known[0] is reference:
                del table[number]

        return forget

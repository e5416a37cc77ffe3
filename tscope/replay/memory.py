"""How many examples fit in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# A forward-mode pass holds a value and a tangent of what lives at a time, the compiled lazy model every
# intermediate value: all of them twice over bounds both.
_COPIES = 2
# torch.export specialises a batch of one, so a program is measured and run on two examples at least.
_LEAST = 2


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up the bytes of every tensor that operators return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.bytes += sum(
            leaf.numel() * leaf.element_size()
            for leaf in tree_leaves(result)
            if isinstance(leaf, torch.Tensor)
        )
        return result


def examples_that_fit(run: Callable[[int], object], examples: int, limit: float) -> int:
    """Return how many examples can be passed through a model at once within `limit` bytes.

    Args:
        run: Evaluates the model on the first k examples.
        examples: How many there are.
        limit: Bytes.

    Returns:
        At most `examples`, at least two.
    """
    few = min(_LEAST, examples)
    with torch.no_grad(), _Counter() as counter:
        run(few)
    each = max(1.0, _COPIES * counter.bytes / few)
    return min(examples, max(_LEAST, int(limit / each)))

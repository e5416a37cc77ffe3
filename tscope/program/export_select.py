"""Which of a module's tensors are examples, and which of its outputs is recorded.

torch and the standard library only, and Python 3.9 syntax: copied into the user's environment with `export`.
"""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .export_json import ExportError
from .export_tree import leaves, rebuild


class Selected(torch.nn.Module):
    """The module as a function of its tensors only, returning the one selected output."""

    def __init__(
        self,
        root: torch.nn.Module,
        call: Tuple[Tuple[Any, ...], Dict[str, Any]],
        tensors: Sequence[Tensor],
        output: Optional[str],
        gradient_path: Optional[str],
        rows: Optional[int],
    ) -> None:
        super().__init__()
        self.root = root
        self.__dict__["training"] = False
        self._call = call
        self._causal: List[bool] = []
        with torch.no_grad(), _causal_masks(self._causal, found=False):
            found = dict(leaves(self._run(tensors)))
        self.paths = list(found)
        self.path = _select(found, output, gradient_path, rows)
        self.expected = found[self.path].clone()
        self.by_example = rows is not None and self.expected.dim() > 0 and self.expected.shape[0] == rows

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the selected output."""
        with _causal_masks(self._causal, found=True):
            return dict(leaves(self._run(tensors)))[self.path]

    def _run(self, tensors: Sequence[Tensor]) -> Any:
        args, kwargs = rebuild(self._call, iter(tensors))
        return self.root(*args, **kwargs)


@contextlib.contextmanager
def _causal_masks(answers: List[bool], *, found: bool) -> Iterator[None]:
    """Note what nn.TransformerEncoder finds out about its masks, or repeat what was `found`.

    It compares the mask with a causal one, and branches: data-dependent control flow, though the mask hardly
    ever depends on the data, and the answer only chooses between two ways to write the same attention.
    """
    home: Any = torch.nn.modules.transformer
    original = getattr(home, "_detect_is_causal_mask", None)
    if original is None:
        yield
        return
    remaining = iter(list(answers))

    def detect(*args: Any, **kwargs: Any) -> bool:
        if not found:
            answers.append(bool(original(*args, **kwargs)))
            return answers[-1]
        return next(remaining)

    home._detect_is_causal_mask = detect
    try:
        yield
    finally:
        home._detect_is_causal_mask = original


def _select(
    found: Mapping[str, Tensor], output: Optional[str], gradient_path: Optional[str], rows: Optional[int]
) -> str:
    """Return the path of the output to record. A scalar loss is never chosen unless it is named."""
    listed = ", ".join(repr(path) for path in found) or "none"
    if output is not None:
        if output not in found:
            raise ExportError("the module has no output {!r}; its outputs are: {}".format(output, listed))
        return output
    floating = [path for path, tensor in found.items() if tensor.is_floating_point() and tensor.dim() > 0]
    leading = [path for path in floating if found[path].shape[0] == rows]
    for candidates in (leading, floating):
        if gradient_path in candidates:
            return str(gradient_path)
        if candidates:
            return candidates[0]
    raise ExportError("the module returns no floating tensor with a dimension; its outputs are: " + listed)


def examples(
    module: torch.nn.Module,
    call: Tuple[Tuple[Any, ...], Dict[str, Any]],
    tensors: Sequence[Tensor],
    output: Optional[str],
    gradient_path: Optional[str],
) -> Optional[int]:
    """Return the number of examples: of the tensors' leading dimensions the one that the output has too.

    Other tensors (masks, tables) hold no examples, even if they come first.
    """
    sizes = list(dict.fromkeys(tensor.shape[0] for tensor in tensors if tensor.dim() > 0))
    if len(sizes) > 1:
        choices = [(size, Selected(module, call, tensors, output, gradient_path, size)) for size in sizes]
        fitting = [(size, selected.path) for size, selected in choices if selected.by_example]
        wanted = gradient_path if output is None else output
        preferred = [size for size, path in fitting if path == wanted]
        sizes = preferred or [size for size, _ in fitting] or sizes
    return sizes[0] if sizes else None

"""What of a model's output is followed: all of it, some of it, a log-probability, or a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from tscope_format.errors import UsageError

_MOST_OUTPUTS = 64


@dataclass(frozen=True)
class OutputFunctional:
    """A function from a model's output (example, …) to what is recorded (example, output).

    Attributes:
        kind: "full" flattens the output; "index" takes some of its flat positions; "logprob" is the
            log-softmax at the target's class (for an output with positions: one value a position while there
            are at most 64, else their mean); "loss" is a value per example: the cross-entropy of integer
            targets, averaged over positions, or the mean squared error of floating ones.
        index: the flat positions of "index".
        target: (example, …) classes or values. Negative classes are ignored, as -100 is in torch.
    """

    kind: Literal["full", "logprob", "loss", "index"] = "full"
    index: tuple[int, ...] = ()
    target: Tensor | None = None

    def __call__(self, output: Tensor) -> Tensor:
        """Return (example, output) from (example, …). Differentiable in every mode."""
        if self.kind == "full":
            return output.reshape(output.shape[0], -1)
        if self.kind == "index":
            index = torch.tensor(self.index, device=output.device)
            return output.reshape(output.shape[0], -1).index_select(1, index)
        target = _given(self.target).to(output.device)
        if self.kind == "loss" and target.is_floating_point():
            flat = output.reshape(output.shape[0], -1)
            return (flat - target.reshape(flat.shape).to(flat.dtype)).square().mean(1, keepdim=True)
        value, known = _log_probability(output, target)
        if self.kind == "loss" or value.shape[1] > _MOST_OUTPUTS:
            value = value.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
        return -value if self.kind == "loss" else value

    def rows(self, start: int, stop: int) -> OutputFunctional:
        """Return the functional of the examples [start, stop) only."""
        if self.target is None:
            return self
        return replace(self, target=self.target[start:stop])

    def to(self, device: torch.device) -> OutputFunctional:
        """Return the functional with its target on `device`."""
        return self if self.target is None else replace(self, target=self.target.to(device))

    @classmethod
    def choose(
        cls, spec: str, output_shape: Sequence[int], inputs: Sequence[Tensor], target: Tensor | None
    ) -> tuple[OutputFunctional, str]:
        """Return the functional for a specification, and a note on what was chosen ("" if nothing to say).

        Args:
            spec: "auto", "full", "logprob", "loss", or flat positions: "3", "0,4,7", "0:16".
            output_shape: (example, …) of the model's output.
            inputs: the probe set's inputs; a language model's targets may be found among them.
            target: the probe set's targets, if known.

        Raises:
            UsageError: if the specification is none of these, or needs targets that are unknown or unfit.
        """
        size = math.prod(output_shape[1:])
        if spec == "full":
            return cls(), ""
        if spec in ("logprob", "loss"):
            found, note = (target, "") if target is not None else _found_targets(output_shape, inputs)
            if found is None:
                raise UsageError(
                    f"--probe-output {spec} needs targets and the probe set has none: add an array y to it"
                )
            kind: Literal["logprob", "loss"] = "logprob" if spec == "logprob" else "loss"
            return cls(kind=kind, target=_fitting(kind, found, output_shape)), note
        if spec != "auto":
            return cls(kind="index", index=_positions(spec, size)), ""
        if size <= _MOST_OUTPUTS:
            return cls(), ""
        found, note = _auto_targets(output_shape, inputs, target)
        if found is not None:
            return cls(kind="logprob", target=found), note
        return cls(kind="index", index=tuple(range(_MOST_OUTPUTS))), (
            f"the output has {size} values an example, and no known labels: "
            f"the first {_MOST_OUTPUTS} of them are followed"
            "are followed"
        )


def _given(target: Tensor | None) -> Tensor:
    if target is None:
        raise UsageError("this output functional needs targets")
    return target


def _log_probability(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(target) (example, position), 0 where the target is ignored, and which are known."""
    if not _classes_last(output.shape, target.shape):
        output = output.movedim(1, -1)  # images: (example, class, …)
    flat = output.reshape(output.shape[0], -1, output.shape[-1])
    classes = target.reshape(target.shape[0], -1).long()
    known = classes >= 0
    chosen = functional.log_softmax(flat, -1).gather(2, classes.clamp(min=0)[..., None])[..., 0]
    return torch.where(known, chosen, torch.zeros((), dtype=chosen.dtype, device=chosen.device)), known


def _classes_last(output: Sequence[int], target: Sequence[int]) -> bool:
    """Tell (example, position, class) from (example, class, position…); a target's trailing 1 is dropped."""
    return tuple(output[1:-1]) == tuple(target[1:]) or (len(output) == 2 and math.prod(target[1:]) == 1)


def _fits_classes(output: Sequence[int], target: Tensor) -> bool:
    if target.is_floating_point() or target.is_complex() or len(output) < 2 or target.shape[0] != output[0]:
        return False
    if _classes_last(output, target.shape):
        return output[-1] > 1
    return len(output) > 2 and tuple(output[2:]) == tuple(target.shape[1:])


def _fitting(spec: str, target: Tensor, output: Sequence[int]) -> Tensor:
    shape, wanted = tuple(target.shape), tuple(output)
    if _fits_classes(output, target):
        classes = output[-1] if _classes_last(output, shape) else output[1]
        if int(target.max()) >= classes:
            raise UsageError(f"the targets go up to {int(target.max())}, but the model has {classes} outputs")
        return target
    if spec == "loss" and target.numel() == math.prod(output):
        return target if target.is_floating_point() else target.to(torch.get_default_dtype())
    raise UsageError(
        f"--probe-output {spec} cannot use targets of shape {shape} and dtype {str(target.dtype)[6:]} "
        f"with outputs of shape {wanted}; classes must be integers of shape {wanted[:-1]}"
    )


def _auto_targets(
    output: Sequence[int], inputs: Sequence[Tensor], target: Tensor | None
) -> tuple[Tensor | None, str]:
    if target is not None and _fits_classes(output, target) and int(target.max()) < max(output[1:]):
        return target, "the log-probability of the label is followed"
    return _found_targets(output, inputs)


def _found_targets(output: Sequence[int], inputs: Sequence[Tensor]) -> tuple[Tensor | None, str]:
    """Look for a language model's targets among its inputs, else take the next token."""
    wanted = tuple(output[:-1])
    tokens = [
        x for x in inputs if not x.is_floating_point() and x.dtype != torch.bool and tuple(x.shape) == wanted
    ]
    if len(inputs) > 1 and any(x is inputs[1] for x in tokens):
        return inputs[1].long(), "the log-probability of the second input, taken as the targets, is followed"
    if len(output) == 3 and tokens and tokens[0] is inputs[0]:
        following = inputs[0].long().roll(-1, 1)
        following[:, -1] = -1
        return following, "the log-probability of the next token is followed"
    return None, ""


def _positions(spec: str, size: int) -> tuple[int, ...]:
    """Return the flat positions of "3", "0,4,7" or "0:16"."""
    try:
        if ":" in spec:
            start, stop = (int(part) if part.strip() else None for part in spec.split(":"))
            found = tuple(range(size)[start:stop])
        else:
            found = tuple(int(part) for part in spec.split(","))
    except ValueError:
        raise UsageError(
            f"--probe-output {spec!r} is none of full, logprob, loss, or positions such as 3 or 0,4,7 or 0:16"
        ) from None
    if not found or not all(0 <= position < size for position in found):
        raise UsageError(f"--probe-output {spec}: the model has the outputs 0 to {size - 1}")
    return found

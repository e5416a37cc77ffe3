"""Accuracy from recorded outputs and labels, by the same rules as `tscope analyze`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Classes:
    """How outputs (…, example, output) become classes, and the true ones (example,)."""

    def __init__(self, labels: NDArray[np.int64], threshold: float | None) -> None:
        self.labels, self.threshold = labels, threshold

    def told(self, outputs: NDArray[Any]) -> NDArray[np.int64]:
        """Return the class of each example (step, example) of outputs (step, example, output)."""
        if self.threshold is None:
            return np.asarray(outputs.argmax(-1))
        return (outputs[..., 0] > self.threshold).astype(np.int64)

    def accuracy(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the share of examples told right (step,) of outputs (step, example, output)."""
        return np.asarray((self.told(outputs) == self.labels).mean(-1))


def classes_of(target: NDArray[Any] | None, outputs: int, kind: str) -> Classes | None:
    """Return how to measure accuracy, None where the labels are unknown or those of a regression.

    −1 and 1 are told by the sign, 0 and 1 of a single output by ½, class numbers and one-hot rows by the
    largest output.

    Args:
        target: The labels (example, …).
        outputs: Outputs of an example.
        kind: Which functional of the output was recorded; only the full output has classes.
    """
    if target is None or kind != "full" or not target.size:
        return None
    flat = target.reshape(len(target), -1)
    zero_one = bool(np.isin(flat, (0, 1)).all())
    if outputs == 1:
        if flat.shape[1] != 1 or not (zero_one or np.isin(flat, (-1, 1)).all()):
            return None
        return Classes((flat[:, 0] > 0).astype(np.int64), 0.5 if zero_one else 0.0)
    if flat.shape[1] == 1:
        labels = flat[:, 0].astype(np.int64)
        fits = bool((labels == flat[:, 0]).all()) and labels.min() >= 0 and labels.max() < outputs
        return Classes(labels, None) if fits else None
    one_hot = flat.shape[1] == outputs and zero_one and bool((flat.sum(1) == 1).all())
    return Classes(flat.argmax(1), None) if one_hot else None

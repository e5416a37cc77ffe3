"""From predictions to classes: what an accuracy is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Decision:
    """How predictions become classes, and the true classes where they are known.

    Attributes:
        threshold: One output: class 1 above it, else 0. None: the largest of several outputs.
        labels: The true classes (example,).
    """

    threshold: float | None
    labels: NDArray[np.int64] | None

    def classes(self, predictions: NDArray[Any]) -> NDArray[np.int64]:
        """Return the classes (…, example) of predictions (…, example, output)."""
        if self.threshold is None:
            return np.asarray(predictions.argmax(-1), dtype=np.int64)
        return (predictions[..., 0] > self.threshold).astype(np.int64)

    def __str__(self) -> str:
        return "largest output" if self.threshold is None else f"output above {self.threshold:g}"


def decision(target: NDArray[Any] | None, outputs: int, threshold: float | None = None) -> Decision | None:
    """Choose how to turn predictions into classes.

    Labels −1 and 1 are told by the sign, 0 and 1 of a single output by `threshold` (½ by default, the middle
    of two regression targets; 0 is right for logits), class numbers and one-hot rows by the largest output.
    Without labels several outputs are taken for classes and one output for a signed score.

    Args:
        target: Labels (example, …).
        outputs: The number of outputs of an example.
        threshold: The border between the classes of a single output.

    Returns:
        None where the labels are those of a regression.
    """
    if target is None:
        return Decision(None if outputs > 1 else threshold or 0.0, None)
    flat = target.reshape(len(target), -1)
    zero_one = bool(np.isin(flat, (0, 1)).all())
    if outputs == 1:
        if flat.shape[1] != 1 or not (zero_one or np.isin(flat, (-1, 1)).all()):
            return None
        border = threshold if threshold is not None else 0.5 if zero_one else 0.0
        return Decision(border, (flat[:, 0] > 0).astype(np.int64))
    if flat.shape[1] == 1:
        classes = flat[:, 0].astype(np.int64)
        fits = bool((classes == flat[:, 0]).all() and classes.min() >= 0 and classes.max() < outputs)
        return Decision(None, classes) if fits else None
    one_hot = flat.shape[1] == outputs and zero_one and bool((flat.sum(1) == 1).all())
    return Decision(None, flat.argmax(1)) if one_hot else None

"""What a training script writes down as it goes: losses and errors, one CSV line every so many steps."""

import csv
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

COLUMNS = ("step", "train_mse", "test_mse", "train_error", "test_error")


class Log:
    """Squared error and share of wrong signs, on the training and the test examples, into a CSV file."""

    def __init__(self, path: Path | None, every: int, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        self._path = path
        self._every = every
        self._data = data
        self._rows: list[list[float]] = []

    def at(self, step: int, last: int, model: Callable[[Tensor], Tensor]) -> None:
        """Take the step down if it is one of every so many, or the last."""
        if step % self._every and step != last:
            return
        x, y, x_test, y_test = self._data
        with torch.no_grad():
            train, test = model(x), model(x_test)
        losses = [nn.functional.mse_loss(train, y).item(), nn.functional.mse_loss(test, y_test).item()]
        errors = [(f.sign() != t.sign()).float().mean().item() for f, t in ((train, y), (test, y_test))]
        self._rows.append([step, *losses, *errors])

    def write(self) -> None:
        """Write the file, and print the last line."""
        print("  ".join(f"{name} {value:.4g}" for name, value in zip(COLUMNS, self._rows[-1], strict=True)))
        if self._path is None:
            return
        with self._path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self._rows)

"""Small pictures: MNIST threes against fives, CIFAR-10 cats against dogs, or several classes of CIFAR-10.

The pictures come from `mnist10k.npz` and `cifar10_subset.npz` in the folder that TSCOPE_DATA names. Each
holds x_train, x_test (uint8, picture × height × width, × channel for CIFAR), and y_train, y_test (class
numbers).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datafile import data_file
from numpy.typing import NDArray
from torch import Tensor

FILES = {"mnist": "mnist10k.npz", "cifar": "cifar10_subset.npz"}
NAMES = {"mnist": "MNIST, 3 against 5", "cifar": "CIFAR-10, cats against dogs"}
# Three against five, and cat against dog: the same numbers in the two data sets.
CLASSES = (3, 5)


@dataclass(frozen=True, eq=False)
class Pair:
    """Inputs (example, pixel) and labels -1 or +1 (example, 1)."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


@dataclass(frozen=True, eq=False)
class Pictures:
    """Inputs (example, channel, row, column) and classes, numbered from 0 (example,)."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def load_classes(classes: Sequence[int], pool: int) -> Pictures:
    """All CIFAR-10 pictures of some classes, each channel of mean 0 and variance 1 over the training set."""
    with np.load(data_file(FILES["cifar"])) as data:
        x, y = _some_classes(data["x_train"], data["y_train"], classes, pool)
        x_test, y_test = _some_classes(data["x_test"], data["y_test"], classes, pool)
    centre, scale = x.mean((0, 1, 2)), x.std((0, 1, 2))

    def planes(pictures: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(((pictures - centre) / scale).transpose(0, 3, 1, 2).copy())

    return Pictures(planes(x), torch.from_numpy(y), planes(x_test), torch.from_numpy(y_test))


def load_pair(name: str, pool: int, train: int, test: int, noise: float, seed: int) -> Pair:
    """A drawn training set, of whose labels a share `noise` is flipped, and the first clean test pictures.

    Pictures are averaged over squares of `pool` pixels, centred pixel by pixel, and scaled to unit variance
    over all pixels: a smaller top eigenvalue of the tangent kernel leaves room for larger steps.
    """
    with np.load(data_file(FILES[name])) as data:
        x, y = _two_classes(data["x_train"], data["y_train"], pool)
        x_test, y_test = _two_classes(data["x_test"], data["y_test"], pool)
    if train > len(x) or test > len(x_test):
        raise SystemExit(f"{FILES[name]} holds {len(x)} and {len(x_test)} pictures, got {train} and {test}")
    centre = x.mean(0)
    scale = (x - centre).std()
    x, x_test = (x - centre) / scale, (x_test - centre) / scale
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(x), generator=generator)[:train]
    labels = y[chosen].clone()
    labels[torch.randperm(train, generator=generator)[: round(noise * train)]] *= -1
    return Pair(x[chosen], labels, x_test[:test], y_test[:test])


def _two_classes(images: NDArray[np.uint8], labels: NDArray[np.uint8], pool: int) -> tuple[Tensor, Tensor]:
    x, y = _some_classes(images, labels, CLASSES, pool)
    return torch.from_numpy(x.reshape(len(x), -1)), torch.from_numpy(2 * y.astype(np.float32) - 1)[:, None]


def _some_classes(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[int], pool: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures averaged over squares (example, row, column, channel), and the place of each one's class."""
    kept = np.isin(labels, classes)
    x = images[kept].astype(np.float32) / 255
    count, height, width = x.shape[:3]
    if height % pool or width % pool:
        raise SystemExit(f"pictures of {height}x{width} pixels do not divide into squares of {pool}")
    x = x.reshape(count, height // pool, pool, width // pool, pool, -1).mean((2, 4))
    return x, np.argmax(labels[kept][:, None] == np.array(classes), axis=1)

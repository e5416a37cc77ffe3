"""Two classes of small pictures: MNIST threes against fives, CIFAR-10 cats against dogs.

The pictures come from `mnist10k.npz` and `cifar10_subset.npz` in the folder that TSCOPE_DATA names. Each
holds x_train, x_test (uint8, picture × height × width, × channel for CIFAR), and y_train, y_test (class
numbers).
"""

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
    low, high = CLASSES
    kept = (labels == low) | (labels == high)
    x = images[kept].astype(np.float32) / 255
    count, height, width = x.shape[:3]
    if height % pool or width % pool:
        raise SystemExit(f"pictures of {height}x{width} pixels do not divide into squares of {pool}")
    x = x.reshape(count, height // pool, pool, width // pool, pool, -1).mean((2, 4)).reshape(count, -1)
    y = np.where(labels[kept] == low, -1.0, 1.0).astype(np.float32)[:, None]
    return torch.from_numpy(x), torch.from_numpy(y)

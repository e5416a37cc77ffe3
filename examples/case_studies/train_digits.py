"""A ReLU network on the ten digits of MNIST, trained on long after it fits the training set.

Four layers, cross-entropy or the squared error to one-hot labels, SGD with momentum and weight decay, and a
learning rate that falls to a tenth after three quarters of the epochs.
"""

import argparse

import numpy as np
import torch
from datafile import data_file
from numpy.typing import NDArray
from torch import Tensor, nn


def squared(outputs: Tensor, labels: Tensor) -> Tensor:
    """½‖f − one-hot label‖², the mean over examples."""
    return 5 * nn.functional.mse_loss(outputs, nn.functional.one_hot(labels, 10).float())


LOSSES = {"cross_entropy": nn.functional.cross_entropy, "squared": squared}


def load_digits(train: int, test: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Drawn pictures of 14×14 pixels, as many of each digit, and the first test pictures; with labels."""
    with np.load(data_file("mnist10k.npz")) as data:
        x, y, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    order = np.random.default_rng(seed).permutation(len(x))
    chosen = np.concatenate([order[y[order] == digit][: train // 10] for digit in range(10)])
    if len(chosen) < train or test > len(x_test):
        raise SystemExit(f"mnist10k.npz holds too few pictures for {train} and {test}, a tenth of each digit")
    return (
        _pixels(x[chosen]),
        torch.from_numpy(y[chosen].astype(np.int64)),
        _pixels(x_test[:test]),
        torch.from_numpy(y_test[:test].astype(np.int64)),
    )


def _pixels(pictures: NDArray[np.uint8]) -> Tensor:
    halved = pictures.reshape(len(pictures), 14, 2, 14, 2).mean((2, 4), dtype=np.float64)
    return torch.from_numpy((halved / 255 - 0.13) / 0.27).float().flatten(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=2000, help="training examples")
    parser.add_argument("--test", type=int, default=2000, help="test examples")
    parser.add_argument("--width", type=int, default=128, help="units of each of the three hidden layers")
    parser.add_argument("--loss", choices=list(LOSSES), default="cross_entropy")
    parser.add_argument("--norm", action="store_true", help="BatchNorm after each hidden layer")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    x, y, x_test, y_test = load_digits(args.train, args.test, args.seed)
    torch.manual_seed(args.seed)
    layers: list[nn.Module] = []
    for inputs in (x.shape[1], args.width, args.width):
        layers.append(nn.Linear(inputs, args.width))
        if args.norm:
            layers.append(nn.BatchNorm1d(args.width))
        layers.append(nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(args.width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [args.epochs * 3 // 4])
    for _ in range(args.epochs):
        for batch in torch.randperm(args.train).split(args.batch_size):
            loss = LOSSES[args.loss](model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.eval()
    wrong = (model(x_test).argmax(1) != y_test).float().mean()
    print(f"loss {loss.item():.4g} after {args.epochs} epochs, {wrong.item():.1%} of the test pictures wrong")


if __name__ == "__main__":
    main()

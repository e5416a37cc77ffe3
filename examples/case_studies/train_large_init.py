"""A ReLU network on MNIST threes and fives whose initial weights are α times the usual ones [Liu22].

With squared error and AdamW a large α makes it memorise the training set at once and generalise much later,
when decay has shrunk the weights. α = 1 is the usual network.

Source: Liu, Michaud & Tegmark, "Omnigrok: Grokking Beyond Algorithmic Data".
"""

import argparse
from pathlib import Path

import torch
from images import load_pair
from progress import Log
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=int, default=4, help="average squares of so many pixels")
    parser.add_argument("--train", type=int, default=100, help="training examples")
    parser.add_argument("--test", type=int, default=200, help="test examples")
    parser.add_argument("--width", type=int, default=64, help="units of each of the two hidden layers")
    parser.add_argument("--alpha", type=float, default=8.0, help="scale of the initial parameters")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, metavar="FILE", help="write losses and errors here, as CSV")
    parser.add_argument("--log-every", type=int, default=10, metavar="STEPS")
    args = parser.parse_args()

    pair = load_pair("mnist", args.pool, args.train, args.test, 0.0, args.seed)
    torch.manual_seed(args.seed)
    width = args.width
    model = nn.Sequential(
        nn.Linear(pair.x_train.shape[1], width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(args.alpha)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    log = Log(args.log, args.log_every, (pair.x_train, pair.y_train, pair.x_test, pair.y_test))
    log.at(0, args.steps, model)
    for step in range(1, args.steps + 1):
        loss = nn.functional.mse_loss(model(pair.x_train), pair.y_train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.at(step, args.steps, model)
    log.write()


if __name__ == "__main__":
    main()

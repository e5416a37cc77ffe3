"""One hidden ReLU layer on two classes of pictures, some labels flipped: SGD on the squared error."""

import argparse
from pathlib import Path

import torch
from images import load_pair
from progress import Log
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["mnist", "cifar"], default="mnist")
    parser.add_argument("--pool", type=int, default=4, help="average squares of so many pixels")
    parser.add_argument("--train", type=int, default=200, help="training examples")
    parser.add_argument("--test", type=int, default=388, help="test examples")
    parser.add_argument("--noise", type=float, default=0.2, help="share of flipped training labels")
    parser.add_argument("--width", type=int, default=10, help="hidden units")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, metavar="FILE", help="write losses and errors here, as CSV")
    parser.add_argument("--log-every", type=int, default=100, metavar="STEPS")
    args = parser.parse_args()

    pair = load_pair(args.data, args.pool, args.train, args.test, args.noise, args.seed)
    torch.manual_seed(args.seed)
    model = nn.Sequential(nn.Linear(pair.x_train.shape[1], args.width), nn.ReLU(), nn.Linear(args.width, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    log = Log(args.log, args.log_every, (pair.x_train, pair.y_train, pair.x_test, pair.y_test))
    log.at(0, args.steps, model)
    order = torch.randperm(args.train)
    for step in range(1, args.steps + 1):
        if len(order) < args.batch_size:
            order = torch.randperm(args.train)
        batch, order = order[: args.batch_size], order[args.batch_size :]
        loss = nn.functional.mse_loss(model(pair.x_train[batch]), pair.y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.at(step, args.steps, model)
    log.write()


if __name__ == "__main__":
    main()

"""One hidden ReLU layer on MNIST threes and fives from weights α times the usual: decay shrinks them.

With a large α it is lazy: it fits the training set while its predictions of other pictures are still those of
the random start, and generalises when weight decay has shrunk that away [Liu22]. Momentum SGD on the squared
error: steps do not adapt to the gradients, unlike those of `train_large_init.py`.

Source: Liu, Michaud & Tegmark, "Omnigrok: Grokking Beyond Algorithmic Data".
"""

import argparse

import torch
from images import load_pair
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=int, default=4, help="average squares of so many pixels")
    parser.add_argument("--train", type=int, default=60, help="training examples")
    parser.add_argument("--test", type=int, default=300, help="test examples")
    parser.add_argument("--width", type=int, default=64, help="hidden units")
    parser.add_argument("--alpha", type=float, default=12.0, help="scale of the initial parameters")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--lr", type=float, default=0.018, help="times α², so that the first steps are alike")
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    pair = load_pair("mnist", args.pool, args.train, args.test, 0.0, args.seed)
    torch.manual_seed(args.seed)
    model = nn.Sequential(nn.Linear(pair.x_train.shape[1], args.width), nn.ReLU(), nn.Linear(args.width, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(args.alpha)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr / args.alpha**2, momentum=0.9, weight_decay=args.weight_decay
    )
    for _ in range(args.steps):
        loss = nn.functional.mse_loss(model(pair.x_train), pair.y_train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wrong = (model(pair.x_test).sign() != pair.y_test).float().mean()
    print(f"loss {loss.item():.4g} after {args.steps} steps, {wrong.item():.1%} of the test signs wrong")


if __name__ == "__main__":
    main()

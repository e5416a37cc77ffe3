"""Two hidden ReLU layers on a table: SGD on the squared error."""

import argparse

import torch
from tabular import add_arguments, load_split, write_log
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--width", type=int, default=128, help="hidden units of a layer")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.03)
    args = parser.parse_args()

    split = load_split(args.data, args.train, args.test, args.seed, regular=args.regular)
    x, y = torch.from_numpy(split.x_train), torch.from_numpy(split.y_train)
    x_held, y_held = torch.from_numpy(split.x_validation), torch.from_numpy(split.y_validation)
    torch.manual_seed(args.seed)
    model = nn.Sequential(
        nn.Linear(x.shape[1], args.width),
        nn.ReLU(),
        nn.Linear(args.width, args.width),
        nn.ReLU(),
        nn.Linear(args.width, 1),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    errors = []
    for _ in range(args.epochs):
        for batch in torch.randperm(len(x)).split(args.batch_size):
            loss = nn.functional.mse_loss(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            errors.append(nn.functional.mse_loss(model(x_held), y_held).item())
    write_log(args.log, "epoch", errors)


if __name__ == "__main__":
    main()

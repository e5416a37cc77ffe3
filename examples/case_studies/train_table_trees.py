"""Gradient boosting on a table, with scikit-learn (no torch)."""

import argparse

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from tabular import add_arguments, load_split, write_log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args()

    split = load_split(args.data, args.train, args.test, args.seed, regular=args.regular)
    model = GradientBoostingRegressor(
        n_estimators=args.trees, max_depth=args.depth, learning_rate=args.lr, random_state=args.seed
    )
    model.fit(split.x_train, split.y_train[:, 0])
    held = split.y_validation[:, 0]
    stages = model.staged_predict(split.x_validation)
    write_log(args.log, "tree", [float(np.square(f - held).mean()) for f in stages])


if __name__ == "__main__":
    main()

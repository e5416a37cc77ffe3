"""Boosted trees and a random forest on a regression of scikit-learn's diabetes data (no torch)."""

import argparse

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.metrics import mean_squared_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--subsample", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(arguments.seed).permutation(len(x))
    train, test = order[:300], order[300:]
    boosted = GradientBoostingRegressor(
        n_estimators=arguments.trees,
        learning_rate=arguments.learning_rate,
        subsample=arguments.subsample,
        random_state=arguments.seed,
    )
    forest = RandomForestRegressor(
        n_estimators=arguments.trees, min_samples_leaf=3, random_state=arguments.seed
    )
    for name, model in (("boosted trees", boosted), ("random forest", forest)):
        model.fit(x[train], y[train])
        print(f"{name}: test error {mean_squared_error(y[test], model.predict(x[test])):.1f}")


if __name__ == "__main__":
    main()

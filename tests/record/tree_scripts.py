"""Scripts that fit trees, and what they leave for a test to compare with."""

from __future__ import annotations

SKLEARN = """
import pickle, random, sys, warnings
import numpy as np
from sklearn.ensemble import (
    ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor,
    HistGradientBoostingClassifier, HistGradientBoostingRegressor,
    RandomForestClassifier, RandomForestRegressor,
)
warnings.simplefilter("error")
np.random.seed(3)
random.seed(3)
X = np.random.normal(size=(70, 4))
y = 100 + X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + 0.3 * np.random.normal(size=70)
w = np.random.uniform(0.5, 2, size=70)
classes = np.array(["a", "b", "c"])[np.digitize(y, np.quantile(y, [0.3, 0.6]))]
gaps = np.where(np.random.uniform(size=X.shape) < 0.1, np.nan, X)
T, V = X[:50], X[50:]
models = {
    "model": GradientBoostingRegressor(n_estimators=25, subsample=0.6).fit(T, y[:50]),
    "gradientboostingregressor": GradientBoostingRegressor(
        n_estimators=40, init="zero", n_iter_no_change=2, max_leaf_nodes=6, learning_rate=0.3, ccp_alpha=1e-3
    ).fit(T, y[:50], sample_weight=w[:50]),
    "gradientboostingregressor_2": GradientBoostingRegressor(n_estimators=12).fit(T, y[:50], w[:50]),
    "randomforestregressor": RandomForestRegressor(n_estimators=9, max_features=0.5).fit(
        T, np.stack([y[:50], y[:50] ** 2], 1)
    ),
    "randomforestclassifier": RandomForestClassifier(n_estimators=7, min_samples_leaf=3).fit(
        gaps[:50], classes[:50], sample_weight=w[:50]
    ),
    "extratreesregressor": ExtraTreesRegressor(n_estimators=6, min_samples_leaf=4).fit(T, y[:50], w[:50]),
    "histgradientboostingregressor": HistGradientBoostingRegressor(
        max_iter=15, l2_regularization=2.0, min_samples_leaf=5, max_leaf_nodes=7
    ).fit(gaps[:50], y[:50], sample_weight=w[:50]),
}
for name, model in models.items():
    rows = gaps if name in ("randomforestclassifier", "histgradientboostingregressor") else X
    print(name, model.predict(rows[:50])[:2], model.predict(rows[50:])[:2])

few = dict(n_estimators=2)
GradientBoostingRegressor(loss="huber", **few).fit(T, y[:50])
GradientBoostingRegressor(init=GradientBoostingRegressor(**few), **few).fit(T, y[:50])
more = GradientBoostingRegressor(warm_start=True, **few).fit(T, y[:50])
more.set_params(n_estimators=3).fit(V, y[50:])
GradientBoostingClassifier(**few).fit(T, classes[:50])
RandomForestRegressor(criterion="absolute_error", **few).fit(T, y[:50])
RandomForestRegressor(monotonic_cst=[1, 0, 0, 0], **few).fit(T, y[:50])
RandomForestClassifier(class_weight="balanced", **few).fit(T, classes[:50])
HistGradientBoostingRegressor(max_iter=2, early_stopping=True).fit(T, y[:50])
HistGradientBoostingRegressor(max_iter=2, loss="absolute_error").fit(T, y[:50])
HistGradientBoostingClassifier(max_iter=2).fit(T, classes[:50])

if len(sys.argv) > 1:
    with open(sys.argv[1], "wb") as file:
        pickle.dump((X, y, w, classes, gaps, models), file)
print(np.random.uniform(), random.random(), sorted(m for m in sys.modules if "torch" in m))
sys.exit(7)
"""

BOOSTERS = """
import pickle, random, sys
import numpy as np
import lightgbm as lgb
import xgboost as xgb
rng = np.random.default_rng(5)
X = rng.normal(size=(120, 5)).astype(np.float32)
y = 10 + X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + 0.3 * rng.normal(size=120)
X[rng.uniform(size=X.shape) < 0.1] = np.nan
w = rng.uniform(0.5, 2, size=120)
T, V = X[:90], X[90:]
quiet = dict(n_jobs=1, verbosity=0)
one = xgb.XGBRegressor(n_estimators=12, max_depth=3, **quiet).fit(T, y[:90], sample_weight=w[:90])
one.predict(V)
exact = {"tree_method": "exact", "base_score": 3.0, "lambda": 0.5, "gamma": 0.1, "nthread": 1, "verbosity": 0}
two = xgb.train(exact, xgb.DMatrix(T, y[:90]), 10)
stopped = xgb.XGBRegressor(n_estimators=60, early_stopping_rounds=2, **quiet)
stopped.fit(T, y[:90], eval_set=[(V, y[90:])], verbose=False)
stopped.predict(V)
light = dict(n_jobs=1, verbosity=-1, min_child_samples=5)
four = lgb.LGBMRegressor(n_estimators=12, num_leaves=7, reg_lambda=1.0, **light).fit(T, y[:90], w[:90])
four.predict(V)
plain = dict(objective="regression", boost_from_average=False, verbosity=-1, num_threads=1)
five = lgb.train(plain, lgb.Dataset(T, y[:90]), 6)
five.predict(V)
labels = (y[:90] > 10).astype(int)
for refused in (
    xgb.XGBRegressor(n_estimators=2, subsample=0.5, **quiet),
    xgb.XGBRegressor(n_estimators=2, reg_alpha=1.0, **quiet),
    xgb.XGBClassifier(n_estimators=2, **quiet), xgb.XGBRegressor(n_estimators=2, booster="dart", **quiet),
    lgb.LGBMRegressor(n_estimators=2, subsample=0.5, subsample_freq=1, **light),
    lgb.LGBMRegressor(n_estimators=2, reg_alpha=1.0, **light), lgb.LGBMClassifier(n_estimators=2, **light),
    lgb.LGBMRegressor(n_estimators=2, boosting_type="dart", **light),
):
    refused.fit(T, labels if "Classifier" in type(refused).__name__ else y[:90])
xgb.train({"nthread": 1, "verbosity": 0}, xgb.QuantileDMatrix(T, y[:90]), 2)
print(one.predict(V)[:3], four.predict(V)[:3], sorted(m for m in sys.modules if m == "torch"))
"""

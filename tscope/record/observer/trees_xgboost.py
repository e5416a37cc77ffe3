"""Boosted trees of xgboost, whose arithmetic is float32: squared error, all rows in every tree.

Read from the model as its own JSON, and from the matrix it was trained on.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
import threading
import time
from typing import Any, Dict, List, Mapping, Optional

from .trees import Refusal, Trees, dense, plain, replace, table

# Parameters that must have these values, and what they do otherwise. Absent is their default.
_EXACT = (
    ("subsample", 1.0, "draws rows for each tree, which are not known"),
    ("alpha", 0.0, "shrinks the values of leaves towards 0, which is not linear in the labels"),
    ("max_delta_step", 0.0, "clips the values of leaves"),
    ("scale_pos_weight", 1.0, "weighs examples by their labels"),
    ("num_parallel_tree", 1.0, "fits forests within the boosting"),
)
_ALIASES = {"reg_alpha": "alpha", "reg_lambda": "lambda", "learning_rate": "eta"}


class _Given(threading.local):
    """The rows that a scikit-learn interface was given, whose own matrix only holds their quantiles."""

    inputs: Any = None


def install(trees: Trees, module: Any) -> None:
    """Observe one module."""
    if module.__name__ == "xgboost.sklearn":
        replace(module.XGBModel, "fit", _fit)
        replace(module.XGBModel, "predict", _predict(trees))
    else:
        replace(module, "train", _train(trees))


_given = _Given()


def _fit(original: Any) -> Any:
    def fit(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        _given.inputs = X
        try:
            return original(self, X, *args, **kwargs)
        finally:
            _given.inputs = None

    return fit


def _train(trees: Trees) -> Any:
    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        def end(booster: Any, args: Any, kwargs: Any, began: float) -> None:
            _send(trees, booster, signature.bind(*args, **kwargs).arguments, began)

        def train(*args: Any, **kwargs: Any) -> Any:
            began = time.time()
            booster = original(*args, **kwargs)
            trees.guarded("xgboost trees", end, booster, args, kwargs, began)
            return booster

        return train

    return make


def _predict(trees: Trees) -> Any:
    def make(original: Any) -> Any:
        def predict(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, X, *args, **kwargs)
            if not args and not kwargs:
                trees.guarded("xgboost predict", trees.predicted, self._Booster, X, "float32", result)
            return result

        return predict

    return make


def _send(trees: Trees, booster: Any, data: Mapping[str, Any], began: float) -> None:
    numpy = sys.modules["numpy"]
    model = json.loads(bytes(booster.save_raw("json")).decode("utf-8"))["learner"]
    parameters = _parameters(data["params"])
    members = _check(model, data, parameters)
    matrix = data["dtrain"]
    inputs = _inputs(matrix)
    best = booster.attributes().get("best_iteration")
    if best is not None:  # of early stopping: predictions use no further trees
        members = members[: int(best) + 1]
    score = float(str(model["learner_model_param"]["base_score"]).strip("[]"))
    weight = matrix.get_weight()
    arrays = {
        "input": inputs,
        "target": numpy.asarray(matrix.get_label(), "float64").reshape(len(inputs), 1),
        **table([_nodes(tree) for tree in members]),
    }
    if weight.size:
        arrays["weight"] = numpy.asarray(weight, "float64")
    fields = {
        "rule": "boosting",
        "shrinkage": _number(parameters, "eta", 0.3),
        "penalty": _number(parameters, "lambda", 1.0),
        "base": "mean" if parameters.get("base_score") is None else "constant",
        "base_value": [score],
        "precision": "float32",
        "library": "xgboost",
        "version": sys.modules["xgboost"].__version__,
        "settings": {name: plain(value) for name, value in sorted(parameters.items()) if value is not None},
    }
    trees.fitted(booster, began, fields, arrays)


def _parameters(given: Any) -> Dict[str, Any]:
    pairs = given.items() if hasattr(given, "items") else given
    return {_ALIASES.get(str(name), str(name)): value for name, value in pairs}


def _number(parameters: Mapping[str, Any], name: str, default: float) -> float:
    value = parameters.get(name)
    return default if value is None else float(value)


def _check(model: Mapping[str, Any], data: Mapping[str, Any], parameters: Mapping[str, Any]) -> List[Any]:
    """Return the trees of a model whose predictions are linear in the labels."""
    objective = model["objective"]["name"]
    if objective != "reg:squarederror" or data.get("obj") is not None:
        raise Refusal(
            "with objective {} leaves are not linear in the labels; only reg:squarederror is exact".format(
                objective if data.get("obj") is None else "of the script's own"
            )
        )
    booster = model["gradient_booster"]
    if booster["name"] != "gbtree":
        raise Refusal("booster {} does not add up trees as they were fitted".format(booster["name"]))
    if data.get("xgb_model") is not None:
        raise Refusal("it continues another model, whose trees may have been fitted on other rows")
    for name, exact, why in _EXACT:
        if _number(parameters, name, exact) != exact:
            raise Refusal("{}={} {}".format(name, parameters[name], why))
    if parameters.get("monotone_constraints") not in (None, "", "()", (), {}):
        raise Refusal("monotone_constraints clip the values of leaves")
    if data["dtrain"].get_base_margin().size:
        raise Refusal("it begins at a margin of its own for each row (base_margin)")
    members: List[Any] = booster["model"]["trees"]
    if any(any(tree.get("split_type", ())) for tree in members):
        raise Refusal("its splits of categorical features cannot be held")
    if any(int(tree["tree_param"].get("size_leaf_vector", 1)) > 1 for tree in members):
        raise Refusal("its leaves hold several outputs")
    return members


def _inputs(matrix: Any) -> Any:
    """Return the training rows (example, feature), NaN where a value is missing."""
    numpy = sys.modules["numpy"]
    given: Optional[Any] = _given.inputs
    if given is not None:
        inputs = dense(given, "float32")
        if inputs.shape == (matrix.num_row(), matrix.num_col()):
            return inputs
    if type(matrix).__name__ != "DMatrix":
        raise Refusal(
            "a {} holds quantiles of the rows only; train on a DMatrix or by XGBRegressor".format(
                type(matrix).__name__
            )
        )
    sparse = matrix.get_data()
    inputs = numpy.full((matrix.num_row(), matrix.num_col()), math.nan, "float32")
    rows = numpy.repeat(numpy.arange(len(inputs)), numpy.diff(sparse.indptr))
    inputs[rows, sparse.indices] = sparse.data
    return inputs


def _nodes(tree: Mapping[str, Any]) -> Dict[str, Any]:
    numpy = sys.modules["numpy"]
    left, right = (numpy.asarray(tree[name], "int64") for name in ("left_children", "right_children"))
    leaf = left < 0
    # Of a leaf its value, else a threshold that its rows lie below; both are float32.
    condition = numpy.asarray(tree["split_conditions"], "float64").astype("float32")
    below = numpy.nextafter(condition, numpy.float32(-math.inf))
    return {
        "feature": numpy.where(leaf, -1, tree["split_indices"]),
        "threshold": numpy.where(leaf, 0.0, below.astype("float64")),
        "left": left,
        "right": numpy.where(leaf, -1, right),
        "missing_left": numpy.asarray(tree["default_left"]).astype("uint8"),
        "value": numpy.where(leaf, condition, 0.0).astype("float64")[:, None],
    }

"""Boosted trees of lightgbm, whose gradients are float32: squared error, all rows in every tree.

Read from the model as its own text and JSON, and from the data set that it was given.
"""

from __future__ import annotations

import inspect
import re
import sys
import time
from typing import Any, Dict, List, Mapping

from .trees import Refusal, Trees, dense, plain, replace, table

# Parameters that must have one of these values, and what they do otherwise.
_EXACT = (
    ("boosting", ("gbdt",), "does not add up trees as they were fitted"),
    ("data_sample_strategy", ("bagging",), "draws rows for each tree, which are not known"),
    ("lambda_l1", ("0",), "shrinks the values of leaves towards 0, which is not linear in the labels"),
    ("max_delta_step", ("0",), "clips the values of leaves"),
    ("path_smooth", ("0",), "mixes the values of leaves with those above them"),
    ("linear_tree", ("0",), "fits linear models in leaves"),
    ("monotone_constraints", ("",), "clips the values of leaves"),
    ("reg_sqrt", ("0",), "fits the square root of the labels"),
    ("use_quantized_grad", ("0",), "rounds the residuals"),
)


def install(trees: Trees, module: Any) -> None:
    """Observe the module that trains, and the class that predicts."""
    replace(module, "train", _train(trees))
    replace(module.Booster, "predict", _predict(trees))


def _train(trees: Trees) -> Any:
    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        def begin(args: Any, kwargs: Any) -> Dict[str, Any]:
            data = signature.bind(*args, **kwargs).arguments
            # Constructing the set lets go of its rows, unless it is told to keep them.
            return {"rows": data["train_set"].data, "set": data["train_set"], "again": data.get("init_model")}

        def end(booster: Any, held: Mapping[str, Any], began: float) -> None:
            _send(trees, booster, held, began)

        def train(*args: Any, **kwargs: Any) -> Any:
            began = time.time()
            held = trees.guarded("lightgbm train", begin, args, kwargs)
            booster = original(*args, **kwargs)
            if held is not None:
                trees.guarded("lightgbm trees", end, booster, held, began)
            return booster

        return train

    return make


def _predict(trees: Trees) -> Any:
    def make(original: Any) -> Any:
        signature = inspect.signature(original)
        special = ("raw_score", "pred_leaf", "pred_contrib", "start_iteration")

        def take(booster: Any, args: Any, kwargs: Any, result: Any) -> None:
            data = signature.bind(booster, *args, **kwargs).arguments
            whole = data.get("num_iteration") in (None, -1, booster.best_iteration)
            if whole and not any(data.get(name) for name in special) and not isinstance(data["data"], str):
                trees.predicted(booster, data["data"], "float64", result)

        def predict(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            trees.guarded("lightgbm predict", take, self, args, kwargs, result)
            return result

        return predict

    return make


def _send(trees: Trees, booster: Any, held: Mapping[str, Any], began: float) -> None:
    numpy = sys.modules["numpy"]
    if held["again"] is not None:
        raise Refusal("it continues another model, whose trees may have been fitted on other rows")
    rows, data = held["rows"], held["set"]
    if rows is None or isinstance(rows, str) or not hasattr(rows, "shape"):
        raise Refusal("its Dataset holds no rows in memory (free_raw_data, or a file)")
    if data.get_init_score() is not None:
        raise Refusal("it begins at a score of its own for each row (init_score)")
    parameters = _parameters(booster.model_to_string())
    model = booster.dump_model()
    _check(model, parameters)
    inputs = dense(rows, "float64")
    last = booster.best_iteration if booster.best_iteration > 0 else None
    members = [_nodes(tree["tree_structure"]) for tree in model["tree_info"]][:last]
    base, target = 0.0, numpy.asarray(data.get_label(), "float64").reshape(len(inputs), 1)
    weight = data.get_weight()
    arrays: Dict[str, Any] = {"input": inputs, "target": target}
    if weight is not None:
        arrays["weight"] = numpy.asarray(weight, "float64")
    from_mean = parameters.get("boost_from_average", "1") == "1"
    if from_mean and members:
        # It is added to the first tree's leaves.
        base = float(numpy.average(target[:, 0], weights=arrays.get("weight")))
        first = members[0]
        leaf = first["left"] < 0
        first["value"] = numpy.where(leaf[:, None], first["value"] - base, 0.0)
    arrays.update(table(members))
    settings = {name: plain(value) for name, value in sorted(booster.params.items()) if value is not None}
    fields = {
        "rule": "boosting",
        "shrinkage": float(parameters.get("learning_rate", 0.1)),
        "penalty": float(parameters.get("lambda_l2", 0.0)),
        "base": "mean" if from_mean else "constant",
        "base_value": [base],
        "precision": "float32",
        "library": "lightgbm",
        "version": sys.modules["lightgbm"].__version__,
        "settings": settings,
    }
    trees.fitted(booster, began, fields, arrays)


def _parameters(text: str) -> Dict[str, str]:
    """Return the parameters of a model's text, each by its own name whatever alias was given."""
    return dict(re.findall(r"^\[(\w+): (.*)\]$", text, re.MULTILINE))


def _check(model: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
    objective = str(model.get("objective", "")).partition(" ")[0]
    if objective != "regression":
        raise Refusal(
            "with objective {} a leaf's value is not linear in the labels; only regression is exact".format(
                objective or "of the script's own"
            )
        )
    for name, exact, why in _EXACT:
        if parameters.get(name, exact[0]) not in exact:
            raise Refusal("{}={} {}".format(name, parameters[name], why))
    fraction, every = (float(parameters.get(name, 1)) for name in ("bagging_fraction", "bagging_freq"))
    if fraction < 1 and every > 0:
        raise Refusal("bagging_fraction={:g} draws rows for each tree, which are not known".format(fraction))


def _nodes(root: Mapping[str, Any]) -> Dict[str, Any]:
    """Return one tree, its nodes numbered so that children come after their parents."""
    numpy = sys.modules["numpy"]
    queue: List[Mapping[str, Any]] = [root]
    columns: Dict[str, List[Any]] = {
        name: [] for name in ("feature", "threshold", "left", "right", "missing_left", "value")
    }
    for node in queue:  # grows on the way
        inner = "split_feature" in node
        if inner and node["decision_type"] != "<=":
            raise Refusal("its splits of categorical features cannot be held")
        if inner and node["missing_type"] == "Zero":
            raise Refusal("zero_as_missing treats zeros apart")
        columns["feature"].append(node["split_feature"] if inner else -1)
        columns["threshold"].append(node["threshold"] if inner else 0.0)
        columns["left"].append(len(queue) if inner else -1)
        columns["right"].append(len(queue) + 1 if inner else -1)
        # Where nothing was missing in training a NaN counts as 0.
        goes = inner and (node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0.0)
        columns["missing_left"].append(int(goes))
        columns["value"].append([0.0 if inner else node["leaf_value"]])
        if inner:
            queue += [node["left_child"], node["right_child"]]
    return {name: numpy.asarray(values) for name, values in columns.items()}

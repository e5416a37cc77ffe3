"""Ensembles of scikit-learn: gradient boosting, its histogram form, and forests.

Refused, by name, is whatever makes a prediction something else than a weighted mean of labels or of residuals
within leaves.
"""

from __future__ import annotations

import inspect
import sys
import time
from typing import Any, Dict, List, Mapping, Tuple

from .trees import Refusal, Trees, dense, plain, replace, table

_LIBRARY = "scikit-learn"


class _Fit:
    """A fit under way: when it began, and the rows that each tree was given."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.began = time.time()
        self.data = data
        self.masks: List[Any] = []


def install(trees: Trees, module: Any) -> None:
    """Observe the classes of one module."""
    kind = module.__name__.rpartition(".")[2]
    if kind == "_gb":
        fits: Dict[int, _Fit] = {}
        replace(module.BaseGradientBoosting, "_fit_stages", _stages(trees, fits))
        replace(module.BaseGradientBoosting, "_fit_stage", _stage(trees, fits))
        replace(module.GradientBoostingRegressor, "predict", _predict(trees, "float32"))
    elif kind == "_forest":
        replace(module.BaseForest, "fit", _fit(trees, _forest, "estimators_"))
        replace(module.ForestRegressor, "predict", _predict(trees, "float32"))
        replace(module.ForestClassifier, "predict_proba", _predict(trees, "float32"))
    else:
        replace(module.BaseHistGradientBoosting, "fit", _fit(trees, _histogram, "_predictors"))
        replace(module.HistGradientBoostingRegressor, "predict", _predict(trees, "float64"))


def _stages(trees: Trees, fits: Dict[int, _Fit]) -> Any:
    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        def begin(model: Any, args: Any, kwargs: Any) -> _Fit:
            data = signature.bind(model, *args, **kwargs).arguments
            _check_boosting(model, data)
            return _Fit(data)

        def end(model: Any, fit: _Fit, count: int) -> None:
            _send_boosting(trees, model, fit, count)

        def _fit_stages(self: Any, *args: Any, **kwargs: Any) -> Any:
            where = type(self).__name__
            fit = trees.guarded(where + " fit", begin, self, args, kwargs)
            if fit is None:
                return original(self, *args, **kwargs)
            fits[id(self)] = fit
            try:
                count = original(self, *args, **kwargs)
            finally:
                del fits[id(self)]
            trees.guarded(where + " trees", end, self, fit, count)
            return count

        return _fit_stages

    return make


def _stage(trees: Trees, fits: Dict[int, _Fit]) -> Any:
    def make(original: Any) -> Any:
        place = list(inspect.signature(original).parameters).index("sample_mask")

        def keep(fit: _Fit, args: Any, kwargs: Any) -> None:
            mask = kwargs["sample_mask"] if "sample_mask" in kwargs else args[place - 1]
            fit.masks.append(mask.copy())

        def _fit_stage(self: Any, *args: Any, **kwargs: Any) -> Any:
            fit = fits.get(id(self))
            if fit is not None and self.subsample < 1.0:
                trees.guarded("GradientBoosting stage", keep, fit, args, kwargs)
            return original(self, *args, **kwargs)

        return _fit_stage

    return make


def _check_boosting(model: Any, data: Mapping[str, Any]) -> None:
    if model.loss != "squared_error":
        raise Refusal(
            "with loss {!r} a leaf's value is not linear in the labels; only squared_error is exact".format(
                model.loss
            )
        )
    if model.init is not None and not (isinstance(model.init, str) and model.init == "zero"):
        raise Refusal("how init={} depends on the labels is not known".format(type(model.init).__name__))
    if data.get("begin_at_stage", 0):
        raise Refusal("with warm_start earlier trees may have been fitted on other rows")


def _send_boosting(trees: Trees, model: Any, fit: _Fit, count: int) -> None:
    numpy = sys.modules["numpy"]
    X, y = fit.data["X"], fit.data["y"]
    inputs = dense(X, "float32")
    members = [tree.tree_ for tree in model.estimators_[:count, 0]]
    arrays = {
        "input": inputs,
        "target": numpy.array(y, "float64").reshape(len(inputs), 1),
        "leaf": _leaves(members, inputs),
        # The boosting adds up its own predictions of the training rows, in place.
        "output": numpy.array(fit.data["raw_predictions"], "float64").reshape(len(inputs), 1),
        **table([_nodes(tree, model.learning_rate * tree.value[:, :, 0]) for tree in members]),
        **_weights(fit.data.get("sample_weight"), len(inputs)),
    }
    if model.subsample < 1.0:
        if len(fit.masks) != count:
            raise Refusal("its subsamples were seen for {} of {} trees".format(len(fit.masks), count))
        arrays["sample"] = numpy.array(fit.masks, "uint16")
    zero = isinstance(model.init, str)
    base = numpy.zeros(1) if zero else numpy.asarray(model.init_.constant_, "float64").reshape(-1)
    fields = {
        "rule": "boosting",
        "shrinkage": float(model.learning_rate),
        "penalty": 0.0,
        "base": "constant" if zero else "mean",
        "base_value": base.tolist(),
        "precision": "float64",
        **_facts(model),
    }
    trees.fitted(model, fit.began, fields, arrays)


def _fit(trees: Trees, send: Any, members: str) -> Any:
    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        def end(model: Any, args: Any, kwargs: Any, again: bool, began: float) -> None:
            data = signature.bind(model, *args, **kwargs).arguments
            if model.warm_start and again:
                raise Refusal("with warm_start earlier trees may have been fitted on other rows")
            send(trees, model, data, began)

        def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
            again, began = hasattr(self, members), time.time()
            result = original(self, *args, **kwargs)
            trees.guarded(type(self).__name__ + " trees", end, self, args, kwargs, again, began)
            return result

        return fit

    return make


def _predict(trees: Trees, dtype: str) -> Any:
    def make(original: Any) -> Any:
        def predict(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, X, *args, **kwargs)
            trees.guarded(type(self).__name__ + " predict", trees.predicted, self, X, dtype, result)
            return result

        return predict

    return make


def _forest(trees: Trees, model: Any, data: Mapping[str, Any], began: float) -> None:
    numpy = sys.modules["numpy"]
    criterion = model.criterion
    if not hasattr(model, "predict") and not hasattr(model, "predict_proba"):
        raise Refusal("it is fitted on random labels")
    if criterion == "absolute_error":
        raise Refusal("with criterion absolute_error leaves are medians, which are not linear in the labels")
    if getattr(model, "monotonic_cst", None) is not None:
        raise Refusal("monotonic_cst clips the values of leaves")
    if getattr(model, "class_weight", None) is not None:
        raise Refusal("class_weight makes the weights of examples depend on their labels")
    inputs = dense(data["X"], "float32")
    target, is_classifier = _target(model, data["y"], len(inputs))
    members = [tree.tree_ for tree in model.estimators_]
    arrays = {"input": inputs, "target": target, "leaf": _leaves(members, inputs)}
    nodes = []
    for tree in members:
        # (node, output, class): a classifier has one output here; its classes' shares, or their weights.
        value = tree.value[:, 0, :] if is_classifier else tree.value[:, :, 0]
        nodes.append(_nodes(tree, value / value.sum(1, keepdims=True) if is_classifier else value))
    arrays.update(table(nodes))
    weight = data.get("sample_weight")
    if model.bootstrap:
        rows = model.estimators_samples_
        arrays["sample"] = numpy.array([numpy.bincount(r, minlength=len(inputs)) for r in rows], "uint16")
        if _draws_by_weight(model):
            weight = None  # it is in the draws
    arrays.update(_weights(weight, len(inputs)))
    fields = {
        "rule": "forest",
        "shrinkage": 1.0,
        "penalty": 0.0,
        "base": "constant",
        "base_value": [0.0] * target.shape[1],
        "precision": "float64",
        **_facts(model),
    }
    trees.fitted(model, began, fields, arrays)


def _target(model: Any, y: Any, examples: int) -> Tuple[Any, bool]:
    """Return what a forest's leaves average (example, output), and whether those are classes."""
    numpy = sys.modules["numpy"]
    if not hasattr(model, "classes_"):
        return numpy.array(y, "float64").reshape(examples, -1), False
    if model.n_outputs_ > 1:
        raise Refusal("it classifies by several outputs at once")
    labels = numpy.asarray(y).reshape(examples)
    return (labels[:, None] == numpy.asarray(model.classes_)[None, :]).astype("float64"), True


def _draws_by_weight(model: Any) -> bool:
    """Tell whether this scikit-learn draws rows by their weights (since 1.9), or weighs what it drew."""
    draw = getattr(sys.modules["sklearn.ensemble._forest"], "_generate_sample_indices", None)
    return draw is not None and "sample_weight" in inspect.signature(draw).parameters


def _histogram(trees: Trees, model: Any, data: Mapping[str, Any], began: float) -> None:
    numpy = sys.modules["numpy"]
    if model.loss != "squared_error":
        raise Refusal(
            "with loss {!r} a leaf's value is not linear in the labels; only squared_error is exact".format(
                model.loss
            )
        )
    if model.do_early_stopping_ and data.get("X_val") is None and model.validation_fraction is not None:
        raise Refusal("the rows that early_stopping sets aside are not known; use early_stopping=False")
    if model.monotonic_cst is not None:
        raise Refusal("monotonic_cst clips the values of leaves")
    if model.is_categorical_ is not None and numpy.any(model.is_categorical_):
        raise Refusal("its splits of categorical features cannot be held")
    inputs = dense(data["X"], "float64")
    arrays = {
        "input": inputs,
        "target": numpy.array(data["y"], "float64").reshape(len(inputs), 1),
        **table([_histogram_nodes(stage[0].nodes) for stage in model._predictors]),
        **_weights(data.get("sample_weight"), len(inputs)),
    }
    fields = {
        "rule": "boosting",
        "shrinkage": float(model.learning_rate),
        "penalty": float(model.l2_regularization),
        "base": "mean",
        "base_value": numpy.asarray(model._baseline_prediction, "float64").reshape(-1).tolist(),
        "precision": "float32",  # of its gradients
        **_facts(model),
    }
    trees.fitted(model, began, fields, arrays)


def _histogram_nodes(nodes: Any) -> Dict[str, Any]:
    numpy = sys.modules["numpy"]
    leaf = nodes["is_leaf"].astype(bool)
    return {
        "feature": numpy.where(leaf, -1, nodes["feature_idx"]),
        "threshold": numpy.where(leaf, 0.0, nodes["num_threshold"]),
        # Unsigned, and of a leaf never set.
        "left": numpy.where(leaf, -1, nodes["left"].astype("int64")),
        "right": numpy.where(leaf, -1, nodes["right"].astype("int64")),
        "missing_left": nodes["missing_go_to_left"],
        "value": nodes["value"][:, None],
    }


def _nodes(tree: Any, value: Any) -> Dict[str, Any]:
    numpy = sys.modules["numpy"]
    missing = getattr(tree, "missing_go_to_left", None)
    leaf = tree.children_left < 0
    return {
        "feature": numpy.where(leaf, -1, tree.feature),
        "threshold": numpy.where(leaf, 0.0, tree.threshold),
        "left": tree.children_left,
        "right": tree.children_right,
        "missing_left": numpy.zeros(len(leaf)) if missing is None else missing,
        "value": value,
    }


def _leaves(members: Any, inputs: Any) -> Any:
    return sys.modules["numpy"].array([tree.apply(inputs) for tree in members], "int32")


def _weights(weight: Any, examples: int) -> Dict[str, Any]:
    """Return the examples' weights, if they differ from 1."""
    numpy = sys.modules["numpy"]
    if weight is None:
        return {}
    values = numpy.broadcast_to(numpy.asarray(weight, "float64"), (examples,))
    return {} if (values == 1.0).all() else {"weight": numpy.array(values)}


def _facts(model: Any) -> Dict[str, Any]:
    settings = {name: plain(value) for name, value in sorted(model.get_params(deep=False).items())}
    return {"library": _LIBRARY, "version": sys.modules["sklearn"].__version__, "settings": settings}

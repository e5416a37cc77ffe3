"""What a result says of each layer: a table of them beside that of the steps, and the words that read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tscope_format import Result, clean

from tscope_cli.numerals import percent, significant
from tscope_cli.table import Column, render

Values = NDArray[np.float64]

# Where the provenance has the names of a dimension's entries.
_NAMES = {"layer": "layers", "matrix": "matrices", "pair": "pairs"}
_ROWS = 24


def entries(result: Result, dimension: str, count: int) -> list[str]:
    """Return the names of the entries of a dimension, by number where the result does not have them."""
    names = result.provenance.get(_NAMES.get(dimension, ""))
    if isinstance(names, list | tuple) and len(names) == count:
        return [clean(name) for name in names]
    return [f"{dimension} {index}" for index in range(count)]


def tables(result: Result) -> list[tuple[str, list[str]]]:
    """Return the title and the lines of each table of layers that a result has; mostly none."""
    found = (_table(result, *form) for form in _TABLES.get(result.metric, ()))
    return [part for part in found if part is not None]


def read_layers(result: Result) -> tuple[str, ...]:
    """Return what the layers did, in words."""
    lines = []
    if "movement" in result.arrays:
        moved = _values(result, "movement")[-1]
        names = entries(result, "layer", moved.size)
        if np.isfinite(moved).any():
            most, least = int(np.nanargmax(moved)), int(np.nanargmin(moved))
            lines.append(
                f"At step {result.scalars.get('steps')} {names[most]} has moved furthest from its start, by "
                f"{significant(float(moved[most]), 3)} times its size there"
                + (
                    f"; {names[least]} least, by {significant(float(moved[least]), 3)}."
                    if most != least
                    else "."
                )
            )
    change, first = (_scalar(result, name) for name in ("loss_change", "loss_first_order"))
    if math.isfinite(change) and math.isfinite(first):
        lines.append(
            f"The loss on the probe set changed by {significant(change, 3)}; first-order steps add "
            f"up to {significant(first, 3)}."
        )
    check = _scalar(result, "balance_check")
    if math.isfinite(check):
        lines.append(
            "Balancedness follows the identity of gradient descent up to "
            f"{significant(check, 2)} of the weights' squares."
        )
    return tuple(lines)


def _values(result: Result, name: str) -> Values:
    return np.asarray(result.arrays[name].data, dtype=np.float64)


def _scalar(result: Result, name: str) -> float:
    value = result.scalars.get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _last(values: Values) -> Values:
    found: Values = values[-1]
    return found


def _first(values: Values) -> Values:
    found: Values = values[0]
    return found


def _sum(values: Values) -> Values:
    found: Values = np.nansum(values, 0)
    return found


def _share(values: Values) -> Values:
    parts = _sum(values)
    found: Values = parts / parts.sum() if parts.sum() > 0 else np.full_like(parts, math.nan)
    return found


def _largest(values: Values) -> Values:
    found: Values = values[-1, :, 0]
    return found


def _worst(values: Values) -> Values:
    """Return the largest of all rows, NaN of what is not known to the last."""
    found: Values = values.max(0)
    return found


def _from_first(values: Values) -> Values:
    found: Values = values[0, -1]
    return found


def _as_is(values: Values) -> Values:
    return values


_Cells = Sequence[tuple[str, str, Callable[[Values], Values], bool]]
_LAYERS: _Cells = (
    ("theta_norm", "‖θ‖", _last, False),
    ("movement", "movement", _last, False),
    ("gradient_norm", "‖g‖", _last, False),
    ("contribution", "Σ‖JΔθ‖", _share, True),
    ("loss_contribution", "Σ loss, probe", _sum, False),
    ("batch_loss_contribution", "Σ loss, batches", _sum, False),
)
_MATRICES: _Cells = (
    ("singular_values", "σ₁", _largest, False),
    ("effective_rank", "eff. rank", _last, False),
    ("effective_rank", "eff. rank at first", _first, False),
    ("stable_rank", "stable rank", _last, False),
    ("stable_rank", "stable rank at first", _first, False),
)
_PAIRS: _Cells = (
    ("balance", "‖Q‖", _last, False),
    ("balance", "‖Q₀‖", _first, False),
    ("balance_drift", "‖Q − Q₀‖", _last, False),
    ("balance_flow", "flow leaves", _last, False),
    ("balance_off", "off the identity", _worst, False),
)
_GRADIENTS: _Cells = (
    ("change_layer_train", "change", _from_first, False),
    ("change_layer_test", "held-out", _from_first, False),
    ("cosine_layer_train", "cosine", _from_first, False),
    ("cosine_layer_test", "held-out", _from_first, False),
    ("stabilised_layer_train", "stable from step", _as_is, False),
    ("stabilised_layer_test", "held-out", _as_is, False),
)
# By metric: the dimension of each table, its title and its columns.
_TABLES: dict[str, tuple[tuple[str, str, _Cells], ...]] = {
    "layers": (
        ("layer", "each layer, at the last step and over all steps", _LAYERS),
        ("matrix", "each matrix, at the last step and at the first", _MATRICES),
        ("pair", "balancedness of consecutive linear layers", _PAIRS),
    ),
    "gradients": (("layer", "gradients of each layer, from the first t' to the last step", _GRADIENTS),),
}


def _table(result: Result, dimension: str, title: str, cells: _Cells) -> tuple[str, list[str]] | None:
    columns = [
        (head, reduce(_values(result, array)), share)
        for array, head, reduce, share in cells
        if array in result.arrays
    ]
    if not columns:
        return None
    names = entries(result, dimension, columns[0][1].size)
    rows = [
        [name, *(percent(float(v[i])) if share else significant(float(v[i])) for _, v, share in columns)]
        for i, name in enumerate(names[:_ROWS])
    ]
    heads = [Column(dimension, number=False), *(Column(head) for head, _, _ in columns)]
    rest = [f"and {len(names) - _ROWS} more"] if len(names) > _ROWS else []
    return title, [*render(heads, rows), *rest]

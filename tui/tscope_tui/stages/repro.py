"""The commands that give the numbers of a pane, to be copied.

Lines are broken where a shell and Python let them be, so that they still run when they are copied from a
narrow screen.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tscope_format.errors import clean

from tscope_tui.stages.flags import chosen_options, flag, word

_ARRAYS = {
    "loss": ('trace["loss"]',),
    "update": (
        'np.linalg.norm(trace["update_norm"], axis=1)',
        'np.linalg.norm(trace["theta_norm"], axis=1)',
    ),
    "gradient": ('np.sqrt(np.nansum(trace["grad_norm"] ** 2, axis=1))',),
}
_RESULTS = {
    "accuracy": ("accuracy_actual", "accuracy_telescoped", "accuracy_lazy"),
    "prediction": ("actual", "telescoped", "lazy"),
    "error": ("error_telescoped", "error_lazy"),
}
# The panes of the effective parameters, with the arrays that they show.
EFFECTIVE = {
    "parameters": ("p_train", "p_train_se", "p_test", "p_test_se"),
    "gap": ("gap", "p_train_se", "p_test_se"),
    "spread": ("norms_train", "norms_test"),
    "method": (),
}
# Those of the tangent kernel.
KERNEL = {
    "kernel": ("matrix_step", "kernel"),
    "spectrum": ("eigenvalues_train",),
    "course": ("distance_train", "alignment_train", "alignment_test", "error_test"),
    "pair": ("kernel", "effective_rank_train", "movement_train", "weight_norm_max_train"),
    "kernel method": (),
    "neighbours": ("matrix_step", "kernel", "train", "test"),
}
# Those of the updates.
UPDATES = {
    "terms": (),
    "influence": ("traced", "train", "influence"),
    "visits": ("top_example", "top_influence"),
}
# Those of a network against trees.
BOOSTING = {
    "norms": ("share", "norm_net", "norm_trees"),
    "increase": ("share", "relative_increase"),
    "errors": ("share", "error_net", "error_trees"),
    "against": (),
}
# Those of the layers, of movement and modes, and of neural collapse: their choices tell the arrays.
LAYERS = ("layer map", "layer course", "layer values", "within", "layer method")
REGIME = ("moved", "turned", "modes", "learning", "regime method")
COLLAPSE = ("nc1", "nc2", "nc3", "nc4", "collapse", "collapse method")
# Those of averages, and of changes of gradients; likewise.
AVERAGES = (
    *("blend", "blend train", "single layers", "curvature"),
    *("run course", "run course train", "candidates"),
)
GRADIENTS = ("since", "drift", "stable")
# Those whose arrays are read at one step.
_AT_STEP = ("spread", "spectrum", "visits", "layer values", "learning", "collapse")
# Arrays of them that are of no step.
_OF_MODES = ("target", "frequency", "half_step", "half_step_closed")
# That of the events, of every view.
EVENTS = ("events",)
# Those that show no array.
_METHODS = ("method", "kernel method", "against", "layer method", "regime method", "collapse method")
# Those of single examples, that the recorded outputs of a probe set give.
EXAMPLES = ("examples", "outputs", "picture")
_METRICS: Mapping[str, Collection[str]] = {
    "telescoping": (*_RESULTS, "layers", "contribution"),
    "effective-params": EFFECTIVE,
    "kernel": KERNEL,
    "updates": UPDATES,
    "boosting": BOOSTING,
    "layers": LAYERS,
    "regime": REGIME,
    "neural-collapse": COLLAPSE,
    "weight-averaging": AVERAGES,
    "gradients": GRADIENTS,
    "events": EVENTS,
}
# The metrics whose arrays are not all over steps.
_STEPLESS = ("boosting", "events", "weight-averaging", "gradients")
# Columns of the narrowest screen that are left in the box.
_WIDTH = 54


def repro(
    pane: str,
    path: Path,
    *,
    has_accuracy: bool = True,
    options: Mapping[str, object] | None = None,
    band: tuple[int, int] | None = None,
    step: int = 0,
    held: bool = True,
    known: Collection[str] | None = None,
    example: tuple[str, int] | None = None,
    arrays: Sequence[str] = (),
) -> list[str]:
    """Return the lines: the command line, then Python.

    Args:
        pane: The name of the pane.
        path: The trace.
        has_accuracy: The accuracy pane shows accuracy, not gradient norms.
        options: The options of the analysis that gave what the pane shows.
        band: The steps that the panes of the layers and terms sum over, the first one left out.
        step: The step at which the norms of the examples are shown.
        held: The result of effective parameters has held-out examples.
        known: The arrays of the result of the kernel; None where all are.
        example: The probe set of the examples, and the chosen one; None where none are shown.
        arrays: The arrays that a pane of views 5 and 6 shows.
    """
    if pane == "accuracy" and not has_accuracy:
        pane = "gradient"
    opened = [f"trace = tscope.open({text_of(path)})"]
    if pane in _ARRAYS or (pane in EXAMPLES and example is not None):
        shown = _examples(pane, *example) if example and pane in EXAMPLES else ("trace.steps", *_ARRAYS[pane])
        start = [
            *(["import numpy as np"] if any("np." in one for one in shown) else []),
            "import tscope",
            *opened,
        ]
        program = "\n".join(["", *start, *(f"print({one})" for one in shown), ""])
        command = f"python -c {shlex.quote(program)}".split("\n")
        return ["# command line", *command, "", "# Python", *start, *shown]
    metric = next((metric for metric, panes in _METRICS.items() if pane in panes), None)
    if metric is not None:
        chosen = chosen_options(metric, options or {})
        if pane in ("layers", "contribution"):
            chosen["replay"] = True
        words = [f"--metric {metric}", *(flag(name, value) for name, value in chosen.items()), "--json"]
        arguments = [text_of(path), f'"{metric}"', *(f"{name}={_value(chosen[name])}" for name in chosen)]
        return [
            "# command line",
            *_wrapped(f"tscope analyze {word(path)}", words),
            "",
            "# Python",
            "import tscope",
            "result = tscope.analyze(",
            *(f"    {argument}," for argument in arguments),
            ")",
            *(() if metric in _STEPLESS else ('step = result.arrays["step"].data',)),
            *_shown(pane, band, step, held=held, known=known, given=arrays),
        ]
    if pane == "traces":
        return ["# command line", f"tscope ls {word(path)} --json"]
    return [
        "# command line",
        f"tscope info {word(path)} --json",
        "",
        "# Python",
        "import tscope",
        *opened,
        "trace.facts",
    ]


def _examples(pane: str, probe: str, example: int) -> tuple[str, ...]:
    """Return the recorded arrays that a pane of single examples shows."""
    folder = f"probe/{probe}"
    if pane == "picture":
        return (f"trace[{text_of(f'{folder}/input/0')}][{example}]",)
    each = "" if pane == "examples" else f"[:, {example}]"
    return f"trace[{text_of(f'{folder}/probe_step')}]", f"trace[{text_of(f'{folder}/output')}]{each}"


def _shown(
    pane: str,
    band: tuple[int, int] | None,
    step: int,
    *,
    held: bool,
    known: Collection[str] | None,
    given: Sequence[str],
) -> Sequence[str]:
    """Return the Python that gives what a pane shows of a result."""
    if pane == "layers":
        return _layers(band)
    if pane == "terms":
        return _terms(band)
    if pane in EVENTS:
        return ['result.provenance["events"]']
    if pane in _METHODS:
        return ["result.scalars, result.notes"]
    if pane in (*LAYERS, *REGIME, *COLLAPSE, *AVERAGES, *GRADIENTS):
        arrays = list(given)
    elif pane in UPDATES or pane in BOOSTING:
        arrays = list(UPDATES[pane] if pane in UPDATES else BOOSTING[pane])
    elif pane == "contribution":
        arrays = ["contribution"]
    elif pane in KERNEL:
        arrays = [own for name in KERNEL[pane] if (own := _own(name, known))]
    else:
        arrays = [name for name in _RESULTS.get(pane) or EFFECTIVE[pane] if held or "train" in name]
    if pane not in _AT_STEP:
        return [_array(name) for name in arrays]
    rows = (_array(name) if name in _OF_MODES else f"{_array(name)}[row]" for name in arrays)
    return [f"row = step.searchsorted({step})", *rows]


def _own(name: str, known: Collection[str] | None) -> str:
    """Return the name that a result of the kernel has this array by; empty where it has none.

    One that was estimated is of the probe set, in place of the training examples.
    """
    if known is None or name in known:
        return name
    other = name.replace("_train", "_test")
    return other if other in known and "distance_train" not in known else ""


def _terms(band: tuple[int, int] | None) -> list[str]:
    """Return the Python that weighs the terms' shares as the pane does."""
    inside = "step > 0" if band is None else f"(step > {band[0]}) & (step <= {band[1]})"
    return [
        f"inside = {inside}",
        f"weight = {_array('first_order')}[inside] ** 2",
        'for term in result.provenance["terms"]:',
        '    share = result.arrays[f"share_{term}"].data[inside]',
        "    print(term, (share * weight).sum() / weight.sum())",
    ]


def _layers(band: tuple[int, int] | None) -> list[str]:
    """Return the Python that sums the layers' contributions as the pane does."""
    inside = "step > 0" if band is None else f"(step > {band[0]}) & (step <= {band[1]})"
    return [
        f"inside = {inside}",
        f"moved = {_array('contribution')}",
        "moved = moved[inside].sum(0)",
        f"beyond = {_array('residual')}[inside].sum()",
        'result.provenance["layers"]',
        "moved / moved.sum(), beyond / moved.sum()",
    ]


def _array(name: str) -> str:
    return f'result.arrays["{name}"].data'


def _value(value: object) -> str:
    return text_of(value) if isinstance(value, str) else str(value)


def text_of(value: object) -> str:
    """Return a text as a literal of Python."""
    # Quoted as JSON, which Python reads too, so that no character of a path can end the string.
    return clean(json.dumps(str(value), ensure_ascii=False))


def _wrapped(command: str, options: Sequence[str]) -> list[str]:
    """Return a command line in lines that a shell takes for one."""
    lines = [command]
    for option in options:
        # Room for the backslash.
        if len(lines[-1]) + len(option) + 3 > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"  {option}")
        else:
            lines[-1] += f" {option}"
    return lines

"""The commands that give the numbers of a pane, to be copied."""

from __future__ import annotations

import shlex
from pathlib import Path

from tscope_format.errors import clean

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
    "layers": ("contribution", "residual"),
}


def repro(pane: str, path: Path, *, has_accuracy: bool = True) -> list[str]:
    """Return the lines: the command line, then Python.

    Args:
        pane: The name of the pane.
        path: The trace.
        has_accuracy: The accuracy pane shows accuracy, not gradient norms.
    """
    where = clean(shlex.quote(str(path)))
    # repr, so that no character of a path can end the string.
    opened = [f"trace = tscope.open({clean(repr(str(path)))})"]
    if pane == "accuracy" and not has_accuracy:
        pane = "gradient"
    if pane in _ARRAYS:
        code = [*(["import numpy as np"] if "np." in _ARRAYS[pane][0] else []), "import tscope", *opened]
        code += ["trace.steps", *_ARRAYS[pane]]
        line = "; ".join(
            [*code[: -1 - len(_ARRAYS[pane])], f"print({', '.join(('trace.steps', *_ARRAYS[pane]))})"]
        )
        return ["# command line", f"python -c {shlex.quote(line)}", "", "# Python", *code]
    if pane in _RESULTS:
        option = " --replay" if pane == "layers" else ""
        argument = ", replay=True" if pane == "layers" else ""
        names = ", ".join(f'result.arrays["{name}"].data' for name in _RESULTS[pane])
        return [
            "# command line",
            f"tscope analyze {where} --metric telescoping{option} --json",
            "",
            "# Python",
            "import tscope",
            f'result = tscope.analyze({clean(repr(str(path)))}, "telescoping"{argument})',
            'result.arrays["step"].data',
            names,
        ]
    if pane == "traces":
        return ["# command line", f"tscope ls {clean(shlex.quote(str(path)))} --json"]
    return [
        "# command line",
        f"tscope info {where} --json",
        "",
        "# Python",
        "import tscope",
        *opened,
        "trace.facts",
    ]

"""The model as data: export to a JSON graph, a loader that trusts nothing in it, and its derivatives.

`export` (copied alone into the user's process) writes the graph; `Program` evaluates it at any parameters.
"""

from tscope.program.derivatives import evaluate, jvp, vjp
from tscope.program.export import ExportError, ad_friendly, export, leaves
from tscope.program.functional import OutputFunctional
from tscope.program.layers import jvp_layers
from tscope.program.program import Program

__all__ = [
    "ExportError",
    "OutputFunctional",
    "Program",
    "ad_friendly",
    "evaluate",
    "export",
    "jvp",
    "jvp_layers",
    "leaves",
    "vjp",
]

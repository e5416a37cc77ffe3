"""The model as data: export to a JSON graph, a loader that trusts nothing in it, and its derivatives.

`export` (copied alone into the user's process) writes the graph; `Program` evaluates it at any parameters.
"""

from tscope.program.derivatives import evaluate, jvp, output_shape, vjp
from tscope.program.export import export
from tscope.program.export_json import ExportError
from tscope.program.export_shield import ad_friendly
from tscope.program.export_tree import leaves
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
    "output_shape",
    "vjp",
]

"""Tangent kernels of a run: how K moves, what it favours, how large its weights become.

`metric` registers the analysis and knows its options; everything that computes is loaded when it runs.
"""

from tscope.analyses.kernel.metric import METRIC
from tscope.analyses.kernel.options import Options

__all__ = ["METRIC", "Options"]

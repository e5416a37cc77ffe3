"""Weight averaging: between runs, between rows of one, and along one; beside ensembles and curvature.

`metric` registers the analysis and knows its options; everything that computes is loaded when it runs.
"""

from tscope.analyses.averaging.metric import METRIC
from tscope.analyses.averaging.options import Options

__all__ = ["METRIC", "Options"]

"""A network against an ensemble of trees: kernel weights and errors as test examples become irregular.

`metric` registers the analysis and knows its options; everything that computes is loaded when it runs.
"""

from tscope.analyses.boosting.metric import METRIC
from tscope.analyses.boosting.options import Options

__all__ = ["METRIC", "Options"]

"""Effective parameters: how strongly a trained network's predictions depend on its training labels.

`metric` registers the analysis and knows its options; everything that computes is loaded when it runs.
"""

from tscope.analyses.effective.metric import METRIC
from tscope.analyses.effective.options import Options

__all__ = ["METRIC", "Options"]

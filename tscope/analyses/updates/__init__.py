"""Updates: what each part of the optimizer's step, and each training example, did to predictions.

`metric` registers the analysis and knows its options; everything that computes is loaded when it runs.
"""

from tscope.analyses.updates.metric import METRIC
from tscope.analyses.updates.options import Options

__all__ = ["METRIC", "Options"]

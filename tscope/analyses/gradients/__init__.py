"""How far the gradients of the predictions moved, layer by layer: from a step t' to later ones.

`METRIC` is what the registry lists; the rest of the package is imported when it runs.
"""

from tscope.analyses.gradients.metric import METRIC

__all__ = ["METRIC"]

"""Neural collapse: how features and classifier come to one simplex while a classifier is trained on.

`METRIC` is what the registry lists; the rest of the package is imported when it runs.
"""

from tscope.analyses.collapse.metric import METRIC

__all__ = ["METRIC"]

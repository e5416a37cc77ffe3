"""Lazy or rich: how far kernel, features and parameters moved; modes of linear nets against closed forms.

`METRIC` is what the registry lists; the rest of the package is imported when it runs.
"""

from tscope.analyses.regime.metric import METRIC

__all__ = ["METRIC"]

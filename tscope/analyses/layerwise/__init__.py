"""What each layer did: norms, spectra, movement, its part in the change of predictions and loss, balance.

`METRIC` is what the registry lists; the rest of the package is imported when it runs.
"""

from tscope.analyses.layerwise.metric import METRIC

__all__ = ["METRIC"]

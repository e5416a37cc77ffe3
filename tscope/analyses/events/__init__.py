"""What happened in a run and when: fit, grokking, peaks, jumps, spikes, divergence.

`METRIC` is what the registry lists; the rest of the package is imported when it runs.
"""

from tscope.analyses.events.metric import METRIC

__all__ = ["METRIC"]

"""Analyses of a trace: one file a metric, found by the registry, each a function from a trace to a `Result`.

`metrics` lists them, `analyze` checks what one needs and runs it, `plan` says what that costs. Importing this
package loads no torch.
"""

from tscope.analyses.metric import Metric, Need, Progress, Watch
from tscope.analyses.registry import analyze, metric, metrics, plan

__all__ = ["Metric", "Need", "Progress", "Watch", "analyze", "metric", "metrics", "plan"]

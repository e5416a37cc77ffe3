"""Ensembles of decision trees as smoothers: boosting and forests, tree by tree [Curth23].

numpy only. `docs/metrics/trees.md` says what is exact.
"""

from tscope.boosting.ensemble import Ensemble
from tscope.boosting.nodes import Nodes
from tscope.boosting.recursion import Averages, follow, outputs

__all__ = ["Averages", "Ensemble", "Nodes", "follow", "outputs"]

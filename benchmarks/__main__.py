"""All benchmarks: what recording costs, what a trace weighs, how fast the commands start.

`python -m benchmarks --write` renews docs/benchmarks.md; it takes about a quarter of an hour.
"""

from __future__ import annotations

from benchmarks import cli, overhead, storage
from benchmarks.report import run_all

if __name__ == "__main__":
    run_all([cli.measure, storage.measure, overhead.measure], __doc__)

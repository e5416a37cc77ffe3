"""All benchmarks: commands, traces, recording; kernel blocks, curves of effective parameters, their growth.

`python -m benchmarks --write` renews docs/benchmarks.md; it takes an hour or more.
"""

from __future__ import annotations

from benchmarks import cli, curves, growth, kernel_series, kernels, overhead, storage
from benchmarks.report import run_all

if __name__ == "__main__":
    run_all([m.measure for m in (cli, storage, overhead, kernels, kernel_series, curves, growth)], __doc__)

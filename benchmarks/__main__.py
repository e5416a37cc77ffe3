"""All benchmarks: commands, traces, recording; kernels, sketches, effective parameters, their growth.

`python -m benchmarks --write` renews docs/benchmarks.md; it takes an hour or more.
"""

from __future__ import annotations

from benchmarks import cli, curves, growth, kernel_series, kernels, overhead, sketches, storage
from benchmarks.report import run_all

if __name__ == "__main__":
    modules = (cli, storage, overhead, kernels, kernel_series, sketches, curves, growth)
    run_all([module.measure for module in modules], __doc__)

"""What kernels cost, in memory and arithmetic, before anything is computed."""

from __future__ import annotations

import torch
from tscope_format.errors import AnalysisError

from tscope.analyses.kernel.setup import Setup


def memory(setup: Setup) -> float:
    """Return the bytes of all matrices that are held at once."""
    n, m = setup.sizes
    each = torch.empty(0, dtype=setup.dtype).element_size()
    return of_matrices(n, m, len(setup.layers), each) + 2 * len(setup.kept) * each * (n + m) ** 2


def of_matrices(n: int, m: int, layers: int, each: int) -> float:
    """Return the bytes of kernels of n and of m rows, by layers, of elements of `each` bytes."""
    parts = layers * each
    symmetric = n * n + m * m
    held = (parts + 2 * 8) * symmetric  # K_0 by layers, the sum of it and of the row before
    # Two blocks by layers; the sum of one, centred, its eigenvectors, and what their solver needs.
    working = (2 * parts + 8 * 8) * max(n * n, m * m)
    return held + working


def megabytes(amount: float) -> str:
    """Return bytes as text in MB."""
    return f"{amount / 1e6:,.0f} MB" if amount >= 1e7 else f"{amount / 1e6:.2g} MB"


def check_memory(setup: Setup, limit: float) -> None:
    """Refuse matrices that would not fit.

    Raises:
        AnalysisError: They would not; the message says what does.
    """
    need = memory(setup)
    if need <= limit:
        return
    n, m = setup.sizes
    fewer = ["`--train N`", "`--test N`"] + (["`--probe-output 0:4`"] if setup.outputs > 4 else [])
    also = " or leave the layers out (`--no-layers`)" if len(setup.layers) > 1 else ""
    kept = f", {len(setup.kept)} of them kept," if setup.kept else ""
    raise AnalysisError(
        f"kernels of {n:,} training and {m:,} held-out rows (examples times {setup.outputs} outputs), by "
        f"{len(setup.layers)} layers{kept} need {megabytes(need)} of the {megabytes(limit)} allowed "
        f"(`--max-memory MB`); take fewer: {', '.join(fewer)}{also}"
    )


def flops(setup: Setup, parameters: int, *, preconditioned: bool) -> float:
    """Return the arithmetic of all rows, roughly: passes, blocks, eigenvalues."""
    n, m = setup.sizes
    entries = n * n + n * m + m * m
    # Without D the inner dimension of a layer's product is that of its inputs, some √P.
    inner = parameters if preconditioned else parameters**0.5
    # Eigenvalues and vectors take as long as 9 q³ flops of a product, in float64: twice the time of float32.
    spectra = 9 * (n**3 + m**3) * (2 if setup.dtype == torch.float32 else 1)
    return len(setup.rows) * (6.0 * 2 * (n + m) * parameters + 2 * entries * inner + spectra)

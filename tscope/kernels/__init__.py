"""Tangent kernels of a recorded program: exact blocks, sketches, and products with J, which is never formed.

`Jacobian` is the way in; `factors` holds the mathematics of the layers, `plan` decides which of it applies,
`sketch` multiplies factors with random signs.
"""

from tscope.kernels.jacobian import Jacobian
from tscope.kernels.sketch import Signs

__all__ = ["Jacobian", "Signs"]

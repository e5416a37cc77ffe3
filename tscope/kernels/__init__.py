"""Tangent kernels of a recorded program: exact blocks and products with J, which is never formed.

`Jacobian` is the way in; `factors` holds the mathematics of the layers, `plan` decides which of it applies.
"""

from tscope.kernels.jacobian import Jacobian

__all__ = ["Jacobian"]

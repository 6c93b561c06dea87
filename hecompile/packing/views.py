"""Slices that cost nothing."""

from __future__ import annotations

import math

from hecompile.errors import PassError
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor


def contiguous_range(op: move.Slice) -> tuple[int, int]:
    """First element and count of a slice that is one run of the flattened operand.

    Raises:
        PassError: the slice takes several runs.
    """
    shape = tensor.tensor_type(op.x).shape
    inner, outer = math.prod(shape[op.axis + 1 :]), math.prod(shape[: op.axis])
    if outer != 1 or op.step != 1:
        raise PassError(
            f"lower-to-slots: the slice {op.result} is not contiguous; run merge-linear"
        )
    return op.start * inner, (op.stop - op.start) * inner

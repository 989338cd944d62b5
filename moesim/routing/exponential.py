"""Exponentials of whole rows in vectors, with a stated error; ``math.exp`` takes one number at a time.

exp(x) = 2^n exp(r) with n the nearest whole number to x / ln 2 and |r| <= ln(2) / 2; exp(r) is its Taylor series, and
2^n is written as the bits of a float. Nothing is reordered or fused, so the same numbers come out on every machine.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

LIMIT_32 = np.float32(87.0)
"""Beyond it on either side a float32 exponential is that of the limit."""
ERROR_32 = 3e-7
"""Bound of the relative error of ``exponentials_32`` and of the sigmoid made of it."""

# Adding and taking away 1.5 * 2^23 (2^52) rounds to a whole number.
_WHOLE_32, _WHOLE_64 = np.float32(12582912.0), 6755399441055744.0
_PER_LN2_32, _PER_LN2_64 = np.float32(1.4426950408889634), 1.4426950408889634
# ln 2 in two parts, the first with so few bits that its product with n is exact.
_LN2_HIGH_32, _LN2_LOW_32 = np.float32(0.693359375), np.float32(-2.12194440054690583e-4)
_LN2_HIGH_64, _LN2_LOW_64 = 0.6931471803691238, 1.9082149292705877e-10
_ONE_32 = np.float32(1.0)
_C2, _C3, _C4 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24)
_C5, _C6, _C7 = np.float32(1 / 120), np.float32(1 / 720), np.float32(1 / 5040)


@njit(cache=True, nogil=True)
def exponentials_32(
    x: NDArray[np.float32], out: NDArray[np.float32], power_bits: NDArray[np.int32], power: NDArray[np.float32]
) -> None:
    """Fill ``out`` with exp(x), all [N] float32; ``power_bits`` and its float32 view ``power`` are scratch space."""
    for i in range(out.shape[0]):
        y = min(max(x[i], -LIMIT_32), LIMIT_32)
        n = (y * _PER_LN2_32 + _WHOLE_32) - _WHOLE_32
        r = (y - n * _LN2_HIGH_32) - n * _LN2_LOW_32
        series = _C7 * r + _C6
        series = series * r + _C5
        series = series * r + _C4
        series = series * r + _C3
        series = series * r + _C2
        out[i] = (series * r) * r + r + _ONE_32
        power_bits[i] = (np.int32(n) + 127) << 23
    for i in range(out.shape[0]):
        out[i] *= power[i]


@njit(cache=True, nogil=True)
def exponentials_64(
    x: NDArray[np.float32],
    shift: float,
    out: NDArray[np.float64],
    power_bits: NDArray[np.int64],
    power: NDArray[np.float64],
) -> None:
    """Fill ``out`` with exp(x - shift), [N] float64, for shift >= max(x); the last two are scratch space.

    The relative error is at most 1e-14 above -700; below, the result is at most 1e-304.
    """
    for i in range(out.shape[0]):
        y = max(x[i] - shift, -700.0)
        n = (y * _PER_LN2_64 + _WHOLE_64) - _WHOLE_64
        r = (y - n * _LN2_HIGH_64) - n * _LN2_LOW_64
        series = 1 / 479001600 * r + 1 / 39916800
        series = series * r + 1 / 3628800
        series = series * r + 1 / 362880
        series = series * r + 1 / 40320
        series = series * r + 1 / 5040
        series = series * r + 1 / 720
        series = series * r + 1 / 120
        series = series * r + 1 / 24
        series = series * r + 1 / 6
        series = series * r + 0.5
        out[i] = (series * r) * r + r + 1.0
        power_bits[i] = (np.int64(n) + 1023) << 52
    for i in range(out.shape[0]):
        out[i] *= power[i]

"""Exponentials with a stated error whose loops run on vectors; ``math.exp`` takes one number at a time.

exp(x) = 2^n exp(r) with n the nearest whole number to x / ln 2 and |r| <= ln(2) / 2. exp(r) is the polynomial whose
largest relative error there is the least of its degree (found by Remez' exchange): 7.5e-8 of degree 5, 1.4e-14 of
degree 9. n is added to the exponent of its bits. Nothing is reordered or fused, so the same numbers come out on every
machine.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.routing.stage_options import stage

LIMIT_32 = np.float32(87.0)
"""Beyond it on either side a float32 exponential is that of the limit."""
ERROR_32 = 3e-7
"""Bound of the relative error of ``exponential_32`` and of the sigmoid made of it."""
LIMIT_64 = 700.0
ERROR_64 = 2e-14
"""Bound of the relative error of ``exponential_64`` above -700; below, the result is that of -700."""

# Adding and taking away 1.5 * 2^23 (2^52) rounds to a whole number n, and leaves n in the last bits of the sum.
_WHOLE_32, _WHOLE_64 = np.float32(12582912.0), np.float64(6755399441055744.0)
_PER_LN2_32, _PER_LN2_64 = np.float32(1.4426950408889634), 1.4426950408889634
# ln 2 in two parts, the first with so few bits that its product with n is exact.
_LN2_HIGH_32, _LN2_LOW_32 = np.float32(0.693359375), np.float32(-2.12194440054690583e-4)
_LN2_HIGH_64, _LN2_LOW_64 = 0.6931471803691238, 1.9082149292705877e-10
_C0, _C1, _C2 = np.float32(1.0000000716969395), np.float32(0.9999996918081411), np.float32(0.49998894413737366)
_C3, _C4, _C5 = np.float32(0.16667575089172107), np.float32(0.041915431419064425), np.float32(0.008297648075299867)
_EXPONENT_32, _EXPONENT_64 = np.int32(23), np.int64(52)


@stage
def exponential_32(x: np.float32) -> np.float32:
    """Return exp(x) in float32."""
    y = min(max(x, -LIMIT_32), LIMIT_32)
    shifted = np.float32(y * _PER_LN2_32 + _WHOLE_32)
    n = shifted - _WHOLE_32
    r = (y - n * _LN2_HIGH_32) - n * _LN2_LOW_32
    series = _C5 * r + _C4
    series = series * r + _C3
    series = series * r + _C2
    series = series * r + _C1
    near_one = np.float32(series * r + _C0)
    return np.int32(near_one.view(np.int32) + (shifted.view(np.int32) << _EXPONENT_32)).view(np.float32)


def exponentials_32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``exponential_32`` of an array, by the same operations."""
    y = np.clip(x, -LIMIT_32, LIMIT_32)
    shifted = y * _PER_LN2_32 + _WHOLE_32
    n = shifted - _WHOLE_32
    r = (y - n * _LN2_HIGH_32) - n * _LN2_LOW_32
    series = _C5
    for coefficient in (_C4, _C3, _C2, _C1, _C0):
        series = series * r + coefficient
    return np.asarray(series.view(np.int32) + (shifted.view(np.int32) << _EXPONENT_32)).view(np.float32)


@stage
def exponential_64(x: float) -> float:
    """Return exp(x) in float64 for x up to 700."""
    y = max(x, -LIMIT_64)
    shifted = np.float64(y * _PER_LN2_64 + _WHOLE_64)
    n = shifted - _WHOLE_64
    r = (y - n * _LN2_HIGH_64) - n * _LN2_LOW_64
    series = 2.748217199608988e-06 * r + 2.4884026435349868e-05
    series = series * r + 0.0001984159652746873
    series = series * r + 0.0013888802794573918
    series = series * r + 0.008333333002624673
    series = series * r + 0.04166666703268144
    series = series * r + 0.1666666666782788
    series = series * r + 0.49999999999457545
    series = series * r + 0.9999999999998926
    near_one = np.float64(series * r + 1.0000000000000129)
    return np.int64(near_one.view(np.int64) + (shifted.view(np.int64) << _EXPONENT_64)).view(np.float64)

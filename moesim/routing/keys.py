"""From the bits of a token's logits to numbers and to keys that sort as the logits do.

A key holds the logit's bits, turned so that integers have their order, above the expert's id turned round: keys are all
different, a larger one is a higher logit, and among equal logits the lower id has the larger key.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moesim.routing.top_eight import CHUNK, ID_MASK

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
# Of a small float16 read as float32 bits: 2^(127 - 15).
_HALF_SCALE = np.float32(2.0**112)


class Groups(NamedTuple):
    """Groups of experts as the kernel reads them.

    ``experts`` [E]: sorted by group; ``ptr`` [G + 1]: where each group begins in it; ``chunk_ptr`` [G + 1]: in chunks
    of 32 keys. ``in_order``: ``experts`` is 0, 1, 2, ...
    """

    experts: NDArray[np.int64]
    ptr: NDArray[np.int64]
    chunk_ptr: NDArray[np.int64]
    in_order: bool


@njit(cache=True, nogil=True, error_model="numpy")
def load_row(source: NDArray[Any], t: int, encoding: int, bits: NDArray[np.int32], row: NDArray[np.float32]) -> bool:
    """Read token t's logits into ``row`` and its int32 view ``bits``; return whether all are finite.

    A negative zero becomes a positive one, since the two are equal and their bits are not.
    """
    wrong = 0
    if encoding == FLOAT32:
        for e in range(bits.shape[0]):
            b = source[t, e]
            wrong += (b & 0x7F800000) == 0x7F800000
            bits[e] = 0 if b == -2147483648 else b
        return wrong == 0
    if encoding == BFLOAT16:
        for e in range(bits.shape[0]):
            h = np.int32(source[t, e])
            wrong += (h & 0x7F80) == 0x7F80
            bits[e] = 0 if h == 0x8000 else h << 16
        return wrong == 0
    for e in range(bits.shape[0]):
        h = np.int32(source[t, e])
        wrong += (h & 0x7C00) == 0x7C00
        bits[e] = (h & 0x7FFF) << 13
    for e in range(bits.shape[0]):
        row[e] *= _HALF_SCALE
    for e in range(bits.shape[0]):
        if source[t, e] > 0x8000:
            row[e] = -row[e]
    return wrong == 0


@njit(cache=True, nogil=True, error_model="numpy")
def pack(bits: NDArray[np.int32], groups: Groups, keys: NDArray[np.int64]) -> None:
    """Write the keys of one token, group by group in whole chunks; ``keys`` is prefilled where chunks are not full."""
    if groups.in_order and groups.chunk_ptr[-1] * CHUNK == bits.shape[0]:
        for e in range(bits.shape[0]):
            b = bits[e]
            keys[e] = (np.int64(np.int32(b ^ ((b >> 31) & ID_MASK))) << 32) | np.int64(ID_MASK - e)
        return
    for g in range(groups.ptr.shape[0] - 1):
        at = groups.chunk_ptr[g] * CHUNK - groups.ptr[g]
        for i in range(groups.ptr[g], groups.ptr[g + 1]):
            e = groups.experts[i]
            b = bits[e]
            keys[at + i] = (np.int64(np.int32(b ^ ((b >> 31) & ID_MASK))) << 32) | np.int64(ID_MASK - e)


@njit(cache=True, nogil=True, error_model="numpy")
def value_bits(key: int) -> np.int32:
    """Return the bits of the float32 that a key stands for."""
    b = np.int32(key >> 32)
    return np.int32(b ^ ((b >> 31) & ID_MASK))

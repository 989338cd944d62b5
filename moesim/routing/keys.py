"""From the bits of a token's logits to numbers and to keys that sort as the logits do.

A key is one int32: the upper bits of the logit's magnitude, negative for a negative logit, above the expert's id turned
round. So keys are all different, a larger key is a higher logit, and among equal logits the lower id has the larger
key. The id takes eight bits or more; logits that differ only in as many of their last bits have the same *prefix*, and
their keys do not tell which is higher. A logit of 16 bits has zeros there, so nothing of it is lost.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.routing.exponential import ERROR_32
from moesim.routing.stage_options import stage

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
# Scores of at most 1 with a bias are too close to tell within this, which leaves room for the roundings of adding it.
_MARGIN = 16 * ERROR_32
_LARGEST_BIAS = 1e30
# A float16, and all the more a bfloat16, has zeros in the last eight bits of its float32 and more.
LEAST_ID_BITS = 8
# Of a float16 read as float32 bits: 2^(127 - 15).
_HALF_SCALE = np.float32(2.0**112)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_LOWEST = np.int32(np.iinfo(np.int32).min)
# Magnitudes from which on a number is infinite or none: of float32, and of float16 read as above, 65536.
_INFINITE, _INFINITE_HALF = np.int32(0x7F800000), np.int32(0x47800000)


class Groups(NamedTuple):
    """Groups of experts as the kernel reads them.

    ``experts`` [E]: sorted by group; ``ptr`` [G + 1]: where each group begins in it; ``chunk_ptr`` [G + 1]: in chunks
    of 32 keys. ``slot`` [E, rounded up to 16]: where the keys of an expert's sixteen tokens begin.
    """

    experts: NDArray[np.int64]
    ptr: NDArray[np.int64]
    chunk_ptr: NDArray[np.int64]
    slot: NDArray[np.int64]


class Bias(NamedTuple):
    """A bias, and how keys are made of biased scores: their prefix is ``(score + rounded + offset) * per_score``.

    ``exact`` and ``rounded`` [E], or empty. ``slack``: by how much the prefixes of two experts may err together.
    """

    exact: NDArray[np.float64]
    rounded: NDArray[np.float32]
    offset: np.float32
    per_score: np.float32
    slack: int


def bias_for_keys(bias: NDArray[np.float64]) -> Bias:
    """Return the bias [E], or none of length 0, so that the prefixes spread over all numbers from 0 up."""
    if not len(bias):
        return Bias(bias, np.empty(0, np.float32), np.float32(0.0), np.float32(0.0), 0)
    rounded = bias.clip(-_LARGEST_BIAS, _LARGEST_BIAS).astype(np.float32)
    lowest, highest = float(rounded.min()), float(rounded.max())
    # Less what rounding may add to the highest.
    prefixes = 2.0 ** (31 - id_bits_of(len(bias))) - 4.0
    per_score = np.float32(prefixes / (1.0 + highest - lowest))
    slack = int(_MARGIN * (1.0 + max(highest, -lowest)) * float(per_score)) + 3
    return Bias(bias, rounded, np.float32(-lowest), per_score, slack)


@stage
def load_row(source: NDArray[np.uint16], t: int, encoding: int, x: NDArray[np.float32], lane: int) -> None:
    """Read token t's logits of 16 bits into row ``lane`` of ``x``; what is not finite becomes at least 65536."""
    if encoding == BFLOAT16:
        for e in range(source.shape[1]):
            x[lane, e] = np.int32(np.int32(source[t, e]) << np.int32(16)).view(np.float32)
    else:
        for e in range(source.shape[1]):
            h = np.int32(source[t, e])
            bits = np.int32((h & np.int32(0x7FFF)) << np.int32(13)) | np.int32((h & np.int32(0x8000)) << np.int32(16))
            x[lane, e] = np.int32(bits).view(np.float32) * _HALF_SCALE


@stage
def pack_rows(
    x: NDArray[np.float32], row: NDArray[np.uint32], n_tokens: int, encoding: int, last: NDArray[np.int32],
    id_bits: np.int32, rows: NDArray[np.int32],
) -> int:  # fmt: skip
    """Write the keys of the logits ``x[row]`` to ``rows`` [16, E or more]; return the first token not finite, or -1.

    ``last`` [E] holds the last bits of each expert's keys. A negative zero has the prefix of a positive one.
    """
    prefix, infinite = np.int32(-1 << id_bits), _INFINITE_HALF if encoding == FLOAT16 else _INFINITE
    wrong = -1
    for lane in range(n_tokens):
        t, largest = row[lane], np.int32(0)
        for e in range(x.shape[1]):
            b = np.float32(x[t, e]).view(np.int32)
            magnitude = np.int32(b & _MAGNITUDE)
            largest = max(largest, magnitude)
            ordered = np.int32(-magnitude) if b < 0 else magnitude
            rows[lane, e] = np.int32(np.int32(ordered & prefix) | last[e])
        if largest >= infinite and wrong < 0:
            wrong = lane
    return wrong


@stage
def is_short(x: NDArray[np.float32], t: int, id_bits: np.int32) -> bool:
    """Whether the last ``id_bits`` bits of all logits ``x[t]`` are zero, so that their keys hold all of them."""
    used = np.int32(0)
    for e in range(x.shape[1]):
        used = np.int32(used | np.float32(x[t, e]).view(np.int32))
    return bool((used & np.int32(~np.int32(-1 << id_bits))) == 0)


@stage
def pack_biased_row(
    score: NDArray[np.float32], lane: int, bias: NDArray[np.float32], offset: np.float32, per_score: np.float32,
    last: NDArray[np.int32], id_bits: np.int32, rows: NDArray[np.int32],
) -> None:  # fmt: skip
    """Write the keys of one token's biased scores, whose prefixes ``Bias`` describes, to ``rows[lane]``."""
    for e in range(bias.shape[0]):
        prefix = np.int32((np.float32(score[lane, e] + bias[e]) + offset) * per_score)
        rows[lane, e] = np.int32(np.int32(prefix << id_bits) | last[e])


@stage
def logit_of(key: np.int32, id_bits: np.int32, exact: bool) -> np.float32:
    """Return the logit that a key stands for; if the key does not hold all of it, the middle of what it may be."""
    lost = np.int32(0) if exact else np.int32(1 << (id_bits - 1))
    ordered = np.int32(np.int32(np.int32(key >> id_bits) << id_bits) | lost)
    return np.int32(ordered if ordered >= 0 else np.int32(_LOWEST - ordered)).view(np.float32)


@stage
def id_bits_of(n_experts: int) -> int:
    """Return how many bits of a key the expert's id takes."""
    bits = LEAST_ID_BITS
    while 1 << bits < n_experts:
        bits += 1
    return bits


def last_bits(n_experts: int) -> NDArray[np.int32]:
    """Return the last bits of each expert's keys, int32 [E]."""
    return ((1 << id_bits_of(n_experts)) - 1 - np.arange(n_experts)).astype(np.int32)

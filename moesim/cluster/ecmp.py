"""The hash by which equal-cost paths are picked: the same on every machine, different with every seed.

Switches hash a packet's addresses and take one of the equal-cost links, so that all packets of a flow go the
same way and two large flows may collide. Here the key is (seed, source rank, target rank, stage) and the hash
is splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), applied after each part of the key.
"""

import numpy as np
import numpy.typing as npt

# splitmix64's increment: 2^64 over the golden ratio, odd.
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def ecmp_choice(
    source: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    n_choices: npt.NDArray[np.int64],
    seed: int,
    stage: npt.NDArray[np.int64] | int = 0,
) -> npt.NDArray[np.int64]:
    """Return which of its equal-cost links each flow takes.

    Args:
        source: int[flows], the rank that sends.
        target: int[flows], the rank that receives.
        n_choices: int[flows], how many links there are to choose from, at least 1.
        seed: any integer.
        stage: int[flows] or one number, the switch that chooses, so that switches choose independently.

    Returns:
        int64[flows], 0 <= choice < n_choices.
    """
    key = np.full(source.shape, _mixed_seed(seed), np.uint64)
    for part in (source, target, np.broadcast_to(np.asarray(stage, np.int64), source.shape)):
        key = _mix((key ^ part.astype(np.uint64)) + np.uint64(_GOLDEN))
    return np.asarray(key % n_choices.astype(np.uint64), np.int64)


def _mix(word: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _mixed_seed(seed: int) -> int:
    return ((seed & _WORD) * _GOLDEN + _GOLDEN) & _WORD

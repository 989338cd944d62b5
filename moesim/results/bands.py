"""How sure a time is: the interval that it lies in on four clusters of five like the one simulated, and what a
difference between two runs is worth where both are of the same cluster that nobody measured.

What is not known of a cluster are a few numbers: by how much the constants of each kind are slower there. ``moves`` say
by how much the logarithm of a time changes where one of them is faster, and where it is slower, per standard deviation,
taken at the ends of its own interval. Unknowns are independent and normal, so their squares add up.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Z80 = 1.2815515655446004
"""80 % of a normal distribution lie within so many standard deviations."""

BANDED = (
    "layer_time_s",
    "step_time_s",
    "dispatch_time_s",
    "dispatch_kernel_time_s",
    "combine_time_s",
    "combine_kernel_time_s",
)
"""Numbers of the summary that have an interval."""

ENDS = ("low", "high")
"""Ends of an interval: ``<number>_low`` and ``<number>_high`` where each has a column of its own."""

Moves = Mapping[str, Sequence[float]]
"""By unknown: change of a time's logarithm where it is faster (mostly below 0) and slower, per standard deviation."""


def interval(value: float, moves: Moves, widen: float) -> tuple[float, float]:
    """Return the 80 % interval of a time."""
    low, high = (widen * Z80 * math.hypot(*(move[side] for move in moves.values())) for side in (0, 1))
    return value * math.exp(-low), value * math.exp(high)


def intervals(summary: Mapping[str, Any], band: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the 80 % intervals of a summary's times, given ``explanation["band"]``."""
    return {key: interval(summary[key], moves, band["widen"]) for key, moves in band["moves"].items()}


def told_apart(a: Mapping[str, Any], b: Mapping[str, Any], key: str, ratio: float) -> bool:
    """Return whether a ratio between two runs is more than what is not known of their clusters makes it.

    The arguments are those of ``ratio_spread``, and the ratio of the two values.
    """
    return abs(math.log(ratio)) > ratio_spread(a, b, key)


def ratio_spread(a: Mapping[str, Any], b: Mapping[str, Any], key: str) -> float:
    """Return how far the logarithm of a ratio between two runs may be off to either side, in four cases of five.

    What a phase leaves unexplained is one more unknown of the cell: two runs of it are off to the same side.

    Args:
        a, b: ``explanation["band"]`` of the two. Where their ``cell`` is the same, so are the unknowns.
        key: a number of ``BANDED`` that both have.
    """
    first, second = ({name: (move[1] - move[0]) / 2 for name, move in band["moves"][key].items()} for band in (a, b))
    if a["cell"] == b["cell"]:
        names = first.keys() | second.keys()
        left = [first.get(name, 0.0) - second.get(name, 0.0) for name in names]
    else:
        left = [*first.values(), *second.values()]
    return float(max(a["widen"], b["widen"])) * Z80 * math.hypot(*left)

"""Objectives of a sweep: ``layer_time_s where gate_mass_lost < 0.01 and rank_load_max_over_mean < 1.3``.

The number to look at, smaller is better (``max KEY``: larger is better), and the limits that a point must keep to
be worth looking at.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moesim.errors import InputError
from moesim.mistakes import did_you_mean
from moesim.scenario.thresholds import SUMMARY_KEYS, Threshold, parse_threshold

_FORM = re.compile(r"\s*(?:(min|max)\s+)?(\w+)(?:\s+where\s+(\S.*?))?\s*")
_FIX = "write it like 'layer_time_s where gate_mass_lost < 0.01'"


@dataclass(frozen=True)
class Objective:
    """What the best point of a sweep is best at: a number of the summary, and limits on others."""

    text: str
    key: str
    larger_is_better: bool
    limits: tuple[Threshold, ...]

    def cost(self, summary: Mapping[str, object]) -> float | None:
        """Return the number to make small (its negative where larger is better); None where it does not apply."""
        value = summary.get(self.key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return -float(value) if self.larger_is_better else float(value)

    def meets(self, summary: Mapping[str, object]) -> bool:
        """Return whether a summary keeps every limit."""
        return all(limit.holds(summary) for limit in self.limits)


def parse_objective(text: object) -> Objective:
    """Read ``[min|max] KEY [where LIMIT and LIMIT ...]``, each limit written as a threshold.

    Raises InputError: another form, an unknown key (suggests the nearest), a limit without its unit.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) and len(text) <= 1000 else None
    if match is None or not isinstance(text, str):
        raise InputError(f"{text!r:.80} is not an objective", fix=_FIX)
    direction, key, limits = match.groups()
    if key not in SUMMARY_KEYS:
        raise InputError(f"no number {key!r:.60} in a summary", fix=did_you_mean(key, SUMMARY_KEYS))
    return Objective(
        text=" ".join(text.split()),
        key=key,
        larger_is_better=direction == "max",
        limits=tuple(parse_threshold(part) for part in re.split(r"\s+and\s+", limits)) if limits else (),
    )

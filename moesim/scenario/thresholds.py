"""Thresholds, what a result must keep (``layer_time_s < 2ms``), and objectives of a sweep.

``SUMMARY_KEYS`` is the list of the numbers of a summary that can be compared. The unit of a limit follows
from the key: ``..._bytes_per_s`` takes a bandwidth, ``..._s`` a duration, ``..._bytes`` a size, anything else
a plain number or a percentage. An objective, ``layer_time_s where gate_mass_lost < 0.01``, is the number to look at,
smaller is better (``max KEY``: larger is better), and the limits that a point must keep to be worth looking at.
"""

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

from moesim.errors import InputError
from moesim.mistakes import did_you_mean
from moesim.stages import COMPONENTS, OVER_RANKS, PHASES
from moesim.units import parse_bandwidth, parse_bytes, parse_duration

_BANDWIDTHS = ("algbw", "busbw", "deepep_rdma", "deepep_nvl", "nvlink_wire", "nic_wire")

SUMMARY_KEYS: tuple[str, ...] = (
    "layer_time_s",
    "step_time_s",
    "tokens_per_second",
    "tokens_per_second_per_node",
    "tokens_per_second_per_gpu",
    "tpot_s",
    "communication_hidden_share",
    "layer_period_s",
    "memory_free_bytes",
    "step_tokens",
    "gpus",
    "tokens_per_day",
    "model_flops_per_second_per_gpu",
    "mfu",
    "mfu_non_causal",
    "pipeline_bubble_share",
    *(f"{part}_time_s" for part in COMPONENTS),
    *(f"{part}_time_{over}_s" for part in OVER_RANKS for over in ("mean", "max")),
    *(f"{phase}_kernel_time_s" for phase in PHASES),
    *(f"{of}_layer_time_{over}_s" for of in ("group", "alone") for over in ("mean", "max")),
    "contention_cost",
    "lower_bound_s",
    "rank_wait_mean_s",
    "bottleneck_utilisation",
    "expert_load_max_over_mean",
    "rank_load_max_over_mean",
    "node_load_max_over_mean",
    "link_load_max_over_mean",
    *(f"{what}_load_mean_over_max" for what in ("expert", "rank", "node", "link")),
    *(f"{what}_max_violation" for what in ("rank", "node", "link")),
    "uniform_router_expert_max_over_mean",
    "sequence_imbalance_p50",
    "sequence_imbalance_p99",
    "max_violation",
    "copies_per_token",
    "rank_copies_per_token",
    "node_copies_per_token",
    "nvlink_wire_bytes",
    "nic_wire_bytes",
    *(f"{phase}_{kind}_bytes_per_s" for phase in PHASES for kind in _BANDWIDTHS),
    "gate_mass_lost",
    "expert_loss",
    "device_loss",
    "communication_loss",
    "sequence_loss",
    "z_loss",
    "tokens",
    "distinct_tokens",
    "ranks",
    "layers",
    *(f"source_{kind}_share" for kind in ("measured", "fitted", "interpolated", "estimated", "extrapolated")),
)

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_FORM = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S.*?)\s*")


@dataclass(frozen=True)
class Threshold:
    """A limit on one number of a summary, in SI units."""

    text: str
    key: str
    operator: str
    limit: float

    def holds(self, summary: Mapping[str, object]) -> bool:
        """Return whether the summary keeps the limit; a value that does not apply (null) does not keep it."""
        value = summary.get(self.key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return bool(_OPERATORS[self.operator](value, self.limit))


def parse_threshold(text: object) -> Threshold:
    """Read ``KEY < LIMIT`` (also ``<= > >=``), the limit with the unit that the key asks for.

    Raises:
        InputError: another form, an unknown key (suggests the nearest), a limit without its unit.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None or not isinstance(text, str):
        raise InputError(f"{text!r:.80} is not a threshold", fix='write it like "layer_time_s < 2ms"')
    key, sign, limit = match.groups()
    if key not in SUMMARY_KEYS:
        suggestion = did_you_mean(key, SUMMARY_KEYS)
        raise InputError(f"no number {key!r:.60} in a summary", fix=suggestion)
    return Threshold(text=" ".join(text.split()), key=key, operator=sign, limit=_limit(key, limit))


def _limit(key: str, text: str) -> float:
    if key.endswith("_bytes_per_s"):
        return parse_bandwidth(text)
    if key.endswith("_s"):
        return parse_duration(text)
    if key.endswith("_bytes"):
        return parse_bytes(text)
    number = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2}))?(%?)", text)
    if number is None:
        raise InputError(f"{text!r:.60} is not a limit for {key}", fix="write a plain number or a percentage")
    return float(text.rstrip("%")) / (100 if number[3] else 1)


_OBJECTIVE = re.compile(r"\s*(?:(min|max)\s+)?(\w+)(?:\s+where\s+(\S.*?))?\s*")
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
    match = _OBJECTIVE.fullmatch(text) if isinstance(text, str) and len(text) <= 1000 else None
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

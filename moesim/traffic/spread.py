"""How far the constants of a cluster that nobody measured may be off, by kind, and constants that are off so far.

Constants of one kind are off together, in dispatch and combine alike: one cluster's fabric is slow as a whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from moesim.traffic.constants import Calibration, Protocol

# Standard deviations of the logarithm between clusters, lent to a set of one source, which cannot know its own: rates
# of ports lie close together, since their peaks are the same; times of software do not.
BORROWED: Mapping[str, float] = {
    "nvlink": 0.10, "nic": 0.10, "setup": 0.30, "work": 0.30, "fill": 0.30, "host": 0.20,
}  # fmt: skip
BORROWED_ROW_SPREAD = 0.05

KINDS = tuple(BORROWED)
"""Kinds of constants."""

_RATES = {
    "nvlink": ("nvlink_rate", "two_ranks_nvlink_rate"),
    "nic": ("nic_rate",),
    "work": ("forward_sm_rate", "local_rate", "receive_sm_rate", "reduce_rate", "pull_rate", "pair_rate"),
}
_SECONDS = {
    "setup": ("setup_", "floor_", "two_ranks_setup_"),
    # Before the kernel: no cluster's rows time it.
    "host": ("layout_", "notify_", "cpu_sync_", "prepare_"),
    "work": ("token_", "node_copy_", "rank_copy_", "epilogue_"),
    "fill": ("fill_s",),
}


@dataclass(frozen=True)
class Spread:
    """How far times of a phase may be off.

    Attributes:
        deviations: of the logarithm of the constants of each kind; a kind that is not there is known.
        row_spread: of the logarithm of a time, beyond them.
        widen: what intervals are multiplied by.
        source: where these come from, in words.
    """

    deviations: Mapping[str, float]
    row_spread: float
    widen: float
    source: str


def kind_of(term: str) -> str:
    """The kind of a constant by its name; empty for what is none, such as a number of SMs."""
    for kind, names in _RATES.items():
        if term in names:
            return kind
    return next((kind for kind, starts in _SECONDS.items() if term.endswith("_s") and term.startswith(starts)), "")


def spread_of(constants: Calibration, own: bool) -> Spread:
    """Return how far a phase's constants may be off.

    Args:
        constants: of the phase.
        own: they were fitted on the user's own cluster: what is left are its rows, unless the set says more.
    """
    if constants.deviations:
        where = f"spread between {constants.clusters} clusters" if constants.clusters else "spread that the set states"
        lent = dict(BORROWED) if constants.clusters else {"host": BORROWED["host"]}
        return Spread(lent | dict(constants.deviations), constants.row_spread, constants.widen, where)
    row_spread = constants.row_spread or BORROWED_ROW_SPREAD
    if own:
        return Spread({}, row_spread, constants.widen, "your own cluster, so only what its rows leave")
    return Spread(BORROWED, row_spread, constants.widen, "spread borrowed from libraries measured on several clusters")


def room(constants: Calibration, kind: str, n_ranks: int) -> float:
    """How much faster constants of a kind can be at all, as a logarithm: a port's rate does not pass its peak."""
    if kind in ("nvlink", "nic"):
        return max(-math.log(constants.efficiency(kind, n_ranks)), 0.0)
    return math.inf


def slower(constants: Calibration, kind: str, deviation: float) -> Calibration:
    """Return constants whose ``kind`` is slower by ``exp(deviation)``, faster where that is negative.

    Rates fall and seconds rise; a port's rate does not pass its peak.
    """
    factor = math.exp(deviation)

    def moved(terms: Calibration | Protocol) -> dict[str, Any]:
        most = {"nic_rate": constants.nic_peak}
        if isinstance(
            terms, Protocol
        ):  # a set's own NVLink rate may be that of ever more SMs: ``nvlink_speed`` ends it
            most |= dict.fromkeys(_RATES["nvlink"], constants.nvlink_peak)
        changes = {
            name: min(getattr(terms, name) / factor, most.get(name, math.inf))
            for name in _RATES.get(kind, ())
            if hasattr(terms, name)
        }
        for name, value in vars(terms).items():
            if isinstance(value, float) and name.startswith(_SECONDS.get(kind, ("?",))):
                changes[name] = value * factor
        return changes

    protocols = tuple(replace(one, **moved(one)) for one in constants.protocols)
    return replace(constants, **moved(constants), protocols=protocols)

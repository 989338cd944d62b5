"""What a user's own measurements may move, and how much evidence it takes to move it further.

A few rows determine less than a kernel has constants. What they leave open is not free, though: published sources of
one library differ by so much and no more. So every constant starts from a shipped set and has a *spread*, the standard
deviation with which it differs between sources (a test takes them from the shipped sets again). A row counts for as
much as a simulation is commonly off. With many rows nothing of this is felt.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.traffic import CalibrationSet, Place, find_set, set_names, value_at, with_value
from moesim.validate.benches import bench_of
from moesim.validate.fit_constants import Free
from moesim.validate.plan import BASE, FREE
from moesim.validate.published_row import Row, phase_of
from moesim.validate.row_simulation import constants_from, simulate_row

# Relative error to expect of a row: held-out rows are 2.6 % off in the median, which is two thirds of a deviation.
ROW_SPREAD = 0.04
# Standard deviations between sources: of the logarithm for rates and times; what grows is in units of what it adds to.
RATE, SETUP, FLOOR, GROWTH, SLOPE, FILL = 0.055, 0.12, 0.07, 0.09, 0.03, 0.5
# Of a constant that the set to begin with does not have, and of what SMs do: hardly held.
_UNKNOWN = 1.5
# A constant that was not fitted, or is another GPU's, counts that much less.
_LESS_CERTAIN = 10.0
_SETUPS = ("setup_intra_node_s", "setup_inter_node_s")
# Where a fit begins if the set has no such term: a factor cannot move 0.
_SOME_SETUP_S, _SOME_FILL_TOKENS = 10e-6, 500.0
_FACTORS = {
    "nic_rate": RATE,
    "nvlink_rate": RATE,
    "reduce_rate": RATE,
    "pull_rate": RATE,
    "setup_intra_node_s": SETUP,
    "setup_inter_node_s": SETUP,
    "rank_copy_sm_s": _UNKNOWN,
    "floor_s": FLOOR,
    "floor_few_ranks_s": FLOOR,
}
_PROTOCOL = {
    "nvlink_rate": RATE,
    "two_ranks_nvlink_rate": RATE,
    "pair_rate": RATE,
    "setup_intra_node_s": SETUP,
    "setup_inter_node_s": SETUP,
    "floor_s": FLOOR,
}
# What grows per doubling of the ranks or nodes, what a move of one is measured in, and its spread.
_GROWTH = {
    "setup_node_doubling_s": ("setup_inter_node_s", GROWTH),
    "setup_rank_doubling_s": ("setup_intra_node_s", GROWTH),
    "setup_peer_doubling_s": ("setup_intra_node_s", GROWTH),
    "floor_rank_doubling_s": ("floor_s", GROWTH),
    "nvlink_rank_slope": ("", SLOPE),
}
# One tray of an NVL72: such groups have a floor of their own (``traffic.terms``).
_FEW_RANKS = 4
# A constant is left alone if two spreads more of it change no row by as much as this.
_FELT = 0.002


def open_constants(start: CalibrationSet, rows: Sequence[Row], gpu: str) -> tuple[CalibrationSet, list[Free]]:
    """Find what a user's rows may move.

    Args:
        start: the set to begin with.
        rows: measured.
        gpu: that they were measured on.

    Returns:
        The set with the terms that it lacks and that a fit could find; and the constants that some row feels.
    """
    made = _completed(start, rows)
    among = _candidates(start, made, rows)
    if not start.rows or start.gpu != gpu:
        among = [replace(one, spread=_wider(one.spread)) for one in among]
    return made, _felt(made, among, rows)


def _completed(start: CalibrationSet, rows: Sequence[Row]) -> CalibrationSet:
    """Give a set the terms that it lacks.

    A set-up where there is none, inside a node or across as the rows are. Of what another shipped set of the algorithm
    on this GPU has: a floor for few ranks if such were measured, as long as the set's own floor would be there; the
    scale of a fill, which itself stays 0.
    """
    few = any(row.ranks <= _FEW_RANKS for row in rows)
    kinds = {_SETUPS[row.nodes > 1] for row in rows}
    known = _terms_elsewhere(start)

    def block(phase: str, terms: dict[str, Any]) -> dict[str, Any]:
        made = {name: _SOME_SETUP_S if name in kinds and value == 0 else value for name, value in terms.items()}
        if few and (phase, "floor_few_ranks_s") in known and made["floor_s"] and not made["floor_few_ranks_s"]:
            least = made["floor_s"] + made["floor_rank_doubling_s"] * math.log2(_FEW_RANKS / 8)
            made["floor_few_ranks_s"] = max(least, 1e-6)
        if (phase, "fill_tokens") in known and not made["fill_tokens"] and not made["fill_tokens_per_sm"]:
            made["fill_tokens"] = _SOME_FILL_TOKENS
        return made

    return replace(
        start,
        phases={phase: block(phase, terms) for phase, terms in start.phases.items()},
        across={phase: block(phase, terms) for phase, terms in start.across.items()},
    )


def _candidates(start: CalibrationSet, made: CalibrationSet, rows: Sequence[Row]) -> list[Free]:
    """Constants that rows of this kind might determine, each with its spread.

    Rates, set-up times and floors move by one factor in both phases, in the blocks that the rows use. What grows with
    ranks or nodes, fills, and work per token move in the phases that were measured: with the ranks, where rows inside a
    node or rows across nodes have several; with the nodes, among the latter.
    """
    across = bool(start.across)
    blocks: list[Place] = []
    for phase in ("dispatch", "combine"):
        if not across or any(row.nodes == 1 for row in rows):
            blocks.append((phase,))
        if across and any(row.nodes > 1 for row in rows):
            blocks.append(("across", phase))
    found = []
    for term, spread in _FACTORS.items():
        places = tuple((*block, term) for block in blocks if value_at(made, (*block, term)) > 0)
        if places:
            there = any(value_at(start, place) > 0 for place in places)
            found.append(Free(places, spread=_certain(start, places, spread) if there else _UNKNOWN))
    measured = {phase_of(row) for row in rows}
    known = _terms_elsewhere(start)
    for block in (block for block in blocks if block[-1] in measured):
        found += _growing(made, block, rows)
        setup = value_at(made, (*block, "setup_intra_node_s"))
        if setup > 0 and value_at(made, (*block, "fill_tokens")) > 0:
            found.append(Free(((*block, "fill_s"),), setup, FILL))
        if (block[-1], "token_s") in known:
            # In units of what a copy takes on the wire, beneath which it hides.
            size = max(bench_of(row).bytes_per_copy for row in rows if phase_of(row) == block[-1])
            found.append(Free(((*block, "token_s"),), size / value_at(made, (*block, "nvlink_rate"))))
    for term, spread in _PROTOCOL.items():
        # What protocols have in common they keep in common; one alone would only hand its messages to the others.
        for value in dict.fromkeys(getattr(one, term) for one in made.phases["dispatch"]["protocols"]):
            alike = [one.name for one in made.phases["dispatch"]["protocols"] if getattr(one, term) == value]
            places = tuple((phase, name, term) for phase in ("dispatch", "combine") for name in alike)
            if value > 0:
                found.append(Free(places, spread=_certain(start, places, spread)))
    return found


def _felt(start: CalibrationSet, among: Sequence[Free], rows: Sequence[Row]) -> list[Free]:
    """The candidates that some row feels, at the latest when they have moved by two spreads."""
    before = np.log([simulate_row(row, constants_from(start, row)) for row in rows])
    found = []
    for one in among:
        moved = start
        for place in one.places:
            value, far = value_at(start, place), 2 * one.spread
            if place[-1].endswith("rate"):
                far = -far  # a rate at its peak shows when it falls
            moved = with_value(moved, place, value + far * one.unit if one.unit else value * math.exp(min(far, 1.0)))
        after = np.log([simulate_row(row, constants_from(moved, row)) for row in rows])
        if np.abs(after - before).max() > _FELT:
            found.append(one)
    return found


def _growing(start: CalibrationSet, block: Place, rows: Sequence[Row]) -> list[Free]:
    inside = {row.ranks for row in rows if row.nodes == 1}
    across_nodes = {row.ranks for row in rows if row.nodes > 1}
    # A set-up grows with all ranks or with those that are reached; which, the kernel says and not a fit.
    by_reach = value_at(start, (*block, "setup_peer_doubling_s")) != 0
    other = "setup_rank_doubling_s" if by_reach else "setup_peer_doubling_s"
    found = []
    for term, (of, spread) in ((term, how) for term, how in _GROWTH.items() if term != other):
        shows = len(across_nodes) > 1 or (len(inside) > 1 and term != "setup_node_doubling_s")
        unit = value_at(start, (*block, of)) if of else 1.0
        if shows and unit > 0:
            found.append(Free(((*block, term),), unit, spread))
    return found


def _certain(start: CalibrationSet, places: Sequence[Place], spread: float) -> float:
    """The spread of constants, which is larger where a set that ships has not fitted any of them."""
    plans = [FREE[name] for name in (start.name, BASE.get(start.name, "")) if name in FREE]
    fitted = {place for plan in plans for one in plan for place in one.places}
    return spread if not plans or fitted.intersection(places) else _wider(spread)


def _wider(spread: float) -> float:
    return max(spread, min(_LESS_CERTAIN * spread, _UNKNOWN))


def _terms_elsewhere(start: CalibrationSet) -> set[tuple[str, str]]:
    """Phase and name of the terms that shipped sets of the same algorithm and GPU have."""
    sets = [find_set(start.algorithm, start.gpu, name) for name in set_names(start.algorithm)]
    return {
        (phase, name)
        for one in sets
        if one.gpu == start.gpu
        for phase, terms in one.phases.items()
        for name, value in terms.items()
        if value
    }

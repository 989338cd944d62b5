"""What a user's own measurements may move, and how firmly it is held where it starts.

A few rows determine less than a kernel has constants. What they leave open is not free, though: clusters differ by so
much and no more. A set that was fitted over clusters says of each constant by how much; for a set of one source the
same list is made here. NICs differ from cluster to cluster, NVLink hardly, so what rows cannot tell apart is a NIC's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moesim.traffic import CalibrationSet, Place, find_set, set_names, value_at
from moesim.validate.benches import bench_of
from moesim.validate.fit_constants import Free
from moesim.validate.published_row import Row, phase_of
from moesim.validate.shipped_files import shipped_yaml

# Relative error to expect of a row: held-out rows are 2.6 % off in the median, which is two thirds of a deviation.
ROW_SPREAD = 0.04
# Of what starts from nothing or grows per doubling, in units of what it adds to, as published sources differ.
GROWTH, SLOPE, FILL = 0.09, 0.03, 0.5
# A constant that a set over clusters hardly knows is still no looser than this many of them.
_MOST = 2.0
# Of a term that the set to begin with does not have.
_UNKNOWN = 1.5
# NICs whose ports nobody named may be others: 200, 400 and 800 Gb/s are all common.
_UNNAMED_PORT = 0.5
# Constants of another GPU, or that nobody fitted, are held that much less.
_LESS_CERTAIN = 3.0
_SETUPS = ("setup_intra_node_s", "setup_inter_node_s")
# Where a fit begins if the set has no such term: a factor cannot move 0.
_SOME_SETUP_S, _SOME_FILL_TOKENS = 10e-6, 500.0
_FILE = shipped_yaml("prior.yaml")
DEVIATIONS: dict[str, float] = _FILE["deviations"]
_FACTORS: dict[str, str] = _FILE["factors"]
_PROTOCOL: dict[str, str] = _FILE["protocol"]
_GROWTH: dict[str, str] = _FILE["growth"]
# One tray of an NVL72: such groups have a floor of their own (``traffic.terms``).
_FEW_RANKS = 4


def open_constants(
    start: CalibrationSet, rows: Sequence[Row], gpu: str, ports_named: bool
) -> tuple[CalibrationSet, list[Free]]:
    """Find what a user's rows may move.

    Args:
        start: the set to begin with.
        rows: measured.
        gpu: that they were measured on.
        ports_named: whether the set's ports are known to be the user's.

    Returns:
        The set with the terms that it lacks and that a fit could find; and the constants, each with its spread.
    """
    made = start
    if start.uncertain:
        found = [*_between_clusters(start), *(held_over_clusters(start) if start.clusters else ())]
    else:
        made = _completed(start, rows)
        found = _one_sources(start, made, rows)
        if not start.rows or start.gpu != gpu:
            found = [replace(one, spread=max(one.spread, min(_LESS_CERTAIN * one.spread, _UNKNOWN))) for one in found]
    if not ports_named:
        found = [replace(one, spread=max(one.spread, _UNNAMED_PORT)) if one.kind == "nic" else one for one in found]
    return made, found


def _completed(start: CalibrationSet, rows: Sequence[Row]) -> CalibrationSet:
    """Give a set the terms that it lacks.

    A set-up where there is none, inside a node or across as the rows are. Of what another shipped set of the algorithm
    on this GPU has: a floor for few ranks if such were measured, as long as the set's own floor would be there; the
    scale of a fill, which itself stays 0.
    """
    few = any(row.ranks <= _FEW_RANKS for row in rows)
    kinds = {_SETUPS[row.nodes > 1] for row in rows}
    known = _terms_elsewhere(start)

    def block(phase: str, terms: Mapping[str, Any]) -> dict[str, Any]:
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


def _one_sources(start: CalibrationSet, made: CalibrationSet, rows: Sequence[Row]) -> list[Free]:
    """Constants of a set of one source that rows of this kind might determine.

    Rates, set-up times and floors move by one factor in both phases, inside a node and across. What grows with
    ranks or nodes, fills, and work per token move in the phases that were measured: with the ranks, where rows inside a
    node or rows across nodes have several; with the nodes, among the latter.
    """
    blocks: list[Place] = [*((phase,) for phase in made.phases), *(("across", phase) for phase in made.across)]
    found = []
    for term, kind in _FACTORS.items():
        places = tuple((*block, term) for block in blocks if value_at(made, (*block, term)) > 0)
        if places:
            there = any(value_at(start, place) > 0 for place in places)
            found.append(Free(places, spread=DEVIATIONS[kind] if there else _UNKNOWN, kind=kind))
    known = _terms_elsewhere(start)
    for block in (block for block in blocks if block[-1] in {phase_of(row) for row in rows}):
        found += _growing(made, block, rows)
        setup = value_at(made, (*block, "setup_intra_node_s"))
        if setup > 0 and value_at(made, (*block, "fill_tokens")) > 0:
            found.append(Free(((*block, "fill_s"),), setup, FILL, "fill"))
        if (block[-1], "token_s") in known:
            # In units of what a copy takes on the wire, beneath which it hides.
            size = max(bench_of(row).bytes_per_copy for row in rows if phase_of(row) == block[-1])
            found.append(Free(((*block, "token_s"),), size / value_at(made, (*block, "nvlink_rate")), kind="work"))
    for term, kind in _PROTOCOL.items():
        # What protocols have in common they keep in common; one alone would only hand its messages to the others.
        for value in dict.fromkeys(getattr(one, term) for one in made.phases["dispatch"]["protocols"]):
            alike = [one.name for one in made.phases["dispatch"]["protocols"] if getattr(one, term) == value]
            places = tuple((phase, name, term) for phase in ("dispatch", "combine") for name in alike)
            if value > 0:
                found.append(Free(places, spread=DEVIATIONS[kind], kind=kind))
    return found


def _between_clusters(start: CalibrationSet) -> list[Free]:
    """What a set over clusters says differs between them: ports in both phases alike, a kernel's own by phase.

    Clusters that were left out show no set-up or work that is off alike in dispatch and combine. NCCL's phases are one.
    """
    found: dict[tuple[Place, ...], Free] = {}
    for one in start.uncertain:
        ports = one.kind in ("nic", "nvlink") or bool(start.phases["dispatch"]["protocols"])
        for phase in ("",) if ports else ("dispatch", "combine"):
            places = tuple(place for place in one.places if not phase or phase in place[:2])
            # An absent term has no logarithm.
            if places and all(value_at(start, place) > 0 for place in places):
                before = found[places].spread if places in found else 0.0
                spread = min(math.hypot(one.deviation, before), _MOST * DEVIATIONS[one.kind])
                found[places] = Free(places, spread=spread, kind=one.kind)
    return list(found.values())


def held_over_clusters(start: CalibrationSet) -> list[Free]:
    """What a set over clusters holds or moves together with other terms, each term alone."""
    alone = {place for one in start.uncertain if len({at[-1] for at in one.places}) == 1 for place in one.places}
    blocks: list[tuple[Place, Any]] = [((phase,), terms) for phase, terms in start.phases.items()]
    blocks += [(("across", phase), terms) for phase, terms in start.across.items()]
    found: dict[str, list[Place]] = {}
    for block, terms in blocks:
        places: list[Place] = [(*block, term) for term in _FACTORS]
        places += [(*block, one.name, term) for one in terms["protocols"] for term in _PROTOCOL]
        for place in places:
            if place not in alone and value_at(start, place) > 0:
                found.setdefault(place[-1], []).append(place)
    kinds = _FACTORS | _PROTOCOL
    return [Free(tuple(at), spread=DEVIATIONS[kinds[term]], kind=kinds[term]) for term, at in found.items()]


def _growing(start: CalibrationSet, block: Place, rows: Sequence[Row]) -> list[Free]:
    inside = {row.ranks for row in rows if row.nodes == 1}
    across_nodes = {row.ranks for row in rows if row.nodes > 1}
    # A set-up grows with all ranks or with those that are reached; which, the kernel says and not a fit.
    by_reach = value_at(start, (*block, "setup_peer_doubling_s")) != 0
    other = "setup_rank_doubling_s" if by_reach else "setup_peer_doubling_s"
    found = []
    for term, of in ((term, of) for term, of in _GROWTH.items() if term != other):
        shows = len(across_nodes) > 1 or (len(inside) > 1 and term != "setup_node_doubling_s")
        unit = value_at(start, (*block, of)) if of else 1.0
        if shows and unit > 0:
            spread, kind = (GROWTH, "setup") if of else (SLOPE, "nvlink")
            found.append(Free(((*block, term),), unit, spread, kind))
    return found


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

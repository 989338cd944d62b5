"""Fitting sets of constants: the shipped ones to the ledger's fitted rows, a user's to their own measurements."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.traffic.calibration import CalibrationSet, find_set
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.fit import Fitted, Free, Place, fit, value_at, with_value
from moesim.validate.ledger import FIT, Entry
from moesim.validate.plan import BASE, FREE
from moesim.validate.rows import Row, phase_of
from moesim.validate.set_file import rounded
from moesim.validate.simulate import constants_from, simulate_row
from moesim.validate.statistics import Spread

# A constant is left alone if ten per cent more of it changes no row by as much as this.
_FELT = 0.002
_SETUPS = ("setup_intra_node_s", "setup_inter_node_s")
_SOME_SETUP_S = 10e-6
# Of a user's own fit: a constant that is off by a factor e costs as much as one row that is so far off.
_HOLD = 0.02
# What grows per doubling of the ranks or nodes, and what a move of one is measured in.
_GROWTH = {
    "setup_node_doubling_s": "setup_inter_node_s",
    "setup_rank_doubling_s": "setup_intra_node_s",
    "floor_rank_doubling_s": "floor_s",
    "nvlink_rank_slope": "",
}


@dataclass(frozen=True)
class Refit:
    """A set that was fitted again: its rows, and the relative error in time left on each."""

    constants: CalibrationSet
    rows: Sequence[Row]
    fitted: Fitted


def refit_published(
    rows: Iterable[Row],
    ledger: Mapping[tuple[str, str], Entry],
    wanted: Callable[[str], bool],
) -> Iterator[Refit]:
    """Fit the shipped sets to the rows that the ledger allows, each from where it stands.

    Args:
        rows: published rows.
        ledger: entries by table and key.
        wanted: which sets, by name.

    Yields:
        The sets, those that others build on before them.
    """
    of_set: dict[str, list[Row]] = {}
    held_out: dict[str, list[Row]] = {}
    for row in filter(is_transfer, rows):
        entry = ledger[row.name]
        # A twin has the same bytes as a row that is here already, in the fit it would count twice.
        if entry.role == FIT and not entry.rule:
            of_set.setdefault(bench_of(row).calibration, []).append(row)
        elif entry.role != FIT and not entry.suspect:
            held_out.setdefault(bench_of(row).calibration, []).append(row)
    done: dict[str, CalibrationSet] = {}
    for name in FREE:
        if name not in of_set or not wanted(name):
            continue
        first = of_set[name][0]
        start = find_set(bench_of(first).algorithm, first.gpu, name)
        if name in BASE:
            base = done.get(BASE[name]) or find_set(start.algorithm, first.gpu, BASE[name])
            start = _on_base(start, base, FREE[name])
        found = fit(start, FREE[name], of_set[name], simulate_row, constants_from)
        signed = _signed(found, of_set[name])
        done[name] = replace(signed, held_out=_held_out(signed, held_out.get(name, [])))
        yield Refit(done[name], of_set[name], found)


def refit_measured(rows: Sequence[Row], start: CalibrationSet, gpu: str, files: Sequence[Path]) -> Refit:
    """Fit a set to a user's own measurements.

    Args:
        rows: measured.
        start: the set to begin with, the shipped one of the algorithm.
        gpu: the user's.
        files: where the rows come from, for the record.

    Raises:
        InputError: no constant that the rows could determine.
    """
    start = _with_setups(start)
    free = _felt(start, _candidates(start, rows), rows)
    if not free:
        raise InputError("the measurements determine no constant", fix="measure larger messages, or more nodes")
    found = fit(start, free, rows, simulate_row, constants_from, hold=_HOLD)
    names = ", ".join(sorted({path.name for path in files}))
    moved = ", ".join(dict.fromkeys(place[-1] for one in free for place in one.places))
    mine = replace(
        found.constants,
        gpu=gpu,
        source=f"measured on your cluster: {names}",
        held_out={},
        notes=(f"fitted: {moved}; the rest is from {start.name}",),
    )
    return Refit(_signed(replace(found, constants=mine), rows), rows, found)


def _on_base(start: CalibrationSet, base: CalibrationSet, free: Sequence[Free]) -> CalibrationSet:
    """The base's constants, but for those that are the set's own."""
    made = replace(start, phases=base.phases, across=base.across)
    for one in free:
        for place in one.places:
            made = with_value(made, place, value_at(start, place))
    return made


def _signed(found: Fitted, rows: Sequence[Row]) -> CalibrationSet:
    error = {"median": round(found.median, 4), "p90": round(found.p90, 4)}
    return replace(rounded(found.constants), rows=tuple(f"{row.table}: {row.key}" for row in rows), error=error)


def _held_out(found: CalibrationSet, rows: Sequence[Row]) -> dict[str, float]:
    """How far the set is off on rows that it was not fitted on, as validate counts it; empty without rows."""
    if not rows:
        return {}
    off = Spread.of_errors([simulate_row(row, constants_from(found, row)) / row.published - 1 for row in rows])
    return {"rows": off.rows, "median": round(off.median, 4), "p90": round(off.p90, 4)}


def _with_setups(start: CalibrationSet) -> CalibrationSet:
    """The set with some set-up time wherever it has none, so that a fit can find one."""

    def block(terms: dict[str, Any]) -> dict[str, Any]:
        return {name: _SOME_SETUP_S if name in _SETUPS and value == 0 else value for name, value in terms.items()}

    return replace(
        start,
        phases={phase: block(terms) for phase, terms in start.phases.items()},
        across={phase: block(terms) for phase, terms in start.across.items()},
    )


def _candidates(start: CalibrationSet, rows: Sequence[Row]) -> list[Free]:
    """Rates and set-up times in the blocks that the rows use, the two phases together, and how they grow.

    Growth is free in the phases that were measured, where it shows: with the ranks, among rows inside a node or among
    rows across nodes; with the nodes, among the latter.
    """
    across = bool(start.across)
    blocks: list[Place] = []
    for one in ("dispatch", "combine"):
        if not across or any(row.nodes == 1 for row in rows):
            blocks.append((one,))
        if across and any(row.nodes > 1 for row in rows):
            blocks.append(("across", one))
    found = []
    for term in ("nic_rate", "nvlink_rate", "reduce_rate", *_SETUPS, "rank_copy_sm_s", "floor_s", "floor_few_ranks_s"):
        places = tuple((*block, term) for block in blocks if value_at(start, (*block, term)) > 0)
        if places:
            found.append(Free(places))
    measured = {phase_of(row) for row in rows}
    inside = {row.ranks for row in rows if row.nodes == 1}
    across_nodes = {row.ranks for row in rows if row.nodes > 1}
    for term, of in _GROWTH.items():
        shows = len(across_nodes) > 1 or (len(inside) > 1 and term != "setup_node_doubling_s")
        for block in blocks if shows else ():
            unit = value_at(start, (*block, of)) if of else 1.0
            if unit > 0 and block[-1] in measured:
                found.append(Free(((*block, term),), unit))
    for protocol in start.phases["dispatch"]["protocols"]:
        for term in ("nvlink_rate", "setup_intra_node_s", "setup_inter_node_s", "floor_s"):
            if getattr(protocol, term) > 0:
                found.append(Free(tuple((phase, protocol.name, term) for phase in ("dispatch", "combine"))))
    return found


def _felt(start: CalibrationSet, candidates: Sequence[Free], rows: Sequence[Row]) -> list[Free]:
    """Candidates that some row feels."""
    before = np.log([simulate_row(row, constants_from(start, row)) for row in rows])
    found = []
    for one in candidates:
        moved = start
        for place in one.places:
            moved = with_value(moved, place, 1.1 * value_at(start, place) + 0.1 * one.unit)
        after = np.log([simulate_row(row, constants_from(moved, row)) for row in rows])
        if np.abs(after - before).max() > _FELT:
            found.append(one)
    return found

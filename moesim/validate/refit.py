"""Fitting sets of constants: the shipped ones to the ledger's fitted rows, a user's to their own measurements."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.traffic import CalibrationSet, find_set, value_at, with_value
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.clusters import OnRanks
from moesim.validate.fit_constants import Fitted, Free, fit, log_error
from moesim.validate.ledger import FIT, Entry
from moesim.validate.plan import BASE, FREE
from moesim.validate.posterior import group_of, groups_made_worse, posterior, worth_moving
from moesim.validate.prior import ROW_SPREAD, held_over_clusters, open_constants
from moesim.validate.published_row import Row
from moesim.validate.row_simulation import constants_from, simulate_row
from moesim.validate.set_file import rounded
from moesim.validate.statistics import Spread
from moesim.validate.told_apart import Moved, left_open, moved, slopes_of

# So many rows, all met within this by constants that nearly nothing holds, are of the kernel that is modelled.
_SEVERAL, _MET, _AGREED = 6, 0.01, 0.002
# A constant that moved by less did not.
_STILL = 0.002


@dataclass(frozen=True)
class Refit:
    """A set that was fitted again: its rows, and the relative error in time left on each.

    Of a user's own, what moved and what the rows leave open too.
    """

    constants: CalibrationSet
    rows: Sequence[Row]
    fitted: Fitted
    moved: Sequence[Moved] = ()
    left_open: Sequence[str] = ()


def refit_published(
    rows: Iterable[Row],
    ledger: Mapping[tuple[str, str], Entry],
    wanted: Callable[[str], bool],
) -> Iterator[Refit]:
    """Fit the shipped sets to the rows that the ledger allows, each starting from its current constants.

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


def refit_measured(
    rows: Sequence[Row],
    start: CalibrationSet,
    gpu: str,
    files: Sequence[Path],
    ports_named: bool = True,
    on: OnRanks | None = None,
) -> Refit:
    """Fit a set to a user's own measurements.

    Where rows of one phase, inside a node or across, are predicted worse by a fit without them than by the start, the
    start's constants are kept for them. From a set over clusters, rows left out say which constants move at all, but
    for rows that are several and all met.

    Args:
        rows: measured.
        start: the set to begin with, with the user's ports.
        gpu: the user's.
        files: where the rows come from, for the record.
        ports_named: whether somebody said that the ports are those.
        on: the user's cluster by its first ranks; None: a rail-optimised one with the start's ports.

    Raises:
        InputError: no constant that the rows could determine.
    """
    simulate = partial(simulate_row, on=on)

    def off(made: CalibrationSet, which: Sequence[Row]) -> NDArray[np.float64]:
        return np.array([log_error(row, simulate(row, constants_from(made, row))) for row in which])

    begin, free = open_constants(start, rows, gpu, ports_named)
    row_spread, before = start.row_spread or ROW_SPREAD, off(start, rows)

    def slopes(made: CalibrationSet) -> NDArray[np.float64]:
        return np.array([slopes_of(made, free, row, on) for row in rows])

    def fitted(moving: Sequence[Free], which: Sequence[Row], spread: float) -> Fitted:
        if not moving:
            return Fitted(begin, np.expm1(before), np.zeros(0), np.zeros(0))
        return fit(begin, moving, which, simulate, constants_from, row_spread=spread)

    def without(left_out: Collection[int]) -> NDArray[np.float64]:
        made = fitted(free, [row for index, row in enumerate(rows) if index not in left_out], row_spread).constants
        return off(made, [rows[at] for at in left_out])

    moving, found = free, None
    if start.clusters:
        found = fitted(free, rows, _AGREED) if len(rows) >= _SEVERAL else None
        if found is None or np.abs(found.errors).max() > _MET:
            spread = np.array([one.spread for one in free])
            moving = [free[index] for index in worth_moving(before, slopes(begin), spread, row_spread)]
            found = None
    found = found or fitted(moving, rows, row_spread)
    if start.clusters:
        by = {one.places: float(move) for one, move in zip(moving, found.moves, strict=True) if abs(move) > _STILL}
        held = {one.places for one in held_over_clusters(start)}
        free = [one for one in free if by.get(one.places) or one.places not in held]
        moves = np.array([by.get(one.places, 0.0) for one in free])
        found = replace(found, moves=moves, slopes=slopes(found.constants))
    if not found.slopes.any():
        raise InputError("the measurements determine no constant", fix="measure larger messages, or more nodes")
    unknown = left_open(found, free, rows, row_spread, on)

    made, kept = found.constants, list(dict.fromkeys(map(group_of, rows)))
    if moving:
        kept = [] if start.clusters else groups_made_worse(found, free, rows, before, row_spread, without)
    for phase, across in kept:
        where = "across nodes" if across else "inside a node"
        unknown.append(f"{phase} {where}: rows left out are predicted no better by the others; {start.name} is kept")
        made = _as_it_was(made, start, phase, across)
    names = ", ".join(sorted({path.name for path in files}))
    constants = ", ".join(dict.fromkeys(one.constant for one in moved(start, made, free)))
    mine = rounded(
        replace(
            made,
            gpu=gpu,
            source=f"measured on your cluster: {names}",
            held_out={},
            clusters={},
            notes=(f"fitted: {constants or 'nothing'}; the rest is from {start.name}", *unknown),
            uncertain=posterior(found, free, made, row_spread, kept),
            row_spread=row_spread,
        )
    )
    found = replace(found, constants=mine, errors=np.expm1(off(mine, rows)))
    signed = _signed(found, rows)
    return Refit(signed, rows, found, moved(start, signed, free), unknown)


def _as_it_was(made: CalibrationSet, start: CalibrationSet, phase: str, across: bool) -> CalibrationSet:
    """The set with the start's constants for a phase inside a node or across, which then have blocks of their own."""
    made = replace(made, across=made.across or made.phases)
    if across:
        return replace(made, across=made.across | {phase: (start.across or start.phases)[phase]})
    return replace(made, phases=made.phases | {phase: start.phases[phase]})


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

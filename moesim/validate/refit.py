"""Fitting a set of constants to a user's own measurements."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.traffic import CalibrationSet
from moesim.validate.clusters import OnRanks
from moesim.validate.fit_constants import Fitted, Free, fit, log_error
from moesim.validate.posterior import group_of, groups_made_worse, posterior, worth_moving
from moesim.validate.prior import ROW_SPREAD, held_over_clusters, open_constants
from moesim.validate.published_row import Row
from moesim.validate.row_simulation import constants_from, simulate_row
from moesim.validate.set_file import rounded
from moesim.validate.told_apart import Moved, left_open, moved, slopes_of

# So many rows, all met within this by constants that nearly nothing holds, are of the kernel that is modelled.
_SEVERAL, _MET, _AGREED = 6, 0.01, 0.002
# A constant that moved by less did not.
_STILL = 0.002


@dataclass(frozen=True)
class Refit:
    """A set that was fitted again: its rows, the relative error in time left on each, what moved, what stays open."""

    constants: CalibrationSet
    rows: Sequence[Row]
    fitted: Fitted
    moved: Sequence[Moved] = ()
    left_open: Sequence[str] = ()


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
    mine = signed(found, rows)
    return Refit(mine, rows, found, moved(start, mine, free), unknown)


def _as_it_was(made: CalibrationSet, start: CalibrationSet, phase: str, across: bool) -> CalibrationSet:
    """The set with the start's constants for a phase inside a node or across, which then have blocks of their own."""
    made = replace(made, across=made.across or made.phases)
    if across:
        return replace(made, across=made.across | {phase: (start.across or start.phases)[phase]})
    return replace(made, phases=made.phases | {phase: start.phases[phase]})


def signed(found: Fitted, rows: Sequence[Row]) -> CalibrationSet:
    """The set that a fit found, with the names of its rows and the error left on them."""
    names = tuple(f"{row.table}: {row.key}" for row in rows)
    return replace(rounded(found.constants), rows=names, error=found.off.figures())

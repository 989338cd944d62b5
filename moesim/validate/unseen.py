"""One source predicted with the constants of another that ran the same library on the same GPU.

This is the error to expect on a cluster that was not calibrated: clusters differ, and a fit cannot know yours. Then
the same again after ``moesim calibrate`` on four rows of the source, as a user would measure them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from moesim.traffic import CalibrationSet, find_set
from moesim.validate.benches import bench_of
from moesim.validate.ledger import FIT, Entry
from moesim.validate.published_row import Row
from moesim.validate.refit import refit_measured
from moesim.validate.row_simulation import constants_from, simulate_row

# Table -> the other source's set.
_PAIRS = {
    "deepep-ll-h100-cx7": "deepep-low-latency-h100",
    "aic-ll": "deepep-low-latency-h100-cx7",
    "nvl72-one-sided-dispatch": "nvl-one-sided-gb200-aic",
    "nvl72-one-sided-combine": "nvl-one-sided-gb200-aic",
    "aic-one-sided-dispatch": "nvl-one-sided-gb200",
    "aic-one-sided-combine": "nvl-one-sided-gb200",
}
_FOUR = 4
# Where bytes and set-up both count, whatever the kernel.
_FAR = 2 / 3


@dataclass(frozen=True)
class Unseen:
    """Rows of a source, held out and not suspect, with the constants of another before and after calibration.

    Attributes:
        what: the table, and the phase where the table has two that are calibrated apart.
        calibration: the other source's set.
        measured: keys of the rows that it was calibrated on.
        before: relative error of each row with the other's constants.
        after: the same after ``calibrate``.
    """

    what: str
    calibration: str
    measured: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def unseen(rows: Sequence[Row], ledger: Mapping[tuple[str, str], Entry]) -> list[Unseen]:
    """Predict every table that has a second source with that one's constants, as they are and calibrated.

    Args:
        rows: published rows; those of other tables are passed over.
        ledger: entries by table and key: calibrated is on rows that it marks as fitted, judged on held-out ones.
    """
    found = []
    for table, name in _PAIRS.items():
        here = [row for row in rows if row.table == table]
        for what, group in _groups(table, here, ledger):
            other = find_set(bench_of(group[0]).algorithm, group[0].gpu, name)
            measured = to_measure([row for row in group if _may_be_fitted(row, ledger)])
            calibrated = refit_measured(measured, other, group[0].gpu, [Path(f"{table}.csv")]).constants
            judged = [row for row in group if ledger[row.name].role != FIT and not ledger[row.name].suspect]
            keys = tuple(row.key for row in measured)
            found.append(Unseen(what, name, keys, _errors(judged, other), _errors(judged, calibrated)))
    return found


def to_measure(rows: Sequence[Row]) -> list[Row]:
    """Choose what to measure of each phase, by the axes alone.

    Where ranks are fewest the smallest and the largest message; the smallest one of a middle number of ranks (of the
    most, where there is none between); where ranks are most the one nearest to two thirds of the way from the phase's
    smallest to its largest, in doublings. Of rows that share such a place the first is taken; a phase of one size has
    fewer.
    """
    found: dict[tuple[str, str], Row] = {}
    for phase in dict.fromkeys(row.op for row in rows):
        of_phase = [row for row in rows if row.op == phase]
        ranks = sorted({row.ranks for row in of_phase})
        sizes = np.log([row.tokens for row in of_phase])
        smallest, largest = sizes.min(), sizes.max()
        places = (
            (ranks[0], smallest),
            (ranks[0], largest),
            (ranks[len(ranks) // 2], smallest),
            (ranks[-1], smallest + _FAR * (largest - smallest)),
        )
        for number, size in places:
            row = min(
                (row for row in of_phase if row.ranks == number),
                key=lambda row: (round(abs(math.log(row.tokens) - size), 9), row.tokens),
            )
            found[row.name] = row
    return list(found.values())


def _groups(table: str, rows: Sequence[Row], ledger: Mapping[tuple[str, str], Entry]) -> list[tuple[str, list[Row]]]:
    """The phases of a table, apart; together where four rows are all that both have."""
    if not rows:
        return []
    phases = [list(group) for _, group in groupby(sorted(rows, key=lambda row: row.op), key=lambda row: row.op)]
    if len(phases) == 1 or len(to_measure([row for row in rows if _may_be_fitted(row, ledger)])) <= _FOUR:
        return [(table, list(rows))]
    return [(f"{table} {group[0].op}", group) for group in phases]


def _may_be_fitted(row: Row, ledger: Mapping[tuple[str, str], Entry]) -> bool:
    entry = ledger[row.name]
    # A twin has the same bytes as a row that is fitted already.
    return entry.role == FIT and not entry.rule


def _errors(rows: Sequence[Row], constants: CalibrationSet) -> tuple[float, ...]:
    return tuple(simulate_row(row, constants_from(constants, row)) / row.published - 1 for row in rows)

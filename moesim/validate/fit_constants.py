"""Fitting constants to measured rows through the simulation itself.

What is minimised is the logarithm of simulated over measured, softly (a residual past five per cent counts linearly),
so that a few bad rows do not bend the rest. No constant is negative and no rate passes its port's peak. None is added
or removed: which terms a kernel has is for the set's author to say, by giving them a start. (A user's fit may let a
set-up or a rate grow with the ranks that does not in the set it begins with.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.traffic import Calibration, CalibrationSet, Place, most_of, value_at, with_value
from moesim.validate.published_row import BANDWIDTHS, Row, phase_of

Simulate = Callable[[Row, Calibration], float]

# Residuals (logarithms) past this count linearly, so that a few bad rows do not bend the rest.
_SOFT = 0.05
# Of the finite differences: above the simulation's rounding, small beside what a constant may move.
_STEP = 1e-3
# Terms that may be negative.
_SLOPES = ("nvlink_rank_slope",)


@dataclass(frozen=True)
class Free:
    """A constant to be fitted: its place in a set, several places if they move together.

    A place is ``(phase, term)`` or ``("across", phase, term)``; a protocol's is ``(phase, protocol, term)``.
    A constant moves by a factor, the same in all places; where ``unit`` is given, in steps of it, so that it may start
    from nothing. ``spread`` is how far it commonly moves: the logarithm of a factor, or steps.
    """

    places: tuple[Place, ...]
    unit: float = 0.0
    spread: float = 1.0

    @property
    def slope(self) -> bool:
        """Whether it may be negative."""
        return self.places[0][-1] in _SLOPES


@dataclass(frozen=True)
class Fitted:
    """A fit: the set with its new constants, and the relative error in time that is left on each row."""

    constants: CalibrationSet
    errors: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Median of the absolute relative errors."""
        return float(np.median(np.abs(self.errors)))

    @property
    def p90(self) -> float:
        """Ninth decile of the absolute relative errors."""
        return float(np.quantile(np.abs(self.errors), 0.9))


def fit(
    start: CalibrationSet,
    free: Sequence[Free],
    rows: Sequence[Row],
    simulate: Simulate,
    constants_for: Callable[[CalibrationSet, Row], Calibration],
    most_rounds: int = 12,
    row_spread: float = 0.0,
) -> Fitted:
    """Fit constants to rows.

    Args:
        start: the set to begin with; what is not free stays.
        free: constants to move.
        rows: measured rows; all of one set.
        simulate: gives the simulated value of a row with constants.
        constants_for: the constants of a set for a row (its phase, its SMs).
        most_rounds: steps of the least-squares solver at most.
        row_spread: relative error that a row commonly keeps. With it constants stay where they start, a move by one
            spread costing as much as a row that is so far off; rows may be fewer than constants then.

    Raises:
        InputError: fewer rows than free constants, and no ``row_spread``.
    """
    from scipy.optimize import least_squares

    if len(rows) < len(free) and not row_spread:
        raise InputError(f"{len(rows)} rows do not determine {len(free)} constants", fix="measure more, or fit fewer")
    first = [np.array([value_at(start, place) for place in one.places]) for one in free]
    unit = np.array([one.unit or float(one.slope) for one in free])
    spread = np.array([one.spread for one in free])
    affected = [_affected(start, one, rows) for one in free]

    def at(x: NDArray[np.float64]) -> CalibrationSet:
        made = start
        for index, one in enumerate(free):
            # Logarithms keep a constant positive and make a step as large as the constant.
            moved = first[index] + unit[index] * x[index] if unit[index] else first[index] * np.exp(x[index])
            for place, value in zip(one.places, moved, strict=True):
                made = with_value(made, place, float(value))
        return made

    def residuals(x: NDArray[np.float64], which: Sequence[int] | None = None) -> NDArray[np.float64]:
        made = at(x)
        chosen = [rows[index] for index in (range(len(rows)) if which is None else which)]
        return np.array([_log_error(row, simulate(row, constants_for(made, row))) for row in chosen])

    def slopes(x: NDArray[np.float64]) -> NDArray[np.float64]:
        base, matrix = residuals(x), np.zeros((len(rows), len(free)))
        for column, which in enumerate(affected):
            moved = x.copy()
            moved[column] += _STEP
            matrix[which, column] = (residuals(moved, which) - base[which]) / _STEP
        return held(matrix, np.eye(len(free)))

    def held(of_rows: NDArray[np.float64], of_constants: NDArray[np.float64]) -> NDArray[np.float64]:
        if not row_spread:
            return of_rows
        return np.concatenate([of_rows, (row_spread * of_constants.T / spread).T])

    upper, lower = np.full(len(free), np.inf), np.full(len(free), -np.inf)
    for index, one in enumerate(free):
        if not unit[index]:
            upper[index] = np.log(max(most_of(start, place) for place in one.places) / first[index].min())
        elif not one.slope:
            lower[index] = -first[index].min() / unit[index]
    # The solver hardly moves what begins at its bound.
    inside = 0.1 * spread if row_spread else 1e-9
    begin = np.clip(np.zeros(len(free)), lower + inside, upper - inside)
    begins = [begin]
    if row_spread:
        # What hides beneath something longer has no slope where it starts: begin once more from where it may show, a
        # time when it is longer, a rate when it is lower.
        shows = np.array([-1.0 if one.places[0][-1].endswith("rate") else 1.0 for one in free])
        hidden = np.flatnonzero(~slopes(begin)[: len(rows)].any(axis=0))
        begins += [begin + np.where(np.arange(len(free)) == index, 2 * shows * spread, 0.0) for index in hidden]
    found = [
        least_squares(
            lambda x: held(residuals(x), x), np.clip(each, lower + inside, upper - inside), slopes, (lower, upper),
            loss="soft_l1", f_scale=_SOFT, x_scale="jac", max_nfev=most_rounds, xtol=1e-5, ftol=1e-5,
        )
        for each in begins
    ]  # fmt: skip
    best = min(found, key=lambda one: float(one.cost))
    return Fitted(at(best.x), np.expm1(residuals(best.x)))


def _log_error(row: Row, simulated: float) -> float:
    """Log of simulated over measured time; a bandwidth is the inverse of one."""
    ratio = float(np.log(simulated / row.published))
    return -ratio if row.quantity in BANDWIDTHS else ratio


def _affected(start: CalibrationSet, free: Free, rows: Sequence[Row]) -> list[int]:
    """Rows whose constants contain one of the places."""
    inside = {place[0] for place in free.places}
    across = {place[1] for place in free.places if place[0] == "across"}

    def contain(row: Row) -> bool:
        return phase_of(row) in (across if row.nodes > 1 and start.across else inside)

    return [index for index, row in enumerate(rows) if contain(row)]

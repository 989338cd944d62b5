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
from moesim.validate.error_spread import Spread
from moesim.validate.published_row import BANDWIDTHS, Row, phase_of

Floats = NDArray[np.float64]
Simulate = Callable[[Row, Calibration], float]

# Residuals (logarithms) past this count linearly, so that a few bad rows do not bend the rest.
SOFT = 0.05
# Of the finite differences: above the simulation's rounding, small beside what a constant may move.
_STEP = 1e-3
# A constant that moves no row by as much is not felt.
_FELT = 0.002
# Terms that may be negative.
_SLOPES = ("nvlink_rank_slope",)


@dataclass(frozen=True)
class Free:
    """A constant to be fitted: its place in a set, several places if they move together.

    A place is ``(phase, term)`` or ``("across", phase, term)``; a protocol's is ``(phase, protocol, term)``.
    A constant moves by a factor, the same in all places; where ``unit`` is given, in steps of it, so that it may start
    from nothing. ``spread`` is how far it commonly moves: the logarithm of a factor, or steps. ``kind``: as of
    ``moesim.traffic.Uncertain``.
    """

    places: tuple[Place, ...]
    unit: float = 0.0
    spread: float = 1.0
    kind: str = ""

    @property
    def slope(self) -> bool:
        """Whether it may be negative."""
        return self.places[0][-1] in _SLOPES

    @property
    def slower(self) -> float:
        """The sign of a move that makes rows slower: a rate's falls, so that a rate at its peak shows too."""
        return -1.0 if self.places[0][-1].endswith("rate") else 1.0

    def moved(self, start: CalibrationSet, by: float) -> CalibrationSet:
        """The set with this constant moved: by a logarithm, or by so many units."""
        made, unit = start, self.unit or float(self.slope)
        for place in self.places:
            value = value_at(start, place)
            made = with_value(made, place, value + unit * by if unit else value * float(np.exp(by)))
        return made


@dataclass(frozen=True)
class Fitted:
    """A fit.

    Attributes:
        constants: the set with its new constants.
        errors: relative error in time that is left on each row.
        moves: of each free constant, in logarithms or units.
        slopes: derivatives of each row's logarithm of time by them, [rows, free].
    """

    constants: CalibrationSet
    errors: Floats
    moves: Floats
    slopes: Floats

    @property
    def off(self) -> Spread:
        """How far the rows are off."""
        return Spread.of_errors(self.errors)


def fit(
    start: CalibrationSet,
    free: Sequence[Free],
    rows: Sequence[Row],
    simulate: Simulate,
    constants_for: Callable[[CalibrationSet, Row], Calibration],
    row_spread: float = 0.0,
) -> Fitted:
    """Fit constants to rows, to convergence.

    Args:
        start: the set to begin with; what is not free stays.
        free: constants to move.
        rows: measured rows; all of one set.
        simulate: gives the simulated value of a row with constants.
        constants_for: the constants of a set for a row (its phase, its SMs).
        row_spread: relative error that a row commonly keeps. With it constants stay where they start, a move by one
            spread costing as much as a row that is so far off; rows may be fewer than constants then.

    Raises:
        InputError: fewer rows than free constants, and no ``row_spread``.
    """
    from scipy.optimize import least_squares

    if len(rows) < len(free) and not row_spread:
        raise InputError(f"{len(rows)} rows do not determine {len(free)} constants", fix="measure more, or fit fewer")
    spread = np.array([one.spread for one in free])
    slower = np.array([one.slower for one in free])
    affected = [_affected(start, one, rows) for one in free]

    def at(x: Floats) -> CalibrationSet:
        made = start
        for one, by in zip(free, x, strict=True):
            if by:
                made = one.moved(made, float(by))
        return made

    def residuals(x: Floats, which: Sequence[int] | None = None) -> Floats:
        made = at(x)
        chosen = [rows[index] for index in (range(len(rows)) if which is None else which)]
        return np.array([log_error(row, simulate(row, constants_for(made, row))) for row in chosen])

    def slopes(x: Floats) -> Floats:
        base, matrix = residuals(x), np.zeros((len(rows), len(free)))
        for column, which in enumerate(affected):
            step = _STEP * slower[column]
            matrix[which, column] = (residuals(_plus(x, column, step), which) - base[which]) / step
        return matrix

    def held(of_rows: Floats, of_constants: Floats) -> Floats:
        return np.concatenate([of_rows, (row_spread * of_constants.T / spread).T]) if row_spread else of_rows

    upper, lower = np.full(len(free), np.inf), np.full(len(free), -np.inf)
    for index, one in enumerate(free):
        least = min(value_at(start, place) for place in one.places)
        if not one.unit and not one.slope:
            upper[index] = np.log(max(most_of(start, place) for place in one.places) / least)
        elif not one.slope:
            lower[index] = -least / one.unit
    # The solver hardly moves what begins at its bound.
    inside = 0.1 * spread if row_spread else 1e-9

    def solved(begin: Floats) -> tuple[float, Floats]:
        found = least_squares(
            lambda x: held(residuals(x), x), np.clip(begin, lower + inside, upper - inside),
            lambda x: held(slopes(x), np.eye(len(free))), (lower, upper),
            loss="soft_l1", f_scale=SOFT, x_scale=spread if row_spread else "jac", xtol=1e-6, ftol=1e-6,
        )  # fmt: skip
        return float(found.cost), np.asarray(found.x, np.float64)

    cost, best = solved(np.zeros(len(free)))
    off = residuals(best)
    if row_spread and np.abs(off).max() > row_spread:
        # What hides beneath something longer has no slope: begin once more from where it may show.
        for hidden in np.flatnonzero(~slopes(best).any(axis=0)):
            shown = _plus(best, int(hidden), 2 * float(slower[hidden] * spread[hidden]))
            if np.abs(residuals(shown) - off).max() > _FELT:
                cost, best = min((cost, best), solved(shown), key=lambda one: one[0])
    return Fitted(at(best), np.expm1(residuals(best)), best, slopes(best))


def log_error(row: Row, simulated: float) -> float:
    """Log of simulated over measured time; a bandwidth is the inverse of one."""
    ratio = float(np.log(simulated / row.published))
    return -ratio if row.quantity in BANDWIDTHS else ratio


def _plus(x: Floats, index: int, by: float) -> Floats:
    made = x.copy()
    made[index] += by
    return made


def _affected(start: CalibrationSet, free: Free, rows: Sequence[Row]) -> list[int]:
    """Rows whose constants contain one of the places."""
    inside = {place[0] for place in free.places}
    across = {place[1] for place in free.places if place[0] == "across"}

    def contain(row: Row) -> bool:
        return phase_of(row) in (across if row.nodes > 1 and start.across else inside)

    return [index for index, row in enumerate(rows) if contain(row)]

"""What a fit knows in the end: how far each constant may still be off, and how rows that it did not see fare."""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from moesim.traffic import CalibrationSet, Uncertain, value_at
from moesim.validate.fit_constants import SOFT, Fitted, Floats, Free
from moesim.validate.published_row import Row, phase_of

Group = tuple[str, bool]
"""Rows of a phase inside a node, or across nodes (True)."""

# Fewer rows say nothing of a row left out.
_ENOUGH = 2
# Share of the start's error below which a fit is better for sure, and above which it is worse: what one row alone
# determines is as far off without it as at the start, give or take.
_SURELY, _WORSE = 0.8, 1.05
# Rows that are met within this share of what rows commonly keep do not contradict each other: a row at the end of a
# range may then be predicted badly by the others without a fault of the fit's.
_MET = 0.5
# Rows of a group are left out in so many parts, one by one where they are no more.
_FOLDS = 4
# What one row has to be off to speak alone, how closely one has to follow a constant that is to move, what that has to
# gain, rounds until a soft fit's weights stand.
_LONE, _SPEAKS, _GAIN, _ROUNDS = 0.35, 0.25, 0.05, 6
# A constant that fell to nothing has no logarithm: known within a factor of e at most.
_MOST = 1.0


def group_of(row: Row) -> Group:
    """The group that a row is judged in."""
    return phase_of(row), row.nodes > 1


def worth_moving(before: Floats, slopes: Floats, spread: Floats, row_spread: float) -> list[int]:
    """Choose which constants rows of a cluster move that others' constants are the start for, by rows left out.

    Constants are taken one after the other, each the one with which rows are predicted best by a fit to the others, as
    long as that gains a twentieth. A row that no other speaks for is followed where it is grossly off: what is left of
    it then counts a lone row's error more. Fits are to first order, soft in rows and in moves.

    Args:
        before: logarithm of simulated over measured time with the start's constants, [rows].
        slopes: derivatives of it by each constant, [rows, constants].
        spread: of the constants, [constants].
        row_spread: relative error that a row commonly keeps.

    Returns:
        Their numbers; none if the start predicts rows left out as well.
    """
    every = np.arange(len(before))

    def score(chosen: list[int]) -> float:
        left = np.abs(before + slopes[:, chosen] @ _first_order(before, slopes[:, chosen], spread[chosen], row_spread))
        total = 0.0
        for row in every:
            others = every != row
            moves = _first_order(before[others], slopes[others][:, chosen], spread[chosen], row_spread)
            total += min(abs(before[row] + slopes[row, chosen] @ moves), left[row] + _LONE)
        return total

    chosen: list[int] = []
    best = float(np.abs(before).sum())
    rest = [index for index in range(len(spread)) if np.abs(slopes[:, index]).max() > _SPEAKS]
    while rest:
        found, index = min((score([*chosen, index]), index) for index in rest)
        if found >= (1 - _GAIN) * best:
            break
        best = found
        chosen.append(index)
        rest.remove(index)
    return chosen


def _first_order(before: Floats, slopes: Floats, spread: Floats, row_spread: float) -> Floats:
    """Moves of constants that a fit to rows would find if their slopes stayed as they are."""
    moves: Floats = np.zeros(len(spread))
    for _ in range(_ROUNDS):
        of_rows = slopes.T * _weights(before + slopes @ moves)
        held = _weights(row_spread * moves / spread) * (row_spread / spread) ** 2
        moves = np.asarray(np.linalg.solve(of_rows @ slopes + np.diag(held), -of_rows @ before), np.float64)
    return moves


def groups_made_worse(
    fitted: Fitted,
    free: Sequence[Free],
    rows: Sequence[Row],
    before: Floats,
    row_spread: float,
    without: Callable[[Collection[int]], Floats],
) -> list[Group]:
    """Find the groups of rows that a fit to the other rows predicts worse than the start does.

    A row left out is off by about r / (1 - h), where h is the weight that it has in its own prediction (Allen's PRESS;
    exact for a linear fit). Where that is not clearly better than the start and the fit does not meet the rows anyway,
    rows are left out in earnest.

    Args:
        fitted: a fit.
        free: its constants.
        rows: that it saw.
        before: logarithm of simulated over measured time with the start's constants, [rows].
        row_spread: relative error that a row commonly keeps.
        without: the same with a fit that did not see some rows, of these rows by number.
    """
    left = np.log1p(fitted.errors)
    own = np.einsum("ik,kl,il->i", fitted.slopes, _covariance(fitted, free, row_spread), fitted.slopes)
    alone = np.abs(left) / np.maximum(1 - own * _weights(left) / row_spread**2, 1e-3)
    found = []
    for group in dict.fromkeys(map(group_of, rows)):
        mine = [index for index, row in enumerate(rows) if group_of(row) == group]
        start = float(np.abs(before[mine]).sum())
        met = float(np.abs(left[mine]).mean()) < _MET * row_spread
        if len(mine) < _ENOUGH or met or alone[mine].sum() < _SURELY * start:
            continue
        folds = [mine[number::_FOLDS] for number in range(min(_FOLDS, len(mine)))]
        if sum(float(np.abs(without(fold)).sum()) for fold in folds) > _WORSE * start:
            found.append(group)
    return found


def posterior(
    fitted: Fitted, free: Sequence[Free], made: CalibrationSet, row_spread: float, kept: Collection[Group]
) -> tuple[Uncertain, ...]:
    """How far each constant may still be off.

    Args:
        fitted: a fit.
        free: its constants.
        made: the set that came of it, which may have blocks across nodes of its own.
        row_spread: relative error that a row commonly keeps.
        kept: groups whose constants stayed, and are no better known than before.
    """
    deviations = np.sqrt(np.diag(_covariance(fitted, free, row_spread)))
    split = bool(made.across) and not fitted.constants.across
    found = []
    for one, after in zip(free, deviations, strict=True):
        places = one.places
        if split:
            places += tuple(("across", *place) for place in places)
        stayed = {(place[1], True) if place[0] == "across" else (place[0], False) for place in places} & set(kept)
        deviation = one.spread if stayed else float(after)
        if one.unit or one.slope:
            least = min(abs(value_at(made, place)) for place in places)
            deviation *= (one.unit or 1.0) / least if least else np.inf
        if all(value_at(made, place) > 0 for place in places):
            found.append(Uncertain(places, one.kind, min(float(deviation), _MOST), {}, {}))
    return tuple(found)


def _covariance(fitted: Fitted, free: Sequence[Free], row_spread: float) -> Floats:
    """Of the constants, from the slopes of rows and the spreads, each with the weight that the soft loss gives it."""
    spread = np.array([one.spread for one in free])
    of_rows = _weights(np.log1p(fitted.errors))[:, None] * fitted.slopes
    held = _weights(row_spread * fitted.moves / spread) / spread**2
    return np.asarray(np.linalg.inv(of_rows.T @ fitted.slopes / row_spread**2 + np.diag(held)), np.float64)


def _weights(off: Floats) -> Floats:
    return np.asarray((1 + (off / SOFT) ** 2) ** -0.5, np.float64)

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
# What a row of a cluster that nobody fitted commonly keeps where the model's shape is not quite the cluster's, and the
# share of the start's error below which rows left out have to stay, so held and as firmly as rows of one cluster allow.
_SHAPE_SPREAD, _LOOSELY, _CLOSELY = 0.2, 0.8, 0.4
# A constant that fell to nothing has no logarithm: known within a factor of e at most.
_MOST = 1.0


def group_of(row: Row) -> Group:
    """The group that a row is judged in."""
    return phase_of(row), row.nodes > 1


def best_row_spread(
    rows: Sequence[Row], before: Floats, row_spread: float, without: Callable[[Collection[int], float], Floats]
) -> float | None:
    """Choose how closely to follow rows of a cluster that others' constants are the start for, by rows left out.

    Few rows may be met by constants that other settings share and that are not what differs. So rows are left out in
    turn; a close fit has to predict them much better than the start does, a loose one clearly better. Rows that are
    alone in their group say nothing of each other.

    Args:
        rows: measured.
        before: logarithm of simulated over measured time with the start's constants, [rows].
        row_spread: relative error that rows of one cluster keep.
        without: the same of rows by number, with a fit that did not see them, at a spread of rows.

    Returns:
        The spread to fit with; None: the start predicts rows left out as well.
    """
    groups = list(map(group_of, rows))
    judged = [index for index, group in enumerate(groups) if groups.count(group) >= _ENOUGH]
    if not judged:
        return row_spread
    folds = [judged[number::_FOLDS] for number in range(min(_FOLDS, len(judged)))]
    worth: list[tuple[float, float | None]] = [(float(np.abs(before[judged]).sum()), None)]
    for spread, share in ((row_spread, _CLOSELY), (_SHAPE_SPREAD, _LOOSELY)):
        worth.append((sum(float(np.abs(without(fold, spread)).sum()) for fold in folds) / share, spread))
    return min(worth, key=lambda one: one[0])[1]


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

"""What a sweep says about its objective: the best point, the Pareto front, and how much each axis matters.

The best point is the one of least cost among those that keep the objective's limits. The front holds every such point
that no other beats in objective, gate mass lost and rank imbalance at once (a plan: in rate and latency). The effect of
an axis is given twice: at the best point (the other axes held there), and marginally (the median over all points with
each value).

A best point can also be given for each combination of the values of some axes: the best M for every K.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.mistakes import did_you_mean
from moesim.scenario import Objective
from moesim.sweeps.space import Space

if TYPE_CHECKING:
    import pyarrow as pa

TRADED = ("gate_mass_lost", "rank_load_max_over_mean")
"""What the front trades the objective against; smaller is better."""


@dataclass(frozen=True)
class Effect:
    """How much one axis matters.

    Attributes:
        axis: its keys.
        best: its value at the best point.
        least, most: its values of least and most cost, the other axes held at the best point; limits do not count here.
        at_best: the cost of the one over that of the other, less 1; None where the axis has one value there.
        marginal: the same for the medians over all points with each value.
    """

    axis: str
    best: tuple[Any, ...]
    least: tuple[Any, ...]
    most: tuple[Any, ...]
    at_best: float | None
    marginal: float | None


class Group(NamedTuple):
    """Points with the same values of some axes: their places along these, and the best within the limits."""

    places: tuple[int, ...]
    best: int | None


@dataclass(frozen=True)
class Answer:
    """What a sweep says about its objective; points by their numbers.

    Attributes:
        best: None where no point keeps the limits.
        meeting: how many points keep the limits.
        front: in the order of the objective, best first.
        effects: one per axis, largest first.
        per: axes, by their positions, for each combination of whose values a best point is given.
        traded: what the front trades the objective against.
        groups: these combinations, in the order of the values; those of which no point is there are left out.
    """

    objective: Objective
    best: int | None
    meeting: int
    front: tuple[int, ...]
    effects: tuple[Effect, ...]
    per: tuple[int, ...] = ()
    groups: tuple[Group, ...] = ()
    traded: tuple[str, ...] = TRADED


def axes_named(space: Space, keys: Sequence[str]) -> tuple[int, ...]:
    """Return the positions of the axes with these keys, in the order of the axes.

    Raises:
        InputError: a key that is not an axis.
    """
    for key in keys:
        if key not in space.keys:
            raise InputError(f"{key!r:.80} is not an axis of this sweep", "per", did_you_mean(key, space.keys))
    return tuple(a for a, axis in enumerate(space.axes) if not set(keys).isdisjoint(axis.keys))


def answer(
    space: Space,
    objective: Objective,
    table: "pa.Table",
    per: tuple[int, ...] = (),
    traded: tuple[str, ...] = TRADED,
) -> Answer:
    """Answer an objective from the table of a sweep; points that are only estimated count in the effects of axes alone.

    Args:
        space: all points.
        objective: what to be best at.
        table: the points.
        per: axes, by their positions, for each combination of whose values a best point is also given.
        traded: what the front trades the objective against; smaller is better.
    """
    rows = rows_of(table, {objective.key, *traded, *(limit.key for limit in objective.limits)})
    points = list(rows)
    cost = {point: value for point, row in rows.items() if (value := objective.cost(row)) is not None}
    ran = {point for point, status in zip(points, table["status"].to_pylist(), strict=True) if status == "ok"}
    meeting = [point for point in cost if point in ran and objective.meets(rows[point])]
    best = min(meeting, key=lambda point: (cost[point], point), default=None)
    against = [name for name in traded if name != objective.key]
    front = pareto([(cost[p], *(_number(rows[p][name]) for name in against)) for p in meeting])
    effects = [] if best is None else [_effect(space, a, best, cost) for a in range(len(space.axes))]
    effects.sort(key=lambda effect: -max(effect.at_best or 0.0, effect.marginal or 0.0))
    return Answer(
        objective=objective,
        best=best,
        meeting=len(meeting),
        front=tuple(sorted((meeting[i] for i in front), key=lambda point: (cost[point], point))),
        effects=tuple(effects),
        per=per,
        groups=_groups(space, per, points, meeting, cost) if per else (),
        traded=traded,
    )


def rows_of(table: "pa.Table", names: Iterable[str]) -> dict[int, dict[str, Any]]:
    """Return some columns of a sweep's table by point."""
    return dict(zip(table["point"].to_pylist(), table.select(list(names)).to_pylist(), strict=True))


def _groups(
    space: Space, per: tuple[int, ...], points: Sequence[int], meeting: Sequence[int], cost: dict[int, float]
) -> tuple[Group, ...]:
    """Find the best point of each combination of the values of some axes; of equal ones the first."""
    best: dict[tuple[int, ...], int | None] = {}
    keeps = set(meeting)
    for point in sorted(points):
        places = space.places(point)
        group = tuple(places[a] for a in per)
        before = best.setdefault(group, None)
        if point in keeps and (before is None or cost[point] < cost[before]):
            best[group] = point
    return tuple(Group(group, best[group]) for group in sorted(best))


def _number(value: float | None) -> float:
    """A number that does not apply trades against nothing."""
    return 0.0 if value is None else float(value)


def pareto(costs: Sequence[Sequence[float]]) -> list[int]:
    """Return which rows no other row beats: is nowhere more. Of equal rows the first stands for all."""
    if not costs:
        return []
    rows = np.array(costs, float)
    order = np.lexsort(rows.T[::-1])
    front: list[int] = []
    kept: NDArray[np.float64] = np.empty((0, rows.shape[1]))
    for index in order:  # whatever beats a row comes before it
        row = rows[index]
        if not (kept <= row).all(axis=1).any():
            front.append(int(index))
            kept = np.vstack([kept, row])
    return sorted(front)


def _effect(space: Space, index: int, best: int, cost: dict[int, float]) -> Effect:
    axis = space.axes[index]
    best_places = space.places(best)
    along: dict[int, float] = {}
    by_value: dict[int, list[float]] = {}
    for point, value in cost.items():
        places = space.places(point)
        by_value.setdefault(places[index], []).append(value)
        if all(place == held for i, (place, held) in enumerate(zip(places, best_places, strict=True)) if i != index):
            along[places[index]] = value
    least = min(along, key=lambda place: (along[place], place))
    most = max(along, key=lambda place: (along[place], -place))
    return Effect(
        axis=axis.name,
        best=axis.values[best_places[index]],
        least=axis.values[least],
        most=axis.values[most],
        at_best=_spread(list(along.values())),
        marginal=_spread([float(np.median(values)) for values in by_value.values()]),
    )


def _spread(costs: list[float]) -> float | None:
    """Largest over smallest in size, less 1; None where there is nothing to compare."""
    sizes = [abs(cost) for cost in costs]
    if len(sizes) < 2:
        return None
    return max(sizes) / min(sizes) - 1 if min(sizes) > 0 else (0.0 if max(sizes) == 0 else None)

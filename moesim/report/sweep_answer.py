"""What a sweep answers, in words: one sentence made from its points, then what the limits cost and which axis matters.

The best point is set against the base scenario where that is a point within the limits, else against the worst point
within them. Where best points are given for each value of some axes, these are the answer; combinations with the same
best values are listed together, and an axis that changes none of them is said not to matter.
"""

from typing import NamedTuple

import numpy as np

from moesim.report.charts import TABLE_ROWS
from moesim.report.data_table import Cell, DataTable
from moesim.report.named_numbers import in_words
from moesim.report.quantities import is_share, named_quantity, quantity
from moesim.report.run_page import Verdict
from moesim.report.sweep_data import Places, SweepData

_MOST_LISTED = 8


class _Group(NamedTuple):
    """Combinations of some axes' values with the same best values of the others: who they are, and their points."""

    groups: list[Places]
    points: list[int]


def sweep_verdict(data: SweepData) -> Verdict:
    """State what is best in one sentence; then what the limits cost, and which axis matters most."""
    if data.said is not None:
        return Verdict(*data.said)
    if not np.isfinite(data.cost).any():
        return Verdict(answer_sentence(data), "The reasons are below.")
    parts = []
    if data.best is None:
        parts.append(f"Without the limits the best is {_nearest(data)}.")
    else:
        parts += [f"Overall the {_best_of_all(data, data.best)}"] if data.groups else []
        parts += _price_of_limits(data)
    strongest = next((effect for effect in data.effects if effect.at_best), None)
    if strongest is not None and strongest.at_best is not None:
        short = next((axis.short for axis in data.axes if axis.name == strongest.axis), strongest.axis)
        held = ", the others as at the best point" if len(data.effects) > 1 else ""
        parts.append(
            f"The strongest axis is {short}: {strongest.most} instead of {strongest.least} is "
            f"{_against(strongest.at_best, data.larger_is_better)}{held}."
        )
    return Verdict(answer_sentence(data), " ".join(parts))


def answer_sentence(data: SweepData) -> str:
    """Answer the sweep's question in one sentence made from its points."""
    if data.said is not None:
        return data.said[0]
    if not np.isfinite(data.cost).any():
        return f"No point has a result: {data.counted()}."
    if data.best is None:
        return f"No point keeps {' and '.join(data.limits)}."
    if data.groups:
        return _best_of_groups(data)
    sentence = _best_of_all(data, data.best)
    return sentence[:1].upper() + sentence[1:]


def _best_of_all(data: SweepData, best: int) -> str:
    """Name the best point and set it against the base scenario or the worst within the limits."""
    found = f"{in_words(data.key)} {_value(data, best)}"
    kept = np.flatnonzero(data.within)
    worst = int(max(kept, key=lambda point: (data.cost[point], -point)))
    if data.base == best and worst != best:
        against = _than(data, best, worst, "the worst point")
        return f"best point is the base scenario ({data.label(best)}): {found}, {against}."
    text = f"best point is {data.label(best)}: {found}"
    if worst == best:
        return f"{text}; no other point {'keeps the limits' if data.limits else 'has a result'}."
    if data.base is not None and data.within[data.base]:
        return f"{text}, {_than(data, best, data.base, 'the base scenario')}."
    return f"{text}, {_than(data, best, worst, 'the worst point')}."


def _than(data: SweepData, best: int, other: int, name: str) -> str:
    """Compare the best point with another one, named by the values in which it differs."""
    ours, theirs = (float(data.column(data.key)[point]) for point in (best, other))
    differs = ", ".join(
        axis.label(int(place))
        for axis, place, held in zip(data.axes, data.places[other], data.places[best], strict=True)
        if place != held
    )
    within = " within the limits" if data.limits and other != data.base else ""
    named = f"{name}{within} ({differs}: {_value(data, other)})"
    if ours == theirs or not theirs:
        return f"{'as' if ours == theirs else 'against'} {named}"
    change = (ours - theirs) / abs(theirs)
    return f"{quantity(abs(change), '%')} {'more' if change > 0 else 'less'} than {named}"


def _best_of_groups(data: SweepData) -> str:
    free = [a for a, axis in enumerate(data.axes) if a not in data.per and len(axis.values) > 1]
    best, kept = _best_values(data, free), telling_axes(data)
    found = [places for places in best.values() if places is not None]
    shared = [k for k in range(len(free)) if len({places[k] for places in found}) == 1]
    listed_each = [k for k in range(len(free)) if k not in shared] or shared
    merged = _merged(data, best, kept)
    parts = []
    for places, one in merged.items():
        whom = _whom(data, [data.per[k] for k in kept], one.groups, whole=len(merged) == 1)
        if places is None:
            parts.append(f"no point for {whom}")
        else:
            what = ", ".join(data.axes[free[k]].named(places[k]) for k in listed_each) or "the one point"
            parts.append(f"{what} for {whom} ({_range(data, one.points)})")
    if len(parts) > _MOST_LISTED:
        parts[_MOST_LISTED:] = [f"{len(parts) - _MOST_LISTED} more in the table"]
    most = "Most" if data.larger_is_better else "Least"
    within = f" within {' and '.join(data.limits)}" if data.limits else ""
    idle = [data.axes[a].short for i, a in enumerate(data.per) if i not in kept]
    tail = f", whatever {' and '.join(idle)}" if idle else ""
    if shared and listed_each != shared:
        tail += f", each with {', '.join(data.axes[free[k]].named(found[0][k]) for k in shared)}"
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
    return f"{most} {in_words(data.key)}{within}: {listed}{tail}."


def _merged(data: SweepData, best: dict[Places, Places | None], kept: list[int]) -> dict[Places | None, _Group]:
    """Put groups with the same best values together, named by the axes that matter."""
    merged: dict[Places | None, _Group] = {}
    for group, point in data.groups:
        one = merged.setdefault(best[group], _Group([], []))
        reduced = tuple(group[k] for k in kept)
        one.groups.extend([reduced] if reduced not in one.groups else [])
        one.points.extend([] if point is None else [point])
    return merged


def _best_values(data: SweepData, free: list[int]) -> dict[Places, Places | None]:
    """Places of each group's best point along the other axes."""
    return {
        group: None if point is None else tuple(int(data.places[point, a]) for a in free)
        for group, point in data.groups
    }


def telling_axes(data: SweepData) -> list[int]:
    """Positions within ``data.per`` of the axes that change which values of the others are best; one at least."""
    best = _best_values(data, [a for a in range(len(data.axes)) if a not in data.per])
    kept = list(range(len(data.per)))
    for i in range(len(data.per)):
        if len(kept) > 1 and _idle(best, [k for k in kept if k != i]):
            kept.remove(i)
    return kept


def _idle(best: dict[Places, Places | None], kept: list[int]) -> bool:
    """Whether the axes that are not kept change no group's best values."""
    seen: dict[Places, Places | None] = {}
    return all(seen.setdefault(tuple(group[k] for k in kept), places) == places for group, places in best.items())


def _whom(data: SweepData, axes: list[int], groups: list[Places], whole: bool) -> str:
    """Name combinations of values: ``top_k = 4 or 6``, ``every top_k`` where they are the whole of several."""
    if whole and len(groups) > 1:
        return "every " + " and ".join(data.axes[a].short for a in axes)
    if len(axes) > 1:
        return _either(
            [
                f"({', '.join(data.axes[a].named(place) for a, place in zip(axes, group, strict=True))})"
                for group in groups
            ]
        )
    axis, places = data.axes[axes[0]], [group[0] for group in groups]
    name, *_ = axis.named(places[0]).partition(" = ")
    values = [axis.named(place).partition(" = ")[2] for place in places]
    if len(places) > 2 and places == list(range(places[0], places[-1] + 1)) and axis.rises:
        return f"{name} = {values[0]} to {values[-1]}"
    return f"{name} = {_either(values)}"


def _either(texts: list[str]) -> str:
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _range(data: SweepData, points: list[int]) -> str:
    values = data.column(data.key)[points]
    low, high = (named_quantity(data.key, float(value)) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def groups_table(data: SweepData) -> DataTable | None:
    """The best point for each combination of the values of some axes, against the worst within the limits there."""
    if not data.groups:
        return None
    free = [a for a in range(len(data.axes)) if a not in data.per and len(data.axes[a].values) > 1]
    keys = list(dict.fromkeys((data.key, "gate_mass_lost", "rank_load_max_over_mean")))
    columns = (
        *(data.axes[a].short for a in data.per),
        *(f"best {data.axes[a].short}" for a in free),
        *map(in_words, keys),
        "worst within the limits" if data.limits else "worst",
        "point",
    )
    cost = np.where(data.within, data.cost, -np.inf)
    members = data.places[:, list(data.per)]
    rows: list[tuple[Cell, ...]] = []
    for group, best in data.groups[:TABLE_ROWS]:
        ours = np.flatnonzero((members == np.array(group)).all(axis=1))
        labels = [data.axes[a].labels[place] for a, place in zip(data.per, group, strict=True)]
        if best is None:
            rows.append((*labels, *[None] * (len(free) + len(keys) + 2)))
            continue
        worst = int(ours[np.argmax(cost[ours])])
        rows.append((
            *labels,
            *(data.axes[a].labels[int(data.places[best, a])] for a in free),
            *(data.cell(key, best, interval=False) for key in keys),
            data.cell(data.key, worst, interval=False),
            str(best),
        ))  # fmt: skip
    left = len(data.groups) - len(rows)
    return DataTable(columns, rows, f"And {left:,} more: see answer.json." if left else "")


def _nearest(data: SweepData) -> str:
    point = data.anchor
    return f"point {point} ({data.label(point)}): {_value(data, point)}; it {broken(data, point)}"


def _against(excess: float, larger_is_better: bool) -> str:
    """Say how the value of most cost compares with that of least."""
    if larger_is_better:
        return f"{quantity(1 - 1 / (1 + excess), '%')} less"
    return f"{1 + excess:.3g} times as much" if excess >= 1 else f"{quantity(excess, '%')} more"


def _price_of_limits(data: SweepData) -> list[str]:
    known = np.isfinite(data.cost)
    if not data.limits:
        return []
    out = int((known & ~data.within).sum())
    limits = " and ".join(data.limits)
    if not out:
        return [f"Every point keeps {limits}."]
    first = min(np.flatnonzero(known), key=lambda point: (data.cost[point], point))
    text = f"{limits} excludes {out:,} of {int(known.sum()):,} points"
    if data.best is None or data.cost[first] >= data.cost[data.best]:
        return [f"{text}, none of them better."]
    return [
        f"{text}; the best of them, point {first} ({data.label(int(first))}), would be {_value(data, int(first))} but "
        f"{broken(data, int(first))}."
    ]


def _value(data: SweepData, point: int) -> str:
    return named_quantity(data.key, data.column(data.key)[point])


def broken(data: SweepData, point: int) -> str:
    """Name the limits that a point does not keep, and its numbers there."""
    limits = [limit for limit, holds in data.limits.items() if not holds[point]]
    return "breaks " + " and ".join(f"{limit} ({_found(data, limit.split()[0], point)})" for limit in limits)


def _found(data: SweepData, key: str, point: int) -> str:
    """A number as one writes it in a limit: a share as a fraction."""
    value = float(data.column(key)[point])
    if not np.isfinite(value):
        return "does not apply"
    return f"{value:.3g}" if is_share(key) else named_quantity(key, value)

"""What the page of a sweep is made from: axes, points and the answer to its objective, as plain values."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.report.data_table import Cell, Quantity
from moesim.report.named_numbers import DRAWN
from moesim.report.quantities import Floats, axis_scale, filled, unit_of
from moesim.results import ENDS, STEP_SUMMARY
from moesim.units import parse_quantity

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Places = tuple[int, ...]
"""Positions along some axes."""

RAN = ("ok", "estimated")
"""Status of points that have numbers: simulated, or estimated without the event engine."""

_PARTS = ("dispatch", "combine", "expert_compute")
SHOWN = (
    "tokens_per_second_per_gpu", "tpot_s", "step_time_s", "memory_free_bytes",
    "layer_time_s", "lower_bound_s", *(f"{part}_time_s" for part in _PARTS), "wait_time_s",
    *(f"{part}_time_max_s" for part in _PARTS), "expert_load_max_over_mean", "rank_load_max_over_mean",
    "gate_mass_lost", "node_copies_per_token", "nvlink_wire_bytes", "nic_wire_bytes",
)  # fmt: skip
"""The numbers shown of a point on its card; the table of points has those of the curves too."""

TRADED = {
    "gate_mass_lost": ("gate mass lost", "what the group limit costs"),
    "rank_load_max_over_mean": ("ranks max/mean", "how uneven the ranks' work is"),
}
"""What the objective is set against: a number's name on its axis, and what there is more of to the right."""

# Last parts of a key that say nothing without the part before them.
_SHORT = {"cluster.topology": "cluster", "model.preset": "model"}
_AXIS_WORDS = {
    "cluster.nic_bandwidth": "NIC bandwidth",
    "routing.top_groups": "groups per token, M",
    "routing.top_k": "experts per token, K",
    "model.n_experts": "experts",
    "parallel.ep": "ranks (EP)",
    "workload.tokens_per_rank": "tokens per rank",
    "alltoall.algorithm": "all-to-all",
}
# Of more keys that move together one is enough to name a value by.
_MOST_KEYS = 3
_VAGUE = {"name", "kind", "step", "algorithm", "preset"}
_LEADING = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def short_key(key: str) -> str:
    """Name a scenario's key by its last part, by the last two where one alone is vague: ``top_k``, ``routing.kind``."""
    if key in _SHORT:
        return _SHORT[key]
    parts = key.split(".")
    return ".".join(parts[-2:] if parts[-1] in _VAGUE else parts[-1:])


@dataclass(frozen=True)
class SweepAxis:
    """One axis of a sweep.

    Attributes:
        keys: the scenario's keys that move along it together, mostly one.
        values: ``values[i][k]`` is the i-th value of key k as one writes it: ``8``, ``400Gb/s``.
    """

    keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        """The keys in full, joined: how an effect names its axis."""
        return " + ".join(self.keys)

    @cached_property
    def told_by(self) -> tuple[int, ...]:
        """Positions of the keys that values are named by: all, or of many the first by which all values differ."""
        every = tuple(range(len(self.keys)))
        return every if len(every) <= _MOST_KEYS else self._distinct[:1] or every

    @cached_property
    def _distinct(self) -> tuple[int, ...]:
        """Keys by each of which all values differ."""
        return tuple(k for k in range(len(self.keys)) if len({value[k] for value in self.values}) == len(self.values))

    @property
    def told_keys(self) -> tuple[str, ...]:
        """The keys that values are named by, in full."""
        return tuple(self.keys[k] for k in self.told_by)

    @property
    def short(self) -> str:
        """The keys in short, of many the telling one."""
        return " + ".join(map(short_key, self.told_keys))

    @property
    def words(self) -> str:
        """The same in words, as charts have it."""
        return " + ".join(_AXIS_WORDS.get(key, short_key(key)) for key in self.told_keys)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every value as one text."""
        return tuple(" / ".join(value[k] for k in self.told_by) for value in self.values)

    def label(self, place: int) -> str:
        """One value with its keys: ``top_k = 8``."""
        return ", ".join(f"{short_key(self.keys[k])} = {self.values[place][k]}" for k in self.told_by)

    def named(self, place: int) -> str:
        """One value by one key, where that distinguishes it from all others: ``recording.name = tiny-v1``."""
        for k in self._distinct:
            return f"{short_key(self.keys[k])} = {self.values[place][k]}"
        return self.label(place)

    @cached_property
    def numbers(self) -> tuple[Floats, str, str] | None:
        """The values on a number line: numbers, their unit, and the key they are of; None where they are words.

        Of keys that move together the first with numbers, all of them different, stands for all.
        """
        for k, key in enumerate(self.keys):
            found = _numbers([value[k] for value in self.values])
            if found is not None and len(set(found[0].tolist())) == len(self.values):
                return found[0], found[1], _AXIS_WORDS.get(key, short_key(key))
        return None

    def cells(self, place: int) -> tuple[Cell, ...]:
        """One value as cells of a table, one per key: a number where all values of the key are."""
        return tuple(
            Quantity(numbers[0][place], numbers[1], text=text) if numbers else text
            for text, numbers in zip(self.values[place], self._si, strict=True)
        )

    @cached_property
    def _si(self) -> list[tuple[Floats, str] | None]:
        return [_si_numbers([value[k] for value in self.values]) for k in range(len(self.keys))]

    @property
    def rises(self) -> bool:
        """Whether the values are numbers in rising order."""
        return self.numbers is not None and bool((np.diff(self.numbers[0]) > 0).all())


def _si_number(text: str) -> tuple[float, str] | None:
    try:
        number = float(text)
    except ValueError:
        return parse_quantity(text)
    return (number, "") if math.isfinite(number) else None


def _si_numbers(texts: Sequence[str]) -> tuple[Floats, str] | None:
    """Read numbers or quantities, with the SI unit that all have; None where one is neither."""
    found = [_si_number(text) for text in texts]
    units = {one and one[1] for one in found}
    numbers = np.array([one[0] for one in found if one])
    return (numbers, unit) if len(units) == 1 and (unit := units.pop()) is not None else None


def _numbers(texts: Sequence[str]) -> tuple[Floats, str] | None:
    """Read numbers, or quantities in the unit of the first: ``400Gb/s, 1.6Tb/s`` are 400 and 1,600 Gb/s."""
    found = _si_numbers(texts)
    leading = _LEADING.match(texts[0])
    if found is None or not found[1] or leading is None or not found[0][0]:
        return None if found is None else (found[0], "")
    factor = float(leading[0]) / found[0][0]
    return np.round(found[0] * factor, 9), texts[0][leading.end() :].strip()


class AxisEffect(NamedTuple):
    """How much one axis matters: values as text, changes as fractions.

    ``at_best`` is the cost of the value ``most`` over that of ``least``, less 1, other axes at the best point;
    ``marginal`` the same for the medians over all points with each value; None where there is nothing to compare.
    """

    axis: str
    best: str
    least: str
    most: str
    at_best: float | None
    marginal: float | None


@dataclass(frozen=True)
class SweepData:
    """A finished sweep and what it answers.

    Attributes:
        title: of the page.
        axes: the axes.
        places: position of each point along each axis, [points, axes].
        columns: one entry per point in each: ``status`` (ok, estimated, failed, impossible), ``error``, ``bottleneck``,
            ``counterfactual`` and the numbers of the summary, SI units, None or NaN where they do not apply.
        objective: as the user wrote it.
        key: the number it is about.
        larger_is_better: whether the best point has the most of it.
        limits: limit as written -> whether each point keeps it.
        best: number of the best point within the limits; None where there is none.
        front: points within the limits that no other beats in the objective and all that it is traded for at once.
        effects: one per axis, the largest first.
        command: says what to type to run a point by itself.
        question: what the sweep is to answer, in words; may be empty.
        base: the point that is the scenario itself; None where no point is.
        per: axes for each combination of whose values there is a best point.
        groups: places along these axes, and the best point there; None where no point keeps the limits.
        bounds: number that a limit is about -> where the limit is, SI units.
        traded: numbers that the objective is set against, as ``TRADED``.
        said: headline and text of the answer where whoever asked knows more than the points say.
        losses_in_balance: loss -> its value where experts and devices are loaded alike; where that is one for all
            points.
    """

    title: str
    axes: tuple[SweepAxis, ...]
    places: Ints
    columns: Mapping[str, Any]
    objective: str
    key: str
    larger_is_better: bool
    limits: Mapping[str, Bools]
    best: int | None
    front: tuple[int, ...]
    effects: tuple[AxisEffect, ...]
    command: Callable[[int], str]
    question: str = ""
    base: int | None = None
    per: Places = ()
    groups: tuple[tuple[Places, int | None], ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)
    losses_in_balance: Mapping[str, float] = field(default_factory=dict)
    traded: Mapping[str, tuple[str, str]] = field(default_factory=lambda: TRADED)
    said: tuple[str, str] | None = None

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Numbers of the summary that the table of points has, the objective first."""
        drawn = (key for one in DRAWN for key in one.numbers)
        of_steps = {key for key in STEP_SUMMARY if not np.isfinite(self.column(key)).any()}
        return tuple(k for k in dict.fromkeys((self.key, *SHOWN, *drawn)) if k in self.columns and k not in of_steps)

    def counted(self) -> str:
        """How many points have each status: ``21 ok, 1 failed, 2 impossible``."""
        counts = Counter(self.status)
        return ", ".join(f"{counts[one]:,} {one}" for one in (*RAN, "failed", "impossible") if counts[one])

    @cached_property
    def starred(self) -> frozenset[int]:
        """The best point, and that of each group where there are groups."""
        return frozenset(point for point in (self.best, *(best for _, best in self.groups)) if point is not None)

    @cached_property
    def status(self) -> tuple[str, ...]:
        """Status of each point."""
        return tuple(str(status) for status in self.columns["status"])

    @cached_property
    def cost(self) -> Floats:
        """What the objective makes small, NaN where a point has no such number."""
        values = self.column(self.key)
        return -values if self.larger_is_better else values

    @cached_property
    def within(self) -> Bools:
        """Points with a number for the objective that keep every limit."""
        kept = np.isfinite(self.cost)
        for holds in self.limits.values():
            kept = kept & holds
        return kept

    @cached_property
    def order(self) -> Ints:
        """Points, best first: within the limits, then outside them, then without a number."""
        known = np.isfinite(self.cost)
        rank = np.where(self.within, 0, np.where(known, 1, 2))
        return np.lexsort((np.arange(len(rank)), np.where(known, self.cost, 0.0), rank))

    @property
    def anchor(self) -> int:
        """The point at which other axes are held: the best one, else the one that comes nearest."""
        return int(self.order[0]) if self.best is None else self.best

    @cached_property
    def _read(self) -> dict[str, Floats]:
        return {}

    def column(self, key: str) -> Floats:
        """Numbers of a summary value for the points that ran, NaN for the others and where it does not apply."""
        if key not in self._read:
            values = filled(self.columns[key]) if key in self.columns else np.full(len(self.places), np.nan)
            self._read[key] = np.where(np.isin(self.status, RAN), values, np.nan)
        return self._read[key]

    def cell(self, key: str, point: int, interval: bool = True) -> Quantity:
        """A number of a point, with its interval where it has one."""
        value, low, high = (float(self.column(name)[point]) for name in (key, *(f"{key}_{end}" for end in ENDS)))
        known = (low, high) if interval and not np.isnan(low) else ()
        return Quantity(value, unit_of(key), *known)

    def scaled(self, key: str) -> tuple[Floats, str]:
        """Numbers of a summary value in the unit that reads well, and that unit."""
        values, unit = self.column(key), unit_of(key)
        if unit == "%":
            return values * 100, "%"
        if not unit:
            return values, ""
        scale, name = axis_scale(values, unit)
        return values / scale, name

    def label(self, point: int) -> str:
        """Values of a point with their keys."""
        return ", ".join(axis.label(int(place)) for axis, place in zip(self.axes, self.places[point], strict=True))

    def line(self, index: int, anchor: int | None = None) -> dict[int, int]:
        """Points along one axis with the others held at a point (``anchor``): place -> point."""
        held = self.places[self.anchor if anchor is None else anchor]
        others = [a for a in range(len(self.axes)) if a != index]
        same = (self.places[:, others] == held[others]).all(axis=1)
        return {int(self.places[point, index]): int(point) for point in np.flatnonzero(same)}

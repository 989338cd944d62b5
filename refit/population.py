"""Constants over clusters: one fit of a library's rows from many machines, and what it leaves to expect on another.

The model (``docs/method.md``). The logarithm of a constant on a cluster is

    mean + step of its GPU family + step of its transport + deviation of the cluster,

and a row's logarithm of time is that of its simulation with those constants, plus noise. Steps and deviations are
normal around 0 (deviations past one spread count linearly, so that the odd cluster does not pull the mean); they have
one spread per kind of constant, shared by all libraries. So a cluster weighs as one
cluster however many rows it has, and a GPU that one cluster had lies between that cluster and the others. The mode is
found by damped Gauss-Newton steps, with residuals past two standard deviations counting linearly; spreads follow from
the deviations found and their own uncertainty (EM).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from moesim.alltoall_library import PROXIES, Transport
from moesim.traffic import (
    UNSEEN,
    CalibrationSet,
    Place,
    Step,
    Uncertain,
    gpu_ports,
    gpu_steps,
    transport_steps,
    value_at,
    with_value,
)
from moesim.validate.published_row import Row, phase_of
from moesim.validate.row_simulation import constants_from, seconds_of, simulated_seconds

Floats = NDArray[np.float64]

SPREADS = {"nvlink": 0.06, "nic": 0.06, "setup": 0.25, "work": 0.35, "fill": 0.30, "apart": 0.15}
"""Where the spreads between clusters begin; what EM makes of them over all libraries stands in the sets."""
ROW_SPREAD = 0.05
# Of a mean around where it starts: rates near their ports' peaks are known better than times.
_FREE = {"nvlink": 0.5, "nic": 0.15, "setup": 1.5, "work": 1.5, "fill": 1.5, "apart": 0.3}
# Rows past this many of one cluster count less, so that the shape of a kernel's curve is not one cluster's alone.
_ROWS = 12
_SOFT = 2.0
_STEP = 0.02
_LONGEST = 0.7
# A spread never falls below what separates two clouds of one kind.
_LEAST_SPREAD = 0.03


@dataclass(frozen=True)
class Constant:
    """A constant to be fitted over clusters.

    Attributes:
        places: that move together.
        kind: of constant.
        answers: what it may differ by: ``gpu``, ``transport``.
        apart: it is what one phase has beyond another constant that both share, and known better.
        proxy, efa: factors to be expected where a thread of the CPU posts and where the card is an EFA, before any such
            cluster is seen: what the other libraries' clusters show.
    """

    places: tuple[Place, ...]
    kind: str
    answers: tuple[str, ...] = ()
    proxy: float = 1.0
    efa: float = 1.0
    apart: bool = False

    @property
    def spread(self) -> str:
        """Which of the spreads it has."""
        return "apart" if self.apart else self.kind

    def expected(self, transport: str) -> float:
        """Factor over a transport that no cluster of the library had."""
        return (self.proxy if transport in PROXIES else 1.0) * (self.efa if transport.startswith("efa") else 1.0)


@dataclass(frozen=True)
class Column:
    """One unknown: what it is a step of (``mean``, ``gpu``, ``transport`` or ``cluster``), which, of which constant."""

    axis: str
    level: str
    constant: int


@dataclass
class Population:
    """Rows of one library from many clusters, and the constants that are to be fitted to them.

    Attributes:
        start: terms to begin with; what is not fitted stays.
        constants: to be fitted.
        rows: with ``cluster``, ``transport`` and the port speeds of each.
        spreads: between clusters, by kind.
    """

    start: CalibrationSet
    constants: Sequence[Constant]
    rows: Sequence[Row]
    spreads: Mapping[str, float] = field(default_factory=lambda: dict(SPREADS))

    @cached_property
    def columns(self) -> list[Column]:
        """The unknowns."""
        found: dict[Column, None] = {}
        for row in self.rows:
            for index in range(len(self.constants)):
                found.update(dict.fromkeys(self._columns_of(row, index)))
        return sorted(found, key=lambda one: (one.constant, one.axis, one.level))

    @cached_property
    def design(self) -> NDArray[np.bool_]:
        """Which unknowns add up to a constant's logarithm on a row, [rows, constants, unknowns]."""
        at = {column: index for index, column in enumerate(self.columns)}
        made = np.zeros((len(self.rows), len(self.constants), len(at)), np.bool_)
        for number, row in enumerate(self.rows):
            for index in range(len(self.constants)):
                made[number, index, [at[column] for column in self._columns_of(row, index)]] = True
        return made

    @cached_property
    def measured(self) -> Floats:
        """Logarithm of each row's time, [rows]."""
        return np.log([seconds_of(row) for row in self.rows])

    def deviations(self) -> Floats:
        """Standard deviation that each unknown has before any row is seen, [unknowns]."""
        kinds = [self.constants[one.constant].spread for one in self.columns]
        of_axis = {"mean": _FREE, "cluster": self.spreads}
        return np.array(
            [
                of_axis[one.axis][kind] if one.axis in of_axis else UNSEEN[one.axis]
                for one, kind in zip(self.columns, kinds, strict=True)
            ]
        )

    def means(self) -> Floats:
        """Where each unknown is expected before any row is seen, [unknowns]: proxies post later than GPUs."""
        return np.array([_mean(one, self.constants[one.constant]) for one in self.columns])

    def set_of(self, row: Row, moves: Floats) -> CalibrationSet:
        """The set of a row's machine: its ports, and every constant moved by exp(``moves``), [constants]."""
        nvlink, _, sms = gpu_ports(row.gpu)
        made = replace(self.start.with_ports(nvlink, row.nic_peak or self.start.nic_peak), gpu=row.gpu, sms=sms)
        for one, move in zip(self.constants, moves, strict=True):
            for place in one.places:
                made = with_value(made, place, value_at(made, place) * float(np.exp(move)))
        return made

    def log_time(self, row: Row, moves: Floats) -> float:
        """Logarithm of the simulated time of a row."""
        return float(np.log(simulated_seconds(row, constants_from(self.set_of(row, moves), row))))

    def log_times(self, x: Floats, which: Sequence[int]) -> Floats:
        """The same of rows by number, with the unknowns ``x``."""
        return np.array([self.log_time(self.rows[index], self.design[index] @ x) for index in which])

    def slopes(self, x: Floats, which: Sequence[int]) -> Floats:
        """Derivatives of ``log_times`` by each constant's logarithm, [rows, constants]."""
        made = np.zeros((len(which), len(self.constants)))
        for at, index in enumerate(which):
            row, moves = self.rows[index], self.design[index] @ x
            made[at] = self.row_slopes(row, moves)
        return made

    def row_slopes(self, row: Row, moves: Floats) -> Floats:
        """Derivatives of one row, by differences; 0 for what its phase does not use."""
        made, here = np.zeros(len(self.constants)), self.log_time(row, moves)
        for index, one in enumerate(self.constants):
            if any(_used(self.start, place, row) for place in one.places):
                # A rate may stand at its port's peak: it shows where it falls.
                step = -_STEP if "rate" in one.places[0][-1] else _STEP
                there = moves.copy()
                there[index] += step
                made[index] = (self.log_time(row, there) - here) / step
        return made

    def _columns_of(self, row: Row, index: int) -> Iterator[Column]:
        yield Column("mean", "", index)
        yield Column("cluster", row.cluster, index)
        answers = self.constants[index].answers
        for gpu in gpu_steps(row.gpu):
            if "gpu" in answers and gpu not in gpu_steps(self.start.gpu):
                yield Column("gpu", gpu, index)
        for transport in transport_steps(row.gpu, row.transport):
            if "transport" in answers and row.nodes > 1 and transport != self.start.transport:
                yield Column("transport", transport, index)


@dataclass(frozen=True)
class Solution:
    """A fit: the unknowns, their covariance, the slopes of its rows, and which rows it saw."""

    x: Floats
    covariance: Floats
    slopes: Floats
    which: tuple[int, ...]


def solve(
    population: Population,
    which: Sequence[int] | None = None,
    begin: Solution | None = None,
    most_rounds: int = 20,
) -> Solution:
    """Find the mode of the unknowns.

    Args:
        population: rows and constants.
        which: rows by number; all if None.
        begin: another solution to begin with; its slopes serve the first two rounds.
        most_rounds: Gauss-Newton steps at most.
    """
    which = list(range(len(population.rows))) if which is None else list(which)
    deviations, design = population.deviations(), population.design[which].astype(np.float64)
    measured, weight = population.measured[which], _weights(population, which)
    means = population.means()
    x = means.copy() if begin is None else begin.x.copy()
    slopes, stale = np.zeros((len(which), len(population.constants))), True
    if begin is not None:
        row_of = {index: at for at, index in enumerate(begin.which)}
        slopes, stale = begin.slopes[[row_of[index] for index in which]], False
    off = population.log_times(x, which) - measured
    cost, damping = _cost(population, off * weight, (x - means) / deviations), 1e-3
    normal = np.diag(deviations**-2)
    for number in range(most_rounds):
        if stale or number > 1:
            slopes, stale = population.slopes(x, which), False
        by_unknown = np.einsum("ik,ikc->ic", slopes, design)
        soft = weight / np.sqrt(np.sqrt(1 + (off * weight / _SOFT) ** 2))
        held = _held(population, (x - means) / deviations) / deviations**2
        normal = (by_unknown * soft[:, None]).T @ (by_unknown * soft[:, None]) + np.diag(held)
        gradient = (by_unknown * soft[:, None]).T @ (soft * off) + (x - means) * held
        for _ in range(6):
            step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
            step *= min(1.0, _LONGEST / float(np.abs(step).max()))
            there = population.log_times(x + step, which) - measured
            new = _cost(population, there * weight, (x + step - means) / deviations)
            if new < cost:
                break
            damping = max(8 * damping, 1e-3)
        else:
            break
        gained, x, off, cost, damping = cost - new, x + step, there, new, damping / 5
        if gained < 1e-3 * max(1.0, cost):
            break
    return Solution(x, np.asarray(np.linalg.inv(normal), np.float64), slopes, tuple(which))


def new_spreads(populations: Sequence[tuple[Population, Solution]], before: Mapping[str, float]) -> dict[str, float]:
    """One step of EM: the spread of each kind from the deviations of all clusters and what is known of each."""
    square, known = dict.fromkeys(before, 0.0), dict.fromkeys(before, 0.0)
    for population, solution in populations:
        variance = np.diag(solution.covariance)
        for index, column in enumerate(population.columns):
            if column.axis == "cluster":
                kind = population.constants[column.constant].spread
                share = 1 - float(variance[index]) / before[kind] ** 2
                moved = float(solution.x[index]) / before[kind]
                square[kind] += moved**2 / np.sqrt(1 + moved**2) * before[kind] ** 2 + float(variance[index])
                square[kind] -= before[kind] ** 2
                known[kind] += share
    return {
        kind: float(np.sqrt(max(spread**2 + square[kind] / max(known[kind], 1.0), _LEAST_SPREAD**2)))
        for kind, spread in before.items()
    }


def expected(population: Population, solution: Solution, row: Row) -> tuple[float, float]:
    """Logarithm of a row's time on a cluster of which nothing is known, and its standard deviation.

    Args:
        population: that the solution is of; the row need not be among its rows.
        solution: its cluster must be unseen there, or its deviation counts.
        row: to be expected.
    """
    at = {column: index for index, column in enumerate(population.columns)}
    design = np.zeros((len(population.constants), len(population.columns)))
    alone, unseen = np.zeros(len(population.constants)), np.zeros(len(population.constants))
    for index, one in enumerate(population.constants):
        alone[index] = population.spreads[one.spread] ** 2
        for column in population._columns_of(row, index):
            if column in at and column.axis != "cluster":
                design[index, at[column]] = 1.0
            elif column.axis in UNSEEN:
                alone[index] += UNSEEN[column.axis] ** 2
                unseen[index] += _mean(column, one)
    moves = design @ solution.x + unseen
    slopes = population.row_slopes(row, moves)
    by_unknown = slopes @ design
    variance = by_unknown @ solution.covariance @ by_unknown + (slopes**2) @ alone + ROW_SPREAD**2
    return population.log_time(row, moves), float(np.sqrt(variance))


def as_set(population: Population, solution: Solution, name: str, source: str, widen: float) -> CalibrationSet:
    """The solution as a set: the reference cell's terms, steps to the others, spreads on an unseen cluster."""
    at = {column: index for index, column in enumerate(population.columns)}
    made = population.start
    uncertain = []
    for index, one in enumerate(population.constants):
        mean = at[Column("mean", "", index)]
        spread = population.spreads[one.spread]
        for place in one.places:
            made = with_value(made, place, value_at(made, place) * float(np.exp(solution.x[mean])))
        steps: dict[str, dict[str, Step]] = {"gpu": {}, "transport": {}}
        for column, number in at.items():
            if column.constant == index and column.axis in steps:
                # A step after another's is as sure as all that it stands on.
                of = [mean, number, *(at[one] for one in _before(population, column) if one in at)]
                pair = solution.covariance[np.ix_(of, of)]
                seen, step = len(_clusters(population, column)), float(solution.x[number])
                # A surprise that one cluster alone shows may be that cluster's.
                alone = UNSEEN[column.axis] if seen == 1 and abs(step - _mean(column, one)) > UNSEEN[column.axis] else 0
                deviation = float(np.sqrt(spread**2 + pair.sum() + alone**2))
                steps[column.axis][column.level] = Step(math.exp(step), deviation, seen)
        deviation = float(np.sqrt(spread**2 + solution.covariance[mean, mean]))
        if "transport" in one.answers:
            for transport in set(get_args(Transport)) - {population.start.transport, *steps["transport"]}:
                steps["transport"][transport] = Step(
                    one.expected(transport), math.hypot(deviation, UNSEEN["transport"]), 0
                )
        steps["transport"] = dict(sorted(steps["transport"].items()))
        uncertain.append(Uncertain(one.places, one.kind, deviation, steps["gpu"], steps["transport"], one.answers))
    return replace(
        made,
        name=name,
        source=source,
        library=made.library.partition(" (")[0],
        rows=(),
        error={},
        held_out={},
        notes=(),
        clusters=dict(sorted(Counter(row.cluster for row in population.rows).items())),
        uncertain=tuple(uncertain),
        row_spread=ROW_SPREAD,
        widen=widen,
    )


def _before(population: Population, column: Column) -> list[Column]:
    """The steps that a GPU's takes before its own."""
    if column.axis != "gpu":
        return []
    known = gpu_steps(population.start.gpu)
    return [Column("gpu", gpu, column.constant) for gpu in gpu_steps(column.level)[:-1] if gpu not in known]


def _mean(column: Column, constant: Constant) -> float:
    """Where a step is expected before any cluster with it is seen."""
    return math.log(constant.expected(column.level)) if column.axis == "transport" else 0.0


def _clusters(population: Population, column: Column) -> set[str]:
    """Clusters that a step was found on."""
    index = population.columns.index(column)
    seen = population.design[:, column.constant, index]
    return {row.cluster for row, here in zip(population.rows, seen, strict=True) if here}


def _weights(population: Population, which: Sequence[int]) -> Floats:
    number = Counter(population.rows[index].cluster for index in which)
    share = [min(1.0, np.sqrt(_ROWS / number[population.rows[index].cluster])) for index in which]
    return np.array(share) / ROW_SPREAD


def _held(population: Population, moved: Floats) -> Floats:
    """How strongly each unknown is held: an odd cluster less, so that it does not pull the mean of the others."""
    odd = np.array([column.axis == "cluster" for column in population.columns])
    return np.where(odd, 1 / np.sqrt(1 + moved**2), 1.0)


def _cost(population: Population, off: Floats, moved: Floats) -> float:
    odd = np.array([column.axis == "cluster" for column in population.columns])
    prior = np.where(odd, np.sqrt(1 + moved**2) - 1, 0.5 * moved**2).sum()
    return float(_SOFT**2 * (np.sqrt(1 + (off / _SOFT) ** 2) - 1).sum() + prior)


def _used(constants: CalibrationSet, place: Place, row: Row) -> bool:
    """Whether a row's phase runs with the constant at a place."""
    across = bool(constants.across) and row.nodes > 1
    return place[0] == "across" and place[1] == phase_of(row) if across else place[0] == phase_of(row)

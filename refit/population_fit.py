"""The sets over clusters, fitted: all algorithms with shared spreads, and each cluster predicted from the others."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, fields, replace

import numpy as np

from moesim.traffic import CalibrationSet, way_between
from moesim.validate.cluster_check import EIGHTY
from moesim.validate.clusters_left_out import LeftOut
from moesim.validate.error_spread import Spread
from moesim.validate.listed_clusters import listed_rows
from moesim.validate.published_row import Row
from refit.population import SPREADS, Population, Solution, as_set, expected, new_spreads, solve
from refit.population_plan import PLANS, clusters_of, rows_over_clusters

_ROUNDS = 3
_LEFT_OUT_ROUNDS = 5


def populations(
    rows: Iterable[Row], say: Callable[[str], None] = lambda text: None
) -> dict[str, tuple[Population, Solution]]:
    """Fit every plan, all with the same spreads between clusters.

    Args:
        rows: published rows that are not suspect, and the healthy rows of clusters.
        say: told what is being done.

    Returns:
        By algorithm.
    """
    rows = list(rows)
    spreads = dict(SPREADS)
    found: dict[str, tuple[Population, Solution]] = {}
    for number in range(_ROUNDS):
        for algorithm, plan in PLANS.items():
            say(f"{algorithm}, round {number + 1} of {_ROUNDS}")
            mine = rows_over_clusters(rows, plan)
            population = Population(plan.begin(algorithm), plan.constants, mine, spreads)
            found[algorithm] = population, solve(population, begin=found[algorithm][1] if number else None)
        if number + 1 < _ROUNDS:
            spreads = new_spreads(list(found.values()), spreads)
    return found


def fit_over_clusters(
    rows: Iterable[Row], say: Callable[[str], None] = lambda text: None
) -> tuple[list[CalibrationSet], list[LeftOut]]:
    """Fit every plan, and predict each cluster from the others.

    Args:
        rows: as ``populations`` takes them; say: told what is being done.

    Returns:
        A set per algorithm, and the rows left out. Intervals are widened by one factor for all algorithms, so that they
        cover four rows in five of clusters left out.
    """
    found = populations(rows, say)
    predicted = []
    for algorithm, (population, solution) in found.items():
        for cluster in clusters_of(population.rows):
            say(f"{algorithm} without {cluster}")
            predicted += _without(algorithm, population, solution, cluster)
    widen = _widening(predicted)
    left_out = [_left_out(*one, widen) for one in predicted]
    sets = []
    for algorithm, (population, solution) in found.items():
        source = f"{len(clusters_of(population.rows))} published clusters"
        made = as_set(population, solution, f"{algorithm}-over-clusters", source, widen)
        off = Spread.of_errors([one.error for one in left_out if one.algorithm == algorithm])
        sets.append(replace(made, held_out={"rows": off.rows} | off.figures()))
    return sets, left_out


_Predicted = tuple[str, Row, float, float, float]


def _without(algorithm: str, population: Population, solution: Solution, cluster: str) -> list[_Predicted]:
    """Rows of a cluster with their measured and expected logarithms of time and its deviation."""
    others = [index for index, row in enumerate(population.rows) if row.cluster != cluster]
    if not others:
        return []
    elsewhere = solve(population, others, begin=solution, most_rounds=_LEFT_OUT_ROUNDS)
    return [
        (algorithm, row, float(population.measured[index]), *expected(population, elsewhere, row))
        for index, row in enumerate(population.rows)
        if row.cluster == cluster
    ]


def _widening(predicted: Sequence[_Predicted]) -> float:
    """What the deviations are multiplied by to cover 80 % of the rows, each cluster counting once."""
    ratio = np.array([abs(mean - measured) / deviation / EIGHTY for _, _, measured, mean, deviation in predicted])
    clusters = [(algorithm, row.cluster) for algorithm, row, *_ in predicted]
    share = np.array([1 / clusters.count(one) for one in clusters])
    order = np.argsort(ratio)
    covered = np.cumsum(share[order]) / share.sum()
    return float(ratio[order][np.searchsorted(covered, 0.8)])


def _left_out(algorithm: str, row: Row, measured: float, mean: float, deviation: float, widen: float) -> LeftOut:
    band = EIGHTY * widen * deviation
    return LeftOut(
        algorithm, row.cluster, row.key, row.gpu, way_between(row.gpu, row.transport, row.nodes), row.nodes,
        *(math.exp(value) for value in (measured, mean, mean - band, mean + band)),
    )  # fmt: skip


def cluster_rows() -> list[Row]:
    """The healthy rows of the clusters' own list, which ships."""
    return [row for row in listed_rows() if not row.flagged]


def spell_left_out(rows: Iterable[LeftOut]) -> str:
    """The rows as CSV, six significant digits."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n")
    write.writerow(field.name for field in fields(LeftOut))
    for one in rows:
        write.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in astuple(one)])
    return text.getvalue()

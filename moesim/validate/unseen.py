"""One source predicted with the constants of another that ran the same library on the same GPU.

This is the error to expect on a cluster that nobody has calibrated: clusters differ, and a fit cannot know yours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moesim.traffic.calibration import find_set
from moesim.validate.benches import bench_of
from moesim.validate.rows import Row
from moesim.validate.simulate import constants_from, simulate_row

# Table -> the other source's set.
_PAIRS = {
    "deepep-ll-h100-cx7": "deepep-low-latency-h100",
    "aic-ll": "deepep-low-latency-h100-cx7",
    "nvl72-one-sided-dispatch": "nvl-one-sided-gb200-aic",
    "nvl72-one-sided-combine": "nvl-one-sided-gb200-aic",
    "aic-one-sided-dispatch": "nvl-one-sided-gb200",
    "aic-one-sided-combine": "nvl-one-sided-gb200",
}


@dataclass(frozen=True)
class Unseen:
    """A table, the set of the other source, and the relative error of each row."""

    table: str
    calibration: str
    errors: tuple[float, ...]


def unseen(rows: Sequence[Row]) -> list[Unseen]:
    """Predict every table that has a second source with that one's constants."""
    found = []
    for table, name in _PAIRS.items():
        here = [row for row in rows if row.table == table]
        if not here:
            continue
        other = find_set(bench_of(here[0]).algorithm, here[0].gpu, name)
        errors = tuple(simulate_row(row, constants_from(other, row)) / row.published - 1 for row in here)
        found.append(Unseen(table, name, errors))
    return found

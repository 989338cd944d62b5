"""Each cluster predicted by all others: what to expect on one that nobody measured, as it ships."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from moesim.traffic import gpu_steps
from moesim.validate.error_spread import Spread
from moesim.validate.shipped_files import shipped_lines

_DATA = Path(__file__).resolve().parent.parent / "data" / "validate"
CLUSTERS, LEFT_OUT = _DATA / "clusters.csv", _DATA / "left_out.csv"
_WITHOUT_PROXY = ("nvlink", "ibgda", "ibrc", "racks")


@dataclass(frozen=True)
class LeftOut:
    """A row predicted by all clusters but its own: seconds, and the bounds of the 80 % interval."""

    algorithm: str
    cluster: str
    row: str
    gpu: str
    transport: str
    nodes: int
    measured_s: float
    simulated_s: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        """Relative error of the simulated time."""
        return self.simulated_s / self.measured_s - 1

    @property
    def covered(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.low_s <= self.measured_s <= self.high_s


@dataclass(frozen=True)
class Expectation:
    """Rows of one kind: their number and clusters, median and ninth decile of the error, its sign, rows covered."""

    what: str
    rows: int
    clusters: int
    median: float
    p90: float
    signed: float
    covered: float


def read_left_out() -> list[LeftOut]:
    """Read the rows that ship."""
    return TypeAdapter(list[LeftOut]).validate_python(shipped_lines(LEFT_OUT.name))


def expectations(rows: Sequence[LeftOut]) -> list[Expectation]:
    """What to expect, over all clusters first, then by library and transport.

    Rows of one source alone, in the hundreds, are left out: they would speak for themselves only.
    """
    listed = {line["id"] for line in shipped_lines(CLUSTERS.name)}
    rows = [row for row in rows if row.row in listed]
    kinds: list[tuple[str, Callable[[LeftOut], bool]]] = [
        ("all", lambda row: True),
        ("NVLink or ConnectX", lambda row: row.transport in _WITHOUT_PROXY),
        (
            "DeepEP on Hopper over NVLink or ConnectX",
            lambda row: (
                row.algorithm.startswith("deepep")
                and row.transport in _WITHOUT_PROXY
                and gpu_steps(row.gpu)[-1] in ("h100", "h800", "h20")
            ),
        ),
    ]
    cells = dict.fromkeys((row.algorithm, row.transport) for row in rows)
    for algorithm, transport in sorted(cells):
        kinds.append((f"{algorithm}, {transport}", _in_cell(algorithm, transport)))
    return [_expectation(what, chosen) for what, choose in kinds if (chosen := list(filter(choose, rows)))]


def _in_cell(algorithm: str, transport: str) -> Callable[[LeftOut], bool]:
    return lambda row: (row.algorithm, row.transport) == (algorithm, transport)


def _expectation(what: str, rows: Sequence[LeftOut]) -> Expectation:
    errors = [row.error for row in rows]
    off, clusters = Spread.of_errors(errors), len({row.cluster for row in rows})
    covered = float(np.mean([row.covered for row in rows]))
    return Expectation(what, off.rows, clusters, off.median, off.p90, float(np.median(errors)), covered)

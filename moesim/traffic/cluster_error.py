"""How far off a set over clusters is on a cluster that it did not see: of its library over one transport."""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_DATA = Path(__file__).resolve().parent.parent / "data" / "validate"


@dataclass(frozen=True)
class LeftOutError:
    """Absolute relative errors of times, each cluster predicted by all others: median and ninth decile."""

    rows: int
    clusters: int
    median: float
    p90: float


@functools.cache
def error_left_out(algorithm: str, transport: str) -> LeftOutError | None:
    """Return the errors of an algorithm over a transport (``nvlink`` on one node); None where no cluster shows them.

    Rows of ``clusters.csv`` count, as in ``moesim validate``: those of one source in the hundreds speak for themselves.
    """
    with (_DATA / "clusters.csv").open(encoding="utf-8", newline="") as file:
        listed = {line["id"] for line in csv.DictReader(file)}
    with (_DATA / "left_out.csv").open(encoding="utf-8", newline="") as file:
        lines = [
            line
            for line in csv.DictReader(file)
            if (line["algorithm"], line["transport"]) == (algorithm, transport) and line["row"] in listed
        ]
    if not lines:
        return None
    off = [abs(float(line["simulated_s"]) / float(line["measured_s"]) - 1) for line in lines]
    clusters = len({line["cluster"] for line in lines})
    return LeftOutError(len(lines), clusters, float(np.median(off)), float(np.quantile(off, 0.9)))

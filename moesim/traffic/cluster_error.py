"""How far off a set over clusters is on a cluster that it did not see: of its library over one transport."""

import csv
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_DATA = Path(__file__).resolve().parent.parent / "data" / "validate"


@functools.cache
def error_left_out(algorithm: str, transport: str) -> Mapping[str, float]:
    """Return ``rows``, their ``clusters``, ``median`` and ``p90`` of the error, each cluster predicted by all others.

    Rows of ``clusters.csv`` count, as in ``moesim validate``: those of one source in the hundreds speak for themselves.

    Args:
        algorithm: of a set over clusters.
        transport: ``nvlink`` on one node. Empty where no cluster shows it.
    """
    with (_DATA / "clusters.csv").open(encoding="utf-8", newline="") as file:
        listed = {line["id"] for line in csv.DictReader(file)}
    with (_DATA / "left_out.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["row"] in listed]
    lines = [line for line in lines if (line["algorithm"], line["transport"]) == (algorithm, transport)]
    if not lines:
        return {}
    off = [abs(float(line["simulated_s"]) / float(line["measured_s"]) - 1) for line in lines]
    clusters = len({line["cluster"] for line in lines})
    return {"rows": len(off), "clusters": clusters, "median": np.median(off), "p90": np.quantile(off, 0.9)}

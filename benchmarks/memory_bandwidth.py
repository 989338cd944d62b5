"""Bytes per second of plain array passes, the floor under every count: ``python -m benchmarks.memory_bandwidth``."""

from __future__ import annotations

import time

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from benchmarks.machine import Row, machine, write

MIB = 512


@njit(parallel=True, fastmath=True)
def read_sum(values: NDArray[np.float64]) -> float:
    """Sum an array on all cores."""
    total = 0.0
    for i in prange(len(values)):
        total += values[i]
    return total


def main() -> None:
    values = np.ones(MIB * 2**20 // 8)
    target = np.empty_like(values)
    links = np.random.default_rng(0).integers(0, 4096, len(values) // 8).astype(np.int32)
    level = np.ones(4096)
    read_sum(values)
    cases = {
        "read, all cores": (values.nbytes, lambda: read_sum(values)),
        "read, numpy sum": (values.nbytes, values.sum),
        "copy, numpy": (2 * values.nbytes, lambda: np.copyto(target, values)),
        "gather of 4,096 levels, numpy": (12 * len(links), lambda: level[links]),
    }
    rows = []
    for name, (moved, run) in cases.items():
        taken = []
        for _ in range(7):
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
        rows.append(Row(f"{name}, bytes", moved, float(np.median(taken))))
    write("memory_bandwidth", rows, machine())


if __name__ == "__main__":
    main()

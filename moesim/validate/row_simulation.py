"""A published row, simulated end to end: copies -> flows -> ranks on the clock -> the quantity as it was published."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.errors import InputError
from moesim.timeline import run_phase
from moesim.traffic import Calibration, CalibrationSet, PhaseFlows, find_set, phase_flows
from moesim.validate.benches import Bench, bench_of
from moesim.validate.clusters import OnRanks, cluster
from moesim.validate.published_row import EVENTS, NVL, RDMA, TIME, Row, phase_of

# Rows of one setting differ in their constants' SMs at most: the same flows are asked for again and again by a fit.
_bench = functools.lru_cache(maxsize=4096)(bench_of)


def constants_of(row: Row) -> Calibration:
    """Return the shipped constants of a row's source."""
    return constants_from(find_set(_bench(row).algorithm, _gpu(row), _bench(row).calibration), row)


def constants_from(found: CalibrationSet, row: Row) -> Calibration:
    """Return the constants of a set for a row: its phase's, and its number of SMs where the benchmark chose that."""
    bench, phase = _bench(row), phase_of(row)
    scale = bench.bytes_per_copy / bench.counted_bytes if found.rates_count == "payload" else 1.0

    if bench.uses_sms and (row.sms or 0) > found.sms:
        raise InputError(f"{row.key}: {row.sms} SMs of {found.sms}", row.source, "leave the row out")

    def made(terms: dict[str, Any], across: Calibration | None) -> Calibration:
        rates = {name: terms[name] * scale for name in ("nvlink_rate", "nic_rate")}
        sms = {"sms": row.sms} if bench.uses_sms and row.sms is not None else {}
        return Calibration(
            algorithm=found.algorithm,
            gpu=_gpu(row),
            phase=phase,
            name=found.name,
            source=found.source,
            nvlink_peak=found.nvlink_peak,
            nic_peak=found.nic_peak,
            total_sms=found.sms,
            across=across,
            **(terms | rates | sms),
        )

    return made(found.phases[phase], made(found.across[phase], None) if found.across else None)


def simulate_row(row: Row, constants: Calibration | None = None, on: OnRanks | None = None) -> float:
    """Simulate a published row.

    Args:
        row: a transfer.
        constants: instead of the shipped ones of its source.
        on: a cluster by its first ranks, instead of a rail-optimised one with the constants' ports.

    Returns:
        The simulated value of the row's quantity.
    """
    bench = _bench(row)
    seconds = simulated_seconds(row, constants or constants_of(row), on)
    if row.quantity == TIME:
        return seconds * 1e6
    return _counted(row, bench) / seconds / 1e9


@functools.lru_cache(maxsize=4096)
def simulated_seconds(row: Row, constants: Calibration, on: OnRanks | None = None) -> float:
    """Mean over the ranks of the time that the benchmark takes."""
    if row.op == "prepare":
        return sum(constants.exchange(row.nodes, row.ranks, row.tokens).values())
    bench = _bench(row)
    fabric = on(row.ranks) if on else _fabric(row, bench, constants)
    seconds = float(run_phase(fabric, flows_of(row, bench, constants, fabric)).kernel_s.mean())
    return seconds + constants.spanning(row.nodes).notify_s(row.nodes) * (row.measure == EVENTS)


def seconds_of(row: Row) -> float:
    """The measured time; a logical bandwidth is the bytes that it counts over one."""
    return row.published * 1e-6 if row.quantity == TIME else _counted(row, _bench(row)) / row.published / 1e9


def _counted(row: Row, bench: Bench) -> float:
    """Bytes of a rank that a logical bandwidth counts: copies per node or per rank, own ones included."""
    copies = {RDMA: bench.copies.node_copies, NVL: bench.copies.rank_copies}[row.quantity]
    return float(copies.sum() / row.ranks * bench.counted_bytes)


def flows_of(row: Row, bench: Bench, constants: Calibration, fabric: Fabric | None = None) -> PhaseFlows:
    """Build the flows of a row's phase; the layout is known (a cached handle), as in the kernels' own timings."""
    tokens: NDArray[np.int64] = np.full(row.ranks, row.tokens, np.int64)
    return phase_flows(
        fabric or _fabric(row, bench, constants),
        bench.copies,
        constants,
        phase_of(row),
        bench.bytes_per_copy,
        cached_handle=True,
        tokens=tokens,
        n_experts=row.experts,
    )


def _fabric(row: Row, bench: Bench, constants: Calibration) -> Fabric:
    return cluster(_gpu(row), row.ranks, row.per_node, constants.nvlink_peak, constants.nic_peak)


def _gpu(row: Row) -> str:
    """The published GPU; DeepEP V2's README names architectures only."""
    return {"sm90": "h100", "sm100": "b200"}.get(row.gpu, row.gpu)

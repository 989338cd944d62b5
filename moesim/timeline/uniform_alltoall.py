"""An all-to-all of equal messages over sizes, as nccl-tests prints it, from the engine that runs scenarios."""

from dataclasses import dataclass

import numpy as np
import simpy

from moesim.alltoall_library import algorithm_named
from moesim.cluster import Fabric
from moesim.network import FlowNetwork, NetworkClock
from moesim.stages import PHASES
from moesim.timeline.interchangeable_ranks import ranks_are_alike, solve_alike
from moesim.timeline.phase import PhaseRun, PhaseTrace, network_capacity
from moesim.traffic import Calibration, Copies, Exchange, PhaseFlows, calibration, phase_flows


@dataclass(frozen=True)
class AllToAllRow:
    """One message size of the table.

    ``size`` is what every rank sends, its own part included, in bytes; ``busbw`` is ``algbw (R - 1) / R``; ``nic`` and
    ``nvlink`` are bytes on the busiest port over the time (None where the class carries nothing).
    """

    size: int
    time_s: float
    algbw: float
    busbw: float
    nic: float | None
    nvlink: float | None


def alltoall_table(fabric: Fabric, algorithm: str, sizes: list[int]) -> list[AllToAllRow]:
    """Simulate a uniform all-to-all of each size, all ranks starting together.

    Where ranks are interchangeable (equal ports, no spine crossed), equal flows are one class, exactly; see
    ``moesim.timeline.interchangeable_ranks``. Elsewhere every pair of ranks is a flow.

    Args:
        fabric: the cluster.
        algorithm: ``nccl-direct``, ``nccl-pxn`` or ``deepep-low-latency``; a hierarchical one has no plain all-to-all.
        sizes: bytes per rank; each of the R messages of a rank is ``size // R``.
    """
    constants = calibration(algorithm, fabric.gpu)
    ranks = fabric.n_ranks
    alike = algorithm_named(algorithm).flows == "pairs" and ranks_are_alike(fabric)
    rows = []
    for size in sizes:
        each = np.broadcast_to(np.int64(size // ranks), (ranks, ranks))
        copies = Copies(each, each, np.broadcast_to(np.int64(0), (ranks, fabric.n_nodes)))
        if alike:
            seconds, nic, nvlink = _of_alike_ranks(fabric, copies, constants)
        else:
            flows = phase_flows(fabric, copies, constants, PHASES[0], 1)
            seconds = float(run_phase(fabric, flows).leave_s.max())
            wire = flows.link_wire_bytes(fabric.n_links)
            nic, nvlink = (float(wire[fabric.is_class(name)].max(initial=0.0)) for name in ("nic", "nvlink"))
        sent = size // ranks * ranks
        rows.append(
            AllToAllRow(
                size=sent,
                time_s=seconds,
                algbw=sent / seconds,
                busbw=sent / seconds * (ranks - 1) / ranks,
                nic=nic / seconds if nic else None,
                nvlink=nvlink / seconds if nvlink else None,
            )
        )
    return rows


def _of_alike_ranks(fabric: Fabric, copies: Copies, constants: Calibration) -> tuple[float, float, float]:
    """Seconds, bytes of a NIC and bytes of an NVLink port."""
    spanning = constants.spanning(fabric.n_nodes)
    exchange = Exchange(fabric, copies, spanning, PHASES[0], 1, True, 0, None, 0)
    run = solve_alike(exchange, copies.selections, np.zeros(fabric.n_ranks, np.int64))
    return float(run.leave_s.max()), float(run.port_bytes[2:].max()), float(run.port_bytes[:2].max())


def run_phase(fabric: Fabric, flows: PhaseFlows) -> PhaseTrace:
    """Run one phase by itself: every rank enters at time 0."""
    env = simpy.Environment()
    network = FlowNetwork(network_capacity(fabric), log_bottlenecks=True)
    phase = PhaseRun(NetworkClock(env, network), flows, np.arange(fabric.n_ranks, dtype=np.int32) + fabric.n_links)
    for rank in range(fabric.n_ranks):
        env.process(phase.enter(rank))
    env.run()
    return phase.trace()

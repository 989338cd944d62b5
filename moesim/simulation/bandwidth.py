"""An all-to-all of equal messages over sizes, as nccl-tests prints it, from the engine that runs scenarios."""

from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.network import FlowNetwork, NetworkClock
from moesim.simulation.parts import PHASES
from moesim.timeline.phase import PhaseRun, PhaseTrace
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.calibration import calibration
from moesim.traffic.copies import Copies
from moesim.traffic.flows import PhaseFlows


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


def alltoall_table(fabric: Fabric, algorithm: str, sizes: list[int], ecmp_seed: int = 0) -> list[AllToAllRow]:
    """Simulate a uniform all-to-all of each size, all ranks starting together.

    Args:
        fabric: the cluster.
        algorithm: ``nccl-direct`` or ``deepep-low-latency``; a hierarchical algorithm has no plain all-to-all.
        sizes: bytes per rank; each of the R messages of a rank is ``size // R``.
        ecmp_seed: seed of the path hash.
    """
    constants = calibration(algorithm, fabric.gpu)
    ranks = fabric.n_ranks
    rows = []
    for size in sizes:
        each = np.full((ranks, ranks), size // ranks, np.int64)
        nodes = np.zeros((ranks, fabric.n_nodes), np.int64)
        flows = phase_flows(fabric, Copies(each, each, nodes), constants, PHASES[0], 1, ecmp_seed=ecmp_seed)
        seconds = float(run_phase(fabric, flows).leave_s.max())
        sent = size // ranks * ranks
        wire = flows.link_wire_bytes(fabric.n_links)
        rows.append(
            AllToAllRow(
                size=sent,
                time_s=seconds,
                algbw=sent / seconds,
                busbw=sent / seconds * (ranks - 1) / ranks,
                nic=_busiest(fabric, wire, "nic", seconds),
                nvlink=_busiest(fabric, wire, "nvlink", seconds),
            )
        )
    return rows


def run_phase(fabric: Fabric, flows: PhaseFlows) -> PhaseTrace:
    """Run one phase by itself: every rank enters at time 0."""
    env = simpy.Environment()
    network = FlowNetwork(np.concatenate([fabric.capacity, np.ones(fabric.n_ranks)]), log_bottlenecks=True)
    phase = PhaseRun(NetworkClock(env, network), flows, np.arange(fabric.n_ranks, dtype=np.int32) + fabric.n_links)
    for rank in range(fabric.n_ranks):
        env.process(phase.enter(rank))
    env.run()
    return phase.trace()


def _busiest(fabric: Fabric, wire: NDArray[np.float64], link_class: str, seconds: float) -> float | None:
    of_class = wire[fabric.is_class(link_class)]
    return float(of_class.max()) / seconds if of_class.size and of_class.max() > 0 else None

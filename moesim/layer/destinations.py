"""Where a routed layer's tokens go: to slots and ranks, chunk by chunk, on all cores.

Memory follows the traffic matrix, or with flows per port the ranks, never the tokens: a thread takes a few whole ranks,
a part of their tokens at a time. Counts are whole numbers, whose sum is the same in any order; gates are added token by
token, so that the sizes of the parts change nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.layer.parts import Parts
from moesim.layer.selection import Selection
from moesim.placement import Placement
from moesim.routing import in_blocks
from moesim.traffic import Copies, CopyTotals, PortCopies, add_copies, count_port_copies, no_copies
from moesim.workload import Batch

PLACEMENT_STAGE = 2
CHUNK_TOKENS = 1 << 16
"""Tokens followed at a time, in whole ranks."""
MOST_PAIR_RANKS = 4096
"""Ranks up to which ``cluster.flows: auto`` simulates every flow by itself."""
# Measured with benchmarks/scale.py, at its points and, for low latency, with 32 tokens, on one network, and with loads
# nearly even (up to 256 ranks) beside the skewed ones of the benchmark.
PORTS_NOTE = (
    "flows are simulated per port of a rank, not per pair: a phase takes as long as its busiest port. Where both "
    "ran, at 64 to 1,024 ranks, layer times came within 0.3 % of exact ones for hierarchical all-to-alls, within "
    "1.1 % for direct ones that wait for both ends, and for low-latency ones within 2.1 % where the fullest rank has "
    "up to 1.4 times the mean load, from 12 % below to 3 % above where it has 2.5 to 4.6 times. NCCL's protocols "
    "are those of a port's mean message: dispatch on 256 ranks came 24 % below (32 tokens a rank) to 2 % above (512)"
)


@dataclass(frozen=True, eq=False)
class Followed:
    """Selections [slots] and gate mass [slots] that arrive at each slot, and the copies: by pair, or at the ports."""

    slot_tokens: NDArray[np.int64]
    slot_gate_mass: NDArray[np.float64] | None
    copies: Copies | None
    ports: PortCopies | None


def uses_ports(parts: Parts) -> bool:
    """Whether traffic is simulated per port rather than per pair of ranks or nodes."""
    return parts.flows == "ports" or (parts.flows == "auto" and parts.fabric.n_ranks > MOST_PAIR_RANKS)


def replica_seed(parts: Parts) -> int:
    """The seed with which tokens choose among replicas."""
    return int(parts.rng(PLACEMENT_STAGE).integers(1 << 31))


def follow_tokens(parts: Parts, batch: Batch, placement: Placement, selection: Selection) -> Followed:
    """Follow the tokens to their slots and count what travels.

    Args:
        parts: of the scenario.
        batch: the tokens.
        placement: of this layer.
        selection: experts (and gates) of the distinct tokens.
    """
    fabric, n_slots, at_ports = parts.fabric, placement.n_slots, uses_ports(parts)
    seed = replica_seed(parts)
    slot_rank = np.asarray(placement.slot_rank)
    gone = np.array(() if parts.gone is None else parts.gone.ranks, np.int32)
    living, kept_slots = placement, np.arange(n_slots)
    if parts.gone is not None and parts.gone.replaced:
        living, kept_slots = placement.without_ranks(gone)
    copies = None if at_ports else no_copies(fabric.n_ranks, fabric.ranks_per_node)
    cuts = _cuts(batch.rank_tokens).tolist()

    def follow(chunk: int) -> tuple[NDArray[np.int64], NDArray[np.float64], PortCopies | None]:
        taken, mass, ports = np.zeros(n_slots, np.int64), np.zeros(n_slots), None
        for start in range(cuts[chunk], cuts[chunk + 1], CHUNK_TOKENS):  # a rank may hold more
            stop = min(start + CHUNK_TOKENS, cuts[chunk + 1])
            rows, rank = batch.part(start, stop)[0], batch.ranks(start, stop)
            slots = living.choose(
                selection.expert_ids[rows],
                rank,
                fabric.ranks_per_node,
                policy=parts.placement.replica_choice,
                seed=seed,
                first_token=start,
            )
            if parts.gone is not None:
                slots = np.where(slots >= 0, kept_slots[slots], -1).astype(np.int32)
                slots[np.isin(slot_rank[slots], gone)] = -1
            if copies is None:
                counted = count_port_copies(slots, rank, slot_rank, fabric, parts.algorithm)
                ports = counted if ports is None else ports + counted
            else:
                # A chunk's ranks are its own, so no two threads touch the same rows.
                add_copies(copies, slots, rank, slot_rank, fabric.ranks_per_node)
            kept = slots >= 0
            slot = slots[kept].astype(np.intp)
            taken += np.bincount(slot, minlength=n_slots)
            if selection.gates is not None:
                np.add.at(mass, slot, selection.gates[rows][kept].astype(np.float64))
        return taken, mass, ports

    slot_tokens, gate_mass, at = np.zeros(n_slots, np.int64), np.zeros(n_slots), None
    for taken, mass, ports in in_blocks(follow, len(cuts) - 1):
        slot_tokens += taken
        gate_mass += mass
        at = ports if at is None or ports is None else at + ports
    return Followed(slot_tokens, gate_mass if selection.gates is not None else None, copies, at)


def totals_of(copies: Copies | None, ports: PortCopies | None) -> CopyTotals:
    """Sums of whichever of the two there is."""
    counted = copies if ports is None else ports
    assert counted is not None  # noqa: S101 - one or the other by construction
    return counted.totals()


def _cuts(rank_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the chunks begin, each with a rank's first token, and the end of the last."""
    begins = np.append(0, np.cumsum(rank_tokens))
    cuts = begins[np.searchsorted(begins, np.arange(0, begins[-1], CHUNK_TOKENS))]
    return np.unique(np.append(cuts, begins[-1]))

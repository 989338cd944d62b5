"""Constants of the all-to-all libraries, per algorithm, GPU, phase and source: few, physical, each kept as data.

A rate is what one GPU's port sustains on the wire; an algorithm's efficiency is that rate over the port's peak, so a
faster or slower port keeps the efficiency. The set-up time contains the latency of the routes: what is added to a
route's own latency is ``max(0, setup - longest route latency)``.

Published measurements of one library on one GPU differ by more than the fit of any of them, because clusters differ.
So constants come in *sets*, one per source (``moesim.traffic.constant_sets``), and which one was used is said. A set
may be replaced by the user's own.

What a rank pays in a phase, in this order: layout on entry; exchange of counts and CPU synchronisation once all are
there; then per flow the set-up and the fill of the pipeline; then bytes on wires at the rates below, next to the work
of the communication kernel, which is one more resource of the rank; then what the rank does after its last byte.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Slopes over ranks are per doubling from an eight-GPU node on: log2(R / 8), negative below.
_NODE = 8


@dataclass(frozen=True)
class Protocol:
    """One way in which NCCL moves a message; of several the fastest is taken, message by message.

    A protocol takes ``max(floor_s, setup + bytes sent / rate, setup + message / pair_rate)``. NCCL's own switch points
    (LL, LL128, Simple, number of channels) follow from its tuning tables; here they follow from the constants.

    Attributes:
        setup_intra_node_s, setup_inter_node_s: before the first byte, inside a node and across.
        setup_peer_s: added to both for each peer beyond the first: posts take turns.
        floor_s: no message takes less.
        nvlink_rate, nic_rate: of a GPU's port, bytes/s; 0: the set's own.
        pair_rate: most that one pair of GPUs reaches, bytes/s; 0: no limit.
        two_ranks_setup_s, two_ranks_nvlink_rate: instead of the above where the group has two ranks; 0: the same.
    """

    name: str
    setup_intra_node_s: float = 0.0
    setup_inter_node_s: float = 0.0
    setup_peer_s: float = 0.0
    floor_s: float = 0.0
    nvlink_rate: float = 0.0
    nic_rate: float = 0.0
    pair_rate: float = 0.0
    two_ranks_setup_s: float = 0.0
    two_ranks_nvlink_rate: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Constants of one phase of one all-to-all algorithm on one GPU.

    Rates in bytes/s on the wire, per GPU and direction; times in seconds; SM work in SM-seconds, which the kernel's
    ``sms`` share. A term that is 0 is not there. T: tokens of the rank, R: ranks, N: nodes, S: ``sms``, E: experts.

    Attributes:
        algorithm, gpu, phase: what the constants are of; ``gpu`` is the one asked for.
        name: of the set; source: where it comes from, in words, and whether it is another GPU's.
        nvlink_peak, nic_peak: of the ports that the rates were measured on.
        total_sms: SMs of the GPU.
        sms: SMs that the kernel holds while it runs.
        nvlink_rate: NVLink; nic_rate: NIC and whatever else its transport crosses.
        nvlink_sm_half: h in ``rate / (1 + h / S)``: with h SMs half the rate.
        nvlink_rank_slope: k in ``rate / (1 + k log2(R / 8))``.
        setup_intra_node_s, setup_inter_node_s: before the first byte of a flow inside a node, across nodes.
        setup_node_doubling_s: added to the latter per doubling of the nodes beyond two.
        setup_rank_doubling_s: added to both per doubling of the ranks beyond eight (less below).
        setup_peer_doubling_s: added to both per doubling of the ranks that a rank's tokens reach, beyond eight (less
            below): a FIFO without tokens costs nothing.
        setup_rank_s: added to both per rank beyond eight; setup_expert_s: per expert of the layer.
        floor_s: no rank stays less in the kernel; floor_rank_doubling_s: per doubling of the ranks beyond eight;
            floor_few_ranks_s: up to four ranks (one tray of an NVL72) instead of both, and no fill applies.
        token_s: kernel work per token of the rank, whatever its SMs; token_sm_s, token_rank_sm_s: SM work per token,
            and per token and rank of the group.
        node_copy_sm_s, rank_copy_sm_s: SM work per copy to a node (at its source) and to a rank (at who forwards it).
        forward_sm_rate: bytes/s of one SM that forwards copies to ranks, on top of rank_copy_sm_s for each.
        local_rate: bytes/s at which the rank's own tokens are read or written once, as kernel work.
        receive_sm_rate: bytes/s of one SM that unpacks what a rank receives; E / ceil(E / all SMs) SMs take part.
        fill_s, fill_tokens, fill_tokens_per_sm: the pipeline's first chunks take ``fill_s (1 - exp(-T / fill_tokens))``
            through two hops, or with T / S over fill_tokens_per_sm where that is given.
        epilogue_token_s: after a rank's last byte, per token of its own.
        reduce_rate: bytes/s at which it then reads the K answers and writes the sum of each of its tokens.
        pull_rate: bytes/s at which it adds up what it fetched from other ranks, one copy of each.
        layout_s: each rank's own work on entry.
        notify_two_nodes_s, notify_four_nodes_s: exchange of counts at up to two, from four nodes on, barriers included.
        cpu_sync_s: CPU waits for the counts.
        prepare_s, prepare_rank_doubling_s, prepare_token_s: another form of that exchange, per doubling of the ranks
            beyond eight and per token of the fullest rank.
        protocols: NCCL's; empty for the others.
        across: the terms of the kernel that spans nodes, where it is another than the one inside a node.
        rows, error: ledger rows that the set was fitted on, and the error that it leaves there (by name); empty for
            defaults. held_out: the same of rows that it was not fitted on, with their number.
        deviations: of the logarithm of the constants of each kind (``nvlink``, ``nic``, ``setup``, ``work``, ``fill``,
            ``host``) on a cluster that nobody measured; those of a kind deviate together. row_spread:
            what a time deviates beyond them. widen: what intervals are multiplied by. Empty and 0: nothing is known.
        clusters: how many the set was fitted over; 0: it is one source's.
    """

    algorithm: str
    gpu: str
    phase: str
    name: str
    source: str
    nvlink_peak: float
    nic_peak: float
    total_sms: int
    nvlink_rate: float
    nic_rate: float
    sms: int = 0
    nvlink_sm_half: float = 0.0
    nvlink_rank_slope: float = 0.0
    setup_intra_node_s: float = 0.0
    setup_inter_node_s: float = 0.0
    setup_node_doubling_s: float = 0.0
    setup_rank_doubling_s: float = 0.0
    setup_peer_doubling_s: float = 0.0
    setup_rank_s: float = 0.0
    setup_expert_s: float = 0.0
    floor_s: float = 0.0
    floor_rank_doubling_s: float = 0.0
    floor_few_ranks_s: float = 0.0
    token_s: float = 0.0
    token_sm_s: float = 0.0
    token_rank_sm_s: float = 0.0
    node_copy_sm_s: float = 0.0
    rank_copy_sm_s: float = 0.0
    forward_sm_rate: float = 0.0
    local_rate: float = 0.0
    receive_sm_rate: float = 0.0
    fill_s: float = 0.0
    fill_tokens: float = 0.0
    fill_tokens_per_sm: float = 0.0
    epilogue_token_s: float = 0.0
    reduce_rate: float = 0.0
    pull_rate: float = 0.0
    layout_s: float = 0.0
    notify_two_nodes_s: float = 0.0
    notify_four_nodes_s: float = 0.0
    cpu_sync_s: float = 0.0
    prepare_s: float = 0.0
    prepare_rank_doubling_s: float = 0.0
    prepare_token_s: float = 0.0
    protocols: tuple[Protocol, ...] = ()
    across: "Calibration | None" = None
    rows: tuple[str, ...] = ()
    error: tuple[tuple[str, float], ...] = ()
    held_out: tuple[tuple[str, float], ...] = ()
    deviations: tuple[tuple[str, float], ...] = ()
    row_spread: float = 0.0
    widen: float = 1.0
    clusters: int = 0

    def spanning(self, n_nodes: int) -> "Calibration":
        """Return the terms for a group on so many nodes."""
        return self.across if n_nodes > 1 and self.across is not None else self

    def nvlink_speed(self, n_ranks: int = _NODE) -> float:
        """Bytes/s that the kernel reaches on a GPU's NVLink port in a group of this size, at most its peak."""
        rate = self.nvlink_rate
        if self.nvlink_sm_half:
            rate /= 1 + self.nvlink_sm_half / max(self.sms, 1)
        return min(rate / max(1 + self.nvlink_rank_slope * _doublings(n_ranks), 0.1), self.nvlink_peak)

    def efficiency(self, link_class: str, n_ranks: int = _NODE) -> float:
        """Share of a link's peak that the algorithm reaches.

        Every class but NVLink is crossed by the NIC's transport and takes the NIC's.
        """
        if link_class == "nvlink":
            return self.nvlink_speed(n_ranks) / self.nvlink_peak
        return self.nic_rate / self.nic_peak

    def setup_s(self, same_node: bool, n_nodes: int, n_ranks: int, n_experts: int = 0) -> float:
        """Time before the first byte of a flow inside a node or across, route latency included.

        What depends on the ranks that are reached comes on top: ``reached_s``.
        """
        setup = self.setup_intra_node_s
        if not same_node:
            setup = self.setup_inter_node_s + self.setup_node_doubling_s * math.log2(max(n_nodes, 2) / 2)
        setup += self.setup_rank_doubling_s * _doublings(n_ranks) + self.setup_rank_s * max(n_ranks - _NODE, 0)
        return max(setup + self.setup_expert_s * n_experts, 0.0)

    def reached_s(self, n_reached: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a rank adds to the set-up of its flows, by the ranks that its tokens reach, itself among them."""
        return self.setup_peer_doubling_s * np.log2(np.maximum(n_reached, 1) / _NODE)

    def least_s(self, n_ranks: int) -> float:
        """Least time in the kernel, however little there is to send."""
        if self.apart(n_ranks):
            return self.floor_few_ranks_s
        return max(self.floor_s + self.floor_rank_doubling_s * _doublings(n_ranks), 0.0) if self.floor_s else 0.0

    def apart(self, n_ranks: int) -> bool:
        """Whether the group is so small that the set has a floor of its own for it."""
        return self.floor_few_ranks_s > 0 and n_ranks <= _NODE // 2

    def notify_s(self, n_nodes: int) -> float:
        """Time of the exchange of counts, its barriers included; it grows from two nodes to four and stays."""
        steps = min(max(math.log2(max(n_nodes, 2) / 2), 0.0), 1.0)
        return self.notify_two_nodes_s + (self.notify_four_nodes_s - self.notify_two_nodes_s) * steps

    def exchange(self, n_nodes: int, n_ranks: int, tokens: int) -> dict[str, float]:
        """Time from the last rank's entry to the start of the flows, when nothing is known yet, by what takes it.

        Args:
            n_nodes: nodes of the group.
            n_ranks: ranks of the group.
            tokens: of the rank that has most.
        """
        prepare = self.prepare_s
        if prepare:
            prepare += self.prepare_rank_doubling_s * _doublings(n_ranks) + self.prepare_token_s * tokens
        parts = {"notify": self.notify_s(n_nodes), "CPU synchronisation": self.cpu_sync_s, "prepare": prepare}
        return {name: seconds for name, seconds in parts.items() if seconds > 0}


def _doublings(n_ranks: int) -> float:
    return math.log2(n_ranks / _NODE)

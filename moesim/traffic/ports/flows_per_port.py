"""All-to-alls of very many ranks: one flow per port of a rank instead of one per pair of ranks or (rank, node).

With R ranks the flows grow with R and not with its square, and so does memory. (Where planes are not joined, what a
rank sends is one flow per plane, over its neighbour's port there.) What is kept is exact: how many copies enter and
leave every port, what the algorithm reaches on it, the work of every rank's communication kernel. What is given up is
what flows do to each other across ports: a port here works through its bytes at full rate, while a real one may idle
because the other ends of its flows are busy. So a phase takes as long as its busiest port, which no schedule beats and
an all-to-all comes close to; and all ranks wait for it, since nearly every rank sends to that port. Where puts are
posted, only those wait for a port of dispatch to whom it brings something.

Not modelled: who waits for whom inside a phase beyond that, and unequal use of the spines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim import csr
from moesim.alltoall_library import Algorithm, algorithm_named
from moesim.cluster import Fabric, FaultyPaths, TwoTierPaths
from moesim.errors import InputError
from moesim.traffic.constants import Calibration
from moesim.traffic.copies import Copies, CopyTotals, checked_ids
from moesim.traffic.direct import with_protocols
from moesim.traffic.exchange import Exchange
from moesim.traffic.flows import Floats, Ints, KernelWork, Pairs, PhaseFlows, Ptrs, with_packets
from moesim.traffic.ports.port_count import (
    FORWARDED,
    N_ROWS,
    NODES_SENT,
    PER_NODE,
    PER_RANK,
    PER_SELECTION,
    PER_SELECTION_BY_NIC,
    RANKS_OWN,
    RANKS_RECEIVED,
    RANKS_SENT,
    SELECTIONS_OWN,
    SELECTIONS_RECEIVED,
    SELECTIONS_SENT,
    count_ports,
)
from moesim.traffic.ports.port_wires import DOWN, INTO, NEAR_INTO, NEAR_OUT, OUT, UP, Wires, longest_latency, wires_of

Counts = NDArray[np.int64]
# Which copies cross ports, by the algorithm's flows, its copies and whether it uses the NIC inside a node too.
_TRAVELS = {
    ("pairs", "selection", False): PER_SELECTION,
    ("pairs", "selection", True): PER_SELECTION_BY_NIC,
    ("pairs", "rank", False): PER_RANK,
    ("trees", "node", False): PER_NODE,
}


@dataclass(frozen=True, eq=False)
class PortCopies:
    """Copies at the ports of a cluster; ``a + b`` sums two chunks.

    ``counts`` int64 [rows, ranks], rows as in ``port_count``; ``uplinks`` int64 [4, leaves]: copies that climb from a
    leaf to the spines and that come down to it, in dispatch and in combine; ``by_plane`` int64 [2, ranks, planes]:
    copies that each rank sends over the network by the plane that they leave by, no planes where one network joins all.
    """

    counts: Counts
    uplinks: Counts
    by_plane: Counts

    def __add__(self, other: "PortCopies") -> "PortCopies":
        return PortCopies(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def totals(self) -> CopyTotals:
        """Sums over destinations and over sources."""
        c = self.counts
        return CopyTotals(
            selections_sent=c[SELECTIONS_SENT],
            selections_received=c[SELECTIONS_RECEIVED],
            selections_own=c[SELECTIONS_OWN],
            ranks_sent=c[RANKS_SENT],
            ranks_received=c[RANKS_RECEIVED],
            ranks_own=c[RANKS_OWN],
            nodes_sent=c[NODES_SENT],
        )


def count_port_copies(
    slot_ids: ArrayLike, token_rank: ArrayLike, slot_rank: ArrayLike, fabric: Fabric, algorithm: Algorithm
) -> PortCopies:
    """Count the copies of a chunk of tokens at the ports that they cross.

    Args:
        slot_ids: int [tokens, top_k], the slot of each selection, -1 where it was dropped.
        token_rank: int [tokens].
        slot_rank: int [slots].
        fabric: a regular cluster.
        algorithm: what travels.

    Raises:
        InputError: an algorithm or a cluster that has no such ports, shapes that do not fit, ids out of range.
    """
    paths = _two_tier(fabric)
    slots, source, rank = checked_ids(slot_ids, token_rank, slot_rank, fabric.n_ranks)
    counts, uplinks = np.zeros((N_ROWS, fabric.n_ranks), np.int64), np.zeros((4, len(paths.up)), np.int64)
    leaf = np.ascontiguousarray(paths.leaf[: fabric.n_ranks])
    planes = 0 if paths.plane is None else int(paths.plane.max()) + 1
    sizes, by_plane = (fabric.n_ranks, fabric.ranks_per_node), np.zeros((2, fabric.n_ranks, planes), np.int64)
    bad = count_ports(slots, source, rank, *sizes, _travels(algorithm), planes, leaf, counts, uplinks, by_plane)
    if bad >= 0:
        raise InputError(
            f"token {bad} has slot ids {slots[bad].tolist()}",
            where="count_copies",
            fix=f"ids are 0 to {len(rank) - 1}, or -1 for a dropped selection",
        )
    return PortCopies(counts, uplinks, by_plane)


def port_flows(
    fabric: Fabric,
    ports: PortCopies,
    constants: Calibration,
    phase: str,
    bytes_per_copy: int,
    cached_handle: bool = False,
    tokens: Counts | None = None,
    n_experts: int = 0,
) -> PhaseFlows:
    """Build the flows of one phase: one per port and rank, and one per rank for its communication kernel.

    Args:
        fabric: the cluster.
        ports: copies at its ports.
        constants, phase, bytes_per_copy, cached_handle, tokens, n_experts: as ``phase_flows`` takes them.

    Raises:
        InputError: a cluster without regular ports.
    """
    algorithm, n = algorithm_named(constants.algorithm), fabric.n_ranks
    paths, totals = _two_tier(fabric), ports.totals()
    tree = algorithm.flows == "trees"
    exchange = Exchange(
        fabric=fabric,
        # Sums over destinations, as one column: the terms of ``Exchange`` ask for sums alone.
        copies=Copies(*(sent[:, None] for sent in (totals.selections_sent, totals.ranks_sent, totals.nodes_sent))),
        constants=constants.spanning(fabric.n_nodes),
        phase=phase,
        bytes_per_copy=bytes_per_copy,
        fresh=not cached_handle,
        ecmp_seed=0,
        given_tokens=tokens,
        n_experts=n_experts,
    )
    wires = wires_of(ports.counts, ports.uplinks, ports.by_plane, paths, n, exchange.is_dispatch)
    # Flows for the ranks' kernels follow; they cross no wire, and their size is that of the copies worked on.
    ranks = np.arange(n, dtype=np.int32)
    works = _kernels(exchange, ports, totals, tree, algorithm.copies == "rank")
    home = np.concatenate([wires.rank, *(ranks for _ in works)])
    same_node = np.append(wires.inside, np.full(n * len(works), fabric.n_nodes == 1))
    size = np.concatenate([wires.copies * bytes_per_copy, *(own for own, _ in works)])
    over_nvlink, over_spines = tree or bool(ports.by_plane.size), bool(ports.uplinks.any())
    latency = longest_latency(fabric, paths, same_node, over_nvlink, over_spines)
    one_each = np.arange(len(home) + 1, dtype=np.int64)
    waits: dict[str, Any] = {
        "gate_ptr": one_each,
        "gate_ranks": home,
        "member_ptr": one_each,
        "member_ranks": home,
        "all_ranks_leave": True,
    }
    if algorithm.posted:
        leaf = paths.leaf[:n]
        waits |= _posted(wires, home, size, leaf, totals.selections_received, exchange.is_dispatch)
    flows = PhaseFlows(
        **exchange.terms() | waits,
        source=home,
        target=home,
        size=size,
        route_ptr=np.append(wires.ptr, np.full(n * len(works), wires.ptr[-1])),
        route_links=wires.links,
        share=np.ones(len(wires.links)),
        efficiency=exchange.link_efficiency()[wires.links],
        delays=exchange.delays(latency, same_node, home),
        least_s=exchange.least_s(len(size)),
        pairs=lambda: Pairs(*(np.empty(0, np.int64) for _ in range(4))),
        kernel=_joined([work for _, work in works], len(wires.copies)) if works else None,
    )
    if constants.protocols:
        # Single messages are not known: a port's are taken as equal, one for each rank that it leads to.
        messages = np.where(same_node, fabric.ranks_per_node - 1.0, n - fabric.ranks_per_node)
        messages[: len(wires.way)][wires.way >= UP] = np.inf  # those of a whole leaf
        flows = with_protocols(exchange, flows, latency, same_node, size, np.maximum(messages, 1.0))
    return with_packets(flows, fabric)


def _posted(
    wires: Wires, home: Ints, size: Floats, leaf: Counts, computed: Counts, is_dispatch: bool
) -> dict[str, Any]:
    """Waiters of a phase whose senders do not wait for their own sends.

    In dispatch a rank leaves with its own ports and the way down to its leaf; and, since it has a message from
    all, not before the largest sender is done, which stands for the last to come, nor before the busiest way up to the
    spines. Answers flow into every port from when the rank of median load sends: what is early shares the ports
    of those that still receive.

    Args:
        wires: flows over wires, the first of all.
        home: rank that each flow belongs to, [flows].
        size: bytes, [flows].
        leaf: switch above each rank's NIC, [ranks].
        computed: selections that each rank computes, [ranks].
        is_dispatch: whether tokens travel to their experts, rather than back.

    Returns:
        Fields of ``PhaseFlows`` that are different from a phase that all leave together.
    """
    out, into = (OUT, INTO) if (wires.way == OUT).any() else (NEAR_OUT, NEAR_INTO)
    if not is_dispatch:
        middle = np.argsort(computed, kind="stable")[len(computed) // 2]
        answers = np.append(wires.way == into, np.zeros(len(home) - len(wires.way), np.bool_))
        return {"gate_ranks": np.where(answers, middle, home).astype(np.int32)}
    sender = _largest(size, wires.way == out)
    if not sender:
        return {}
    everybody = np.arange(len(computed))
    under = {flow: np.flatnonzero(leaf == leaf[home[flow]]) for flow in np.flatnonzero(wires.way == DOWN).tolist()}
    gate_ptr, gate_ranks = _with_rows(home, dict.fromkeys(sender, everybody))
    member_ptr, member_ranks = _with_rows(
        home, under | dict.fromkeys(sender + _largest(size, wires.way == UP), everybody)
    )
    return {
        "gate_ptr": gate_ptr,
        "gate_ranks": gate_ranks,
        "member_ptr": member_ptr,
        "member_ranks": member_ranks,
        "leave_ptr": member_ptr,
        "leave_ranks": member_ranks,
        "all_ranks_leave": False,
    }


def _largest(size: Floats, chosen: NDArray[np.bool_]) -> list[int]:
    """The largest of the chosen flows, none where none is chosen."""
    which = np.flatnonzero(chosen)
    return [int(which[np.argmax(size[which])])] if len(which) else []


def _with_rows(home: Ints, rows: dict[int, NDArray[np.int64]]) -> tuple[Ptrs, Ints]:
    """Ranks of each flow (CSR): these of the flows that are named, of every other flow the rank that it belongs to."""
    length = np.ones(len(home), np.int64)
    length[list(rows)] = [len(ranks) for ranks in rows.values()]
    ptr = csr.from_lengths(length)
    made = csr.spread(home, ptr)
    for flow, ranks in rows.items():
        made[ptr[flow] : ptr[flow + 1]] = ranks
    return ptr, made


def _kernels(
    exchange: Exchange, ports: PortCopies, totals: CopyTotals, tree: bool, per_rank: bool
) -> list[tuple[Floats, KernelWork]]:
    """One or two flows per rank for its communication kernel: bytes of each, and the work that goes with them."""
    ranks, constants = np.arange(len(totals.nodes_sent), dtype=np.int32), exchange.constants
    # A rank without tokens of its own handles those of others: one copy's bytes stand for what it does.
    there = totals.selections_sent + totals.selections_received > 0

    def bytes_of(copies: Counts) -> Floats:
        return np.where(there, np.maximum(copies, 1), 0) * np.float64(exchange.bytes_per_copy)

    if tree:
        own = bytes_of(totals.nodes_sent)
        work = exchange.kernel(own, ranks, totals.nodes_sent, ports.counts[FORWARDED], ranks)
        return [] if work is None else [(own, work)]
    off = (totals.selections_sent - totals.selections_own, totals.selections_received - totals.selections_own)
    if per_rank:
        off = (totals.ranks_sent - totals.ranks_own, totals.ranks_received - totals.ranks_own)
    sends, receives = off if exchange.is_dispatch else off[::-1]
    own, unpacked = bytes_of(off[0]), bytes_of(receives)
    sending = replace(exchange, constants=replace(constants, receive_sm_rate=0.0))
    none: dict[str, Any] = dict.fromkeys(
        (
            "token_s",
            "token_sm_s",
            "token_rank_sm_s",
            "local_rate",
            "node_copy_sm_s",
            "rank_copy_sm_s",
            "forward_sm_rate",
        ),
        0.0,
    )  # fmt: skip
    unpacking = replace(exchange, constants=replace(constants, **none))
    works = [
        (own, sending.kernel(own, ranks, None, sends, ranks)),
        (unpacked, unpacking.kernel(unpacked, ranks, None, receives, ranks, ranks)),
    ]
    return [(size, work) for size, work in works if work is not None]


def _joined(works: Sequence[KernelWork], before: int) -> KernelWork:
    """The works of several runs of flows as one, after flows without any."""
    return KernelWork(
        csr.from_lengths(np.concatenate([np.zeros(before, np.int64), *(np.diff(work.ptr) for work in works)])),
        np.concatenate([work.ranks for work in works]),
        np.concatenate([work.s_per_byte for work in works]),
    )


def _two_tier(fabric: Fabric) -> TwoTierPaths:
    if not isinstance(fabric.paths, TwoTierPaths):
        faulty = isinstance(fabric.paths, FaultyPaths)
        what = "routes around faults are those of pairs" if faulty else f"{fabric.name} has no regular ports"
        raise InputError(what, where="cluster.flows", fix="use pairs, or a topology of kind hgx, rail or leaf-spine")
    return fabric.paths


def _travels(algorithm: Algorithm) -> int:
    form = (algorithm.flows, algorithm.copies, algorithm.nic_only)
    if form not in _TRAVELS:
        raise InputError(
            f"{algorithm.name} has no count of copies at ports",
            where="cluster.flows",
            fix="use pairs, or another algorithm",
        )
    return _TRAVELS[form]

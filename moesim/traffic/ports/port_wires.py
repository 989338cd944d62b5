"""One flow per port in use: its links, its copies, the rank that it belongs to and which way it goes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.cluster import Fabric, TwoTierPaths
from moesim.traffic.flows import Floats, Ints, Ptrs
from moesim.traffic.ports.port_count import BACK, NIC_IN, NIC_OUT, NVLINK_IN, NVLINK_OUT

Counts = NDArray[np.int64]

OUT, INTO, NEAR_OUT, NEAR_INTO, UP, DOWN = range(6)
"""Ways that a flow goes: out of a NIC or into one, the same over NVLink inside a node, up to the spines and down."""


@dataclass(frozen=True)
class Wires:
    """Flows over wires: links (CSR), copies, the rank that each belongs to, and the way that it goes."""

    ptr: Ptrs
    links: Ints
    copies: Floats
    rank: Ints
    way: NDArray[np.int64]

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether each stays inside a node."""
        return np.isin(self.way, (NEAR_OUT, NEAR_INTO))


def wires_of(
    counts: Counts, uplinks: Counts, by_plane: Counts, paths: TwoTierPaths, n_ranks: int, is_dispatch: bool
) -> Wires:
    """One flow per port in use; with planes, one per rank and plane that its copies leave by, over two GPUs' ports.

    Args:
        counts, uplinks, by_plane: copies, as in ``moesim.traffic.ports.PortCopies``.
        paths: of the cluster.
        n_ranks: ranks of the group.
        is_dispatch: whether tokens travel to their experts, rather than back.
    """
    ranks = np.arange(n_ranks, dtype=np.int32)
    routes, copies, owner, ways = [], [], [], []

    def add(route: Sequence[NDArray[np.int64]], carried: Counts | Floats, rank: Ints, way: int) -> None:
        used = carried > 0
        routes.append(np.column_stack([np.full((len(carried), 3 - len(route)), -1), *route])[used])
        copies.append(carried[used].astype(np.float64))
        owner.append(rank[used])
        ways.append(np.full(int(used.sum()), way))

    copies_by = by_plane[0 if is_dispatch else 1]
    for plane in range(copies_by.shape[1]):
        sender = ranks - ranks % copies_by.shape[1] + plane
        own = sender == ranks
        add([paths.nic_out[ranks[own]]], copies_by[own, plane], ranks[own], OUT)
        source, by = ranks[~own], sender[~own]
        by_way = [paths.nvlink_out[source], paths.nvlink_in[by], paths.nic_out[by]]
        add(by_way, copies_by[~own, plane], source, OUT)
    for route, row, way in (
        ([paths.pcie_out, paths.nic_out], NIC_OUT, OUT),
        ([paths.nic_in, paths.pcie_in], NIC_IN, INTO),
        ([paths.nvlink_out], NVLINK_OUT, NEAR_OUT),
        ([paths.nvlink_in], NVLINK_IN, NEAR_INTO),
    ):
        add(
            [link[:n_ranks] for link in route if link is not None],
            counts[row + (0 if is_dispatch else BACK)],
            ranks,
            way,
        )
    climb, fall = uplinks[:2] if is_dispatch else uplinks[2:]
    for up_or_down, crossing, way in ((paths.up, climb, UP), (paths.down, fall, DOWN)):
        for leaf in np.flatnonzero(crossing):
            links = up_or_down[leaf]
            one = np.full(len(links), np.argmax(paths.leaf[:n_ranks] == leaf), np.int32)
            add([links], np.full(len(links), crossing[leaf] / len(links)), one, way)
    hops = np.concatenate(routes)
    ptr = csr.from_lengths((hops >= 0).sum(axis=1))
    links_of = hops[hops >= 0].astype(np.int32)
    return Wires(ptr, links_of, *(np.concatenate(each) for each in (copies, owner, ways)))


def longest_latency(
    fabric: Fabric, paths: TwoTierPaths, same_node: NDArray[np.bool_], over_nvlink: bool, over_spines: bool
) -> Floats:
    """Latency of the longest route of a flow's kind, inside a node or across, [flows]; seconds.

    Args:
        fabric: the cluster.
        paths: of it.
        same_node: whether each flow stays inside a node, [flows].
        over_nvlink: what goes across is over NVLink too, behind a forwarder or to a neighbour's NIC.
        over_spines: some of it climbs to a spine.
    """
    inside = float(fabric.latency[paths.nvlink_out[0]])
    across = float(fabric.latency[paths.nic_out[0]]) if paths.nic_out[0] >= 0 else 0.0
    across += inside if over_nvlink else 0.0
    if over_spines:
        across += float(fabric.latency[paths.up[0, 0]])
    return np.where(same_node, inside, across)

"""The cluster as the simulator sees it: links with a capacity and a latency, and routes between ranks.

A link carries one direction. Its capacity is the peak payload rate; what an all-to-all algorithm reaches of
it is the algorithm's efficiency, not the link's. Latency is on the sender's link of a hop pair (see
``graph``), so the latency of a route is the sum over its links.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim import csr
from moesim.cluster.faulty_paths import FaultyPaths
from moesim.cluster.packets import Packets
from moesim.cluster.paths import Ids, ShortestPaths, TwoTierPaths
from moesim.errors import InputError


@dataclass(frozen=True, eq=False)
class Fabric:
    """Links and routes of a cluster; ranks are node-major."""

    name: str
    gpu: str
    """Name of the GPU in lower case: "h800"."""
    rank_names: tuple[str, ...]
    """[ranks] "n0.gpu3"."""
    rank_node: npt.NDArray[np.int32]
    """[ranks] NVLink domain of each rank."""
    link_names: tuple[str, ...]
    """[links] "n0.gpu3->rail3.leaf"."""
    link_source: tuple[str, ...]
    link_target: tuple[str, ...]
    link_class: tuple[str, ...]
    """[links] "nvlink", "nic", "leaf-spine" or what the topology adds."""
    capacity: npt.NDArray[np.float64]
    """[links] bytes/s of this direction, peak payload."""
    latency: npt.NDArray[np.float64]
    """[links] s."""
    sender_port: npt.NDArray[np.bool_]
    """[links] where bytes enter the class: GPU to switch for nvlink and nic, leaf to spine for leaf-spine."""
    paths: TwoTierPaths | ShortestPaths | FaultyPaths
    between_switches: npt.NDArray[np.bool_]
    """[links] that lead from switch to switch outside the nodes: over spines, or whatever a topology adds."""
    nic_card: str = "connectx"
    """Kind of the NICs: "connectx" or "efa"."""
    packets: Packets | None = None
    """What packets add on the way from switch to switch; None for nothing."""
    cluster_rank: Ids | None = None
    """[ranks] number of each rank in the whole cluster, whose routes these are; None: the same."""

    @property
    def n_ranks(self) -> int:
        """Number of ranks (GPUs)."""
        return len(self.rank_node)

    @property
    def n_nodes(self) -> int:
        """Number of nodes (NVLink domains)."""
        return int(self.rank_node[-1]) + 1

    @property
    def ranks_per_node(self) -> int:
        """Ranks of a node, of the largest one if they differ."""
        return int(np.bincount(self.rank_node).max())

    @property
    def n_links(self) -> int:
        """Number of links, one for each direction."""
        return len(self.capacity)

    @property
    def link_classes(self) -> tuple[str, ...]:
        """The link classes present, in the order of the links."""
        return tuple(dict.fromkeys(self.link_class))

    @cached_property
    def link_source_rank(self) -> Ids:
        """Rank whose GPU each link leaves, -1 where that is a switch, [links]."""
        return self._rank_at(self.link_source)

    @cached_property
    def link_target_rank(self) -> Ids:
        """Rank whose GPU each link leads to, -1 where that is a switch, [links]."""
        return self._rank_at(self.link_target)

    def _rank_at(self, ends: tuple[str, ...]) -> Ids:
        rank_of = {name: rank for rank, name in enumerate(self.rank_names)}
        return np.array([rank_of.get(end, -1) for end in ends], np.int64)

    @cached_property
    def links_at(self) -> dict[str, tuple[list[int], list[int]]]:
        """Links that leave each device, and those that lead to it; devices in the order of the links."""
        at: dict[str, tuple[list[int], list[int]]] = {}
        for way, ends in enumerate((self.link_source, self.link_target)):
            for link, end in enumerate(ends):
                at.setdefault(end, ([], []))[way].append(link)
        return at

    def is_class(self, link_class: str) -> npt.NDArray[np.bool_]:
        """Return which links are of a class, bool[links]."""
        return np.array([one == link_class for one in self.link_class], np.bool_)

    def routes(self, source: npt.ArrayLike, target: npt.ArrayLike, seed: int = 0) -> tuple[Ids, npt.NDArray[np.int32]]:
        """Return the links that each flow crosses, in order.

        Args:
            source: int[flows], sending rank.
            target: int[flows], receiving rank; the same rank gives an empty route.
            seed: of the ECMP hash.

        Returns:
            ``route_ptr`` int64[flows + 1] and ``route_links`` int32: flow f uses
            ``route_links[route_ptr[f]:route_ptr[f + 1]]``.

        Raises:
            InputError: a rank outside the fabric, or arrays of different length.
        """
        sources, targets = (self.in_cluster(ranks) for ranks in self._pairs(source, target))
        hops = self.paths.hops(sources, targets, seed)
        used = hops >= 0
        return csr.from_lengths(used.sum(1)), hops[used].astype(np.int32)

    def in_cluster(self, ranks: Ids) -> Ids:
        """Return the numbers that ranks have in the whole cluster, int64[ranks]."""
        return ranks if self.cluster_rank is None else self.cluster_rank[ranks]

    def _pairs(self, source: npt.ArrayLike, target: npt.ArrayLike) -> list[Ids]:
        ends = {"source": np.atleast_1d(source), "target": np.atleast_1d(target)}
        for name, ranks in ends.items():
            if ranks.ndim != 1 or (ranks.size and ranks.dtype.kind not in "iu"):
                raise InputError(f"{name} must be a list of ranks, got {ranks.dtype}{list(ranks.shape)}", "routes")
            outside = ranks[(ranks < 0) | (ranks >= self.n_ranks)]
            if outside.size:
                raise InputError(
                    f"{name} rank {outside[0]} does not exist", "routes", f"{self.name} has {self.n_ranks}"
                )
        sizes = [len(ranks) for ranks in ends.values()]
        if sizes[0] != sizes[1]:
            raise InputError(f"{sizes[0]} sources but {sizes[1]} targets", where="routes")
        return [ranks.astype(np.int64) for ranks in ends.values()]

    def pairs_inside(self) -> dict[tuple[str, ...], int]:
        """Return how many ordered pairs of GPUs of one node reach each other over which link classes, most first."""
        rank = np.arange(self.n_ranks)
        source, target = np.nonzero((self.rank_node[:, None] == self.rank_node) & (rank[:, None] != rank))
        ptr, links = self.routes(source, target)
        over: Counter[tuple[str, ...]] = Counter()
        for begin, end in itertools.pairwise(ptr.tolist()):
            over[tuple(dict.fromkeys(self.link_class[link] for link in links[begin:end]))] += 1
        return dict(over.most_common())

    def latency_of(self, route_ptr: Ids, route_links: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Return the sum of the latencies of each route's links, float64[flows], seconds."""
        total = np.zeros(len(route_ptr) - 1)
        np.add.at(total, csr.owners(route_ptr), self.latency[route_links])
        return total

    def first_ranks(self, n_ranks: int) -> "Fabric":
        """Return the same links with the first ``n_ranks`` ranks only: an EP group smaller than the cluster.

        Raises:
            InputError: less than one rank, or more than there are.
        """
        if not 1 <= n_ranks <= self.n_ranks:
            raise InputError(
                f"{n_ranks} ranks asked for, topology {self.name} has {self.n_ranks}",
                fix=f"use 1 to {self.n_ranks} ranks or a larger topology",
            )
        return replace(self, rank_names=self.rank_names[:n_ranks], rank_node=self.rank_node[:n_ranks])

    def some_ranks(self, ranks: Ids) -> "Fabric":
        """Return the same links and routes with some of the ranks only, ascending: one EP group among others."""
        node = np.unique(self.rank_node[ranks], return_inverse=True)[1].astype(np.int32)
        names = tuple(self.rank_names[rank] for rank in ranks.tolist())
        return replace(self, rank_names=names, rank_node=node, cluster_rank=self.in_cluster(ranks))

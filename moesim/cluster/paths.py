"""Which links a flow from one rank to another crosses.

``TwoTierPaths`` serves the regular clusters from tables of one entry per rank: inside a node over NVLink,
under one leaf over the two NICs, else over one spine; where planes are not joined, first over NVLink to the GPU of the
target's plane. ``ShortestPaths`` serves any graph: fewest hops between nodes; inside a node its own devices, NVLink
before PCIe before all else, then the widest, then the fewest hops. GPUs do not forward, equal ways are picked by hash
at each switch. Both return a matrix of link ids, one row per flow, padded with -1; equal ranks give an empty row.
"""

import heapq
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moesim.cluster.ecmp import ecmp_choice
from moesim.cluster.graph import LEAF_SPINE, NVLINK, PCIE, Graph
from moesim.errors import InputError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TwoTierPaths:
    """Route tables of a cluster of NVLink domains under leaves and spines."""

    node: Ids
    """[ranks] NVLink domain."""
    leaf: Ids
    """[ranks] leaf of the rank's NIC."""
    place: Ids
    """[ranks] how many ranks of the same leaf come before."""
    nvlink_out: Ids
    nvlink_in: Ids
    nic_out: Ids
    nic_in: Ids
    """[ranks] link ids, -1 where there is none."""
    up: Ids
    """[leaves, spines] link ids."""
    down: Ids
    """[leaves, spines] link ids, spine to leaf."""
    static: bool
    """Spine by the target's place on its leaf instead of by hash."""
    plane: Ids | None = None
    """[ranks] plane of the rank's NIC, in the order of the node's GPUs; None where one network joins all."""
    pcie_out: Ids | None = None
    pcie_in: Ids | None = None
    """[ranks] links between a GPU and the card that it shares; None where every GPU has its own."""
    dead: npt.NDArray[np.bool_] | None = None
    """[links] that no way over spines takes while there is another; None for none."""

    def without(self, dead: npt.NDArray[np.bool_]) -> "TwoTierPaths":
        """Return the paths with other spines where links are dead, [links]; a NIC has no other way."""
        return replace(self, dead=dead)

    def reaches(self, source: Ids, target: Ids) -> npt.NDArray[np.bool_]:
        """Whether there is a way, bool[flows]; it may take dead links where that is the only one."""
        return np.ones(len(source), np.bool_)

    def hops(self, source: Ids, target: Ids, seed: int) -> Ids:
        """Return the links of each flow, int64[flows, 4 or 6], -1 where a route is shorter."""
        cards = 0 if self.pcie_out is None else 1
        hops = np.full((len(source), 6 if cards or self.plane is not None else 4), -1, np.int64)
        far = self.node[source] != self.node[target]
        by = np.where(far, source, target)
        if self.plane is not None:  # the GPU of the source's node whose NIC is in the target's plane
            by = np.where(far, source - self.plane[source] + self.plane[target], target)
        over_nvlink = by != source
        hops[over_nvlink, 0] = self.nvlink_out[source[over_nvlink]]
        hops[over_nvlink, 1] = self.nvlink_in[by[over_nvlink]]
        self._cross(hops[:, cards : cards + 4] if self.plane is None else hops[:, 2:], far, by, target, seed)
        if self.pcie_out is not None and self.pcie_in is not None:
            hops[far, 0] = self.pcie_out[source[far]]
            hops[far, 5] = self.pcie_in[target[far]]
        return hops

    def _cross(self, hops: Ids, far: npt.NDArray[np.bool_], source: Ids, target: Ids, seed: int) -> None:
        """Write the ways over NICs: ``hops`` [flows, 4], of the flows that are ``far``."""
        hops[far, 0] = self.nic_out[source[far]]
        hops[far, 3] = self.nic_in[target[far]]
        over = np.flatnonzero(far & (self.leaf[source] != self.leaf[target]))
        if len(over):
            s, t = source[over], target[over]
            n_spines = np.full(len(over), self.up.shape[1], np.int64)
            if self.dead is not None:
                alive = ~(self.dead[self.up[self.leaf[s]]] | self.dead[self.down[self.leaf[t]]])
                alive[~alive.any(1)] = True
                n_spines = alive.sum(1)
            spine = self.place[t] % n_spines if self.static else ecmp_choice(s, t, n_spines, seed)
            if self.dead is not None:  # so many living ones further on
                spine = np.argsort(~alive, axis=1, kind="stable")[np.arange(len(over)), spine]
            hops[over, 1] = self.up[self.leaf[s], spine]
            hops[over, 2] = self.down[self.leaf[t], spine]


def two_tier_paths(graph: Graph, link_id: dict[tuple[str, str], int], *, static: bool, planes: int = 0) -> TwoTierPaths:
    """Read the route tables off a regular cluster's graph.

    Args:
        graph: of the kinds hgx, rail, leaf-spine and multi-plane.
        link_id: id of each (source, target).
        static: spine by the target's place on its leaf instead of by hash.
        planes: networks that no link joins, one for each GPU of a node; 0 for one network.
    """
    gpus = [name for name, kind in graph.nodes(data="kind") if kind == "gpu"]
    node = np.array([graph.nodes[gpu]["node"] for gpu in gpus], np.int64)
    nvswitch = [_neighbour(graph, gpu, "nvlink") for gpu in gpus]
    card = [_neighbour(graph, gpu, PCIE) for gpu in gpus]
    port = [own or gpu for own, gpu in zip(card, gpus, strict=True)]
    leaf_name = [_neighbour(graph, end, "nic") for end in port]
    leaves = [name for name in dict.fromkeys(leaf_name) if name is not None]
    spines = [[to for _, to, cls in graph.out_edges(leaf, data="link_class") if cls == LEAF_SPINE] for leaf in leaves]
    leaf_index: dict[str | None, int] = {name: i for i, name in enumerate(leaves)}
    filled: Counter[str | None] = Counter()
    place = np.zeros(len(gpus), np.int64)
    for rank, name in enumerate(leaf_name):
        place[rank] = filled[name]
        filled[name] += 1

    def ids(pairs: list[tuple[str | None, str | None]]) -> Ids:
        return np.array([-1 if None in pair else link_id[pair] for pair in pairs], np.int64)  # type: ignore[index]

    shape = (len(leaves), len(spines[0]) if leaves else 0)
    return TwoTierPaths(
        node=node,
        leaf=np.array([leaf_index.get(name, -1) for name in leaf_name], np.int64),
        place=place,
        nvlink_out=ids(list(zip(gpus, nvswitch, strict=True))),
        nvlink_in=ids(list(zip(nvswitch, gpus, strict=True))),
        nic_out=ids(list(zip(port, leaf_name, strict=True))),
        nic_in=ids(list(zip(leaf_name, port, strict=True))),
        up=ids([(a, b) for a, above in zip(leaves, spines, strict=True) for b in above]).reshape(shape),
        down=ids([(b, a) for a, above in zip(leaves, spines, strict=True) for b in above]).reshape(shape),
        static=static,
        plane=np.arange(len(gpus)) % planes if planes else None,
        pcie_out=ids(list(zip(gpus, card, strict=True))) if any(card) else None,
        pcie_in=ids(list(zip(card, gpus, strict=True))) if any(card) else None,
    )


def _neighbour(graph: Graph, gpu: str, link_class: str) -> str | None:
    return next((to for _, to, cls in graph.out_edges(gpu, data="link_class") if cls == link_class), None)


@dataclass(frozen=True, eq=False)
class ShortestPaths:
    """Next links towards every rank, for any graph.

    Row ``device * ranks + target`` of the table lists the links that a flow for ``target`` may take at
    ``device``; the rows of the second half are those of flows that stay inside the target's node.
    """

    node: Ids
    """[ranks] NVLink domain; rank r is device r."""
    link_target: Ids
    """[links] device that the link leads to."""
    choice_ptr: Ids
    choice_links: Ids
    n_devices: int

    def hops(self, source: Ids, target: Ids, seed: int) -> Ids:
        """Return the links of each flow, int64[flows, longest], -1 where a route is shorter."""
        ranks, at, columns = len(self.node), source.copy(), []
        inside = (self.node[source] == self.node[target]) & (self._choices(source, target, inside=True) > 0)
        base = np.where(inside, self.n_devices * ranks, 0)
        while (moving := np.flatnonzero(at != target)).size:
            row = base[moving] + at[moving] * ranks + target[moving]
            first = self.choice_ptr[row]
            count = self.choice_ptr[row + 1] - first
            link = self.choice_links[first + ecmp_choice(source[moving], target[moving], count, seed, at[moving])]
            column = np.full(len(source), -1, np.int64)
            column[moving] = link
            at[moving] = self.link_target[link]
            columns.append(column)
        return np.stack(columns, 1) if columns else np.full((len(source), 0), -1, np.int64)

    def without(self, dead: npt.NDArray[np.bool_]) -> "ShortestPaths":
        """Return the paths that take no dead link, [links]; some ranks may not be reached any more."""
        ranks = len(self.node)
        row = np.repeat(np.arange(len(self.choice_ptr) - 1), np.diff(self.choice_ptr))
        kept, target, after = ~dead[self.choice_links], row % ranks, self.link_target[self.choice_links]
        inside = np.where(row >= self.n_devices * ranks, self.n_devices * ranks, 0)
        while True:  # a link that leads to where the way ends is no way either
            ways = np.bincount(row[kept], minlength=len(self.choice_ptr) - 1)
            onward = kept & ((after == target) | (ways[inside + after * ranks + target] > 0))
            if (onward == kept).all():
                ptr = np.concatenate([[0], np.cumsum(ways)])
                return replace(self, choice_ptr=ptr, choice_links=self.choice_links[kept])
            kept = onward

    def reaches(self, source: Ids, target: Ids) -> npt.NDArray[np.bool_]:
        """Whether there is a way, bool[flows]."""
        inside = (self.node[source] == self.node[target]) & (self._choices(source, target, inside=True) > 0)
        way: npt.NDArray[np.bool_] = (source == target) | inside | (self._choices(source, target, inside=False) > 0)
        return way

    def unreachable(self) -> list[tuple[int, int]]:
        """Return the pairs (source, target) of ranks that no route joins."""
        ranks = len(self.node)
        source, target = np.divmod(np.arange(ranks * ranks, dtype=np.int64), ranks)
        cut = (source != target) & (self._choices(source, target, inside=False) == 0)
        return [(int(s), int(t)) for s, t in zip(source[cut], target[cut], strict=True)]

    def _choices(self, device: Ids, target: Ids, *, inside: bool) -> Ids:
        ranks = len(self.node)
        row = device * ranks + target + (self.n_devices * ranks if inside else 0)
        count: Ids = self.choice_ptr[row + 1] - self.choice_ptr[row]
        return count


def shortest_paths(graph: Graph, link_id: dict[tuple[str, str], int], inside_only: str = "") -> ShortestPaths:
    """Build the next-link tables by one breadth-first search per target, backwards.

    Args:
        graph: any; its GPUs come first, in the order of their ranks.
        link_id: id of each (source, target).
        inside_only: class of links that no way between nodes takes: through the host to another GPU's NIC.
    """
    index = {name: i for i, name in enumerate(graph.nodes)}
    node_of = [graph.nodes[name]["node"] for name in graph.nodes]
    n_ranks = sum(1 for _, kind in graph.nodes(data="kind") if kind == "gpu")
    incoming: list[list[tuple[int, int]]] = [[] for _ in index]
    between: list[list[tuple[int, int]]] = [[] for _ in index]
    for (tail, head), link in link_id.items():
        incoming[index[head]].append((index[tail], link))
        if graph.edges[tail, head]["link_class"] != inside_only:
            between[index[head]].append((index[tail], link))
    rows: list[list[int]] = [[] for _ in range(2 * len(index) * n_ranks)]
    cost = [_cost(graph.edges[pair]) for pair in link_id]
    for target in range(n_ranks):
        distance, queue = {target: 0}, deque([target])
        while queue:
            at = queue.popleft()
            if at < n_ranks and at != target:
                continue  # a GPU does not forward
            for before, link in between[at]:
                if before not in distance:
                    distance[before] = distance[at] + 1
                    queue.append(before)
                if distance[before] == distance[at] + 1:
                    rows[before * n_ranks + target].append(link)
        for before, links in _ways_inside(target, incoming, node_of, n_ranks, cost).items():
            rows[(len(index) + before) * n_ranks + target] = links
    lengths = np.array([len(row) for row in rows], np.int64)
    return ShortestPaths(
        node=np.array(node_of[:n_ranks], np.int64),
        link_target=np.array([index[target] for _, target in link_id], np.int64),
        choice_ptr=np.concatenate([[0], np.cumsum(lengths)]),
        choice_links=np.array([link for row in rows for link in row], np.int64),
        n_devices=len(index),
    )


def _cost(edge: Any) -> tuple[int, float]:
    """What a link costs inside a node: NVLink before PCIe before all else, then the wider one."""
    kinds = {NVLINK: 0, PCIE: 1}
    return kinds.get(edge["link_class"], 2), -float(edge["capacity"])


def _ways_inside(
    target: int, incoming: list[list[tuple[int, int]]], node_of: list[int], n_ranks: int, cost: list[tuple[int, float]]
) -> dict[int, list[int]]:
    """The links that each device of the target's node may take towards it.

    The best way has the best worst class, then the widest narrowest link, then the fewest hops: NVLink wins over a NIC
    or a PCIe switch that two GPUs share, however near that is. All links that begin an equally good way are listed.
    """
    best: dict[int, tuple[int, float, int]] = {target: (-1, -np.inf, 0)}
    links: dict[int, list[int]] = {}
    heap = [(best[target], target)]
    while heap:
        key, at = heapq.heappop(heap)
        if key != best[at] or (at < n_ranks and at != target):
            continue  # found a better way since, or a GPU, which does not forward
        for before, link in incoming[at]:
            if node_of[before] != node_of[target] or before == target:
                continue
            worst, narrowest = cost[link]
            way = (max(key[0], worst), max(key[1], narrowest), key[2] + 1)
            if before not in best or way < best[before]:
                best[before], links[before] = way, [link]
                heapq.heappush(heap, (way, before))
            elif way == best[before] and link not in links[before]:
                links[before].append(link)
    return links


def check_connected(paths: ShortestPaths, names: tuple[str, ...], where: str) -> None:
    """Refuse a topology in which some rank cannot reach another.

    Raises:
        InputError: names the first such pair and counts the rest.
    """
    cut = paths.unreachable()
    if cut:
        source, target = cut[0]
        more = f" (and {len(cut) - 1} more pairs)" if len(cut) > 1 else ""
        raise InputError(
            f"no route from {names[source]} to {names[target]}{more}",
            where=where,
            fix="add the missing link; both_ways gives the way back, and a GPU does not forward for others",
        )

"""A cluster in numbers and in words: what ``topo show`` prints.

Bisection is the largest flow, one way, that the first half of the nodes can send to the second half (of the
ranks where there is one node): max-flow min-cut on the links' peaks, whatever the routing makes of it.
"""

from collections import defaultdict

import numpy as np

from moesim.cluster.fabric import Fabric
from moesim.cluster.graph import LEAF_SPINE
from moesim.units import format_bandwidth, format_duration

# Above this, max-flow takes too long for a line of a table: bisection is not given.
MAX_BISECTION_LINKS = 5_000
MAX_LATENCY_SOURCES = 64

Fact = str | int | float | None


def facts(fabric: Fabric) -> dict[str, Fact]:
    """Return the facts of a cluster as a whole; None where it does not apply or was not computed.

    Latencies are seconds over the routes of (at most 64, evenly spaced) ranks to all others;
    ``oversubscription`` is the largest, over leaves, of the GPUs' capacity into the leaf over the leaf's
    into the spines.
    """
    near, far = _route_latencies(fabric)
    return {
        "topology": fabric.name,
        "gpu": fabric.gpu,
        "ranks": fabric.n_ranks,
        "nodes": fabric.n_nodes,
        "ranks_per_node": fabric.ranks_per_node,
        "links": fabric.n_links,
        "node_latency_s": float(near.max()) if near.size else None,
        "network_latency_min_s": float(far.min()) if far.size else None,
        "network_latency_max_s": float(far.max()) if far.size else None,
        "oversubscription": _oversubscription(fabric),
        "bisection_bytes_per_s": bisection(fabric) if fabric.n_links <= MAX_BISECTION_LINKS else None,
    }


def link_class_rows(fabric: Fabric) -> list[dict[str, Fact]]:
    """Return one row per link class: its links, its sender ports, the capacity of one and of all of those."""
    rows: list[dict[str, Fact]] = []
    for link_class in fabric.link_classes:
        members = fabric.is_class(link_class)
        senders, capacity = members & fabric.sender_port, fabric.capacity[members]
        row: dict[str, Fact] = {"link_class": link_class, "links": len(capacity), "sender_ports": int(senders.sum())}
        row |= {"capacity_min_bytes_per_s": float(capacity.min()), "capacity_max_bytes_per_s": float(capacity.max())}
        rows.append(row | {"sender_capacity_bytes_per_s": float(fabric.capacity[senders].sum())})
    return rows


def describe(fabric: Fabric) -> str:
    """Return a cluster's facts and link classes as lines of plain text."""
    about = facts(fabric)
    lines = [
        f"{fabric.name}: {fabric.n_ranks} {fabric.gpu.upper()} in {_count(fabric.n_nodes, 'node')}, "
        f"{_count(fabric.n_links, 'link')} (one per direction)"
    ]
    lines += _columns(
        [("link class", "links", "senders", "each, one way", "senders together")]
        + [_class_cells(row) for row in link_class_rows(fabric)]
    )
    if isinstance(node_latency := about["node_latency_s"], float):
        lines.append(f"latency inside a node: {format_duration(node_latency)}")
    low_s, high_s = about["network_latency_min_s"], about["network_latency_max_s"]
    if isinstance(low_s, float) and isinstance(high_s, float):
        span = f" to {format_duration(high_s)}" if high_s > low_s else ""
        lines.append(f"latency between nodes: {format_duration(low_s)}{span}")
    if isinstance(ratio := about["oversubscription"], float):
        lines.append(f"leaf oversubscription: {ratio:.4g} : 1")
    if isinstance(cut := about["bisection_bytes_per_s"], float):
        whole = "nodes" if fabric.n_nodes > 1 else "node"
        lines.append(f"bisection, one way between halves of the {whole}: {format_bandwidth(cut)}")
    return "\n".join(lines)


def bisection(fabric: Fabric) -> float:
    """Return the largest flow from the first half of the nodes (or of one node's ranks) to the rest."""
    import networkx as nx

    if fabric.n_ranks < 2:
        return 0.0
    links, domain = np.arange(fabric.n_links), fabric.rank_node
    if fabric.n_nodes == 1:  # the idle NICs do not count
        source, target = (pair.ravel() for pair in np.indices((fabric.n_ranks, fabric.n_ranks)))
        links, domain = np.unique(fabric.routes(source, target)[1]), np.arange(fabric.n_ranks, dtype=np.int32)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for link in links:  # capacities in whole bytes/s: the algorithm then ends exactly
        capacity = round(float(fabric.capacity[link]))
        graph.add_edge(fabric.link_source[link], fabric.link_target[link], capacity=capacity)
    for rank, sends in zip(fabric.rank_names, domain < (int(domain[-1]) + 1) // 2, strict=True):
        graph.add_edge(*(("", rank) if sends else (rank, "sink of the second half")))
    return float(nx.maximum_flow_value(graph, "", "sink of the second half"))


def _class_cells(row: dict[str, Fact]) -> tuple[str, ...]:
    ends = ("capacity_min", "capacity_max", "sender_capacity")
    low, high, total = (format_bandwidth(float(row[f"{which}_bytes_per_s"] or 0)) for which in ends)
    each = low if low == high else f"{low} to {high}"
    return str(row["link_class"]), str(row["links"]), str(row["sender_ports"]), each, total


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows of cells as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *rest = widths
    form = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in rest)])
    return [form.format(*row) for row in rows]


def _route_latencies(fabric: Fabric) -> tuple[np.ndarray, np.ndarray]:
    """Return the latencies of routes inside nodes and between nodes, seconds."""
    step = -(-fabric.n_ranks // MAX_LATENCY_SOURCES)
    source, target = (pair.ravel() for pair in np.mgrid[0 : fabric.n_ranks : step, 0 : fabric.n_ranks])
    latency = fabric.latency_of(*fabric.routes(source, target))
    near = fabric.rank_node[source] == fabric.rank_node[target]
    return latency[near & (source != target)], latency[~near]


def _oversubscription(fabric: Fabric) -> float | None:
    into, out_of = defaultdict[str, float](float), defaultdict[str, float](float)
    for link in np.flatnonzero(fabric.sender_port):
        if fabric.link_class[link] == LEAF_SPINE:
            out_of[fabric.link_source[link]] += float(fabric.capacity[link])
        else:
            into[fabric.link_target[link]] += float(fabric.capacity[link])
    return max((into[leaf] / up for leaf, up in out_of.items()), default=None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

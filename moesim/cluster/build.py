"""From a checked topology to the frozen ``Fabric`` of arrays; the graph is gone afterwards."""

from collections import deque

import numpy as np

from moesim.cluster.fabric import Fabric
from moesim.cluster.graph import HOST, Graph, build_graph
from moesim.cluster.packets import Packets, packets_over_spines
from moesim.cluster.paths import ShortestPaths, TwoTierPaths, check_connected, shortest_paths, two_tier_paths
from moesim.cluster.topology_spec import AnyTopology, ExplicitTopology, HgxTopology, MultiPlaneTopology, RailTopology


def build_fabric(spec: AnyTopology, name: str, where: str = "") -> Fabric:
    """Return the links and routes of a topology.

    Args:
        spec: the content of a topology file.
        name: what results call the cluster.
        where: file (and line) that an error names.

    Raises:
        InputError: in an explicit topology a rank cannot reach another.
    """
    graph = build_graph(spec)
    gpus = tuple(device for device, kind in graph.nodes(data="kind") if kind == "gpu")
    ends = list(graph.edges)
    link_id = {pair: link for link, pair in enumerate(ends)}
    edges = [graph.edges[pair] for pair in ends]
    paths: TwoTierPaths | ShortestPaths
    if isinstance(spec, ExplicitTopology):
        paths = shortest_paths(graph, link_id)
        check_connected(paths, gpus, where)
    elif spec.pcie is not None:
        paths = shortest_paths(graph, link_id, inside_only=HOST)
    else:
        static = not isinstance(spec, HgxTopology) and spec.routing == "static"
        planes = spec.gpus_per_node if isinstance(spec, MultiPlaneTopology) else 0
        paths = two_tier_paths(graph, link_id, static=static, planes=planes)
    entering = _entering_links(graph)
    return Fabric(
        name=name,
        gpu=spec.gpu,
        rank_names=gpus,
        rank_node=np.array([graph.nodes[gpu]["node"] for gpu in gpus], np.int32),
        link_names=tuple(f"{source}->{target}" for source, target in ends),
        link_source=tuple(source for source, _ in ends),
        link_target=tuple(target for _, target in ends),
        link_class=tuple(edge["link_class"] for edge in edges),
        capacity=np.array([edge["capacity"] for edge in edges], np.float64),
        latency=np.array([edge["latency"] for edge in edges], np.float64),
        sender_port=np.array([pair in entering for pair in ends], np.bool_),
        paths=paths,
        between_switches=np.array([_between_switches(graph, *pair) for pair in ends], np.bool_),
        nic_card=spec.nic.card if not isinstance(spec, ExplicitTopology) and spec.nic is not None else "connectx",
        packets=_packets(spec),
    )


def _between_switches(graph: Graph, source: str, target: str) -> bool:
    inside = graph.edges[source, target]["link_class"] in ("nvlink", "pcie", "nic")
    return not inside and graph.nodes[source]["node"] == graph.nodes[target]["node"] == -1


def _packets(spec: AnyTopology) -> Packets | None:
    if isinstance(spec, HgxTopology):
        return None
    spreading = "hash" if isinstance(spec, ExplicitTopology) else spec.routing
    return packets_over_spines(spec.fabric, spreading, isinstance(spec, RailTopology))


def heights(graph: Graph) -> dict[str, int]:
    """Return how many links each device is away from the nearest GPU, whatever the links' direction."""
    height = {device: 0 for device, kind in graph.nodes(data="kind") if kind == "gpu"}
    queue = deque(height)
    while queue:
        at = queue.popleft()
        for near in (*graph.successors(at), *graph.predecessors(at)):
            if near not in height:
                height[near] = height[at] + 1
                queue.append(near)
    return height


def _entering_links(graph: Graph) -> set[tuple[str, str]]:
    """Return the links by which bytes enter a class on their way up: a byte crosses one of them per class.

    A link climbs if it leads no nearer to the GPUs; it enters its class if none of that class leads up to it.
    """
    height = heights(graph)
    below = {
        (target, link_class)
        for source, target, link_class in graph.edges(data="link_class")
        if height.get(source, 0) < height.get(target, 0)
    }
    return {
        (source, target)
        for source, target, link_class in graph.edges(data="link_class")
        if height.get(source, 0) <= height.get(target, 0) and (source, link_class) not in below
    }

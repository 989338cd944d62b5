"""From a checked topology to the frozen ``Fabric`` of arrays; the graph is gone afterwards."""

from collections import deque

import numpy as np

from moesim.cluster.fabric import Fabric
from moesim.cluster.graph import HOST, NIC, NVLINK, PCIE, Graph, build_graph
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
    gpus, edges = tuple(graph.gpus), graph.edges()
    link_id = {pair: link for link, pair in enumerate(edges)}
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
    entering, outside = _entering_links(graph), {name for name, node in graph.node.items() if node == -1}
    between = [outside.issuperset(pair) and edge.link_class not in (NVLINK, PCIE, NIC) for pair, edge in edges.items()]
    return Fabric(
        name=name,
        gpu=spec.gpu,
        rank_names=gpus,
        rank_node=np.array([graph.node[gpu] for gpu in gpus], np.int32),
        link_names=tuple(f"{source}->{target}" for source, target in edges),
        link_source=tuple(source for source, _ in edges),
        link_target=tuple(target for _, target in edges),
        link_class=tuple(edge.link_class for edge in edges.values()),
        capacity=np.array([edge.capacity for edge in edges.values()], np.float64),
        latency=np.array([edge.latency for edge in edges.values()], np.float64),
        sender_port=np.array([pair in entering for pair in edges], np.bool_),
        paths=paths,
        between_switches=np.array(between, np.bool_),
        nic_card=spec.nic.card if not isinstance(spec, ExplicitTopology) and spec.nic is not None else "connectx",
        packets=_packets(spec),
    )


def _packets(spec: AnyTopology) -> Packets | None:
    if isinstance(spec, HgxTopology):
        return None
    spreading = "hash" if isinstance(spec, ExplicitTopology) else spec.routing
    return packets_over_spines(spec.fabric, spreading, isinstance(spec, RailTopology))


def heights(graph: Graph) -> dict[str, int]:
    """Return how many links each device is away from the nearest GPU, whatever the links' direction."""
    height = dict.fromkeys(graph.gpus, 0)
    neighbours: dict[str, list[str]] = {device: [] for device in graph.kind}
    for source, target in graph.edges():
        neighbours[source].append(target)
        neighbours[target].append(source)
    queue = deque(height)
    while queue:
        at = queue.popleft()
        for near in neighbours[at]:
            if near not in height:
                height[near] = height[at] + 1
                queue.append(near)
    return height


def _entering_links(graph: Graph) -> set[tuple[str, str]]:
    """Return the links by which bytes enter a class on their way up: a byte crosses one of them per class.

    A link climbs if it leads no nearer to the GPUs; it enters its class if none of that class leads up to it.
    """
    height, edges = heights(graph), graph.edges()
    below = {
        (target, edge.link_class)
        for (source, target), edge in edges.items()
        if height.get(source, 0) < height.get(target, 0)
    }
    return {
        (source, target)
        for (source, target), edge in edges.items()
        if height.get(source, 0) <= height.get(target, 0) and (source, edge.link_class) not in below
    }

"""From a topology file's content to a directed networkx graph of devices and links.

Nodes carry ``kind`` (gpu or switch) and ``node`` (NVLink domain or -1), edges ``capacity`` (bytes/s of that
direction), ``latency`` (s) and ``link_class``. An NVLink domain is one crossbar: each GPU has a link to
``nX.nvswitch`` and one back. A GPU's network cards are its own port to the leaf; a card that GPUs share is a device,
``nX.nicY``, that each of them has a PCIe link to. The latency of a hop pair
(GPU to switch to GPU) is put whole on the sender's link, and that of the way over a spine on the link that
climbs: a route's sum is then right, and a flow that fans out behind a switch does not count it twice.

Not modelled: PCIe between a GPU and its own card, blocking inside a switch, links between NVSwitches.
"""

from typing import Any, TypeAlias

from moesim.cluster.topology_spec import (
    AnyTopology,
    ExplicitTopology,
    HgxTopology,
    LeafSpine,
    LeafSpineTopology,
    MultiPlaneTopology,
    Nic,
    Nvlink,
    RailTopology,
)

# A networkx.DiGraph with names for nodes; networkx is imported only where a graph is made.
Graph: TypeAlias = Any
NVLINK, NIC, LEAF_SPINE, PCIE = "nvlink", "nic", "leaf-spine", "pcie"


def build_graph(spec: AnyTopology) -> Graph:
    """Return the devices and links of a topology; GPUs come first, in the order of their ranks."""
    if isinstance(spec, ExplicitTopology):
        return _explicit(spec)
    if isinstance(spec, HgxTopology):
        graph = _domains(1, spec.gpus_per_node, spec.nvlink)
        if spec.nic is not None:
            leaf_of = {gpu: "leaf" for gpu in gpu_names(1, spec.gpus_per_node)}
            _attach_nics(graph, spec.nic, leaf_of, spec.gpus_per_node)
        return graph
    graph = _domains(spec.nodes, spec.gpus_per_node, spec.nvlink)
    spray = spec.routing == "spray"
    if isinstance(spec, MultiPlaneTopology):
        leaf_of = _plane_leaves(spec)
        _attach_nics(graph, spec.nic, leaf_of, spec.gpus_per_node)
        for plane in range(spec.gpus_per_node):
            prefix = f"plane{plane}."
            in_plane = {gpu: leaf for gpu, leaf in leaf_of.items() if leaf.startswith(prefix)}
            _join_leaves(graph, spec.leaf_spine, in_plane, spray=spray, prefix=prefix)
        return graph
    leaf_of = _rail_leaves(spec) if isinstance(spec, RailTopology) else _node_leaves(spec)
    _attach_nics(graph, spec.nic, leaf_of, spec.gpus_per_node)
    _join_leaves(graph, spec.leaf_spine, leaf_of, spray=spray)
    return graph


def gpu_names(nodes: int, gpus_per_node: int) -> list[str]:
    """Return the names of the GPUs of a regular cluster in the order of their ranks."""
    return [f"n{node}.gpu{gpu}" for node in range(nodes) for gpu in range(gpus_per_node)]


def _domains(nodes: int, gpus_per_node: int, nvlink: Nvlink) -> Graph:
    import networkx as nx

    graph: Graph = nx.DiGraph()
    for rank, gpu in enumerate(gpu_names(nodes, gpus_per_node)):
        graph.add_node(gpu, kind="gpu", node=rank // gpus_per_node)
    for node in range(nodes):
        graph.add_node(f"n{node}.nvswitch", kind="switch", node=node)
    for rank, gpu in enumerate(gpu_names(nodes, gpus_per_node)):
        switch = f"n{rank // gpus_per_node}.nvswitch"
        _add_pair(graph, gpu, switch, nvlink.bandwidth, nvlink.latency, NVLINK)
    return graph


def _rail_leaves(spec: RailTopology) -> dict[str, str]:
    names = gpu_names(spec.nodes, spec.gpus_per_node)
    cards = spec.nic.cards(spec.gpus_per_node) or [(gpu,) for gpu in range(spec.gpus_per_node)]
    rail = {gpu: card for card, gpus in enumerate(cards) for gpu in gpus}
    return {gpu: f"rail{rail[rank % spec.gpus_per_node]}.leaf" for rank, gpu in enumerate(names)}


def _plane_leaves(spec: MultiPlaneTopology) -> dict[str, str]:
    names = gpu_names(spec.nodes, spec.gpus_per_node)
    per_leaf = spec.gpus_per_node * spec.nodes_per_leaf
    return {gpu: f"plane{rank % spec.gpus_per_node}.leaf{rank // per_leaf}" for rank, gpu in enumerate(names)}


def _node_leaves(spec: LeafSpineTopology) -> dict[str, str]:
    names = gpu_names(spec.nodes, spec.gpus_per_node)
    return {gpu: f"leaf{rank // spec.gpus_per_node // spec.nodes_per_leaf}" for rank, gpu in enumerate(names)}


def _attach_nics(graph: Graph, nic: Nic, leaf_of: dict[str, str], gpus_per_node: int) -> None:
    """Join GPUs to their leaves: by a port of their own, or over PCIe to a card that they share."""
    for leaf in dict.fromkeys(leaf_of.values()):
        graph.add_node(leaf, kind="switch", node=-1)
    cards = nic.cards(gpus_per_node)
    if cards is None:
        for gpu, leaf in leaf_of.items():
            _add_pair(graph, gpu, leaf, nic.per_gpu_bandwidth(gpus_per_node), nic.latency, NIC)
        return
    gpus = list(leaf_of)
    for first in range(0, len(gpus), gpus_per_node):
        for number, members in enumerate(cards):
            card = f"n{first // gpus_per_node}.nic{number}"
            graph.add_node(card, kind="switch", node=-1)
            for member in members:
                _add_pair(graph, gpus[first + member], card, nic.pcie or nic.card_bandwidth, 0.0, PCIE)
            _add_pair(graph, card, leaf_of[gpus[first + members[0]]], nic.card_bandwidth, nic.latency, NIC)


def _join_leaves(
    graph: Graph, leaf_spine: LeafSpine, leaf_of: dict[str, str], *, spray: bool, prefix: str = ""
) -> None:
    """Join every leaf to every spine; with spray the spines are one switch with the links' sum.

    With capacity D of a leaf towards its NICs, oversubscription o and s spines, a leaf-spine link has
    D / (o s).
    """
    towards = {leaf: [edge["capacity"] for _, edge in graph[leaf].items()] for leaf in dict.fromkeys(leaf_of.values())}
    spines = [f"{prefix}spines"] if spray else [f"{prefix}spine{i}" for i in range(leaf_spine.spines)]
    links_in_one = leaf_spine.spines if spray else 1
    for spine in spines:
        graph.add_node(spine, kind="switch", node=-1)
    for leaf, ports in towards.items():
        uplink = leaf_spine.uplink_bandwidth or len(ports) * ports[0] / leaf_spine.oversubscription / leaf_spine.spines
        for spine in spines:
            _add_pair(graph, leaf, spine, uplink * links_in_one, leaf_spine.latency, LEAF_SPINE)


def _add_pair(graph: Graph, below: str, above: str, capacity: float, latency: float, link_class: str) -> None:
    graph.add_edge(below, above, capacity=capacity, latency=latency, link_class=link_class)
    graph.add_edge(above, below, capacity=capacity, latency=0.0, link_class=link_class)


def _explicit(spec: ExplicitTopology) -> Graph:
    import networkx as nx

    graph: Graph = nx.DiGraph()
    gpus = sorted((d for d in spec.nodes if d.type == "gpu"), key=lambda d: -1 if d.node is None else d.node)
    for device in (*gpus, *(d for d in spec.nodes if d.type == "switch")):
        graph.add_node(device.name, kind=device.type, node=-1 if device.node is None else device.node)
    for link in spec.links:
        ways = [(link.source, link.target, link.latency)]
        if link.both_ways:
            ways.append((link.target, link.source, link.latency_back))
        for source, target, latency in ways:
            graph.add_edge(source, target, capacity=link.bandwidth, latency=latency, link_class=link.link_class)
    return graph

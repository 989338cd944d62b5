"""From a topology file's content to a directed networkx graph of devices and links.

Nodes carry ``kind`` (gpu or switch) and ``node`` (NVLink domain or -1), edges ``capacity`` (bytes/s of that
direction), ``latency`` (s) and ``link_class``. An NVLink domain is one crossbar: each GPU has a link to
``nX.nvswitch`` and one back. A GPU's network cards are its own port to the leaf; a card that GPUs share is a device,
``nX.nicY``, that each of them has a PCIe link to. Without NVLink every card is such a device (the NIC and the PCIe
switch before it), with a link to a host bridge, ``nX.hostY``. The latency of a hop pair (GPU to switch to GPU) is put
whole on the sender's link, and that of the way over a spine on the link that climbs: a route's sum is then right, and a
flow that fans out behind a switch does not count it twice.

Not modelled: PCIe between a GPU and its own card, blocking inside a switch, links between NVSwitches.
"""

import itertools
from typing import Any, TypeAlias

from moesim.cluster.topology_spec import (
    AnyTopology,
    ExplicitTopology,
    HgxTopology,
    LeafSpine,
    LeafSpineTopology,
    MultiPlaneTopology,
    Pcie,
    RailTopology,
    RegularTopology,
)

# A networkx.DiGraph with names for nodes; networkx is imported only where a graph is made.
Graph: TypeAlias = Any
NVLINK, NIC, LEAF_SPINE, PCIE, HOST = "nvlink", "nic", "leaf-spine", "pcie", "host"


def build_graph(spec: AnyTopology) -> Graph:
    """Return the devices and links of a topology; GPUs come first, in the order of their ranks."""
    if isinstance(spec, ExplicitTopology):
        return _explicit(spec)
    if isinstance(spec, HgxTopology):
        leaf_of = {gpu: "leaf" for gpu in gpu_names(1, spec.gpus_per_node)} if spec.nic is not None else {}
        return _nodes(spec, 1, leaf_of)
    spray = spec.routing == "spray"
    if isinstance(spec, MultiPlaneTopology):
        leaf_of = _plane_leaves(spec)
        graph = _nodes(spec, spec.nodes, leaf_of)
        for plane in range(spec.gpus_per_node):
            prefix = f"plane{plane}."
            in_plane = {gpu: leaf for gpu, leaf in leaf_of.items() if leaf.startswith(prefix)}
            _join_leaves(graph, spec.leaf_spine, in_plane, spray=spray, prefix=prefix)
        return graph
    leaf_of = _rail_leaves(spec) if isinstance(spec, RailTopology) else _node_leaves(spec)
    graph = _nodes(spec, spec.nodes, leaf_of)
    _join_leaves(graph, spec.leaf_spine, leaf_of, spray=spray)
    return graph


def gpu_names(nodes: int, gpus_per_node: int) -> list[str]:
    """Return the names of the GPUs of a regular cluster in the order of their ranks."""
    return [f"n{node}.gpu{gpu}" for node in range(nodes) for gpu in range(gpus_per_node)]


def _nodes(spec: RegularTopology, nodes: int, leaf_of: dict[str, str]) -> Graph:
    """GPUs, what joins those of a node, and their cards with the leaf of each."""
    import networkx as nx

    graph: Graph = nx.DiGraph()
    names, nvlink = gpu_names(nodes, spec.gpus_per_node), spec.nvlink
    for rank, gpu in enumerate(names):
        graph.add_node(gpu, kind="gpu", node=rank // spec.gpus_per_node)
    if nvlink is not None:
        for node in range(nodes):
            graph.add_node(f"n{node}.nvswitch", kind="switch", node=node)
        for rank, gpu in enumerate(names):
            switch = f"n{rank // spec.gpus_per_node}.nvswitch"
            _add_pair(graph, gpu, switch, nvlink.bandwidth, nvlink.latency, NVLINK)
    for leaf in dict.fromkeys(leaf_of.values()):
        graph.add_node(leaf, kind="switch", node=-1)
    _attach_nics(graph, spec, names, leaf_of)
    if spec.pcie is not None:
        _attach_hosts(graph, spec.pcie, nodes)
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


def _attach_nics(graph: Graph, spec: RegularTopology, names: list[str], leaf_of: dict[str, str]) -> None:
    """Join GPUs to their leaves: by a port of their own, or over PCIe to a card, shared or in a node without NVLink."""
    nic, width = spec.nic, spec.gpus_per_node
    if nic is None:
        return
    cards = nic.cards(width)
    if cards is None and spec.pcie is None:
        for gpu, leaf in leaf_of.items():
            _add_pair(graph, gpu, leaf, nic.per_gpu_bandwidth(width), nic.latency, NIC)
        return
    rate = nic.per_gpu_bandwidth(width) if cards is None else nic.card_bandwidth
    pcie = nic.pcie or rate if spec.pcie is None else spec.pcie.bandwidth
    for first in range(0, len(names), width):
        for number, members in enumerate(cards or [(gpu,) for gpu in range(width)]):
            card = f"n{first // width}.nic{number}"
            graph.add_node(card, kind="switch", node=-1 if spec.pcie is None else first // width)
            for member in members:
                _add_pair(graph, names[first + member], card, pcie, 0.0, PCIE)
            _add_pair(graph, card, leaf_of[names[first + members[0]]], rate, nic.latency, NIC)


def _attach_hosts(graph: Graph, pcie: Pcie, nodes: int) -> None:
    """Join the cards of each node, without any its GPUs, to the host bridges, and those to each other."""
    for node in range(nodes):
        inside = [name for name, at in graph.nodes(data="node") if at == node]
        cards = [name for name in inside if graph.nodes[name]["kind"] == "switch"]
        hosts = [f"n{node}.host{number}" for number in range(pcie.hosts)]
        for host in hosts:
            graph.add_node(host, kind="switch", node=node)
        for number, name in enumerate(cards or inside):
            host = hosts[number * len(hosts) // len(cards or inside)]
            _add_pair(graph, name, host, pcie.bandwidth, 0.0, HOST if cards else PCIE)
        for one, other in itertools.combinations(hosts, 2):
            _add_pair(graph, one, other, pcie.between_hosts or 0.0, 0.0, HOST)


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

"""Clusters: topology files, and the ``Fabric`` of links and routes that the simulator uses."""

from moesim.cluster.beyond_today import beyond_today
from moesim.cluster.build import build_fabric
from moesim.cluster.describe import bisection, describe, facts, link_class_rows
from moesim.cluster.fabric import Fabric
from moesim.cluster.faulty_paths import FaultyPaths
from moesim.cluster.graph import HOST, NIC, NVLINK, PCIE
from moesim.cluster.group_places import group_fabrics, places_of_group
from moesim.cluster.packets import Packets
from moesim.cluster.paths import ShortestPaths, TwoTierPaths
from moesim.cluster.places import links_of, overridden, ranks_at
from moesim.cluster.topology_picture import Heat, draw
from moesim.cluster.topology_reader import (
    checked_topology,
    find_topology,
    load_topology,
    read_topology,
    topology_names,
)
from moesim.cluster.topology_spec import HgxTopology, LeafSpine, Nic, Nvlink, RailTopology

__all__ = [
    "HOST",
    "NIC",
    "NVLINK",
    "PCIE",
    "Fabric",
    "FaultyPaths",
    "Heat",
    "HgxTopology",
    "LeafSpine",
    "Nic",
    "Nvlink",
    "Packets",
    "RailTopology",
    "ShortestPaths",
    "TwoTierPaths",
    "beyond_today",
    "bisection",
    "build_fabric",
    "checked_topology",
    "describe",
    "draw",
    "facts",
    "find_topology",
    "group_fabrics",
    "link_class_rows",
    "links_of",
    "load_topology",
    "overridden",
    "places_of_group",
    "ranks_at",
    "read_topology",
    "topology_names",
]

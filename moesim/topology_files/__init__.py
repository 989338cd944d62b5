"""Topology files of other tools: into moesim's, and from them."""

from moesim.topology_files.exporter import export_topology
from moesim.topology_files.imported import Answers
from moesim.topology_files.importer import facts_of, import_topology, topology_yaml
from moesim.topology_files.link_rates import parse_pcie

__all__ = ["Answers", "export_topology", "facts_of", "import_topology", "parse_pcie", "topology_yaml"]

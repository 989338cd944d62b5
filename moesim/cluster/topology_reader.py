"""Reading a topology file: every mistake at once, each with file, line and column."""

from pathlib import Path
from typing import Any

from moesim.cluster.build import build_fabric
from moesim.cluster.fabric import Fabric
from moesim.cluster.find import find_topology
from moesim.cluster.graph import NIC
from moesim.cluster.topology_spec import KINDS, AnyTopology, ExplicitTopology
from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, load_yaml, validate
from moesim.mistakes import did_you_mean
from moesim.regular_clusters import RegularCluster


def load_topology(name_or_path: str | Path, nic_bandwidth: float | None = None, max_ranks: int | None = None) -> Fabric:
    """Return the fabric of a topology.

    Args:
        name_or_path: one of moesim's own (``h800-8x8-rail``), a regular cluster's name (``h200-4x8-rail``) or a file.
        nic_bandwidth: bytes/s instead of the file's for every NIC; uplinks given by oversubscription follow.
        max_ranks: keep at most this many ranks, the first ones.

    Raises:
        InputError: no such topology, mistakes in the file, a bandwidth that is not positive.
    """
    found = find_topology(name_or_path)
    spec = read_topology(found)
    if nic_bandwidth is not None:
        spec = with_nic_bandwidth(spec, nic_bandwidth)
    fabric = build_fabric(spec, *((found.stem, str(found)) if isinstance(found, Path) else (found.name,)))
    return fabric if max_ranks is None else fabric.first_ranks(min(max_ranks, fabric.n_ranks))


def read_topology(found: str | Path | RegularCluster) -> AnyTopology:
    """Return the checked content of a topology file, or what a regular cluster's name says.

    Raises:
        InputError: the mistakes of the file, all of them, each with its line.
    """
    document = LocatedDocument(found.content(), found.name) if isinstance(found, RegularCluster) else load_yaml(found)
    if not isinstance(document.data, dict):
        raise document.error((), "a topology is a block of keys", "start with kind: and gpu:")
    if "kind" not in document.data:
        raise document.error((), "the key kind is required", f"kinds: {', '.join(KINDS)}")
    kind = document.data["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise document.error(("kind",), f"unknown kind {kind!r:.60}", did_you_mean(kind, list(KINDS), "kinds"))
    model: Any = KINDS[kind]
    spec: AnyTopology = validate(model, document)
    return spec


def with_nic_bandwidth(spec: AnyTopology, bandwidth: float) -> AnyTopology:
    """Return the topology with another bandwidth (bytes/s) of every NIC.

    Raises:
        InputError: the bandwidth is not positive, or the topology has no NIC.
    """
    if not 0 < bandwidth < float("inf"):
        raise InputError(f"a NIC bandwidth of {bandwidth} is not positive and finite", where="cluster.nic_bandwidth")
    if isinstance(spec, ExplicitTopology):
        if any(link.link_class == NIC for link in spec.links):
            links = tuple(
                link.model_copy(update={"bandwidth": bandwidth}) if link.link_class == NIC else link
                for link in spec.links
            )
            return spec.model_copy(update={"links": links})
    elif spec.nic is not None:
        return spec.model_copy(update={"nic": spec.nic.model_copy(update={"bandwidth": bandwidth})})
    raise InputError(
        "the topology has no NIC", where="cluster.nic_bandwidth", fix="remove it or choose another topology"
    )

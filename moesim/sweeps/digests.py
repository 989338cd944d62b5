"""Digests of what a stage reads, so that what was computed once is found again and nothing else is.

A digest is the SHA-256 of the very values that the stage reads (the router with its groups, the shape of the cluster,
blocks of the scenario, the content of files), each with its type, names and shape. What a stage does not read is not in
it: the rate of a NIC is in no digest of the routing, so that points which differ only there share their tokens.

====================  ==========================================================================================
stage                 reads
====================  ==========================================================================================
batch of tokens       seed, workload, number of experts, ranks and nodes, the files of the workload, whether the
                      placement learns from its first half; and the router
                      where the tokens follow from it (resampled experts, synthetic logits, drawn counts)
routing of a batch    the batch; router, groups and bias, placement, losses, dead ranks, which ranks share a node; where
                      copies are counted at the ports of ranks, the all-to-all and the fabric too
fabric                the topology's file, the NIC bandwidth, overrides of links, the number of ranks, faults; of
                      groups their number and placement, and the seed
====================  ==========================================================================================
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from moesim.cluster import find_topology
from moesim.layer import uses_ports
from moesim.recording_format import recording_path
from moesim.scenario import Scenario, is_path, named_files

if TYPE_CHECKING:
    from moesim.layer import Parts
    from moesim.recording_format import Recording

# A topology or recording is also given by name, recorded routing may be a folder.
_FOUND_OTHERWISE = (("cluster", "topology"), ("workload", "recording", "name"), ("workload", "routing", "file"))


def digest(*values: Any) -> str:
    """Return the SHA-256 of plain values, arrays, dataclasses and blocks of a scenario.

    Values of different type, name or shape give different digests: 1, True, "1" and [1] are four values.

    Raises:
        TypeError: a value that is none of these.
    """
    sha = hashlib.sha256()
    _feed(sha, values)
    return sha.hexdigest()


def _feed(sha: "hashlib._Hash", value: Any) -> None:
    match value:
        case None | bool() | int() | str():
            _put(sha, type(value).__name__, repr(value).encode())
        case float():
            _put(sha, "float", value.hex().encode())
        case np.ndarray():
            _put(sha, f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes())
        case np.generic():
            _put(sha, f"scalar {value.dtype.str}", value.tobytes())
        case list() | tuple():
            _put(sha, f"sequence {len(value)}", b"")
            for item in value:
                _feed(sha, item)
        case Mapping():
            _put(sha, f"mapping {len(value)}", b"")
            for key in sorted(value, key=repr):
                _feed(sha, key)
                _feed(sha, value[key])
        case BaseModel():
            _put(sha, type(value).__name__, b"")
            _feed(sha, {name: getattr(value, name) for name in type(value).model_fields})
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _put(sha, type(value).__name__, b"")
            _feed(sha, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        case _:
            raise TypeError(f"no digest of a {type(value).__name__}")


def _put(sha: "hashlib._Hash", kind: str, data: bytes) -> None:
    sha.update(f"{kind} {len(data)}\0".encode())
    sha.update(data)


def input_files(scenario: Scenario) -> dict[str, Path]:
    """Return the files that a scenario reads, by the field that names each; the built-in tables are not among them."""
    workload, found = scenario.workload, {}
    if isinstance(topology := find_topology(scenario.source(scenario.cluster.name)), Path):
        found["cluster.topology"] = topology
    if workload.recording is not None:
        found["workload.recording.name"] = recording_path(scenario.source(workload.recording.name))
    for loc, value in named_files(scenario):
        if is_path(value) and loc not in _FOUND_OTHERWISE:
            found[".".join(loc)] = Path(scenario.source(value))
    if workload.routing is not None:
        found["workload.routing"] = Path(scenario.routing_path())
    return found


def file_digests(scenario: Scenario) -> dict[str, str]:
    """Return the SHA-256 of each of the scenario's files, by field."""
    return {field: file_digest(path) for field, path in input_files(scenario).items()}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's names and files; what kept its size and time is not read again."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest("folder", [(str(file.relative_to(path)), file_digest(file)) for file in files])
    status = os.stat(path)
    return _content_digest(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _content_digest(path: str, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fabric_digest(scenario: Scenario) -> str:
    """Digest of what the cluster is built from."""
    topology = find_topology(scenario.source(scenario.cluster.name))
    cluster = scenario.cluster
    links = (cluster.nic_bandwidth, cluster.overrides)
    content = file_digest(topology) if isinstance(topology, Path) else topology.content()
    return digest("fabric", str(topology), content, links, scenario.parallel.ep, scenario.faults, *_groups(scenario))


def _groups(scenario: Scenario) -> tuple[Any, ...]:
    """What the places of groups on a cluster follow from; nothing of one that has the first GPUs."""
    parallel = scenario.parallel
    if scenario.groups_at_once == 1 and parallel.group_placement == "packed":
        return ()
    read = file_digests(scenario).get("parallel.group_placement")
    return (parallel.groups, parallel.group_placement, read, scenario.seed)


def batch_digest(scenario: Scenario, parts: "Parts", recording: "Recording | None") -> str:
    """Digest of what the batches of tokens are made from."""
    fabric = parts.fabric
    files = {name: sha for name, sha in file_digests(scenario).items() if name.startswith("workload.")}
    plain = recording is not None and recording.n_experts == parts.router.n_experts
    shape = (fabric.n_ranks, None if plain else (fabric.n_nodes, fabric.ranks_per_node))
    router = None if plain else parts.router
    # The run draws from what the placement has not learnt from.
    learnt = scenario.placement.learn_from == "first_half" and scenario.workload.synthetic is None
    return digest("batch", scenario.seed, scenario.workload, files, shape, parts.router.n_experts, router, learnt)


def routing_digest(scenario: Scenario, parts: "Parts", recording: "Recording | None") -> str:
    """Digest of what the routing of all batches follows from: experts, placement, copies, losses."""
    fabric, routing = parts.fabric, scenario.routing
    ports = (scenario.alltoall.algorithm, fabric_digest(scenario)) if uses_ports(parts) else None
    files = file_digests(scenario)
    return digest(
        "routing",
        batch_digest(scenario, parts, recording),
        parts.router,
        parts.loss_device,
        (routing.bias, files.get("routing.bias"), routing.update_bias),
        (scenario.placement, files.get("placement.file"), files.get("placement.learn_from")),
        scenario.losses,
        (fabric.n_ranks, fabric.n_nodes, fabric.ranks_per_node, fabric.rank_node),
        ports,
        1 if parts.inference is None else parts.inference.micro_batches,
        parts.gone,
        *(("groups",) if scenario.groups_at_once > 1 else ()),
    )

"""Weights of experts on the wires: the flows of one layer's migration, and what a rearrangement takes beside them.

One flow per pair of ranks, as direct sends (NCCL's, NIXL's) move them. A flow starts when both ends are there; a rank
goes on when its own flows, in and out, are done. The constants are in ``moesim/data/migration.yaml``, each with its
range and source; no SM is held and no set-up added beside the fixed time.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from moesim import csr
from moesim.cluster import Fabric
from moesim.located_yaml import load_yaml
from moesim.traffic.flows import PhaseFlows, pair_routes
from moesim.units import parse_duration

_DATA = Path(__file__).resolve().parent.parent / "data" / "migration.yaml"

MigrationMode = Literal["blocking", "layerwise", "async"]


@dataclass(frozen=True)
class WeightTransfer:
    """Constants of a migration.

    Attributes:
        fixed_s: for which ranks stop, for each layer, whatever moves; ``fixed_range_s``: least and most published.
        efficiency: share of a port's peak that weights reach, by ``nvlink`` and ``nic``.
        source: where the fixed time comes from, in words.
    """

    fixed_s: float
    fixed_range_s: tuple[float, float]
    efficiency: Mapping[str, float]
    source: str


@functools.cache
def weight_transfer(mode: MigrationMode, fixed_s: float | None = None) -> WeightTransfer:
    """Return the constants of a mode; ``fixed_s`` stands for the published one where a scenario gives it."""
    data: dict[str, Any] = load_yaml(_DATA).data
    fixed = data["fixed"]["beside" if mode == "async" else "stopped"]
    least, most = map(parse_duration, fixed["range"])
    efficiency = {name: float(found["value"]) for name, found in data["efficiency"].items()}
    found = WeightTransfer(parse_duration(fixed["value"]), (least, most), efficiency, str(fixed["source"]))
    return found if fixed_s is None else replace(found, fixed_s=fixed_s, source="scenario")


def weight_flows(
    fabric: Fabric, source: ArrayLike, target: ArrayLike, n_bytes: int, transfer: WeightTransfer, seed: int = 0
) -> PhaseFlows:
    """Build the flows of one layer's migration, without its fixed time.

    Args:
        fabric: links and routes.
        source, target: ranks of each move, int[moves].
        n_bytes: of one expert.
        transfer: the constants.
        seed: of the fabric's path hash.
    """
    key = np.asarray(source, np.int64) * fabric.n_ranks + np.asarray(target, np.int64)
    pairs, moves = np.unique(key, return_counts=True)
    ends = np.column_stack([pairs // fabric.n_ranks, pairs % fabric.n_ranks]).astype(np.int32)
    ptr, links, latency = pair_routes(fabric, ends[:, 0], ends[:, 1], seed)
    nvlink = fabric.is_class("nvlink")
    efficiency = np.where(nvlink, transfer.efficiency["nvlink"], transfer.efficiency["nic"])
    both = 2 * np.arange(len(pairs) + 1, dtype=np.int64)
    return PhaseFlows(
        phase="migration",
        source=ends[:, 0],
        target=ends[:, 1],
        size=(moves * n_bytes).astype(np.float64),
        route_ptr=ptr,
        route_links=links,
        share=np.ones(len(links)),
        efficiency=efficiency[links],
        delays={"route latency": latency},
        gate_ptr=both,
        gate_ranks=ends.ravel(),
        member_ptr=both,
        member_ranks=ends.ravel(),
        all_ranks_gate=False,
        entry_setup_s=0.0,
        group_setup={},
        sms=0,
        total_sms=1,
    )


def gradient_flows(
    fabric: Fabric, group: ArrayLike, following: ArrayLike, n_bytes: float, transfer: WeightTransfer, seed: int = 0
) -> PhaseFlows:
    """Build what one group sends beside a layer while the groups reduce gradients: rank i to rank i of the next group.

    A reduce-scatter in rings: of N groups each rank passes on (N - 1) / N of its gradients, in turns that follow one
    another closely enough to be one flow. A rank sends as soon as it has its gradients; the next one's are not waited
    for.

    Args:
        fabric: the whole cluster.
        group, following: cluster ranks of this group and of the next, ascending, int[ranks].
        n_bytes: that each rank passes on.
        transfer: share of a port's peak that is reached.
        seed: of the fabric's path hash.
    """
    flows, own = weight_flows(fabric, group, following, 1, transfer, seed), np.arange(np.size(group), dtype=np.int32)
    each = np.arange(len(own) + 1, dtype=np.int64)
    return replace(
        flows, phase="gradients", source=own, target=own, size=flows.size * n_bytes, gate_ptr=each, gate_ranks=own,
        member_ptr=each, member_ranks=own,
    )  # fmt: skip


def busiest_link_s(fabric: Fabric, flows: PhaseFlows) -> float:
    """Return what the busiest link needs for a phase's bytes at the rate that they reach, seconds."""
    moved = csr.spread(flows.size, flows.route_ptr) * flows.weight
    demand = np.bincount(flows.route_links, weights=moved, minlength=fabric.n_links)
    return float((demand / fabric.capacity).max(initial=0.0))

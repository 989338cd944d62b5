"""Small random clusters with several groups on them, each in an all-to-all of its own: for SimGrid and tests."""

from __future__ import annotations

import numpy as np

from benchmarks.workloads import Flows
from moesim.cluster import Fabric, group_fabrics, load_topology
from moesim.measure import FlowExport, joint_flows
from moesim.stages import STAGES
from moesim.timeline import LayerTrace, LayerWork, RankGroup, moe_layers, run_groups
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from tests.reference.alltoall_constants import plain

BYTES_PER_COPY = 1 << 16
N_NETS, SEED = 20, 2027


def random_groups(rng: np.random.Generator) -> list[RankGroup]:
    """Two to four groups on eight small nodes under oversubscribed leaves, by any placement, ranks late at random."""
    per_node, ratio = int(rng.choice([2, 4])), int(rng.integers(1, 5))
    cluster = load_topology(f"h100-8x{per_node}-leaf-spine-{ratio}to1")
    n_groups = int(rng.integers(2, 5))
    ep = per_node * int(rng.integers(1, 8 // n_groups + 1))
    placements = ["packed", "striped", "random"] + ["rails"] * (per_node % n_groups == 0)
    placement, seed = str(rng.choice(placements)), int(rng.integers(1 << 30))
    return [_group(view, rng) for view in group_fabrics(cluster, placement, n_groups, ep, seed)]


def _group(view: Fabric, rng: np.random.Generator) -> RankGroup:
    """One layer without compute: a dispatch and a combine of random copies."""
    copies = rng.integers(1, 4096, (view.n_ranks, view.n_ranks))
    to_nodes = np.zeros((view.n_ranks, view.n_nodes), np.int64)
    flows = {
        phase: phase_flows(
            view, Copies(copies, copies, to_nodes), plain("deepep-low-latency", "h100"), phase, BYTES_PER_COPY, True
        )
        for phase in ("dispatch", "combine")
    }
    work = LayerWork({stage.name: np.zeros(view.n_ranks) for stage in STAGES if stage.kind == "kernel"}, flows)
    return RankGroup(view, moe_layers(1, False), lambda *_: work, rng.integers(0, 64, view.n_ranks) / 65536)


def on_one_clock(groups: list[RankGroup]) -> list[LayerTrace]:
    """The layer of each group, all groups at once."""
    traces = {number: trace for number, trace in run_groups(groups, 1e9) if isinstance(trace, LayerTrace)}
    return [traces[number] for number in range(len(groups))]


def flows_between(groups: list[RankGroup], traces: list[LayerTrace]) -> tuple[Flows, np.ndarray]:
    """The flows with bytes of all groups, without weights, and when each ended: what an algorithm does not reach of a
    link, every flow on it does not reach alike, so it is taken off the link."""
    exports = [FlowExport(group.fabric, number) for number, group in enumerate(groups)]
    for export, trace in zip(exports, traces, strict=True):
        export.add_layer(trace)
    joint, _ = joint_flows(exports)
    capacity, length = joint["capacity"].copy(), np.diff(joint["route_ptr"])
    capacity[joint["route_links"]] /= joint["weight"]
    crosses = length > 0
    ids = 2 * np.arange(crosses.sum())
    flows = Flows(
        "groups", capacity, np.concatenate([[0], np.cumsum(length[crosses])]), joint["route_links"], None,
        joint["size"][crosses], joint["start"][crosses], np.stack([ids, ids + 1]),
    )  # fmt: skip
    return flows, joint["finish"][crosses]

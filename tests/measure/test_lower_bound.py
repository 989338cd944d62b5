"""The lower bound counts at a rank's ports what it waits for and what waits for it, on shared links all bytes."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.cluster import build_fabric, load_topology
from moesim.cluster.topology_spec import KINDS
from moesim.measure.lower_bound import LayerBytes, lower_bound
from moesim.stages import KERNELS, PHASES
from moesim.timeline import LayerWork, moe_layers, run_layers
from moesim.traffic import Copies, count_all_copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.ports.flows_per_port import count_port_copies, port_flows
from tests.reference.alltoall_constants import GB, plain
from tests.reference.lower_bound import bounds

PLANES = """
kind: multi-plane
gpu: h800
nodes: 2
gpus_per_node: 2
nodes_per_leaf: 2
nvlink: {bandwidth: 200GB/s, latency: 3us}
nic: {bandwidth: 50GB/s, latency: 2us}
leaf_spine: {spines: 2, latency: 1us}
routing: spray
"""
MILLISECOND = 50_000_000  # of a NIC at its peak, in copies of one byte


@pytest.mark.parametrize("algorithm", ["nccl-direct", "deepep-low-latency"])
def test_what_a_neighbour_sends_by_the_own_nic_is_not_the_own_load(tmp_path, algorithm):
    (tmp_path / "planes.yaml").write_text(PLANES)
    fabric = load_topology(tmp_path / "planes.yaml")
    sent = np.zeros((4, 4), int)
    sent[0, 3] = MILLISECOND  # for the plane of rank 3: by the NIC of rank 1, and back by that of rank 2
    copies, nothing = Copies(sent, sent, np.zeros((4, 2), int)), np.zeros(4)
    flows = {phase: phase_flows(fabric, copies, plain(algorithm), phase, 1) for phase in ("dispatch", "combine")}
    slow = np.array([0, 9e-3, 0, 0])
    work = LayerWork({stage.name: nothing for stage in KERNELS} | {"experts": slow}, flows)
    trace, _ = run_layers(fabric, moe_layers(1, False), lambda *_: work, nothing, 1e-3)
    assert trace.dispatch.flows.link_wire_bytes(fabric.n_links)[fabric.paths.nic_out[1]] == MILLISECOND
    # Rank 1 has 9 ms of experts and nothing else; rank 3 receives for 1 ms, and its answers' first hop is NVLink.
    took = trace.end_s_of_layer.max()
    assert lower_bound(trace, fabric, slow).seconds == pytest.approx(9e-3) and took < 9.5e-3
    assert lower_bound(trace, fabric, nothing).seconds == pytest.approx(1e-3 + MILLISECOND / 200e9)


def two_leaves(algorithm, *bytes_per_copy):
    """Two leaves of two GPUs, 2:1 towards one spine: ranks 0 and 1 send a NIC-millisecond each, to ranks 2 and 3."""
    blocks = {"nodes": 2, "gpus_per_node": 2, "leaf_spine": {"spines": 1, "oversubscription": 2}}
    blocks |= {"nvlink": {"bandwidth": "200GB/s"}, "nic": {"bandwidth": "50GB/s"}}
    fabric = build_fabric(KINDS["leaf-spine"](kind="leaf-spine", gpu="h800", **blocks), "two leaves")
    sent = np.zeros((4, 4), int)
    sent[0, 2] = sent[1, 3] = MILLISECOND
    copies, nothing = Copies(sent, sent, np.zeros((4, 2), int)), np.zeros(4)
    floor_s = np.array([0, 0, 4e-3, 4.5e-3])
    flows = [
        phase_flows(fabric, copies, plain(algorithm), phase, size, tokens=np.full(4, 1))
        for phase, size in zip(("dispatch", "combine"), bytes_per_copy, strict=True)
    ]
    trace = run(fabric, work_of({"experts": floor_s}, flows), nothing, permutes_first=True)
    return lower_bound(trace, fabric, floor_s), trace.end_s_of_layer.max()


UP, BACK_UP = "leaf0->spine0", "leaf1->spine0"


@pytest.mark.parametrize(
    ("algorithm", "bytes_per_copy", "parts_ms"),
    [
        # Twice the bytes out: 4 ms on the uplink, then at the least rank 2's experts and answers: 4 + 1.
        ("nccl-direct", (2, 1), [(4, None, UP), (4, 2, None), (1, 2, "n1.gpu0->leaf1")]),
        # Twice the bytes back: at the least rank 2's tokens and experts, 1 + 4, then 4 ms on the other uplink.
        ("nccl-direct", (1, 2), [(1, 2, "leaf1->n1.gpu0"), (4, 2, None), (4, None, BACK_UP)]),
        # Barriers: nobody has experts before all bytes are out, nothing comes back before the slowest experts.
        ("deepep-v2-direct", (1, 1), [(2, 3, UP), (4.5, 3, None), (2, 3, BACK_UP)]),
    ],
)
def test_an_uplink_that_two_ranks_share_bounds_with_the_bytes_of_both(algorithm, bytes_per_copy, parts_ms):
    bound, took = two_leaves(algorithm, *bytes_per_copy)
    assert [(part.name, part.rank, part.link) for part in bound.parts] == [
        (name, rank, link)
        for name, (_, rank, link) in zip(("dispatch link", "routed experts", "combine link"), parts_ms, strict=True)
    ]
    assert [part.seconds for part in bound.parts] == pytest.approx([1e-3 * ms for ms, _, _ in parts_ms])
    assert bound.seconds == pytest.approx(1e-3 * sum(ms for ms, _, _ in parts_ms)) and bound.seconds <= took


def small_cluster(rng):
    """A cluster of up to 12 ranks of some kind, spines half as fast as the NICs or slower; some links are slowed."""
    kind = str(rng.choice(["rail", "leaf-spine", "leaf-spine", "multi-plane", "hgx"]))
    nodes, gpus = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    blocks = {"nvlink": {"bandwidth": "200GB/s"}, "nic": {"bandwidth": "50GB/s"}}
    if kind != "hgx":
        blocks |= {
            "nodes": nodes,
            "leaf_spine": {"spines": int(rng.integers(1, 4)), "oversubscription": float(rng.choice([1, 2, 4]))},
            "routing": str(rng.choice(["hash", "static", "spray"])),
        }
    if kind in ("leaf-spine", "multi-plane"):
        blocks["nodes_per_leaf"] = int(rng.integers(1, 3))
    fabric = build_fabric(KINDS[kind](kind=kind, gpu="h800", gpus_per_node=gpus, **blocks), kind)
    if kind in ("rail", "leaf-spine") and rng.random() < 0.3:
        fabric = fabric.first_ranks(int(rng.integers((nodes - 1) * gpus + 1, nodes * gpus + 1)))
    slowed = rng.random(fabric.n_links) < rng.choice([0, 0.3])
    return replace(fabric, capacity=fabric.capacity * np.where(slowed, rng.choice([0.1, 0.5]), 1.0))


def drawn(seed):
    """Fabric, work of one layer, arrivals, order; half of the time with constants at the peaks and no set-up."""
    rng = np.random.default_rng(seed)
    fabric = small_cluster(rng)
    n = fabric.n_ranks
    name = str(rng.choice([a for a in ALGORITHMS if fabric.n_nodes == 1 or not algorithm_named(a).one_domain]))
    constants = plain(name, sms=int(rng.choice([0, 24])))
    if rng.random() < 0.5:
        constants = replace(
            plain(name, sms=0), nvlink_rate=200 * GB, nic_rate=50 * GB, setup_intra_node_s=0.0, setup_inter_node_s=0.0,
            layout_s=0.0, notify_two_nodes_s=0.0, notify_four_nodes_s=0.0, cpu_sync_s=0.0,
        )  # fmt: skip
    slots, tokens = n * int(rng.integers(1, 4)), int(rng.integers(1, 60))
    popular = rng.dirichlet(np.full(slots, rng.choice([0.2, 5.0])))
    slot_ids = rng.choice(slots, (tokens, int(rng.integers(1, 4))), p=popular)
    placed = np.arange(slots) // (slots // n)
    placed = rng.permutation(placed) if rng.random() < 0.5 else placed
    home = rng.choice(n, tokens, p=rng.dirichlet(np.full(n, rng.choice([0.3, 10.0]))))
    common = {
        "constants": constants,
        "bytes_per_copy": int(rng.integers(1, 300_000)),
        "cached_handle": bool(rng.random() < 0.5),
        "tokens": np.bincount(home, minlength=n),
        "n_experts": slots,
    }
    # Flows per port say nothing of a ring, nor of several NICs' way to one another.
    if rng.random() < 0.2 and name not in ("allgather-reduce-scatter", "nccl-pxn", "deepep-low-latency-nic"):
        ports = count_port_copies(slot_ids, home, placed, fabric, algorithm_named(name))
        flows = [port_flows(fabric, ports, phase=phase, **common) for phase in ("dispatch", "combine")]
    else:
        copies = count_all_copies(slot_ids, home, placed, n, fabric.ranks_per_node)
        flows = [
            phase_flows(fabric, copies, phase=phase, ecmp_seed=seed, **common) for phase in ("dispatch", "combine")
        ]

    def kernel(scale):
        return np.where(rng.random(n) < 0.7, rng.exponential(scale, n), 0.0)

    experts = kernel(rng.choice([0, 30e-6, 1e-3]))
    other = [kernel(rng.choice([0, 20e-6])) for _ in range(4)]
    kernels = zip(("gate", "permute", "shared_expert", "unpermute"), other, strict=True)
    work = work_of({"experts": experts} | dict(kernels), flows)
    return fabric, work, rng.exponential(rng.choice([0, 5e-6, 200e-6]), n), name.startswith("nccl")


def work_of(seconds, flows):
    nothing = np.zeros(len(seconds["experts"]))
    return LayerWork({stage.name: nothing for stage in KERNELS} | seconds, dict(zip(PHASES, flows, strict=True)))


def run(fabric, work, arrivals, permutes_first):
    trace, _ = run_layers(fabric, moe_layers(1, permutes_first), lambda *_: work, arrivals, 1e-3)
    return trace


def check_scenarios(seeds):
    """Hold the bound of each drawn layer against its time, the plain loops, its parts and cuts of several links."""
    rng, decided, closest = np.random.default_rng(0), set(), 0.0
    for seed in seeds:
        fabric, work, *how = drawn(seed)
        trace = run(fabric, work, *how)
        bound = lower_bound(trace, fabric, work.seconds["experts"])
        took = float(trace.end_s_of_layer.max() - trace.entry_s.min())
        assert bound.seconds <= took * (1 + 1e-9), seed
        chains = bounds(trace, fabric, work.seconds["experts"])
        longest = max(map(max, filter(None, chains.values())))
        assert bound.seconds == pytest.approx(longest, rel=1e-12, abs=1e-18), seed
        assert sum(part.seconds for part in bound.parts) == pytest.approx(bound.seconds, rel=1e-12), seed
        for flows in (trace.dispatch.flows, trace.combine.flows):
            links = rng.random(fabric.n_links) < 0.5
            wire, peak = flows.link_wire_bytes(fabric.n_links), fabric.capacity
            assert wire[links].sum() <= bound.seconds * peak[links].sum() * (1 + 1e-12), seed
        decided |= {kind for kind, found in chains.items() if found and max(found) > 0.999999 * longest}
        closest = max(closest, bound.seconds / took if took else 0.0)
    assert decided == {"rank", "dispatch", "combine"}
    assert closest > 0.99


def test_no_layer_beats_its_lower_bound_in_two_hundred_drawn_scenarios():
    check_scenarios(range(200))


@pytest.mark.slow
def test_no_layer_beats_its_lower_bound_in_a_thousand_drawn_scenarios():
    check_scenarios(range(1000, 2000))


def test_bytes_added_up_once_bound_at_any_capacities_and_floors():
    for seed in range(40):
        fabric, work, *how = drawn(seed)
        trace, rng = run(fabric, work, *how), np.random.default_rng(seed)
        once = LayerBytes(fabric, trace.dispatch.flows, trace.combine.flows)
        for _ in range(3):
            capacity = fabric.capacity * rng.choice([0.25, 1.0], fabric.n_links)
            floor_s = work.seconds["experts"] * rng.choice([1.0, 3.0], fabric.n_ranks)
            anew = bounds(trace, replace(fabric, capacity=capacity), floor_s)
            found = once.bound(capacity, floor_s).seconds
            assert found == pytest.approx(max(map(max, filter(None, anew.values()))), rel=1e-12), seed
            assert once.chains_s(capacity, floor_s).max() <= found * (1 + 1e-12)

"""Copies at ports and the flows made of them, against the flows of every pair by themselves."""

from dataclasses import replace

import numpy as np
import pytest
import simpy

from moesim.alltoall_library import algorithm_named
from moesim.cluster import load_topology
from moesim.errors import InputError
from moesim.network import FlowNetwork, NetworkClock
from moesim.timeline.phase import PhaseRun, network_capacity
from moesim.timeline.uniform_alltoall import run_phase
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.constants import Protocol
from moesim.traffic.copies import count_all_copies
from moesim.traffic.ports.flows_per_port import count_port_copies, port_flows
from tests.reference.alltoall_constants import plain

RAIL = """
kind: rail
gpu: h800
nodes: 4
gpus_per_node: 4
nvlink: {bandwidth: 200GB/s, latency: 3us}
nic: {bandwidth: 50GB/s, latency: 2us}
leaf_spine: {spines: 2, oversubscription: 2, latency: 1us}
routing: spray
"""
PLANES = RAIL.replace("kind: rail", "kind: multi-plane\nnodes_per_leaf: 2")
LEAVES = RAIL.replace("kind: rail", "kind: leaf-spine\nnodes_per_leaf: 2")
ONE_NODE = """
kind: hgx
gpu: h800
gpus_per_node: 8
nvlink: {bandwidth: 200GB/s, latency: 3us}
"""
CLUSTERS = {"rail": RAIL, "planes": PLANES, "leaves": LEAVES, "node": ONE_NODE}
ALGORITHMS = ("deepep-normal", "deepep-low-latency", "deepep-low-latency-nic", "nccl-direct", "deepep-v2-direct")
BYTES = 1000


@pytest.fixture(scope="module", params=CLUSTERS)
def fabric(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("topology") / f"{request.param}.yaml"
    path.write_text(CLUSTERS[request.param])
    return load_topology(path)


def tokens_of(fabric, seed=0, tokens=400, top_k=4):
    """Skewed slots [tokens, K] of 24 slots, some dropped, and ragged ranks."""
    rng = np.random.default_rng(seed)
    popularity = rng.exponential(size=24) ** 2
    slots = np.array([rng.choice(24, top_k, replace=False, p=popularity / popularity.sum()) for _ in range(tokens)])
    slots[rng.random(slots.shape) < 0.05] = -1
    rank = np.sort(rng.integers(0, fabric.n_ranks, tokens))
    return slots, rank, rng.permutation(np.arange(24) % fabric.n_ranks)


def constants_of(algorithm, phase):
    return replace(plain(algorithm), phase=phase)


def has_ports(fabric, algorithm):
    """Whether the algorithm runs on this cluster at all."""
    return fabric.is_class("nic").any() or algorithm != "deepep-low-latency-nic"


def both(fabric, algorithm, phase, constants=None):
    slots, rank, slot_rank = tokens_of(fabric)
    constants = constants or constants_of(algorithm, phase)
    count = np.bincount(rank, minlength=fabric.n_ranks)
    copies = count_all_copies(slots, rank, slot_rank, fabric.n_ranks, fabric.ranks_per_node)
    ports = count_port_copies(slots, rank, slot_rank, fabric, algorithm_named(algorithm))
    common = {"phase": phase, "bytes_per_copy": BYTES, "tokens": count, "n_experts": 24}
    return phase_flows(fabric, copies, constants, **common), port_flows(fabric, ports, constants, **common)


def arrive(fabric, flows, arrivals):
    """Run a phase that each rank enters at its own time, seconds [ranks]."""
    env = simpy.Environment()
    network = FlowNetwork(network_capacity(fabric), log_bottlenecks=True)
    phase = PhaseRun(NetworkClock(env, network), flows, np.arange(len(arrivals), dtype=np.int32) + fabric.n_links)

    def rank(number):
        yield env.timeout(arrivals[number])
        yield from phase.enter(number)

    for number in range(len(arrivals)):
        env.process(rank(number))
    env.run()
    return phase.trace()


@pytest.mark.parametrize("phase", ["dispatch", "combine"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_port_carries_the_bytes_that_the_flows_of_pairs_bring_to_it(fabric, algorithm, phase):
    if not has_ports(fabric, algorithm):
        pytest.skip("no NIC")
    pairs, ports = both(fabric, algorithm, phase)
    assert ports.link_wire_bytes(fabric.n_links) == pytest.approx(pairs.link_wire_bytes(fabric.n_links), rel=1e-12)
    per_rank = 4 + (fabric.ranks_per_node if fabric.paths.plane is not None else 0)
    assert ports.n_flows <= per_rank * fabric.n_ranks + fabric.is_class("leaf-spine").sum()


@pytest.mark.parametrize("phase", ["dispatch", "combine"])
@pytest.mark.parametrize("algorithm", ["deepep-normal", "deepep-v2-direct", "deepep-low-latency"])
def test_every_kernel_works_as_long_as_for_the_flows_of_pairs(fabric, algorithm, phase):
    terms = {"token_s": 2e-9, "token_sm_s": 1e-7, "rank_copy_sm_s": 3e-7, "node_copy_sm_s": 5e-7, "sms": 20}
    if algorithm == "deepep-v2-direct":
        terms["receive_sm_rate"] = 4e9
    pairs, ports = both(fabric, algorithm, phase, replace(constants_of(algorithm, phase), **terms))
    wanted = pairs.kernel_seconds(fabric.n_ranks)
    assert wanted.max() > 0
    assert ports.kernel_seconds(fabric.n_ranks) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("algorithm", ["deepep-normal", "deepep-low-latency", "deepep-v2-direct"])
def test_totals_are_the_sums_of_the_matrices(fabric, algorithm):
    slots, rank, slot_rank = tokens_of(fabric, seed=3)
    wanted = count_all_copies(slots, rank, slot_rank, fabric.n_ranks, fabric.ranks_per_node).totals()
    whole = count_port_copies(slots, rank, slot_rank, fabric, algorithm_named(algorithm))
    halves = [
        count_port_copies(slots[part], rank[part], slot_rank, fabric, algorithm_named(algorithm))
        for part in (slice(0, 170), slice(170, None))
    ]
    for ports in (whole, halves[0] + halves[1]):
        for name, values in vars(wanted).items():
            assert (getattr(ports.totals(), name) == values).all(), name


@pytest.mark.parametrize("algorithm", ["deepep-normal", "deepep-low-latency"])
def test_a_phase_takes_as_long_as_its_busiest_port_and_no_longer_than_that_of_the_pairs(fabric, algorithm):
    pairs, ports = both(fabric, algorithm, "combine")
    taken = {}
    for name, flows in (("pairs", pairs), ("ports", ports)):
        trace = run_phase(fabric, flows)
        taken[name] = float(trace.leave_s.max() - trace.enter_s.min())
    wire = ports.link_wire_bytes(fabric.n_links) / fabric.capacity
    wire[ports.route_links] /= ports.efficiency
    latest = float(ports.delay_s.max()) + (0.0 if ports.exit_s is None else float(ports.exit_s.max()))
    assert wire.max() <= taken["ports"] <= wire.max() + latest + 1e-12
    # Flows of pairs never beat the busiest port; a route may be shorter than the longest by some latency.
    assert taken["pairs"] >= taken["ports"] - latest
    assert taken["pairs"] <= 1.35 * taken["ports"]


def test_everybody_leaves_with_the_last_and_no_pair_is_named(fabric):
    flows = both(fabric, "deepep-normal", "dispatch")[1]
    trace = run_phase(fabric, flows)
    assert np.ptp(trace.leave_s) == 0
    assert flows.pairs is not None and not len(flows.pairs().source)


@pytest.mark.parametrize(
    ("algorithm", "phase", "opens_with_a_barrier"),
    [
        ("nvl-two-sided", "dispatch", True),
        ("nvl-two-sided", "combine", False),
        ("nvl-one-sided", "dispatch", False),
        ("nvl-one-sided", "combine", True),
    ],
)
def test_behind_an_opening_barrier_ports_start_with_the_last_rank_as_pairs_do(
    tmp_path, algorithm, phase, opens_with_a_barrier
):
    (tmp_path / "node.yaml").write_text(ONE_NODE)
    fabric = load_topology(tmp_path / "node.yaml")
    pairs, ports = both(fabric, algorithm, phase)
    late = int(np.argmin(np.bincount(ports.source, weights=ports.size)))
    arrivals = np.where(np.arange(8) == late, 5e-6, 0.0)
    busiest = (ports.size / fabric.capacity[ports.route_links] / ports.efficiency).max()
    by_pairs, by_ports = arrive(fabric, pairs, arrivals), arrive(fabric, ports, arrivals)
    if opens_with_a_barrier:
        # Whoever came last had little to send; the busiest port starts with it all the same.
        assert set(by_ports.launch_s) == set(by_pairs.launch_s) == {5e-6}
        assert by_ports.leave_s.max() == pytest.approx(5e-6 + ports.delay_s.max() + busiest, rel=1e-9)
    else:
        assert set(by_ports.launch_s) == {0.0, 5e-6}
    assert by_ports.leave_s.max() == pytest.approx(by_pairs.leave_s.max(), rel=1e-9)


def test_what_ports_cannot_say_is_refused(tmp_path):
    fabric = load_topology("two-nodes-explicit")
    slots, rank, slot_rank = np.array([[0, 1]]), np.array([0]), np.array([0, 1])
    with pytest.raises(InputError, match="has no regular ports"):
        count_port_copies(slots, rank, slot_rank, fabric, algorithm_named("deepep-normal"))
    fabric = load_topology("hgx-h800")
    for name in ("nccl-pxn", "allgather-reduce-scatter"):
        with pytest.raises(InputError, match="no count of copies at ports"):
            count_port_copies(slots, rank, slot_rank, fabric, algorithm_named(name))
    with pytest.raises(InputError, match=r"token 0 has slot ids \[0, 2\]"):
        count_port_copies(np.array([[0, 2]]), rank, slot_rank, fabric, algorithm_named("nccl-direct"))


QUICK = Protocol("quick", 2e-6, 4e-6, floor_s=5e-6, nvlink_rate=20e9, nic_rate=5e9)
FAST = Protocol("fast", 20e-6, 40e-6, setup_peer_s=1e-7, pair_rate=30e9)
PAIR_BY_PAIR = replace(FAST, pair_rate=2e9)


@pytest.mark.parametrize(
    ("bytes_per_copy", "protocols", "taken"),
    [
        (100, (QUICK, FAST), QUICK),
        (1_000_000, (QUICK, FAST), FAST),
        (1_000_000, (PAIR_BY_PAIR,), PAIR_BY_PAIR),
    ],
)
def test_ports_take_the_protocol_that_single_messages_would(fabric, bytes_per_copy, protocols, taken):
    n = fabric.n_ranks
    slots = np.tile(np.arange(n), n)[:, None]  # one copy from each rank to each
    rank, slot_rank, tokens = np.repeat(np.arange(n), n), np.arange(n), np.full(n, n)
    constants = replace(plain("nccl-direct"), protocols=protocols)
    ports = count_port_copies(slots, rank, slot_rank, fabric, algorithm_named("nccl-direct"))
    copies = count_all_copies(slots, rank, slot_rank, n, fabric.ranks_per_node)
    by_ports = port_flows(fabric, ports, constants, "dispatch", bytes_per_copy, tokens=tokens)
    by_pairs = phase_flows(fabric, copies, constants, "dispatch", bytes_per_copy, tokens=tokens)
    for flows in (by_ports, by_pairs):
        assert set(flows.least_s.tolist()) == {taken.floor_s}
        assert (flows.rate_cap is None) == (taken is QUICK)
    took = [run_phase(fabric, flows).leave_s.max() for flows in (by_ports, by_pairs)]
    # Queues at spines hold no more than is sent there, which ports know of whole leaves.
    assert took[0] == pytest.approx(took[1], rel=0.03, abs=0.7e-6)

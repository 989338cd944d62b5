"""Flows per port where puts are posted: who leaves when, against figures worked out from the copies at the ports."""

import numpy as np
import pytest
import simpy

from moesim.alltoall_library import algorithm_named
from moesim.cluster import load_topology
from moesim.measure.lower_bound import lower_bound
from moesim.network import FlowNetwork, NetworkClock
from moesim.stages import KERNELS
from moesim.timeline import LayerWork, moe_layers, run_layers
from moesim.timeline.phase import PhaseRun, network_capacity
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.copies import count_all_copies
from moesim.traffic.ports.flows_per_port import count_port_copies, port_flows
from moesim.traffic.ports.port_count import BACK, NIC_IN, NIC_OUT, NVLINK_IN, NVLINK_OUT
from tests.reference.alltoall_constants import plain

US, BYTES, RANKS, TOKENS = 1e-6, 100_000, 16, 400
CLUSTER = """
kind: {kind}
gpu: h800
nodes: 4
gpus_per_node: 4
nvlink: {{bandwidth: 200GB/s, latency: 3us}}
nic: {{bandwidth: 50GB/s, latency: 2us}}
leaf_spine: {{spines: 2, latency: 1us}}
routing: spray
"""
PLANES = CLUSTER.format(kind="multi-plane\nnodes_per_leaf: 4")
RAIL = CLUSTER.format(kind="rail")


@pytest.fixture(scope="module", params=["rail", "planes"])
def fabric(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("topology") / "cluster.yaml"
    path.write_text({"rail": RAIL, "planes": PLANES}[request.param])
    return load_topology(path)


def counted(fabric, skew, seed=0):
    """Copies by pair and at the ports; rank 5's experts are more popular than the others' by the skew."""
    rng = np.random.default_rng(seed)
    weight = np.ones(2 * RANKS)
    weight[10:12] = skew
    slots = np.array([rng.choice(2 * RANKS, 4, replace=False, p=weight / weight.sum()) for _ in range(TOKENS)])
    home = np.repeat(np.arange(RANKS), TOKENS // RANKS)
    owner = np.arange(2 * RANKS) // 2
    pairs = count_all_copies(slots, home, owner, RANKS, 4)
    return pairs, count_port_copies(slots, home, owner, fabric, algorithm_named("deepep-low-latency"))


def posted(fabric, ports, phase):
    return port_flows(fabric, ports, plain("deepep-low-latency"), phase, BYTES)


def arrive(fabric, flows, arrivals):
    env = simpy.Environment()
    network = FlowNetwork(network_capacity(fabric), log_bottlenecks=True)
    phase = PhaseRun(NetworkClock(env, network), flows, np.arange(RANKS, dtype=np.int32) + fabric.n_links)

    def rank(number):
        yield env.timeout(arrivals[number])
        yield from phase.enter(number)

    for number in range(RANKS):
        env.process(rank(number))
    env.run()
    return phase.trace()


def test_a_rank_leaves_dispatch_with_its_own_ports_and_the_largest_sender(tmp_path):
    (tmp_path / "rail.yaml").write_text(RAIL)
    fabric = load_topology(tmp_path / "rail.yaml")
    _, ports = counted(fabric, 12)
    trace = arrive(fabric, posted(fabric, ports, "dispatch"), np.zeros(RANKS))
    nic, nvlink = BYTES / 42e9, BYTES / 135e9
    largest = ports.counts[NIC_OUT].max() * nic
    own = np.maximum(ports.counts[NIC_IN] * nic, ports.counts[NIC_OUT] * nic)
    own = np.maximum(own, np.maximum(ports.counts[NVLINK_IN], ports.counts[NVLINK_OUT]) * nvlink)
    # Four nodes' NICs at a leaf, two links of 100 GB/s from there to the spines: a rank waits for the way down to its
    # own leaf and the busiest way up.
    up, down = ports.uplinks[:2] / 2 * BYTES / 84e9
    own, largest = np.maximum(own, down[fabric.paths.leaf]), max(largest, up.max())
    np.testing.assert_allclose(trace.leave_s, 24 * US + np.maximum(own, largest), rtol=1e-9)
    assert np.argmax(trace.leave_s) == 5 and trace.leave_s.min() < 0.5 * trace.leave_s.max()


def test_nobody_leaves_dispatch_before_the_last_to_come_has_sent(fabric):
    _, ports = counted(fabric, 1)
    arrivals = np.zeros(RANKS)
    arrivals[9] = 5e-3
    trace = arrive(fabric, posted(fabric, ports, "dispatch"), arrivals)
    assert trace.leave_s.min() > 5e-3 + 24 * US
    assert trace.waited_on[0] == 9 and trace.wait_s[0] > 4e-3 and trace.wait_s[9] == 0


def test_answers_come_in_from_when_the_rank_of_median_load_sends(fabric):
    _, ports = counted(fabric, 12)
    arrivals = np.arange(RANKS) * 10 * US
    arrivals[5] = 3e-3
    flows = posted(fabric, ports, "combine")
    trace = arrive(fabric, flows, arrivals)
    load = ports.totals().selections_received
    middle = sorted(range(RANKS), key=lambda rank: (load[rank], rank))[RANKS // 2]
    into = np.isin(flows.route_links[flows.route_ptr[:-1]], fabric.paths.nic_in)
    answers = np.flatnonzero(into & (np.diff(flows.route_ptr) == 1))
    assert len(answers) == (ports.counts[BACK + NIC_IN] > 0).sum()
    np.testing.assert_allclose(trace.launch_s[answers], arrivals[middle])
    assert np.ptp(trace.leave_s) == 0 and trace.leave_s[0] > 3e-3


@pytest.mark.parametrize(("skew", "most"), [(1, 0.06), (6, 0.15)])
def test_a_layer_takes_about_as_long_as_with_every_pair_a_flow(fabric, skew, most):
    pairs, ports = counted(fabric, skew)
    nothing = np.zeros(RANKS)
    experts = ports.totals().selections_received * 2 * US
    taken = {}
    for name, build, copies in (("pairs", phase_flows, pairs), ("ports", port_flows, ports)):
        constants = plain("deepep-low-latency")
        flows = {phase: build(fabric, copies, constants, phase, BYTES) for phase in ("dispatch", "combine")}
        work = LayerWork({stage.name: nothing for stage in KERNELS} | {"experts": experts}, flows)
        trace, _ = run_layers(fabric, moe_layers(1, False), lambda *_, work=work: work, nothing, 1e-3)
        taken[name] = trace.end_s_of_layer.max()
        assert 0 < lower_bound(trace, fabric, experts).seconds <= taken[name]
    assert taken["ports"] == pytest.approx(taken["pairs"], rel=most)


def test_without_copies_all_leave_together(fabric):
    nobody = np.full((1, 4), -1)
    ports = count_port_copies(nobody, [0], np.arange(RANKS), fabric, algorithm_named("deepep-low-latency"))
    trace = arrive(fabric, posted(fabric, ports, "dispatch"), np.arange(RANKS) * US)
    assert trace.leave_s.tolist() == [(RANKS - 1) * US] * RANKS

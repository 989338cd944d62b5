"""One phase at a time: who waits for whom, and what a rank's time in it consists of."""

import numpy as np
import pytest
import simpy

from moesim.network import FlowNetwork, NetworkClock
from moesim.timeline.phase import PhaseRun
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.flows import PhaseFlows
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail

US = 1e-6
NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"


def arrive(fabric, flows, arrivals):
    """Run a phase that each rank enters at its own time."""
    env = simpy.Environment()
    network = FlowNetwork(np.concatenate([fabric.capacity, np.ones(fabric.n_ranks)]), log_bottlenecks=True)
    phase = PhaseRun(NetworkClock(env, network), flows, np.arange(fabric.n_ranks, dtype=np.int32) + fabric.n_links)

    def rank(number):
        yield env.timeout(arrivals[number])
        yield from phase.enter(number)

    for number in range(fabric.n_ranks):
        env.process(rank(number))
    env.run()
    assert phase.finished
    return phase.trace()


def pair_flows(fabric, sizes, gate="source", delay_s=0.0):
    """Flows of these (source, target) pairs and no others."""
    source, target = (np.array(ends, np.int32) for ends in zip(*sizes, strict=True))
    ptr, links = fabric.routes(source, target)
    ends, n = np.column_stack([source, target]), len(source)
    gates = {"source": ends[:, :1], "both": ends}[gate]
    return PhaseFlows(
        phase="dispatch",
        source=source,
        target=target,
        size=np.array(list(sizes.values()), float),
        route_ptr=ptr,
        route_links=links,
        share=np.ones(len(links)),
        efficiency=np.ones(len(links)),
        delays={"set-up": np.full(n, delay_s)},
        gate_ptr=np.arange(n + 1) * gates.shape[1],
        gate_ranks=gates.ravel(),
        member_ptr=np.arange(n + 1) * 2,
        member_ranks=ends.ravel(),
        all_ranks_gate=False,
        entry_setup_s=0.0,
        group_setup={},
        sms=0,
        total_sms=132,
    )


def even(fabric, algorithm, copies, size, phase="dispatch", **more):
    """Flows of as many selections for every rank from every rank, each of another token."""
    ranks = np.full((fabric.n_ranks, fabric.n_ranks), copies)
    nodes = np.full((fabric.n_ranks, fabric.n_nodes), copies * fabric.ranks_per_node)
    return phase_flows(fabric, Copies(ranks, ranks, nodes), plain(algorithm, "h800"), phase, size, **more)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


@pytest.fixture(scope="module")
def fabric():
    return small_rail(2, 2)


def test_normal_dispatch_ends_after_the_last_arrival_plus_layout_notify_and_transfer(fabric):
    """A barrier: T = max(start) + transfer, and everybody's kernel takes the same."""
    flows = even(fabric, NORMAL, 100, 7472)
    together, arrivals = arrive(fabric, flows, np.zeros(4)), np.array([0, 30, 210, 70]) * US
    late = arrive(fabric, flows, arrivals)
    close(late.leave_s, 210 * US + together.leave_s)
    close(late.wait_s, arrivals.max() - arrivals)
    assert late.waited_on.tolist() == [2, 2, -1, 2]
    close(together.wait_s, 0)
    close(late.kernel_s, together.kernel_s)
    # layout 50, notify 32, CPU 100; then 200 copies per NIC at 43 GB/s: longer than 200 for NVLink at 128 GB/s
    close(late.launch_s, (210 + 50) * US)
    close(together.leave_s.max(), (50 + 32 + 100 + 2.8 + 3.33) * US + 200 * 7472 / 43e9)
    close(together.kernel_s.max(), (2.8 + 3.33) * US + 200 * 7472 / 43e9)


def test_with_a_cached_handle_trees_start_when_source_and_forwarder_are_in(fabric):
    flows = even(fabric, NORMAL, 1, 1000, cached_handle=True)
    arrivals = np.array([0, 500, 100, 0]) * US
    trace = arrive(fabric, flows, arrivals)
    launch = dict(zip([(home, node) for home in range(4) for node in range(2)], trace.launch_s, strict=True))
    close([launch[0, 0], launch[0, 1], launch[2, 0], launch[2, 1]], np.array([0, 100, 100, 100]) * US)
    close([launch[1, 0], launch[1, 1], launch[3, 0], launch[3, 1]], np.array([500, 500, 500, 0]) * US)
    # Ranks 2 and 3 share node 1, to which late rank 1 sends: they stay for its tree, and so does rank 0, its neighbour.
    assert (trace.leave_s > 500 * US).all()
    assert trace.waited_on.tolist() == [1, -1, 1, 1]


def test_combine_waits_for_those_whose_partial_sums_the_forwarder_adds(fabric):
    # One token, from rank 0, with experts on ranks 2 and 3; rank 2 forwards.
    ranks, nodes = np.zeros((4, 4), int), np.zeros((4, 2), int)
    ranks[0, [2, 3]] = nodes[0, 1] = 1
    flows = phase_flows(fabric, Copies(ranks, ranks, nodes), plain(NORMAL, "h800"), "combine", 1000)
    trace = arrive(fabric, flows, np.array([0, 0, 40, 90]) * US)
    assert flows.size.tolist() == [0, 1000, 0, 0, 0, 0, 0, 0]
    close(trace.launch_s[1], 90 * US)
    assert trace.opener[1] == 3
    close(trace.finish_s[1], (90 + 2.8 + 3.33) * US + 1000 / 43e9)


def test_low_latency_sends_to_a_rank_that_has_not_come_and_nccl_does_not(fabric):
    arrivals = np.array([0, 0, 0, 400]) * US
    for algorithm, waits in ((LOW_LATENCY, False), (NCCL, True)):
        flows = even(fabric, algorithm, 10, 1000)
        trace = arrive(fabric, flows, arrivals)
        into_late, out_of_late = flows.target == 3, flows.source == 3
        close(trace.launch_s[into_late], 400 * US if waits else 0)
        close(trace.launch_s[out_of_late], 400 * US)
        close(trace.launch_s[~into_late & ~out_of_late], 0)
        assert (trace.finish_s[into_late] > 400 * US).all() == waits
        assert trace.wait_s[3] == 0
        assert trace.waited_on.tolist() == [3, 3, 3, -1]


def test_flows_between_punctual_ranks_are_not_held_up_by_a_late_one(fabric):
    """Nobody leaves before the late rank's flags are in, yet what the others send each other is long done."""
    for algorithm in (LOW_LATENCY, NCCL):
        sent = np.full((4, 4), 50)
        sent[3] = sent[:, 3] = 0  # the late rank has nothing to send or receive
        flows = phase_flows(fabric, Copies(sent, sent, sent[:, :2]), plain(algorithm, "h800"), "dispatch", 1000)
        punctual, late = arrive(fabric, flows, np.zeros(4)), arrive(fabric, flows, np.array([0, 0, 0, 900]) * US)
        others = (flows.source != 3) & (flows.target != 3)
        assert np.array_equal(late.finish_s[others], punctual.finish_s[others])
        flag = {rank: late.finish_s[(flows.source == 3) & (flows.target == rank)][0] for rank in range(3)}
        close(late.leave_s[:3], list(flag.values()))
        assert (late.leave_s[:3] > 900 * US).all()


def test_a_rank_that_shares_no_flow_with_the_late_one_leaves_as_if_it_were_not_there(fabric):
    pairs = {(0, 1): 4e6, (1, 0): 2e6, (2, 3): 2e6, (3, 2): 2e6}
    for gate in ("source", "both"):
        flows = pair_flows(fabric, pairs, gate)
        trace = arrive(fabric, flows, np.array([0, 0, 0, 700]) * US)
        close(trace.leave_s[:2], 4e6 / 200e9)
        close(trace.leave_s[2:], 700 * US + 2e6 / 200e9)
        assert trace.waited_on.tolist() == [-1, -1, 3, -1]


def test_wait_is_the_time_in_which_none_of_the_own_flows_is_in_progress(fabric):
    # 0 -> 1 takes 20 us from 0 on; 2 -> 1 comes at 100 us and takes 80; rank 1 enters at 5.
    flows = pair_flows(fabric, {(0, 1): 4e6, (2, 1): 4e6})
    trace = arrive(fabric, flows, np.array([0, 5, 100, 0]) * US)
    close(trace.leave_s, np.array([20, 180, 180, 0]) * US)
    close(trace.wait_s, np.array([0, 80, 0, 0]) * US)
    assert trace.waited_on.tolist() == [-1, 2, -1, -1]
    close(trace.kernel_s, np.array([20, 180 - 5 - 80, 80, 0]) * US)


def test_of_several_waits_the_longest_is_blamed(fabric):
    flows = pair_flows(fabric, {(0, 3): 2e5, (1, 3): 2e5, (2, 3): 2e6})  # 4, 4 and 10 us
    trace = arrive(fabric, flows, np.array([10, 40, 60, 0]) * US)
    close(trace.wait_s[3], (10 + (40 - 14) + (60 - 44)) * US)
    assert trace.waited_on[3] == 1


def test_set_up_is_transfer_and_not_wait(fabric):
    flows = pair_flows(fabric, {(0, 1): 2e6}, delay_s=24 * US)
    trace = arrive(fabric, flows, np.zeros(4))
    close(trace.start_s, 24 * US)
    close(trace.leave_s[:2], 34 * US)
    close(trace.wait_s, 0)
    close(trace.kernel_s[:2], 34 * US)


@pytest.mark.parametrize(("algorithm", "us"), [(LOW_LATENCY, 24), (NCCL, 100)])
def test_a_phase_without_bytes_takes_its_set_up_time(fabric, algorithm, us):
    trace = arrive(fabric, even(fabric, algorithm, 0, 1000), np.zeros(4))
    close(trace.leave_s, us * US)
    assert len(trace.bottleneck_time_s) == 0


def test_a_rank_alone_leaves_at_once():
    one = small_rail(1, 1)
    trace = arrive(one, even(one, LOW_LATENCY, 5, 1000), np.array([3 * US]))
    assert trace.leave_s.tolist() == [3 * US]
    assert trace.wait_s.tolist() == [0]


def test_the_bottleneck_of_each_flow_is_logged_from_its_first_byte(fabric):
    flows = pair_flows(fabric, {(0, 1): 4e6, (0, 2): 1e6}, delay_s=2 * US)
    trace = arrive(fabric, flows, np.zeros(4))
    named = [fabric.link_class[link] for link in trace.bottleneck_link[np.argsort(trace.bottleneck_flow)]]
    assert named == ["nvlink", "nic"]
    close(trace.bottleneck_time_s, 2 * US)


def test_incast_from_everywhere_is_bound_by_the_port_of_the_receiver():
    wide = small_rail(4, 1)
    trace = arrive(wide, pair_flows(wide, {(1, 0): 1e6, (2, 0): 1e6, (3, 0): 1e6}), np.zeros(4))
    close(trace.leave_s, 3e6 / 50e9)

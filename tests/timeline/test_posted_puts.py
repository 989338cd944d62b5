"""Puts that are posted and forgotten: who sends much and receives little leaves early, its bytes go on without it."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.errors import InvariantError
from moesim.measure.critical import critical_rank
from moesim.measure.lower_bound import lower_bound
from moesim.run.audit import _audit_phase, audit_components
from moesim.stages import KERNELS
from moesim.timeline import LayerWork, moe_layers, run_layers
from moesim.timeline.uniform_alltoall import run_phase
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail

US = 1e-6
LOW_LATENCY, BY_NIC, NCCL = "deepep-low-latency", "deepep-low-latency-nic", "nccl-direct"
# One microsecond of a NIC at the 42 GB/s that the constants reach, and of NVLink at 135 GB/s, in copies of one byte.
NIC_US, NVLINK_US = 42_000, 135_000


def flows_of(fabric, sent, algorithm=LOW_LATENCY, phase="dispatch", **terms):
    """Flows of these copies of one byte, [ranks, ranks]."""
    sent = np.array(sent)
    copies = Copies(sent, sent, np.zeros((fabric.n_ranks, fabric.n_nodes), np.int64))
    constants = plain(algorithm, "h800", **terms)
    return phase_flows(fabric, copies, constants, phase, 1, tokens=np.ones(fabric.n_ranks, np.int64))


def waiting(flows):
    """Ranks that wait for each flow, by (source, target)."""
    ptr, ranks = flows.waiting
    rows = [ranks[ptr[flow] : ptr[flow + 1]].tolist() for flow in range(flows.n_flows)]
    return dict(zip(zip(flows.source.tolist(), flows.target.tolist(), strict=True), rows, strict=True))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-15)


@pytest.fixture(scope="module")
def fabric():
    return small_rail(2, 2)


@pytest.mark.parametrize("phase", ["dispatch", "combine"])
def test_across_nodes_the_receiver_waits_and_inside_a_node_both(fabric, phase):
    found = waiting(flows_of(fabric, np.ones((4, 4), int), phase=phase))
    assert found == {(s, t): [s, t] if s // 2 == t // 2 else [t] for s in range(4) for t in range(4) if s != t}
    found = waiting(flows_of(fabric, np.ones((4, 4), int), BY_NIC, phase))
    assert found == {(s, t): [t] for s in range(4) for t in range(4) if s != t}


def test_elsewhere_both_ends_wait(fabric):
    flows = flows_of(fabric, np.ones((4, 4), int), NCCL)
    assert flows.leave_ptr is None
    assert all(row == [s, t] for (s, t), row in waiting(flows).items())


def test_who_has_to_work_on_what_it_sends_waits_for_it(fabric):
    # Work per token is done where the tokens are: by the sender in dispatch, by the receiver in combine.
    working = {phase: waiting(flows_of(fabric, np.ones((4, 4), int), phase=phase, token_s=1e-6)) for phase in
               ("dispatch", "combine")}  # fmt: skip
    assert working["dispatch"][0, 2] == [0, 2] and working["combine"][0, 2] == [2]
    unpacked = waiting(flows_of(fabric, np.ones((4, 4), int), receive_sm_rate=1e9))
    assert unpacked[0, 2] == [2] and unpacked[0, 1] == [0, 1]


def test_a_rank_that_sends_much_and_receives_little_leaves_early(fabric):
    sent = np.zeros((4, 4), int)
    sent[0, 2], sent[0, 3], sent[1, 0], sent[2, 0] = 60 * NIC_US, 90 * NIC_US, 5 * NVLINK_US, 10 * NIC_US
    trace = run_phase(fabric, flows_of(fabric, sent))
    # On its rail a put begins after 23.1 us, elsewhere after 24. Rank 0's NIC is busy for 150 us from then on; until 2
    # has its 60, both share it but for the first 0.9 us: 0.9 + 2 x 59.1. Into 0: 10 us from 2, 5 from 1 over NVLink.
    # Rank 1 makes its copy itself and stays for it; nothing comes for it but flags.
    close(trace.leave_s, np.array([23.1 + 10, 24 + 5, 23.1 + 0.9 + 118.2, 23.1 + 150]) * US)
    close(trace.wait_s, 0)
    close(trace.finish_s.max(), trace.leave_s.max())
    # Over the NIC alone, as before NVLink was used, 1 posts its copy too, and 0's port takes that in as well.
    trace = run_phase(fabric, flows_of(fabric, sent, BY_NIC))
    close(trace.leave_s[1:], np.array([24, 23.1 + 0.9 + 118.2, 23.1 + 150]) * US)
    close(trace.leave_s[0], 23.1 * US + (10 * NIC_US + 5 * NVLINK_US) / 42e9)
    # NCCL's sends are over when they have arrived: 0 leaves with its last.
    trace = run_phase(fabric, flows_of(fabric, sent, NCCL))
    assert trace.leave_s[0] == trace.finish_s[trace.flows.source == 0].max() == trace.leave_s.max()


def layer(fabric, sent, experts_us=0.0):
    nothing = np.zeros(fabric.n_ranks)
    flows = {phase: flows_of(fabric, sent, phase=phase) for phase in ("dispatch", "combine")}
    seconds = {stage.name: nothing for stage in KERNELS}
    return LayerWork(seconds | {"experts": nothing + experts_us * US}, flows)


@pytest.fixture(scope="module")
def pair():
    """Two GPUs; rank 0 sends 100 us of a NIC, rank 1 sends 10."""
    two = small_rail(2, 1)
    work = layer(two, [[0, 100 * NIC_US], [10 * NIC_US, 0]])
    trace, _ = run_layers(two, moe_layers(1, False), lambda *_: work, np.zeros(2), 100 * US)
    return two, trace


def test_what_is_still_on_the_wire_shares_it_with_what_comes_after(pair):
    _, trace = pair
    # Set-up 24. Rank 0 has its 10 us at 34 and goes on: its 10 us of answers start at 58, when 34 of its 100 are out,
    # and share its NIC: until 78 each moves 10, so the 100 end at 24 + 100 + 10 = 134. Rank 1's answers: 158 to 258.
    dispatch = {(0, 1): 134, (1, 0): 34}
    combine = {(0, 1): 78, (1, 0): 258}
    for phase, ends in ((trace.dispatch, dispatch), (trace.combine, combine)):
        pairs = zip(phase.flows.source.tolist(), phase.flows.target.tolist(), strict=True)
        close(phase.finish_s, [ends[pair] * US for pair in pairs])
    close(trace.dispatch.leave_s, np.array([34, 134]) * US)
    # The answers for rank 1 were there before it came: it posts its own, which takes the set-up, and is gone.
    close(trace.combine.leave_s, np.array([258, 158]) * US)
    close(trace.end_s_of_layer, np.array([258, 158]) * US)
    # Rank 0 has nothing in progress from 78, when its answers are there, to 134, when rank 1 begins to send.
    close(trace.combine.wait_s, np.array([56, 0]) * US)
    assert trace.combine.waited_on.tolist() == [1, -1]


def test_the_layer_is_taken_apart_on_the_rank_that_receives_last(pair):
    two, trace = pair
    critical = critical_rank(trace, two)
    assert critical.rank == 0
    parts = critical.components
    close([parts[name] for name in ("dispatch_time_s", "combine_time_s", "wait_time_s")], np.array([34, 168, 56]) * US)
    audit_components(parts, 258 * US, 0)
    assert sum(critical.held_by.values()) == pytest.approx(258 * US)
    # 24 us of set-up in each phase; the rest of the two transfers is the NIC's, as the last flow of each saw it.
    close(critical.held_by["rank", "1"], 56 * US)
    close(critical.held_by["link", "latency"], 48 * US)
    close(critical.held_by["link", "nic"], (258 - 56 - 48) * US)


def test_a_rank_that_only_posts_spends_its_time_on_latency(pair):
    two, trace = pair
    late = replace(trace, end_s_of_layer=trace.combine.leave_s[::-1])  # rank 1 as the last
    critical = critical_rank(late, two)
    assert critical.rank == 1
    # In dispatch it received for 110 of 134 us; in combine its 24 us are what it takes to post.
    close(critical.held_by["link", "latency"], (24 + 24) * US)
    close(critical.held_by["link", "nic"], 110 * US)


def test_posted_bytes_bound_those_who_wait_for_them():
    wide = small_rail(4, 1)
    sent = np.zeros((4, 4), int)
    sent[0, 1:] = 50_000_000  # a millisecond of a NIC at its peak, to each of the others
    trace, _ = run_layers(wide, moe_layers(1, False), lambda *_: layer(wide, sent), np.zeros(4), 1e-3)
    floor_s = np.array([9e-3, 1e-3, 2e-3, 3e-3])
    # Rank 0's port needs 3 ms; somebody then has at least 1 ms of experts and 1 ms of answers. Each receives 1 ms:
    # rank 3 has 1 + 3 + 1. Rank 0 itself waits for nothing.
    close(lower_bound(trace, wide, floor_s).seconds, 9e-3)
    close(lower_bound(trace, wide, np.array([0, 1e-3, 2e-3, 3e-3])).seconds, 5e-3)
    close(lower_bound(trace, wide, np.array([0, 1e-3, 1e-3, 2e-3])).seconds, 5e-3)
    assert lower_bound(trace, wide, np.zeros(4)).seconds <= trace.end_s_of_layer.max()


def test_the_auditor_sees_who_leaves_before_its_flows(pair):
    two, trace = pair
    _audit_phase("dispatch", two, trace.dispatch)
    for leave_us, law in (([33, 134], "rank 0 leaves before"), ([34, 133], "rank 1 leaves before")):
        with pytest.raises(InvariantError, match=law):
            _audit_phase("dispatch", two, replace(trace.dispatch, leave_s=np.array(leave_us) * US))
    with pytest.raises(InvariantError, match="rank 1 leaves before"):  # before the first byte of what it posts
        _audit_phase("combine", two, replace(trace.combine, leave_s=np.array([258, 157]) * US))


def test_a_flow_that_nobody_waits_for_is_seen(pair):
    two, trace = pair
    flows = trace.dispatch.flows
    nobody = replace(flows, leave_ptr=np.zeros(3, np.int64), leave_ranks=np.empty(0, np.int32))
    gone = replace(trace.dispatch, flows=nobody, leave_s=np.array([34, 30]) * US)
    with pytest.raises(InvariantError, match="after the last rank has left"):
        _audit_phase("dispatch", two, gone)

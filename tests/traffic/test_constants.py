"""What each term of the constants does to the time of a phase: uniform traffic, where the closed form is exact."""

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.run.audit import _audit_phase
from moesim.timeline.uniform_alltoall import run_phase
from moesim.traffic import Copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.constants import Protocol
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import ports, small_rail

US, GB = 1e-6, 1e9
NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"
TOKENS, SIZE = 600, 7000


@pytest.fixture(scope="module")
def fabric():
    """Two nodes of four GPUs; NVLink reaches 128 of 200 GB/s, a NIC 43 of 50."""
    return small_rail(2, 4)


@pytest.fixture(scope="module")
def node():
    return small_rail(1, 4)


def even(fabric, tokens=TOKENS):
    """Every token has two selections on every rank, hence one copy to every rank and node."""
    ranks = np.full((fabric.n_ranks, fabric.n_ranks), tokens)
    return Copies(2 * ranks, ranks, np.full((fabric.n_ranks, fabric.n_nodes), tokens))


def seconds(fabric, constants, phase="dispatch", copies=None, tokens=TOKENS, n_experts=256):
    """Kernel time of each rank, all of them entering together."""
    copies = even(fabric, tokens) if copies is None else copies
    given = np.full(fabric.n_ranks, tokens)
    flows = phase_flows(fabric, copies, constants, phase, SIZE, True, tokens=given, n_experts=n_experts)
    trace = run_phase(fabric, flows)
    _audit_phase("test", fabric, trace)
    return trace.kernel_s


def nic_s(tokens=TOKENS):
    """One copy per token over the NIC."""
    return tokens * SIZE / (43 * GB)


def nvlink_s(tokens=TOKENS, rate=128 * GB):
    """Copies for the three others of the own node, own tokens and forwarded ones."""
    return 2 * 3 * tokens * SIZE / rate


@pytest.mark.parametrize("phase", ["dispatch", "combine"])
def test_the_kernel_is_one_more_resource(fabric, phase):
    """T = max(NIC, NVLink, T (c1 d_n + c2 d_r) / S + c3 T): here d_n = 2 and d_r = 8."""
    route_s = 3.33 * US  # NVLink and the kernels are busy as soon as the own node's trees start
    wires = max(nic_s(), nvlink_s())
    for c1, c2, c3 in ((0.47 * US, 0.38 * US, 36e-9), (4 * US, 0, 0), (0, 3 * US, 0), (0, 0, 700e-9), (0, 0, 0)):
        constants = plain(NORMAL, sms=24, node_copy_sm_s=c1, rank_copy_sm_s=c2, token_s=c3)
        kernel = TOKENS * (2 * c1 + 8 * c2) / 24 + c3 * TOKENS
        assert seconds(fabric, constants, phase) == pytest.approx(max(wires, kernel) + route_s, rel=2e-3)


def test_twice_the_sms_halve_the_work_of_the_kernel(fabric):
    slow, fast = (seconds(fabric, plain(NORMAL, sms=sms, rank_copy_sm_s=9 * US)).max() for sms in (12, 24))
    assert slow / fast == pytest.approx(2, rel=5e-3)


def test_the_kernel_of_a_busy_rank_holds_up_those_who_need_it(fabric):
    """Rank 0 forwards for all tokens of its rail: its kernel, not its wires, decides when they arrive."""
    copies = even(fabric)
    busy = copies.rank_copies.copy()
    constants = plain(NORMAL, sms=1, rank_copy_sm_s=2 * US)
    flows = phase_flows(fabric, Copies(copies.selections, busy, copies.node_copies), constants, "dispatch", SIZE, True)
    work = flows.kernel_seconds(fabric.n_ranks)
    # own tokens' four copies on the own node, and four for the tokens of the same index elsewhere
    assert work == pytest.approx(np.full(8, TOKENS * 8 * 2 * US), rel=1e-12)
    busy[4, :4] *= 3  # tokens of rank 4 need rank 0's kernel three times as long
    flows = phase_flows(fabric, Copies(copies.selections, busy, copies.node_copies), constants, "dispatch", SIZE, True)
    assert flows.kernel_seconds(fabric.n_ranks)[0] == pytest.approx(TOKENS * 16 * 2 * US, rel=1e-12)
    leave = run_phase(fabric, flows).leave_s
    assert leave[0] == pytest.approx(leave.max(), rel=1e-12)
    assert leave.max() >= TOKENS * 16 * 2 * US


def test_the_routing_maps_of_more_ranks_cost_more(node):
    """Hybrid-EP: SM work per token and rank of the group."""
    constants = plain("hybrid-ep", sms=16, token_rank_sm_s=30 * US, token_sm_s=10 * US)
    assert seconds(node, constants) == pytest.approx(TOKENS * (30 * US * 4 + 10 * US) / 16 + 3.33 * US, rel=2e-3)


def test_own_tokens_are_read_at_the_local_rate(node):
    constants = plain("nvl-two-sided", local_rate=10 * GB)
    assert seconds(node, constants) == pytest.approx(TOKENS * SIZE / (10 * GB) + 24 * US, rel=1e-3)


@pytest.mark.parametrize(("experts", "unpacking"), [(8, 8), (132, 132), (133, 67), (256, 128)])
def test_low_latency_unpacks_with_as_many_sms_as_its_experts_fill(node, experts, unpacking):
    """n_SM = E / ceil(E / 132): 256 experts, two on each of 128."""
    constants = plain(LOW_LATENCY, receive_sm_rate=0.05 * GB)
    received = 3 * 2 * TOKENS * SIZE
    want = received / (unpacking * 0.05 * GB) + 24 * US
    assert seconds(node, constants, n_experts=experts) == pytest.approx(want, rel=1e-3)


def test_set_up_grows_by_experts_and_nodes(fabric, node):
    one = plain(LOW_LATENCY, setup_expert_s=0.02 * US, setup_node_doubling_s=4 * US)
    nothing = Copies(*(np.zeros((n, m), np.int64) for n, m in ((4, 4), (4, 4), (4, 1))))
    assert seconds(node, one, copies=nothing).max() == pytest.approx((24 + 5.12) * US, rel=1e-9)
    four = small_rail(4, 2)
    nothing = Copies(*(np.zeros((n, m), np.int64) for n, m in ((8, 8), (8, 8), (8, 4))))
    assert seconds(four, one, copies=nothing).max() == pytest.approx((24 + 5.12 + 4) * US, rel=1e-9)


@pytest.mark.parametrize("phase", ["dispatch", "combine"])
def test_set_up_grows_by_the_ranks_that_tokens_reach(phase):
    """Rank 0's tokens reach two of eight ranks, all others' every rank: 20 us + 3 us log2(reached / 8)."""
    eight = small_rail(1, 8)
    ranks = np.ones((8, 8), np.int64)
    ranks[0, 2:] = 0
    constants = plain("nvl-two-sided", setup_intra_node_s=20 * US, setup_peer_doubling_s=3 * US)
    flows = phase_flows(eight, Copies(ranks, ranks, ranks.sum(axis=1, keepdims=True)), constants, phase, 1)
    home = flows.source if phase == "dispatch" else flows.target
    want = np.where(home == 0, 20 * US + 3 * US * np.log2(2 / 8), 20 * US)
    assert flows.delay_s == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("tokens", [8, 128, 4096])
def test_the_first_chunks_fill_the_pipeline(fabric, tokens):
    """A (1 - e^(-T / n)), or T / S over n."""
    plainly = seconds(fabric, plain(NORMAL, sms=24), tokens=tokens)
    by_tokens = seconds(fabric, plain(NORMAL, sms=24, fill_s=84.5 * US, fill_tokens=152), tokens=tokens)
    assert by_tokens - plainly == pytest.approx(84.5 * US * (1 - np.exp(-tokens / 152)), rel=1e-3)
    by_sm = seconds(fabric, plain(NORMAL, sms=24, fill_s=26.8 * US, fill_tokens_per_sm=12), tokens=tokens)
    assert by_sm - plainly == pytest.approx(26.8 * US * (1 - np.exp(-tokens / 24 / 12)), rel=1e-3)


def test_nobody_stays_less_than_the_floor_and_what_takes_longer_is_not_touched(node):
    floor = plain("nvl-one-sided", floor_s=30 * US)
    assert seconds(node, floor, tokens=0) == pytest.approx(30 * US, rel=1e-12)
    assert seconds(node, floor).max() == seconds(node, plain("nvl-one-sided")).max() > 30 * US


def test_after_the_last_byte_a_rank_reduces_its_own_tokens(node):
    """T (K + 1) copies of b bytes at the reduction's rate, here K = 8 selections, and so much per token."""
    plainly = seconds(node, plain("nvl-two-sided"), "combine")
    constants = plain("nvl-two-sided", reduce_rate=4400 * GB, epilogue_token_s=21.8e-9)
    want = TOKENS * 9 * SIZE / (4400 * GB) + 21.8e-9 * TOKENS
    assert seconds(node, constants, "combine") - plainly == pytest.approx(want, rel=1e-6)


def test_after_the_last_byte_a_rank_adds_up_what_it_fetched_from_others(node):
    """A copy of every token from each of three other ranks; its own part costs nothing, nor do further selections."""
    plainly = seconds(node, plain("nvl-one-sided"), "combine")
    added = seconds(node, plain("nvl-one-sided", pull_rate=2400 * GB), "combine") - plainly
    assert added == pytest.approx(3 * TOKENS * SIZE / (2400 * GB), rel=1e-6)
    # no term of it depends on tokens, so nobody has to say how many there are
    flows = phase_flows(node, even(node), plain("nvl-one-sided", pull_rate=2400 * GB), "combine", SIZE)
    assert flows.exit_s == pytest.approx(np.full(4, 3 * TOKENS * SIZE / (2400 * GB)), rel=1e-12)


def test_few_ranks_with_a_floor_of_their_own_have_no_fill(node):
    filled = {"fill_s": 20 * US, "fill_tokens": 100, "floor_s": 1 * US}
    eight = small_rail(1, 8)
    with_floor = filled | {"floor_few_ranks_s": 0.5 * US}
    for fabric, terms, fills in ((node, filled, True), (node, with_floor, False), (eight, with_floor, True)):
        plainly = seconds(fabric, plain("nvl-one-sided"), copies=even(fabric))
        took = seconds(fabric, plain("nvl-one-sided", **terms), copies=even(fabric))
        want = 20 * US * (1 - np.exp(-TOKENS / 100)) if fills else 0
        assert (took - plainly).max() == pytest.approx(want, rel=1e-3, abs=1e-12)


def test_the_epilogue_of_a_rank_is_its_own(node):
    copies, tokens = even(node), np.array([100, 0, 0, 0])
    constants = plain("nvl-two-sided", epilogue_token_s=1 * US)
    flows = phase_flows(node, copies, constants, "dispatch", SIZE, True, tokens=tokens)
    leave = run_phase(node, flows).leave_s
    assert leave[0] - leave[1:] == pytest.approx(np.full(3, 100 * US), rel=1e-6)


def test_a_one_sided_dispatch_ends_and_its_combine_begins_with_a_barrier(node):
    skewed = even(node)
    skewed.rank_copies[0, 1] *= 10
    constants = plain("nvl-one-sided")
    dispatch = phase_flows(node, skewed, constants, "dispatch", SIZE)
    trace = run_phase(node, dispatch)
    assert trace.leave_s == pytest.approx(np.full(4, trace.leave_s.max()), rel=1e-12)
    # those who were done wait for a rank whose flow came last
    assert trace.wait_s[2] > 0.5 * (trace.leave_s[2] - trace.enter_s[2])
    assert trace.waited_on[2] in (0, 1)
    assert phase_flows(node, skewed, constants, "combine", SIZE).all_ranks_gate


PROTOCOLS = (
    Protocol("ll", setup_intra_node_s=6.8 * US, setup_peer_s=0.13 * US, pair_rate=6.6 * GB),
    Protocol("slow", setup_intra_node_s=10.6 * US, floor_s=14.75 * US, nvlink_rate=100 * GB),
    Protocol("fast", setup_intra_node_s=46.4 * US, floor_s=14.75 * US, nvlink_rate=150 * GB),
)


@pytest.mark.parametrize("message", [64, 20_000, 60_000, 400_000, 3_000_000, 40_000_000])
def test_nccl_takes_the_protocol_that_ends_first(node, message):
    """T = min(6.8 + 0.13 (R - 2) + m / 6.6, max(14.75, 10.6 + 3 m / 100), max(14.75, 46.4 + 3 m / 150)); us, GB/s."""
    each = np.full((4, 4), message)
    flows = phase_flows(node, Copies(each, each, each[:, :1]), plain(NCCL, protocols=PROTOCOLS), "dispatch", 1)
    turns = 2 * 0.13 * US  # of two peers beyond the first
    want = min(
        6.8 * US + turns + message / (6.6 * GB),
        max(14.75 * US, 10.6 * US + 3 * message / (100 * GB)),
        max(14.75 * US, 46.4 * US + 3 * message / (150 * GB)),
    )
    assert run_phase(node, flows).kernel_s == pytest.approx(np.full(4, want), rel=1e-6)


def test_a_faster_port_keeps_what_every_protocol_reaches_of_it(node):
    """Twice the NVLink of what was measured: every byte takes half the time, the same protocol is chosen."""
    fast = small_rail(1, 4, nvlink="400GB/s")
    for message in (20_000, 400_000, 40_000_000):
        took = []
        for fabric, size in ((node, message), (fast, 2 * message)):
            each = np.full((4, 4), size)
            flows = phase_flows(
                fabric, Copies(each, each, each[:, :1]), plain(NCCL, protocols=PROTOCOLS), "dispatch", 1
            )
            took.append(run_phase(fabric, flows).kernel_s.max())
        assert took[0] == pytest.approx(took[1], rel=1e-9)


def test_two_ranks_have_rates_of_their_own():
    pair = small_rail(1, 2)
    each = np.full((2, 2), 10_000_000)
    protocols = (
        Protocol("fast", 46.4 * US, nvlink_rate=150 * GB, two_ranks_setup_s=36.8 * US, two_ranks_nvlink_rate=120 * GB),
    )
    flows = phase_flows(pair, Copies(each, each, each[:, :1]), plain(NCCL, protocols=protocols), "dispatch", 1)
    assert run_phase(pair, flows).kernel_s == pytest.approx(np.full(2, 36.8 * US + 1e7 / 120e9), rel=1e-6)


def test_terms_of_the_kernel_that_spans_nodes_apply_across_nodes_only(fabric, node):
    constants = plain(NORMAL, across=plain(NORMAL, setup_inter_node_s=500 * US))
    assert seconds(node, constants).max() == seconds(node, plain(NORMAL)).max()
    assert seconds(fabric, constants).max() > 500 * US


def test_constants_that_depend_on_tokens_ask_for_them(fabric):
    for constants in (plain(NORMAL, fill_s=1 * US, fill_tokens=10), plain("allgather-reduce-scatter")):
        with pytest.raises(InputError, match=r"'plain' of .* depend on tokens per rank"):
            phase_flows(fabric, even(fabric), constants, "dispatch", SIZE)


def test_kernels_inside_one_nvlink_domain_refuse_two(fabric):
    for algorithm in ("nvl-one-sided", "nvl-two-sided"):
        with pytest.raises(InputError, match=r"stays inside one NVLink domain.* has 2 .*gb200-nvl72"):
            phase_flows(fabric, even(fabric), plain(algorithm), "dispatch", SIZE)


@pytest.mark.parametrize("algorithm", [NORMAL, LOW_LATENCY, NCCL, "nccl-pxn", "deepep-v2-direct"])
def test_skewed_routing_lengthens_a_dispatch_as_the_port_loads_say(fabric, algorithm):
    """More and more of everybody's tokens go to rank 0: the time follows the busiest port, wherever that is."""
    constants = plain(algorithm, setup_intra_node_s=0.0, setup_inter_node_s=0.0)
    took, bound = [], []
    for ratio in (1, 2, 4, 8):
        ranks = np.full((8, 8), 600)
        ranks[:, 0] *= ratio
        copies = Copies(ranks, ranks, ranks.reshape(8, 2, 4).max(axis=2))
        flows = phase_flows(fabric, copies, constants, "dispatch", SIZE, True)
        took.append(run_phase(fabric, flows).kernel_s.max())
        busy = flows.link_wire_bytes(fabric.n_links) / fabric.capacity
        of_links = np.array([constants.efficiency(name) for name in fabric.link_class])
        bound.append((busy / of_links).max())
    took, bound = np.array(took), np.array(bound)
    # never faster than the busiest port, and hardly slower: with PXN messages inside the node, which end early, have
    # their fair share of NVLink at first
    latency = 7.03 * US
    assert (took >= bound * (1 - 1e-12)).all()
    assert (took <= bound * 1.04 + latency).all()
    assert (np.diff(took) > 0).all()
    assert took[-1] / took[0] == pytest.approx(bound[-1] / bound[0], rel=0.06)


def test_a_hot_rank_loads_nics_in_direct_and_one_nvlink_port_in_hierarchical_dispatch(fabric):
    """Domain knowledge of rail-aligned dispatch: a hot rank loads NVLink, only a hot node loads NICs, evenly."""
    ranks = np.full((8, 8), 100)
    ranks[:, 0] = 400
    nodes = np.full((8, 2), 400)
    copies = Copies(ranks, ranks, nodes)

    def into(algorithm, link_class):
        flows = phase_flows(fabric, copies, plain(algorithm), "dispatch", 1, True)
        return flows.link_wire_bytes(fabric.n_links)[ports(fabric, link_class, "in")]

    assert into(NORMAL, "nic").tolist() == [400] * 8
    assert into(NORMAL, "nvlink")[0] == pytest.approx(4 * into(NORMAL, "nvlink")[1], rel=0.1)
    # straight to the rank: its own NIC takes everything that the other node's four GPUs send it
    assert into(LOW_LATENCY, "nic").tolist() == [1600, 400, 400, 400, 400, 400, 400, 400]


def test_with_pxn_a_hot_destination_loads_the_nic_of_its_index_on_every_sending_node():
    three = small_rail(3, 2)
    ranks = np.full((6, 6), 100)
    ranks[:, 0] = 400  # rank 0 is GPU 0 of node 0
    flows = phase_flows(three, Copies(ranks, ranks, ranks[:, :3]), plain("nccl-pxn"), "dispatch", 1)
    sent = flows.link_wire_bytes(three.n_links)[ports(three, "nic", "out")]
    # from each GPU 0 elsewhere: both GPUs' 400 for rank 0 and 100 for the third node's GPU 0
    assert sent.tolist() == [400, 400, 1000, 400, 1000, 400]
    direct = phase_flows(three, Copies(ranks, ranks, ranks[:, :3]), plain(NCCL), "dispatch", 1)
    assert direct.link_wire_bytes(three.n_links)[ports(three, "nic", "out")].tolist() == [400, 400, 700, 700, 700, 700]

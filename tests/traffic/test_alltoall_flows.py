"""Flows of the algorithms: a toy routing worked out by hand, and random ones against a walk over tokens."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.cluster import load_topology
from moesim.measure.summary import _bandwidths
from moesim.traffic import Copies, count_all_copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.row_merge import merge_rows
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import ports, small_rail
from tests.reference.tree_flows import (
    bytes_by_message_with_pxn,
    bytes_by_token,
    gates_and_members,
    ports_of_rings,
    same_index_rank,
)

NORMAL, LOW_LATENCY, NCCL = "deepep-normal", "deepep-low-latency", "nccl-direct"
US = 1e-6

# Two nodes of two ranks, slots 2 r and 2 r + 1 on rank r, two tokens from each rank.
TOY_SLOTS = np.array([[0, 1, 5], [4, 5, 7], [0, 2, 3], [2, 3, 6], [4, 5, -1], [0, 2, 6], [0, 1, 2], [1, 4, 5]])
TOY_SELECTIONS = [[2, 0, 3, 1], [1, 4, 0, 1], [1, 1, 2, 1], [3, 1, 2, 0]]
TOY_RANK_COPIES = [[1, 0, 2, 1], [1, 2, 0, 1], [1, 1, 1, 1], [2, 1, 1, 0]]
TOY_NODE_COPIES = [[1, 2], [2, 1], [1, 2], [2, 1]]


@pytest.fixture(scope="module")
def fabric():
    return small_rail(2, 2)


@pytest.fixture(scope="module")
def toy():
    return count_all_copies(TOY_SLOTS, np.repeat(np.arange(4), 2), np.arange(8) // 2, 4, 2)


def rows(ptr, values):
    return [values[a:b].tolist() for a, b in pairwise(ptr)]


def shares_by_name(fabric, flows):
    """Of each flow: its share on each link, by the link's name."""
    names = [[fabric.link_names[link] for link in row] for row in rows(flows.route_ptr, flows.route_links)]
    return [dict(zip(*pair, strict=True)) for pair in zip(names, rows(flows.route_ptr, flows.share), strict=True)]


def bytes_of(fabric, flows, link_class, end):
    """Bytes of each rank's port of a class, ``out`` or ``in``."""
    return flows.link_wire_bytes(fabric.n_links)[ports(fabric, link_class, end)]


def test_the_toy_is_counted_as_by_hand(toy):
    assert toy.selections.tolist() == TOY_SELECTIONS
    assert toy.rank_copies.tolist() == TOY_RANK_COPIES
    assert toy.node_copies.tolist() == TOY_NODE_COPIES


@pytest.mark.parametrize("algorithm", [NCCL, LOW_LATENCY])
def test_direct_algorithms_send_every_selection_straight_to_its_rank(fabric, toy, algorithm):
    flows = phase_flows(fabric, toy, plain(algorithm, "h800"), "dispatch", 100)
    pairs = [(s, t) for s in range(4) for t in range(4) if s != t]
    assert list(zip(flows.source.tolist(), flows.target.tolist(), strict=True)) == pairs
    assert flows.size.tolist() == [100 * TOY_SELECTIONS[s][t] for s, t in pairs]
    shares = dict(zip(pairs, shares_by_name(fabric, flows), strict=True))
    assert shares[0, 1] == {"n0.gpu0->n0.nvswitch": 1, "n0.nvswitch->n0.gpu1": 1}
    assert [fabric.link_class[link] for link in rows(flows.route_ptr, flows.route_links)[1]] == ["nic", "nic"]
    assert len(shares[0, 3]) == 4  # another rail: over a spine
    assert bytes_of(fabric, flows, "nic", "out").tolist() == [400, 100, 200, 400]
    assert bytes_of(fabric, flows, "nic", "in").tolist() == [400, 200, 300, 200]
    assert bytes_of(fabric, flows, "nvlink", "out").tolist() == [0, 100, 100, 200]
    assert rows(flows.member_ptr, flows.member_ranks) == [[s, t] for s, t in pairs]


@pytest.mark.parametrize("phase", ["dispatch", "combine"])
def test_nccl_waits_for_both_ends_and_low_latency_for_the_source(fabric, toy, phase):
    both = phase_flows(fabric, toy, plain(NCCL, "h800"), phase, 100)
    source = phase_flows(fabric, toy, plain(LOW_LATENCY, "h800"), phase, 100)
    assert rows(both.gate_ptr, both.gate_ranks) == [list(pair) for pair in zip(both.source, both.target, strict=True)]
    assert rows(source.gate_ptr, source.gate_ranks) == [[rank] for rank in source.source]
    for flows in (both, source):
        assert (flows.all_ranks_gate, flows.entry_setup_s, flows.group_setup_s) == (False, 0, 0)


def test_combine_returns_what_dispatch_sent(fabric, toy):
    for algorithm in (NCCL, LOW_LATENCY):
        there, back = (phase_flows(fabric, toy, plain(algorithm, "h800"), p, 10) for p in ("dispatch", "combine"))
        sent = {(s, t): size for s, t, size in zip(there.source, there.target, there.size, strict=True)}
        returned = {(t, s): size for s, t, size in zip(back.source, back.target, back.size, strict=True)}
        assert sent == returned


def test_normal_mode_sends_one_tree_per_source_and_node(fabric, toy):
    flows = phase_flows(fabric, toy, plain(NORMAL, "h800"), "dispatch", 100)
    assert flows.size.tolist() == [100, 200, 200, 100, 100, 200, 200, 100]
    assert flows.source.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert flows.target.tolist() == [0, 2, 1, 3, 0, 2, 1, 3]  # the GPU of the same index there
    nic_out = {rank: f"n{rank // 2}.gpu{rank % 2}->rail{rank % 2}.leaf" for rank in range(4)}
    nic_in = {rank: f"rail{rank % 2}.leaf->n{rank // 2}.gpu{rank % 2}" for rank in range(4)}
    out = {rank: f"n{rank // 2}.gpu{rank % 2}->n{rank // 2}.nvswitch" for rank in range(4)}
    into = {rank: f"n{rank // 2}.nvswitch->n{rank // 2}.gpu{rank % 2}" for rank in range(4)}
    assert shares_by_name(fabric, flows) == [
        {},  # rank 0 to its own node: nothing for rank 1
        {nic_out[0]: 1, nic_in[2]: 1, out[2]: 1 / 2, into[3]: 1 / 2},
        {out[1]: 1 / 2, into[0]: 1 / 2},
        {nic_out[1]: 1, nic_in[3]: 1},  # the one copy is for rank 3 itself
        {nic_out[2]: 1, nic_in[0]: 1, out[0]: 1, into[1]: 1},
        {out[2]: 1 / 2, into[3]: 1 / 2},
        {nic_out[3]: 1, nic_in[1]: 1, out[1]: 1, into[0]: 1},  # both copies go on to rank 0, one to stay
        {out[3]: 1, into[2]: 1},
    ]
    assert bytes_of(fabric, flows, "nic", "out").tolist() == [200, 100, 100, 200]
    assert bytes_of(fabric, flows, "nvlink", "out").tolist() == [100, 300, 200, 100]
    assert bytes_of(fabric, flows, "nvlink", "in").tolist() == [300, 100, 100, 200]


def test_combine_of_normal_mode_is_the_same_tree_reversed(fabric, toy):
    there, back = (phase_flows(fabric, toy, plain(NORMAL, "h800"), p, 100) for p in ("dispatch", "combine"))
    assert back.size.tolist() == there.size.tolist()
    assert (back.source.tolist(), back.target.tolist()) == (there.target.tolist(), there.source.tolist())
    for link_class in ("nic", "nvlink"):
        for end, other in (("out", "in"), ("in", "out")):
            sent, received = bytes_of(fabric, there, link_class, end), bytes_of(fabric, back, link_class, other)
            assert sent.tolist() == received.tolist()
    assert shares_by_name(fabric, back)[6] == {
        "n0.gpu0->n0.nvswitch": 1,
        "n0.nvswitch->n0.gpu1": 1,
        "n0.gpu1->rail1.leaf": 1,
        "rail1.leaf->n1.gpu1": 1,
    }


def test_gates_of_normal_mode(fabric, toy):
    def gates(phase, cached=False):
        flows = phase_flows(fabric, toy, plain(NORMAL, "h800"), phase, 100, cached_handle=cached)
        return flows, [sorted(row) for row in rows(flows.gate_ptr, flows.gate_ranks)]

    fresh, _ = gates("dispatch")
    assert fresh.all_ranks_gate
    assert fresh.entry_setup_s == pytest.approx(50 * US, rel=1e-12)
    assert fresh.group_setup_s == pytest.approx((32 + 100) * US, rel=1e-12)  # two nodes' notify and the CPU
    cached, at_dispatch = gates("dispatch", cached=True)
    assert at_dispatch == [[0], [0, 2], [1], [1, 3], [0, 2], [2], [1, 3], [3]]
    combine, at_combine = gates("combine")
    # the forwarder and whoever has a partial sum for it: (0, node 1) is reduced by rank 2 from ranks 2 and 3
    assert at_combine == [[0], [2, 3], [0, 1], [3], [0, 1], [2, 3], [0, 1], [2, 3]]
    for flows in (cached, combine):
        assert (flows.all_ranks_gate, flows.entry_setup_s, flows.group_setup_s) == (False, 0, 0)
    members = [sorted(row) for row in rows(combine.member_ptr, combine.member_ranks)]
    assert members == [[0, 1], [0, 2, 3], [0, 1], [1, 2, 3], [0, 1, 2], [2, 3], [0, 1, 3], [2, 3]]


def test_set_up_contains_the_latency_of_the_longest_route(fabric, toy):
    def delays(algorithm, phase="dispatch"):
        flows = phase_flows(fabric, toy, plain(algorithm, "h800"), phase, 100)
        return {(s, t): d / US for s, t, d in zip(flows.source, flows.target, flows.delay_s, strict=True)}

    low_latency, nccl = delays(LOW_LATENCY), delays(NCCL)
    # inside a node 3.33 us of 24; across 3.7 us over the spine, 2.8 us under one leaf
    assert [low_latency[0, t] for t in (1, 2, 3)] == pytest.approx([24, 24 - 0.9, 24], rel=1e-12)
    assert [nccl[0, t] for t in (1, 2, 3)] == pytest.approx([24, 100 - 0.9, 100], rel=1e-12)


def test_a_tree_takes_the_latency_of_its_deepest_path_and_no_set_up(fabric, toy):
    flows = phase_flows(fabric, toy, plain(NORMAL, "h800"), "dispatch", 100)
    want = [0, 2.8 + 3.33, 3.33, 2.8, 2.8 + 3.33, 3.33, 2.8 + 3.33, 3.33]
    assert (flows.delay_s / US).tolist() == pytest.approx(want, rel=1e-12)


def test_a_fan_to_several_ranks_takes_the_latency_of_one_hop():
    node = small_rail(1, 4)
    everywhere = count_all_copies(np.array([[1, 2, 3]]), np.array([0]), np.arange(4), 4, 4)
    for phase in ("dispatch", "combine"):
        flows = phase_flows(node, everywhere, plain(NORMAL, "h800"), phase, 100)
        assert (flows.delay_s / US).tolist() == pytest.approx([3.33, 0, 0, 0], rel=1e-12)


def test_an_own_latency_beyond_the_set_up_time_is_not_shortened():
    far = load_topology("two-nodes-explicit")
    slow = replace(far, latency=far.latency * 100)
    ones = np.ones((4, 4), np.int64)
    flows = phase_flows(slow, Copies(ones, ones, ones[:, :2]), plain(LOW_LATENCY, "h100"), "dispatch", 100)
    across = far.rank_node[flows.source] != far.rank_node[flows.target]
    assert np.allclose(flows.delay_s[across], 370 * US, rtol=1e-12)
    assert np.allclose(flows.delay_s[~across], 333 * US, rtol=1e-12)


def test_weight_is_share_over_efficiency(fabric, toy):
    flows = phase_flows(fabric, toy, plain(NORMAL, "h800"), "dispatch", 100)
    names = [fabric.link_class[link] for link in flows.route_links]
    want = [share / (0.64 if name == "nvlink" else 0.86) for name, share in zip(names, flows.share, strict=True)]
    assert flows.weight.tolist() == pytest.approx(want, rel=1e-15)


@st.composite
def batches(draw):
    """A small cluster, perhaps with a shorter last node, and a batch: few tokens, uneven over ranks and slots."""
    nodes, gpus = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    ranks = draw(st.integers(max(1, (nodes - 1) * gpus + 1), nodes * gpus))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens, slots = draw(st.integers(0, 20)), draw(st.integers(1, 3 * ranks))
    return {
        "fabric": small_rail(nodes, gpus, ranks, routing=draw(st.sampled_from(["hash", "static", "spray"]))),
        "slot_ids": rng.integers(-1, slots, (tokens, draw(st.integers(1, 5)))).astype(np.int32),
        "token_rank": rng.integers(0, ranks, tokens),
        "slot_rank": rng.integers(0, ranks, slots),
        "gpus": gpus,
    }


def counted(batch):
    fabric = batch["fabric"]
    return count_all_copies(batch["slot_ids"], batch["token_rank"], batch["slot_rank"], fabric.n_ranks, batch["gpus"])


@given(batches(), st.sampled_from(["dispatch", "combine"]))
@settings(max_examples=50, deadline=None)
def test_trees_carry_what_a_walk_over_the_tokens_carries(batch, phase):
    fabric = batch["fabric"]
    flows = phase_flows(fabric, counted(batch), plain(NORMAL, "h800"), phase, 7472, ecmp_seed=3)
    tokens = (batch["slot_ids"], batch["token_rank"], batch["slot_rank"])
    want = bytes_by_token(fabric, *tokens, 7472, phase, seed=3)
    np.testing.assert_allclose(flows.link_wire_bytes(fabric.n_links), want, rtol=1e-12, atol=1e-9)


@given(batches(), st.sampled_from(["dispatch", "combine"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gates_and_members_of_trees_are_those_of_the_definition(batch, phase, cached):
    fabric, copies = batch["fabric"], counted(batch)
    flows = phase_flows(fabric, copies, plain(NORMAL, "h800"), phase, 7472, cached_handle=cached)
    gates, members = gates_and_members(fabric, copies.rank_copies, phase, cached)
    keys = list(gates)
    got_members = [set(row) for row in rows(flows.member_ptr, flows.member_ranks)]
    assert dict(zip(keys, got_members, strict=True)) == members
    assert sum(map(len, got_members)) == len(flows.member_ranks)  # nobody twice
    assert flows.all_ranks_gate == (phase == "dispatch" and not cached)
    if not flows.all_ranks_gate:
        got_gates = [set(row) for row in rows(flows.gate_ptr, flows.gate_ranks)]
        assert dict(zip(keys, got_gates, strict=True)) == gates


@given(batches())
@settings(max_examples=40, deadline=None)
def test_ports_carry_node_copies_over_nics_and_rank_copies_over_nvlink(batch):
    fabric, copies = batch["fabric"], counted(batch)
    flows = phase_flows(fabric, copies, plain(NORMAL, "h800"), "dispatch", 1)
    ranks, node = range(fabric.n_ranks), fabric.rank_node
    forwards = {(h, n): same_index_rank(fabric, h, n) for h in ranks for n in range(fabric.n_nodes)}
    nic_out = [sum(copies.node_copies[h, n] for n in range(fabric.n_nodes) if n != node[h]) for h in ranks]
    nic_in = [
        sum(copies.node_copies[h, node[f]] for h in ranks if node[h] != node[f] and forwards[h, node[f]] == f)
        for f in ranks
    ]
    # what a rank gets as the forwarder needs no NVLink
    nvlink_in = [sum(copies.rank_copies[h, r] for h in ranks if forwards[h, node[r]] != r) for r in ranks]
    for link_class, end, want in (("nic", "out", nic_out), ("nic", "in", nic_in), ("nvlink", "in", nvlink_in)):
        np.testing.assert_allclose(bytes_of(fabric, flows, link_class, end), want, rtol=1e-12, atol=1e-12)
    assert bytes_of(fabric, flows, "nvlink", "out").sum() == pytest.approx(sum(nvlink_in), rel=1e-12)


@given(batches(), st.sampled_from(ALGORITHMS))
@settings(max_examples=40, deadline=None)
def test_every_byte_out_comes_back_the_other_way(batch, algorithm):
    fabric, copies = batch["fabric"], counted(batch)
    if algorithm_named(algorithm).one_domain and fabric.n_nodes > 1:
        return
    tokens = np.bincount(batch["token_rank"], minlength=fabric.n_ranks)
    there, back = (
        phase_flows(fabric, copies, plain(algorithm, "h800"), p, 1, tokens=tokens) for p in ("dispatch", "combine")
    )
    if algorithm == "nccl-pxn":  # the sending side takes the detour, so the ways there and back differ
        carried = [flows.link_wire_bytes(fabric.n_links)[fabric.is_class("nic")].sum() for flows in (there, back)]
        assert carried[0] == pytest.approx(carried[1], rel=1e-12, abs=1e-12)
        return
    for link_class in ("nic", "nvlink"):
        for end, other in (("out", "in"), ("in", "out")):
            got = bytes_of(fabric, back, link_class, other)
            np.testing.assert_allclose(got, bytes_of(fabric, there, link_class, end), rtol=1e-12, atol=1e-12)
    assert back.size.sum() == there.size.sum()


@given(batches(), st.sampled_from([NCCL, LOW_LATENCY]))
@settings(max_examples=30, deadline=None)
def test_a_direct_all_to_all_never_carries_less_than_the_trees(batch, algorithm):
    """Dedup per node and per rank never adds to a NIC; the tree's detour over the forwarder may add to NVLink."""
    fabric, copies = batch["fabric"], counted(batch)
    direct, tree = (phase_flows(fabric, copies, plain(a, "h800"), "dispatch", 1) for a in (algorithm, NORMAL))
    assert (bytes_of(fabric, tree, "nic", "out") <= bytes_of(fabric, direct, "nic", "out")).all()


ACROSS_NODES = [name for name in ALGORITHMS if not algorithm_named(name).one_domain]
ROUTED = [name for name in ACROSS_NODES if algorithm_named(name).copies != "all"]


@pytest.mark.parametrize("algorithm", [name for name in ROUTED if name != "deepep-low-latency-nic"])
def test_a_token_for_its_own_rank_crosses_no_wire_and_one_for_its_own_node_no_nic(fabric, algorithm):
    for target, idle in (([0, 2, 4, 6], ("nvlink", "nic")), ([2, 0, 6, 4], ("nic",))):
        copies = count_all_copies(np.array(target)[:, None], np.arange(4), np.arange(8) // 2, 4, 2)
        for phase in ("dispatch", "combine"):
            flows = phase_flows(fabric, copies, plain(algorithm, "h800"), phase, 100)
            for link_class in ("nvlink", "nic"):
                carried = bytes_of(fabric, flows, link_class, "out").sum()
                assert carried == (0 if link_class in idle else 400)


@pytest.mark.parametrize("algorithm", ACROSS_NODES)
def test_a_group_smaller_than_the_cluster_uses_its_own_ranks_only(algorithm):
    group = load_topology("h800-8x8-rail").first_ranks(12)  # one node and a half
    rng = np.random.default_rng(0)
    home = rng.integers(0, 12, 60)
    copies = count_all_copies(rng.integers(0, 24, (60, 4)), home, np.arange(24) // 2, 12, 8)
    tokens = np.bincount(home, minlength=12)
    flows = phase_flows(group, copies, plain(algorithm, "h800"), "dispatch", 1, tokens=tokens)
    assert set(flows.member_ranks) == set(range(12))
    used = {group.link_names[link] for link in np.flatnonzero(flows.link_wire_bytes(group.n_links))}
    assert not [name for name in used if name.startswith(("n1.gpu4", "n1.gpu5", "n2", "n7"))]
    sending = np.flatnonzero(bytes_of(group, flows, "nic", "out"))
    # With PXN the first node's GPUs 4 to 7 are on rails that nobody elsewhere is on.
    assert sending.tolist() == ([0, 1, 2, 3, 8, 9, 10, 11] if algorithm == "nccl-pxn" else list(range(12)))


def test_on_a_cluster_of_one_rank_nothing_moves():
    one = small_rail(1, 1)
    for algorithm in ALGORITHMS:
        constants, fives = plain(algorithm, "h800"), Copies(*np.full((3, 1, 1), 5))
        flows = phase_flows(one, fives, constants, "dispatch", 100, tokens=np.array([5]))
        assert flows.link_wire_bytes(one.n_links).sum() == 0


def bandwidths(fabric, copies, algorithm, kernel_s, hidden=128):
    """What the summary prints for a dispatch in FP8 that took each rank ``kernel_s``."""
    published = 148 if algorithm == LOW_LATENCY else 132  # 128 channels and one scale, and a header of 16
    parts = SimpleNamespace(
        model=SimpleNamespace(sent=hidden),
        algorithm=algorithm_named(algorithm),
        fabric=fabric,
        message_dtype={"dispatch": "fp8"},
        published_bytes={"dispatch": published},
    )
    load = SimpleNamespace(totals=copies.totals(), hierarchical=algorithm == NORMAL)
    trace = SimpleNamespace(phases={"dispatch": SimpleNamespace(kernel_s=np.array(kernel_s))})
    found = _bandwidths(parts, load, trace, "dispatch")
    return [found[f"dispatch_{name}_bytes_per_s"] for name in ("algbw", "busbw", "deepep_rdma", "deepep_nvl")]


def test_the_bandwidths_of_the_toy_are_those_that_the_libraries_would_print(fabric, toy):
    slowest = [1e-6, 2e-6, 2e-6, 1.5e-6]
    # Ranks send 6, 6, 5 and 6 selections of 132 bytes, own ones included; busbw leaves out a fourth of them.
    algbw = 6 * 132 / 2e-6
    nccl = bandwidths(fabric, toy, NCCL, slowest)
    assert nccl[:2] == pytest.approx([algbw, algbw * 3 / 4], rel=1e-12)
    assert nccl[2:] == [None, None]
    # 12 node copies and 16 rank copies of 132 bytes, own ones included, over 4 ranks
    rdma, nvl = 12 / 4 * 132 / 2e-6, 16 / 4 * 132 / 2e-6
    assert bandwidths(fabric, toy, NORMAL, slowest)[2:] == pytest.approx([rdma, nvl], rel=1e-12)
    # all 23 selections of 148 bytes
    of_low_latency = bandwidths(fabric, toy, LOW_LATENCY, slowest)
    assert of_low_latency[2] == pytest.approx(23 / 4 * 148 / 2e-6, rel=1e-12)
    assert of_low_latency[3] is None
    # and on the wire: rank 0 sends two copies to the other node
    flows = phase_flows(fabric, toy, plain(NORMAL, "h800"), "dispatch", 132)
    assert bytes_of(fabric, flows, "nic", "out")[0] / 2e-6 == pytest.approx(2 * 132 / 2e-6, rel=1e-12)


def test_a_phase_that_takes_no_time_has_no_bandwidth_and_one_node_no_rdma(fabric, toy):
    assert bandwidths(fabric, toy, NORMAL, [0.0] * 4) == [None] * 4
    node = small_rail(1, 4)
    copies = count_all_copies(TOY_SLOTS, np.repeat(np.arange(4), 2), np.arange(8) // 2, 4, 4)
    assert bandwidths(node, copies, NORMAL, [1e-6] * 4)[2] is None


@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(1, 6), st.sampled_from([3, 40, 200]))
@settings(max_examples=40, deadline=None)
def test_merged_rows_are_those_of_a_dense_matrix(seed, entries, n_rows, n_columns):
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, n_rows, entries), rng.integers(0, n_columns, entries).astype(np.int32)
    value = rng.integers(1, 9, entries).astype(float)
    ptr, columns, sums = merge_rows(row, column, value, n_rows, n_columns)
    dense = np.zeros((n_rows, n_columns))
    np.add.at(dense, (row, column), value)
    want_row, want_column = np.nonzero(dense)
    assert columns.tolist() == want_column.tolist()
    assert ptr.tolist() == np.searchsorted(want_row, np.arange(n_rows + 1)).tolist()
    assert sums.tolist() == dense[want_row, want_column].tolist()


@given(batches(), st.sampled_from(["dispatch", "combine"]))
@settings(max_examples=40, deadline=None)
def test_pxn_carries_what_a_walk_over_its_messages_carries(batch, phase):
    fabric, copies = batch["fabric"], counted(batch)
    flows = phase_flows(fabric, copies, plain("nccl-pxn"), phase, 132, ecmp_seed=3)
    want = bytes_by_message_with_pxn(fabric, copies.selections, 132, phase, seed=3)
    np.testing.assert_allclose(flows.link_wire_bytes(fabric.n_links), want, rtol=1e-12, atol=1e-9)
    # each flow waits for both ends, and both ends wait for it
    for source, target, gates, members in zip(
        flows.source,
        flows.target,
        rows(flows.gate_ptr, flows.gate_ranks),
        rows(flows.member_ptr, flows.member_ranks),
        strict=True,
    ):
        here = {rank for rank in range(fabric.n_ranks) if fabric.rank_node[rank] == fabric.rank_node[source]}
        same_node = fabric.rank_node[source] == fabric.rank_node[target]
        assert set(gates) == set(members) == ({source, target} if same_node else here | {target})


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 4), (2, 2), (4, 2), (4, 4)])
def test_ports_carry_what_rings_carry_that_are_walked_hop_by_hop(nodes, gpus):
    fabric = small_rail(nodes, gpus)
    ranks = nodes * gpus
    nothing = Copies(*(np.zeros((ranks, n), np.int64) for n in (ranks, ranks, nodes)))
    flows = phase_flows(fabric, nothing, plain("allgather-reduce-scatter"), "dispatch", 10, tokens=np.full(ranks, 7))
    nvlink, nic = ports_of_rings(nodes, gpus, np.full(ranks, 70.0))
    assert bytes_of(fabric, flows, "nvlink", "out") == pytest.approx(nvlink, rel=1e-12)
    assert bytes_of(fabric, flows, "nic", "out") == pytest.approx(nic, rel=1e-12)
    # every edge of a ring sees all ranks' data but those of the rank it leads to
    inside = 1 if nodes == 1 else (gpus - 1) / gpus
    assert nvlink == pytest.approx(np.full(ranks, 70 * (ranks - 1) * inside), rel=1e-12)


@pytest.mark.parametrize(("nodes", "setup_s"), [(1, 24e-6), (2, 100e-6)])
def test_a_ring_is_set_up_as_inside_a_node_only_where_there_is_one(nodes, setup_s):
    fabric = small_rail(nodes, 2)
    nothing = Copies(*(np.zeros((2 * nodes, n), np.int64) for n in (2 * nodes, 2 * nodes, nodes)))
    constants = replace(plain("allgather-reduce-scatter"), setup_intra_node_s=24e-6, setup_inter_node_s=100e-6)
    flows = phase_flows(fabric, nothing, constants, "dispatch", 10, tokens=np.full(2 * nodes, 7))
    assert flows.delays["route latency"] + flows.delays["set-up"] == pytest.approx(np.full(2 * nodes, setup_s))

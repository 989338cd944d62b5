"""The published tables of DeepEP on H800 and the law of nccl-tests, from uniform random routing as the tests route.

DeepEP's tests draw random scores; where there are more than four nodes a token goes to the four with the best score
and to the eight best experts there (``tests/test_internode.py``). Figures are those of its README.
"""

from dataclasses import replace

import numba
import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.timeline.uniform_alltoall import alltoall_table, run_phase
from moesim.traffic import Copies, calibration, count_all_copies
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.copy_bytes import published_bytes, wire_bytes
from tests.reference.alltoall_constants import plain

EXPERTS, TOP_K, HIDDEN, TOP_NODES, GPUS = 256, 8, 7168, 4, 8
# Thousands of flows of different size take the plain Python of the kernels minutes.
PLAIN_PYTHON = numba.config.DISABLE_JIT


def below(ranks, limit):
    return [
        pytest.param(n, marks=pytest.mark.skipif(PLAIN_PYTHON and n >= limit, reason="too slow without the JIT"))
        for n in ranks
    ]


def uniform_copies(ranks, tokens_per_rank, top_nodes, seed=0):
    """Copies of uniformly random routing.

    The first node's tokens are drawn; the other nodes' are the same, turned on by one node each, so that every node
    plays every part.
    """
    rng, nodes = np.random.default_rng(seed), ranks // GPUS
    tokens = GPUS * tokens_per_rank
    scores = rng.random((tokens, EXPERTS), dtype=np.float32)
    if nodes > top_nodes:
        best = scores.reshape(tokens, nodes, -1).max(axis=-1)
        threshold = np.partition(best, nodes - top_nodes, axis=1)[:, nodes - top_nodes, None]
        scores[np.repeat(best < threshold, EXPERTS // nodes, axis=1)] = -1
    ids = np.argpartition(-scores, TOP_K - 1, axis=1)[:, :TOP_K].astype(np.int32)
    home, rank_of_expert = np.repeat(np.arange(GPUS), tokens_per_rank), np.arange(EXPERTS) * ranks // EXPERTS
    first = count_all_copies(ids, home, rank_of_expert, ranks, GPUS)

    def turned(matrix, per_node):
        return np.concatenate([np.roll(matrix[:GPUS], node * per_node, axis=1) for node in range(nodes)])

    return Copies(turned(first.selections, GPUS), turned(first.rank_copies, GPUS), turned(first.node_copies, 1))


def run(ranks, copies, algorithm, phase, dtype, gpu="h800"):
    """Kernel seconds of each rank on the published cluster, and bytes that the publisher counts per copy."""
    fabric = load_topology("h800-8x8-rail").first_ranks(ranks)
    if gpu != "h800":  # the same rails with the NVLink of another Hopper GPU
        faster = np.where(fabric.is_class("nvlink"), 450 / 200, 1.0)
        fabric = replace(fabric, capacity=fabric.capacity * faster)
    wire = wire_bytes(algorithm, phase, HIDDEN, dtype, TOP_K)
    published = published_bytes(algorithm, phase, HIDDEN, dtype, TOP_K)
    constants = plain(algorithm, gpu, wire / published)
    flows = phase_flows(fabric, copies, constants, phase, wire, cached_handle=True)
    return run_phase(fabric, flows).kernel_s, published


@pytest.fixture(scope="module")
def normal():
    """Of each EP size: kernel seconds and the logical GB/s over RDMA and NVLink of a dispatch of 4,096 tokens."""
    found = {}

    def at(ranks):
        if ranks not in found:
            copies = uniform_copies(ranks, 4096, TOP_NODES)
            seconds, size = run(ranks, copies, "deepep-normal", "dispatch", "fp8")
            counted = (copies.node_copies.sum(), copies.rank_copies.sum())
            logical = [copies_sent / ranks * size / seconds.max() / 1e9 for copies_sent in counted]
            found[ranks] = (seconds.max(), *logical)
        return found[ranks]

    return at


@pytest.mark.parametrize(("ranks", "us"), [(8, 1048), (16, 1403), (32, 1886)])
def test_normal_dispatch_takes_what_deepep_publishes(normal, ranks, us):
    assert normal(ranks)[0] == pytest.approx(us * 1e-6, rel=0.06)


@pytest.mark.skipif(PLAIN_PYTHON, reason="too slow without the JIT")
def test_normal_dispatch_takes_what_deepep_publishes_on_eight_nodes(normal):
    assert normal(64)[0] == pytest.approx(2364e-6, rel=0.06)


def test_logical_rdma_bandwidth_is_lower_at_two_nodes_than_at_four(normal):
    """At two nodes NVLink binds: 43, 58 GB/s published for 16 and 32 ranks, more than the NIC's 50 GB/s."""
    assert normal(8)[2] == pytest.approx(153, rel=0.06)
    rdma = {ranks: normal(ranks)[1] for ranks in (16, 32)}
    assert rdma[16] == pytest.approx(43, rel=0.06)
    assert rdma[32] == pytest.approx(58, rel=0.06)
    # the ratio of the two logical bandwidths is that of the distinct ranks and nodes of a token
    assert normal(16)[2] / rdma[16] == pytest.approx(6.52 / 1.993, rel=2e-3)


@pytest.mark.skipif(PLAIN_PYTHON, reason="too slow without the JIT")
def test_logical_rdma_bandwidth_peaks_at_four_nodes(normal):
    rdma = {ranks: normal(ranks)[1] for ranks in (16, 32, 64)}
    assert rdma[64] == pytest.approx(51, rel=0.06)
    assert rdma[16] < rdma[64] < rdma[32]


@pytest.mark.parametrize("ranks", below([16, 32, 64], 64))
def test_on_the_wire_there_is_no_dip_but_another_bottleneck(normal, ranks):
    """docs/ep16-dip.md: copies for the own node touch no NIC; what does runs at 43 GB/s, or waits for NVLink."""
    copies, nodes = uniform_copies(ranks, 4096, TOP_NODES), ranks // GPUS
    seconds, logical_rdma, _ = normal(ranks)
    on_the_wire = logical_rdma * (nodes - 1) / nodes
    assert on_the_wire == pytest.approx({16: 21.5, 32: 43.5, 64: 44.6}[ranks], rel=0.06)
    # time that the rank's own copies need on either wire, nearly all of it on the slower one
    per_rank = 4096 * 7392 / ranks / 4096
    nic_s = copies.node_copies.sum() * (nodes - 1) / nodes * per_rank / 43e9
    nvlink_s = copies.rank_copies.sum() * 7 / 8 * per_rank / 128e9
    assert (nvlink_s > nic_s) == (ranks == 16)
    assert seconds == pytest.approx(max(nic_s, nvlink_s), rel=0.02)


@pytest.mark.skipif(PLAIN_PYTHON, reason="too slow without the JIT")
def test_with_twice_the_nvlink_logical_bandwidth_falls_with_the_nodes():
    logical = []
    for ranks in (16, 32, 64):
        copies = uniform_copies(ranks, 4096, TOP_NODES)
        seconds, size = run(ranks, copies, "deepep-normal", "dispatch", "fp8", gpu="h100")
        logical.append(copies.node_copies.sum() / ranks * size / seconds.max() / 1e9)
    assert logical[0] > logical[1] > logical[2]


# EP64 lies 9 % above with the slowest rank's time; the published figures are means over ranks.
@pytest.mark.parametrize("ranks", below([8, 16, 32, 64], 32))
def test_low_latency_dispatch_and_combine_take_what_two_resources_and_a_latency_give(ranks):
    model_us = {8: (73, 119), 16: (114, 199), 32: (159, 286), 64: (182, 330)}[ranks]
    copies = uniform_copies(ranks, 128, ranks)  # the low-latency test limits no nodes
    for phase, dtype, us in (("dispatch", "fp8", model_us[0]), ("combine", "bf16", model_us[1])):
        seconds, _ = run(ranks, copies, "deepep-low-latency", phase, dtype)
        assert seconds.mean() == pytest.approx(us * 1e-6, rel=0.07)
        # and no rank is faster than its own ports; a route's latency, a microsecond less than the longest, is in 24 us
        own_node = copies.selections[0, :GPUS].sum()
        across, inside = copies.selections[0].sum() - own_node, own_node - copies.selections[0, 0]
        size = wire_bytes("deepep-low-latency", phase, HIDDEN, dtype, TOP_K)
        assert seconds[0] >= 23e-6 + max(across * size / 42e9, inside * size / 135e9)


@pytest.mark.parametrize("ranks", below([16, 32, 64], 32))
def test_nccl_bus_bandwidth_is_the_nics_times_nodes_over_other_nodes(ranks):
    """S. Jeaugey, nccl-tests issue 130: of a rank's bytes only (N - 1) / N cross its NIC."""
    nodes = ranks // GPUS
    fabric = load_topology("h800-8x8-rail").first_ranks(ranks)
    (row,) = alltoall_table(fabric, "nccl-direct", [1 << 36])
    rate = max(one.nic_rate for one in calibration("nccl-direct", "h800").protocols)
    assert row.busbw == pytest.approx(nodes / (nodes - 1) * rate * (ranks - 1) / ranks, rel=1e-3)
    assert row.algbw == pytest.approx(row.busbw * ranks / (ranks - 1), rel=1e-12)
    assert row.nic == pytest.approx(rate, rel=1e-3)


def test_inside_a_node_nccl_bus_bandwidth_is_that_of_nvlink():
    """An all-to-all of R ranks sends (R - 1) / R of its bytes over NVLink, which is what busbw counts."""
    (row,) = alltoall_table(load_topology("hgx-h800"), "nccl-direct", [1 << 36])
    fast = max(one.nvlink_rate for one in calibration("nccl-direct", "h800").protocols)
    assert row.busbw == pytest.approx(fast, rel=1e-3)
    assert 140e9 < fast < 200e9
    assert row.nic is None


def test_a_tiny_all_to_all_takes_the_set_up_time():
    inside, across = load_topology("hgx-h800"), load_topology("h800-8x8-rail").first_ranks(16)
    protocols = calibration("nccl-direct", "h800").protocols
    least = min(max(one.floor_s, one.setup_intra_node_s + 6 * one.setup_peer_s) for one in protocols)
    assert alltoall_table(inside, "nccl-direct", [8])[0].time_s == pytest.approx(least, rel=1e-3)
    least = min(one.setup_inter_node_s + 14 * one.setup_peer_s for one in protocols)
    assert alltoall_table(across, "nccl-direct", [16])[0].time_s == pytest.approx(least, rel=1e-3)

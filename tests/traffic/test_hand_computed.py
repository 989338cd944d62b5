"""Every algorithm on 2 x 2 GPUs and 8 tokens: bytes on every wire, time and the five bandwidths, worked out by hand.

Ranks are 0 = (node 0, GPU 0), 1 = (0, 1), 2 = (1, 0), 3 = (1, 1). Seen from a rank, p is its node's other GPU, q the
GPU of its own index on the other node, d the remaining one. Rank r holds experts 2 r and 2 r + 1. Every rank has two
tokens:

    first:   both experts of q, one of d         3 selections, 2 ranks, 1 node  (the other)
    second:  one each of its own, p and q        3 selections, 3 ranks, 2 nodes (own and other)

so that all ranks do the same. Selections sent by a rank: own 1, p 1, q 3, d 1, together 6. Copies to distinct ranks:
own 1, p 1, q 2, d 1, together 5. Copies to distinct nodes: own 1, other 2, together 3.

A token has 128 channels: 128 + 4 = 132 bytes in FP8 with its one scale, 256 in BF16. A GPU's NVLink port reaches 100 of
200 GB/s, its NIC 25 of 50; no latency, no set-up. Every port has the same load out and in, and what shares a port ends
when the port's bytes are through, so the time is that of the busiest port. Times below in ns, bandwidths in GB/s.
"""

import numpy as np
import pytest

from moesim import load_scenario, simulate

# Experts of each rank's two tokens, and the rank that each token starts on, by turns.
P, Q, D = (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)
EXPERT_IDS = [ids for r in range(4) for ids in ([2 * Q[r], 2 * Q[r] + 1, 2 * D[r]], [2 * r, 2 * P[r] + 1, 2 * Q[r]])]

TOPOLOGY = """\
kind: {kind}
gpu: h800
{size}
nvlink: {{bandwidth: 200GB/s, latency: 0us}}
{more}"""
TWO_NODES = TOPOLOGY.format(
    kind="rail",
    size="nodes: 2\ngpus_per_node: 2",
    more="nic: {bandwidth: 50GB/s, latency: 0us}\nleaf_spine: {spines: 2, latency: 0us}\nrouting: spray\n",
)
ONE_DOMAIN = TOPOLOGY.format(kind="hgx", size="gpus_per_node: 4", more="")

CONSTANTS = """\
algorithm: {algorithm}
gpu: h800
source: made up
dispatch: {{nvlink_rate: 100GB/s, nic_rate: 25GB/s}}
combine: {{nvlink_rate: 100GB/s, nic_rate: 25GB/s}}
"""

SCENARIO = """\
cluster: {{topology: ./cluster.yaml}}
model: {{n_experts: 8, hidden: 128, expert_hidden: 128, n_shared: 0}}
routing: {{kind: v1, top_k: 3}}
workload: {{expert_ids: ./ids.npy}}
alltoall: {{algorithm: {algorithm}, calibration: ./constants.yaml}}
"""


@pytest.fixture
def run(tmp_path):
    def run(algorithm, topology=TWO_NODES):
        np.save(tmp_path / "ids.npy", np.array(EXPERT_IDS, np.int32))
        (tmp_path / "cluster.yaml").write_text(topology)
        (tmp_path / "constants.yaml").write_text(CONSTANTS.format(algorithm=algorithm))
        (tmp_path / "s.yaml").write_text(SCENARIO.format(algorithm=algorithm))
        return simulate(load_scenario(tmp_path / "s.yaml"))

    return run


def check(result, phase, time_ns, nic, nvlink, algbw, rdma=None, nvl=None):
    """Compare a phase with what was worked out: seconds, bytes on each port of a class, and the bandwidths in GB/s."""
    summary, links = result.summary, result.tables["links"]
    assert summary[f"{phase}_kernel_time_s"] == pytest.approx(time_ns * 1e-9, rel=1e-9)
    for link_class, port_bytes in (("nic", nic), ("nvlink", nvlink)):
        ports = links[(links.phase == phase) & (links.link_class == link_class)]
        assert ports.wire_bytes.to_numpy() == pytest.approx(np.full(len(ports), port_bytes), rel=1e-12)
        # wire: bytes on the link over the time, of what the algorithm reaches of its peak
        reached = 25 if link_class == "nic" else 100
        assert ports.utilisation.to_numpy() == pytest.approx(np.full(len(ports), port_bytes / time_ns / reached))
    found = {name: summary[f"{phase}_{name}_bytes_per_s"] for name in ("algbw", "busbw", "deepep_rdma", "deepep_nvl")}
    # busbw leaves out the fourth of an all-to-all that stays where it is
    expected = {"algbw": algbw, "busbw": algbw * 3 / 4, "deepep_rdma": rdma, "deepep_nvl": nvl}
    for name, gb_per_s in expected.items():
        if gb_per_s is None:
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(gb_per_s * 1e9, rel=1e-9), name


def test_nccl_direct(run):
    # NIC: selections for q and d, 3 + 1 copies of 132 = 528 bytes; NVLink: the one for p, 132.
    # 528 / 25 = 21.12 ns; 132 / 100 = 1.32. algbw 6 x 132 / 21.12 = 37.5: the own selection counts.
    result = run("nccl-direct")
    check(result, "dispatch", 21.12, nic=528, nvlink=132, algbw=37.5)
    # Back in BF16: 4 x 256 = 1,024 over the NIC, 40.96 ns; algbw 6 x 256 / 40.96 = 37.5 again.
    check(result, "combine", 40.96, nic=1024, nvlink=256, algbw=37.5)


def test_nccl_pxn(run):
    # The 4 selections that a node's two GPUs have for one rank elsewhere leave from the NIC of that rank's index: 3
    # were there already (from the rank whose q it is), 1 comes over NVLink (from the one whose d it is).
    # NIC 4 x 132 = 528 as before, NVLink 132 for p and 132 for the neighbour's NIC = 264.
    result = run("nccl-pxn")
    check(result, "dispatch", 21.12, nic=528, nvlink=264, algbw=37.5)
    check(result, "combine", 40.96, nic=1024, nvlink=512, algbw=37.5)


def test_deepep_normal(run):
    # A copy is 132 + 8 of metadata + 3 x (4 + 4) ids and weights = 164, aligned to 16: 176 bytes.
    # NIC: one copy per token to the other node, 2 x 176 = 352. NVLink: the second token's copy for p, 176, and what the
    # rank forwards for q's tokens: of two copies one is for d of the sender, 176; together 352.
    # 352 / 25 = 14.08 ns. The published bandwidths count 132 bytes: rdma 3 nodes x 132 / 14.08 = 28.125,
    # nvl 5 ranks x 132 / 14.08 = 46.875, algbw 6 selections x 132 / 14.08 = 56.25.
    result = run("deepep-normal")
    check(result, "dispatch", 14.08, nic=352, nvlink=352, algbw=56.25, rdma=28.125, nvl=46.875)
    # BF16: 256 + 8 + 24 = 288; 2 x 288 = 576 bytes, 23.04 ns; rdma 3 x 256 / 23.04 = 33.333, nvl 5 x 256 / 23.04.
    check(result, "combine", 23.04, nic=576, nvlink=576, algbw=200 / 3, rdma=100 / 3, nvl=500 / 9)


def test_deepep_v2_hybrid(run):
    # Each part aligned to 32: 128 channels, 4 -> 32 of scale, 3 x 8 + 4 x 4 = 40 -> 64 of metadata: 224 bytes.
    # The same trees: NIC 2 x 224 = 448, 17.92 ns; NVLink 448.
    # Its test counts the ids and weights too, 132 + 3 x (8 + 4) = 168: rdma 3 nodes x 168 / 17.92 = 28.125,
    # nvl 5 ranks x 168 / 17.92 = 46.875. algbw counts 132.
    result = run("deepep-v2-hybrid")
    check(result, "dispatch", 17.92, nic=448, nvlink=448, algbw=792 / 17.92, rdma=28.125, nvl=46.875)
    # Back 256 of channels, no scales, 3 x 8 = 24 -> 32 of weights: 288; as in normal mode. Counted are the weights too,
    # 256 + 3 x 4 = 268: rdma 3 x 268 = 804, nvl 5 x 268 = 1,340.
    check(result, "combine", 23.04, nic=576, nvlink=576, algbw=200 / 3, rdma=804 / 23.04, nvl=1340 / 23.04)


def test_deepep_v2_direct(run):
    # A copy per distinct rank goes there itself: NIC q 2 + d 1 = 3 x 224 = 672, 26.88 ns; NVLink p, 224.
    # There are no copies per node, so no rdma. nvl 5 x 168 / 26.88 = 31.25.
    result = run("deepep-v2-direct")
    check(result, "dispatch", 26.88, nic=672, nvlink=224, algbw=792 / 26.88, nvl=31.25)
    # 3 x 288 = 864, 34.56 ns.
    check(result, "combine", 34.56, nic=864, nvlink=288, algbw=1536 / 34.56, nvl=1340 / 34.56)


def test_hybrid_ep(run):
    # The trees with the bare payload: NIC 2 x 132 = 264, 10.56 ns; NVLink 264.
    result = run("hybrid-ep")
    check(result, "dispatch", 10.56, nic=264, nvlink=264, algbw=75, rdma=37.5, nvl=62.5)
    # 2 x 256 = 512, 20.48 ns
    check(result, "combine", 20.48, nic=512, nvlink=512, algbw=75, rdma=37.5, nvl=62.5)


def test_deepep_low_latency(run):
    # Every selection is a message of 132 + 16 = 148, even both for one rank: NIC 4 x 148 = 592, 23.68 ns; NVLink 148.
    # Its test counts all 6 selections, own and NVLink's included: rdma 6 x 148 / 23.68 = 37.5. algbw counts 132.
    result = run("deepep-low-latency")
    check(result, "dispatch", 23.68, nic=592, nvlink=148, algbw=792 / 23.68, rdma=37.5)
    # No header on the way back: 4 x 256 = 1,024, 40.96 ns.
    check(result, "combine", 40.96, nic=1024, nvlink=256, algbw=37.5, rdma=37.5)


def test_deepep_low_latency_before_it_used_nvlink(run):
    # p is reached over the NIC too: 5 x 148 = 740, 29.6 ns; rdma 888 / 29.6 = 30.
    result = run("deepep-low-latency-nic")
    check(result, "dispatch", 29.6, nic=740, nvlink=0, algbw=792 / 29.6, rdma=30)
    check(result, "combine", 51.2, nic=1280, nvlink=0, algbw=30, rdma=30)


@pytest.mark.parametrize("algorithm", ["nvl-one-sided", "nvl-two-sided"])
def test_nvl_one_and_two_sided(run, algorithm):
    # All four GPUs in one NVLink domain: copies for p, q and d, 1 + 2 + 1 = 4 x 132 = 528, 5.28 ns; no NIC.
    # TensorRT-LLM counts copies to distinct ranks, own included: nvl 5 x 132 / 5.28 = 125.
    result = run(algorithm, ONE_DOMAIN)
    check(result, "dispatch", 5.28, nic=0, nvlink=528, algbw=150, nvl=125)
    check(result, "combine", 10.24, nic=0, nvlink=1024, algbw=150, nvl=125)


def test_allgather_reduce_scatter(run):
    # Both tokens of everybody, 132 + 3 x 8 of ids and weights = 156 bytes each, go everywhere whatever their experts.
    # Two rings, each with half of it, in turn from GPU to GPU and from node to node: a ring of 4 edges has 2 inside
    # nodes and 2 across, each of which sees the data of 3 of the 4 ranks. A GPU sends over NVLink in one ring and over
    # its NIC in the other: 3 x 2 x 156 / 2 = 468 bytes each.
    # 468 / 25 = 18.72 ns.
    result = run("allgather-reduce-scatter")
    check(result, "dispatch", 18.72, nic=468, nvlink=468, algbw=792 / 18.72)
    # Sums of 256 bytes: 3 x 2 x 256 / 2 = 768, 30.72 ns.
    check(result, "combine", 30.72, nic=768, nvlink=768, algbw=50)

"""Multi-plane fat trees: each NIC of a node in a network of its own."""

import networkx as nx
import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.cluster.graph import build_graph
from moesim.cluster.topology_reader import read_topology

SMALL = """
kind: multi-plane
gpu: h800
nodes: 4
gpus_per_node: 2
nodes_per_leaf: 2
nvlink: {bandwidth: 200GB/s, latency: 3us}
nic: {bandwidth: 50GB/s, latency: 2us}
leaf_spine: {spines: 2, oversubscription: 2, latency: 1us}
routing: static
"""


@pytest.fixture
def fabric(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    return load_topology(tmp_path / "small.yaml")


def route(fabric, source, target):
    _, links = fabric.routes([source], [target])
    return [fabric.link_names[link] for link in links]


def test_a_route_stays_in_the_plane_of_its_nic(fabric):
    assert route(fabric, 0, 2) == ["n0.gpu0->plane0.leaf0", "plane0.leaf0->n1.gpu0"]
    # Rank 4 is the first on its leaf, rank 6 the second: static routing takes spine 0 and 1.
    assert route(fabric, 0, 4) == [
        "n0.gpu0->plane0.leaf0", "plane0.leaf0->plane0.spine0", "plane0.spine0->plane0.leaf1", "plane0.leaf1->n2.gpu0",
    ]  # fmt: skip
    assert route(fabric, 0, 6)[1] == "plane0.leaf0->plane0.spine1"


def test_what_is_for_another_plane_goes_over_nvlink_to_that_plane_s_gpu_first(fabric):
    assert route(fabric, 0, 3) == [
        "n0.gpu0->n0.nvswitch", "n0.nvswitch->n0.gpu1", "n0.gpu1->plane1.leaf0", "plane1.leaf0->n1.gpu1",
    ]  # fmt: skip
    assert route(fabric, 1, 4)[:3] == ["n0.gpu1->n0.nvswitch", "n0.nvswitch->n0.gpu0", "n0.gpu0->plane0.leaf0"]
    assert route(fabric, 0, 1) == ["n0.gpu0->n0.nvswitch", "n0.nvswitch->n0.gpu1"]
    assert route(fabric, 3, 3) == []


def test_every_route_is_a_chain_of_links_from_source_to_target(fabric):
    source, target = np.divmod(np.arange(fabric.n_ranks**2), fabric.n_ranks)
    ptr, links = fabric.routes(source, target)
    for flow in range(len(source)):
        at = fabric.rank_names[source[flow]]
        for link in links[ptr[flow] : ptr[flow + 1]]:
            assert fabric.link_source[link] == at
            at = fabric.link_target[link]
        assert at == fabric.rank_names[target[flow]]


def test_a_leaf_s_uplinks_share_its_nics_capacity_over_the_oversubscription(fabric):
    # Two NICs of 50 GB/s on a leaf, 2 : 1, two spines: 100 / 2 / 2.
    assert set(fabric.capacity[fabric.is_class("leaf-spine")]) == {25e9}
    assert fabric.is_class("leaf-spine").sum() == 2 * 4 * 2


def test_latencies_are_those_of_the_hops(fabric):
    latency = {
        pair: float(fabric.latency_of(*fabric.routes([pair[0]], [pair[1]]))[0]) for pair in ((0, 2), (0, 4), (0, 7))
    }
    assert latency[0, 2] == pytest.approx(2e-6) and latency[0, 4] == pytest.approx(3e-6)
    assert latency[0, 7] == pytest.approx(6e-6)


def test_no_path_of_switches_joins_two_planes(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    graph = build_graph(read_topology(tmp_path / "small.yaml"))
    network = graph.subgraph([name for name, kind in graph.nodes(data="kind") if kind == "switch" and "plane" in name])
    assert len(list(nx.weakly_connected_components(network))) == 2


def test_the_shipped_one_has_the_gpus_and_the_switches_of_its_source():
    topology = read_topology("topologies/h800-256x8-multi-plane.yaml")
    graph = build_graph(topology.model_copy(update={"routing": "hash"}))
    switches = [name for name in graph.nodes if name.startswith("plane")]
    assert sum(kind == "gpu" for _, kind in graph.nodes(data="kind")) == 2048
    # 64-port switches: a leaf has 32 NICs and 32 uplinks (8 to each spine), a spine 8 links to each of 8 leaves.
    assert len(switches) == 8 * (8 + 4)
    leaf_links = {
        graph.edges["plane3.leaf5", spine]["capacity"] for spine in graph.successors("plane3.leaf5") if "spine" in spine
    }
    assert leaf_links == {8 * 50e9}


@pytest.mark.slow
def test_eight_planes_of_2048_nodes_take_the_768_switches_that_were_published(tmp_path):
    # "Insights into DeepSeek-V3", table 3: 16,384 endpoints, 768 switches of 64 ports.
    text = SMALL.replace("nodes: 4", "nodes: 2048").replace("gpus_per_node: 2", "gpus_per_node: 8")
    text = text.replace("nodes_per_leaf: 2", "nodes_per_leaf: 32").replace("spines: 2,", "spines: 32,")
    (tmp_path / "mpft.yaml").write_text(text)
    graph = build_graph(read_topology(tmp_path / "mpft.yaml"))
    assert sum(name.startswith("plane") for name in graph.nodes) == 768

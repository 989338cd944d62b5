"""Regular clusters that are read from their name: the same as the files, and what their words say."""

import numpy as np
import pytest

from moesim.cluster import find_topology, load_topology, read_topology, topology_names
from moesim.cluster.build import build_fabric
from moesim.cluster.describe import facts
from moesim.cluster.topology_spec import ExplicitTopology
from moesim.errors import InputError
from moesim.regular_clusters import RegularCluster, ports
from moesim.scenario import load_scenario
from moesim.traffic import gpu_names

GB = 1e9
SHIPPED = [name for name in topology_names() if not isinstance(read_topology(find_topology(name)), ExplicitTopology)]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_regular_topology_that_ships_is_the_cluster_that_its_name_says(name):
    regular = RegularCluster.read(name)
    filed, read = load_topology(name), build_fabric(read_topology(regular), name)
    for field in ("gpu", "rank_names", "link_names", "link_class", "nic_card"):
        assert getattr(filed, field) == getattr(read, field)
    for field in ("rank_node", "capacity", "latency", "sender_port"):
        assert np.array_equal(getattr(filed, field), getattr(read, field))
    pairs = np.divmod(np.arange(min(filed.n_ranks, 64) ** 2) * 7 % filed.n_ranks**2, filed.n_ranks)
    for ours, theirs in zip(filed.routes(*pairs, 3), read.routes(*pairs, 3), strict=True):
        assert np.array_equal(ours, theirs)


def test_shipped_topologies_of_every_regular_kind_were_compared():
    kinds = {read_topology(find_topology(name)).kind for name in SHIPPED}
    assert kinds == {"hgx", "rail", "leaf-spine", "multi-plane"}


@pytest.mark.parametrize("gpu", gpu_names())
def test_every_gpu_with_known_ports_has_regular_clusters(gpu):
    fabric = load_topology(f"{gpu}-3x4-rail")
    assert (fabric.gpu, fabric.n_ranks, fabric.n_nodes) == (gpu, 12, 3)
    wanted = 100 * GB if gpu in ("b300", "gb300") else 50 * GB
    assert set(fabric.capacity[fabric.is_class("nic")]) == {wanted}
    assert load_topology(f"hgx-{gpu}").n_ranks == 8
    assert load_topology(f"{gpu}-nvl72").n_nodes == 1


@pytest.mark.parametrize(("tail", "ratio"), [("", 1), ("-1to1", 1), ("-2to1", 2), ("-1.5to1", 1.5)])
@pytest.mark.parametrize("fabric", ["rail", "multi-plane"])
def test_the_name_says_how_far_leaves_are_oversubscribed(fabric, tail, ratio):
    cluster = load_topology(f"h200-4x8-{fabric}{tail}")
    assert facts(cluster)["oversubscription"] == pytest.approx(ratio)
    up = cluster.capacity[cluster.is_class("leaf-spine") & cluster.sender_port].sum()
    assert up == pytest.approx(32 * 50 * GB / ratio)


def test_leaf_spine_says_its_ratio_in_the_name_of_the_result():
    assert load_topology("h200-4x8-leaf-spine").name == "h200-4x8-leaf-spine-2to1"
    assert load_topology("h200-4x8-leaf-spine-1to1").name == "h200-4x8-leaf-spine-1to1"
    assert facts(load_topology("h200-4x8-leaf-spine-1to1"))["oversubscription"] == pytest.approx(1)


@pytest.mark.parametrize(
    "name", ["h200-4x8-rail", "gb300-2x72-rail-2to1", "hgx-h20", "b200-nvl4", "h20-3x8-leaf-spine-4to1"]
)
def test_a_name_is_the_name_of_what_it_says(name):
    assert RegularCluster.read(name).name == name


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("h200-4x8-rial", "h200-4x8-rail"),
        ("gb20-4x8-rail", "gb200-4x8-rail"),
        ("h200-4x8-leafspine-2to1", "h200-4x8-leaf-spine-2to1"),
        ("H200-4x8-rail", "h200-4x8-rail"),
        ("h200-4x8", "h200-4x8-rail"),
        ("hgx-h2000", "hgx-h200"),
    ],
)
def test_a_wrong_name_is_answered_with_the_one_that_was_meant(wrong, meant):
    with pytest.raises(InputError) as error:
        load_topology(wrong)
    assert f"did you mean {meant!r}?" in error.value.line()
    with pytest.raises(InputError) as error:
        load_scenario({"cluster": {"topology": wrong}})
    assert f"did you mean {meant!r}?" in error.value.line()


@pytest.mark.parametrize("name", ["h200-0x8-rail", "h200-4x0-rail", "h200-4x8-rail-0to1", "h200-8000x1024-rail"])
def test_a_cluster_of_no_size_is_refused(name):
    with pytest.raises(InputError):
        load_topology(name)


def cluster(**keys):
    return load_scenario({"cluster": keys}).cluster.name


def test_one_line_says_a_regular_cluster():
    assert cluster(gpu="h200", nodes=4) == "h200-4x8-rail"
    assert cluster(gpu="h200") == "hgx-h200"
    assert cluster(gpu="b200", nodes=16, gpus_per_node=4, fabric="leaf-spine", oversubscription=4) == (
        "b200-16x4-leaf-spine-4to1"
    )


def test_keys_beside_a_name_change_what_it_says():
    assert cluster(topology="h800-8x8-rail", nodes=16) == "h800-16x8-rail"
    assert cluster(topology="hgx-h800", nodes=2, gpu="b300") == "b300-2x8-rail"
    assert cluster(topology="h100-8x8-leaf-spine", fabric="rail") == "h100-8x8-rail"
    assert cluster(topology="h100-8x8-leaf-spine-4to1", nodes=4) == "h100-4x8-leaf-spine-4to1"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"nodes": 4}, "the key gpu is required"),
        ({}, "the key topology is required, or gpu and nodes"),
        ({"topology": "two-nodes-explicit", "nodes": 4}, "cluster.nodes: nodes changes a regular cluster"),
        ({"topology": "mine/own.yaml", "gpu": "h100"}, "cluster.gpu: gpu changes a regular cluster"),
        ({"gpu": "h20O", "nodes": 2}, "cluster.gpu: no GPU 'h20O'; did you mean 'h20'?"),
        ({"gpu": "h200", "nodes": 0}, "cluster.nodes: must be at least 1"),
        ({"gpu": "h200", "fabric": "rial"}, "did you mean 'rail'?"),
    ],
)
def test_a_cluster_that_is_none_is_refused_where_it_is_wrong(keys, words):
    with pytest.raises(InputError) as error:
        load_scenario({"cluster": keys})
    assert words in error.value.line()


def test_ports_are_those_that_constants_were_measured_on():
    from moesim.traffic import gpu_ports
    from moesim.units import parse_bandwidth

    for gpu, port in ports().items():
        assert (parse_bandwidth(port["nvlink"]), parse_bandwidth(port["nic"])) == gpu_ports(gpu)[:2]

"""How routes spread over equal-cost links, and routes on explicit graphs."""

from math import comb
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.cluster import Fabric, build_fabric, load_topology
from moesim.cluster.ecmp import ecmp_choice
from moesim.cluster.graph import build_graph
from moesim.cluster.topology_spec import ExplicitTopology, LeafSpineTopology, RailTopology

GB = 1e9


def two_tier(kind: str, routing: str, spines: int = 4, nodes: int = 4, **more: object) -> Fabric:
    data = {
        "kind": kind,
        "gpu": "h800",
        "nodes": nodes,
        "gpus_per_node": 4,
        "nvlink": {"bandwidth": "200GB/s"},
        "nic": {"bandwidth": "50GB/s"},
        "leaf_spine": {"spines": spines},
        "routing": routing,
        **more,
    }
    model = RailTopology if kind == "rail" else LeafSpineTopology
    return build_fabric(model.model_validate(data), kind)


def explicit(devices: list[tuple[str, int | None]], links: list[tuple[str, str, str]], **more: object) -> Fabric:
    data = {
        "kind": "explicit",
        "gpu": "h100",
        "nodes": [
            {"name": name, "type": "gpu" if "gpu" in name else "switch"} | ({} if node is None else {"node": node})
            for name, node in devices
        ],
        "links": [{"source": a, "target": b, "bandwidth": "50GB/s", "class": c, **more} for a, b, c in links],
    }
    return build_fabric(ExplicitTopology.model_validate(data), "explicit")


def pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    source, target = np.divmod(np.arange(n * n), n)
    return source[source != target], target[source != target]


def link_flows(fabric: Fabric) -> np.ndarray:
    """Count the flows of an all-to-all on each link."""
    _, links = fabric.routes(*pairs(fabric.n_ranks))
    return np.bincount(links, minlength=fabric.n_links)


def splitmix_choice(source: int, target: int, n: int, seed: int, stage: int) -> int:
    """The hash written with Python's own whole numbers."""
    word, golden = 2**64, 0x9E3779B97F4A7C15
    key = (seed * golden + golden) % word
    for part in (source, target, stage):
        key = ((key ^ part) + golden) % word
        key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % word
        key = (key ^ (key >> 27)) * 0x94D049BB133111EB % word
        key ^= key >> 31
    return key % n


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(1, 1024), st.integers(), st.integers(0, 9999))
def test_the_hash_is_splitmix64_whatever_the_machine(source, target, n, seed, stage):
    choice = ecmp_choice(*(np.array([value]) for value in (source, target, n)), seed, stage)
    assert choice.tolist() == [splitmix_choice(source, target, n, seed, stage)]


def test_the_hash_spreads_flows_as_evenly_as_chance():
    source, target = pairs(256)
    for seed in range(3):
        counts = np.bincount(ecmp_choice(source, target, np.full(len(source), 8), seed), minlength=8)
        mean = len(source) / 8
        assert (np.abs(counts - mean) < 4.5 * np.sqrt(mean * 7 / 8)).all()


def test_flows_collide_as_often_as_random_choices_do():
    # n flows, p paths: no collision with probability p! / ((p - n)! p^n)
    n, p, seeds = 3, 8, 4000
    source, target = np.arange(n), np.arange(n) + 10
    free = sum(len(set(ecmp_choice(source, target, np.full(n, p), seed))) == n for seed in range(seeds))
    expected = comb(p, n) * 6 / p**n
    assert abs(free / seeds - expected) < 4.5 * np.sqrt(expected * (1 - expected) / seeds)


def test_another_seed_gives_other_spines_and_the_same_seed_the_same():
    fabric = load_topology("h100-8x8-leaf-spine")
    flows = pairs(64)
    first, again, other = (fabric.routes(*flows, seed)[1] for seed in (1, 1, -2))
    assert (first == again).all()
    over = fabric.is_class("leaf-spine")[first]
    assert (first[~over] == other[~over]).all()
    assert 0.6 < (first[over] != other[over]).mean() < 0.9  # 3 of 4 flows change to another of the 4 spines


def test_both_links_over_a_spine_are_that_spines():
    fabric = two_tier("leaf-spine", "hash")
    ptr, links = fabric.routes(*pairs(16), 3)
    for flow in np.flatnonzero(np.diff(ptr) == 4):
        up, down = links[ptr[flow] + 1], links[ptr[flow] + 2]
        assert fabric.link_target[up] == fabric.link_source[down]


@pytest.mark.parametrize("kind", ["rail", "leaf-spine"])
def test_static_routing_loads_the_spines_evenly(kind):
    fabric = two_tier(kind, "static")
    spine_flows = link_flows(fabric)[fabric.is_class("leaf-spine")]
    assert np.ptp(spine_flows) == 0 and spine_flows.sum() > 0
    hashed = two_tier(kind, "hash")
    assert np.ptp(link_flows(hashed)[hashed.is_class("leaf-spine")]) > 0


def test_spraying_makes_one_link_of_a_leafs_uplinks():
    spread, sprayed = two_tier("rail", "hash"), two_tier("rail", "spray")
    up = [f.is_class("leaf-spine") & f.sender_port for f in (spread, sprayed)]
    assert (up[0].sum(), up[1].sum()) == (16, 4)
    assert spread.capacity[up[0]].sum() == sprayed.capacity[up[1]].sum() == 16 * 50 * GB


def test_oversubscription_is_the_gpus_capacity_over_the_uplinks():
    for ratio in (1, 2, 3.5):
        fabric = two_tier("leaf-spine", "hash", leaf_spine={"spines": 3, "oversubscription": ratio})
        uplinks = fabric.is_class("leaf-spine") & fabric.sender_port
        assert fabric.capacity[uplinks].sum() * ratio == pytest.approx(16 * 50 * GB, rel=1e-12)
    given = two_tier("rail", "hash", leaf_spine={"spines": 3, "uplink_bandwidth": "7GB/s"})
    assert (given.capacity[given.is_class("leaf-spine")] == 7 * GB).all()


def test_two_cards_per_gpu_are_one_port_of_twice_the_bandwidth():
    fabric = two_tier("rail", "hash", nic={"bandwidth": "200Gb/s", "per_gpu": 2})
    assert (fabric.capacity[fabric.is_class("nic")] == 50 * GB).all()


def test_nodes_share_a_leaf_and_the_last_leaf_may_have_fewer():
    fabric = two_tier("leaf-spine", "hash", nodes=3, nodes_per_leaf=2)
    lengths = np.diff(fabric.routes([0, 0, 8], [4, 8, 0])[0])
    assert lengths.tolist() == [2, 4, 4]
    uplinks = {
        leaf: sum(c for c, s in zip(fabric.capacity, fabric.link_source, strict=True) if s == leaf) - 50 * GB * gpus
        for leaf, gpus in (("leaf0", 8), ("leaf1", 4))
    }
    assert uplinks == {"leaf0": 400 * GB, "leaf1": 200 * GB}


@pytest.mark.parametrize("kind", ["rail", "leaf-spine"])
def test_shortest_paths_on_the_written_out_graph_are_the_regular_routes(kind):
    fabric = two_tier(kind, "spray", nodes=3)  # one spine: no choice, so link by link the same
    graph = build_graph(
        (RailTopology if kind == "rail" else LeafSpineTopology).model_validate(
            {
                "kind": kind,
                "gpu": "h800",
                "nodes": 3,
                "gpus_per_node": 4,
                "nvlink": {"bandwidth": "200GB/s"},
                "nic": {"bandwidth": "50GB/s"},
                "leaf_spine": {"spines": 4},
                "routing": "spray",
            }
        )
    )
    devices = [(name, None if node < 0 else node) for name, node in graph.nodes(data="node")]
    links = [(a, b, c) for a, b, c in graph.edges(data="link_class")]
    written = explicit(devices, links, both_ways=False)
    flows = pairs(12)
    for mine, its in zip(written.routes(*flows), fabric.routes(*flows), strict=True):
        assert (mine == its).all()
    assert written.link_names == fabric.link_names
    assert (written.sender_port == fabric.sender_port).all()


def test_a_gpu_does_not_forward_for_another():
    # over gpu1 it would be two hops shorter
    fabric = explicit(
        [("gpu0", 0), ("gpu1", 0), ("gpu2", 1), ("a", None), ("b", None), ("c", None)],
        [
            ("gpu0", "gpu1", "nvlink"),
            ("gpu1", "gpu2", "nic"),
            *[("gpu0", "a", "nic"), ("a", "b", "nic"), ("b", "c", "nic"), ("c", "gpu2", "nic")],
        ],
    )
    assert len(fabric.routes([0], [2])[1]) == 4
    assert len(fabric.routes([0], [1])[1]) == 1


def test_inside_a_node_its_own_devices_are_preferred_to_a_shorter_way_outside():
    fabric = explicit(
        [("gpu0", 0), ("gpu1", 0), ("in.a", 0), ("in.b", 0), ("out", None)],
        [
            *[("gpu0", "in.a", "nvlink"), ("in.a", "in.b", "nvlink"), ("in.b", "gpu1", "nvlink")],
            *[("gpu0", "out", "nic"), ("gpu1", "out", "nic")],
        ],
    )
    _, links = fabric.routes([0, 1], [1, 0])
    assert len(links) == 6 and {fabric.link_class[link] for link in links} == {"nvlink"}


def test_without_a_way_inside_the_node_the_network_is_taken():
    fabric = explicit([("gpu0", 0), ("gpu1", 0), ("out", None)], [("gpu0", "out", "nic"), ("gpu1", "out", "nic")])
    _, links = fabric.routes([0], [1])
    assert [fabric.link_names[link] for link in links] == ["gpu0->out", "out->gpu1"]


def test_equal_cost_paths_of_an_explicit_graph_are_all_used_and_a_flow_keeps_its_own():
    spines = [f"spine{i}" for i in range(4)]
    fabric = explicit(
        [(f"gpu{i}", i) for i in range(12)] + [("left", None), ("right", None), *((s, None) for s in spines)],
        [(f"gpu{i}", "left" if i < 6 else "right", "nic") for i in range(12)]
        + [(leaf, spine, "leaf-spine") for leaf in ("left", "right") for spine in spines],
    )
    used = link_flows(fabric)[fabric.is_class("leaf-spine") & fabric.sender_port]
    assert used.sum() == 2 * 36 and (used > 0).all()
    assert (fabric.routes([0], [7], 5)[1] == fabric.routes([3, 0], [9, 7], 5)[1][4:]).all()


def test_ranks_of_an_explicit_topology_are_ordered_by_node_and_then_as_listed():
    fabric = explicit(
        [("gpu.x", 1), ("gpu.y", 0), ("gpu.z", 1), ("sw", None)],
        [(gpu, "sw", "nic") for gpu in ("gpu.x", "gpu.y", "gpu.z")],
    )
    assert fabric.rank_names == ("gpu.y", "gpu.x", "gpu.z")
    assert fabric.rank_node.tolist() == [0, 1, 1]
    assert fabric.ranks_per_node == 2


def test_bytes_enter_a_class_at_the_gpu_even_where_its_card_is_a_device_of_its_own():
    fabric = explicit(
        [("gpu0", 0), ("gpu1", 1), ("card0", 0), ("card1", 1), ("leaf", None)],
        [
            ("gpu0", "card0", "nic"),
            ("gpu1", "card1", "nic"),
            ("card0", "leaf", "nic"),
            ("card1", "leaf", "nic"),
        ],
    )
    entering = [name for name, port in zip(fabric.link_names, fabric.sender_port, strict=True) if port]
    assert entering == ["gpu0->card0", "gpu1->card1"]


def test_every_link_of_a_mesh_of_gpus_is_a_port_and_a_route():
    fabric = explicit(
        [(f"gpu{i}", 0) for i in range(3)],
        [("gpu0", "gpu1", "nvlink"), ("gpu1", "gpu2", "nvlink"), ("gpu0", "gpu2", "nvlink")],
    )
    assert fabric.sender_port.all()
    assert np.diff(fabric.routes(*pairs(3))[0]).tolist() == [1] * 6


def test_routes_of_256_ranks_are_found_in_well_under_a_second():
    fabric = load_topology("h800-32x8-rail")
    flows = pairs(256)
    start = process_time()  # not the wall clock, which other work on the machine moves
    ptr, _ = fabric.routes(*flows)
    assert process_time() - start < 0.3 and len(ptr) == 256 * 255 + 1

"""Routes where links are dead, against what a search on the graph says is left."""

import itertools

import networkx as nx
import numpy as np
import pytest

from moesim.cluster import FaultyPaths, build_fabric, links_of, load_topology
from moesim.cluster.topology_spec import LeafSpineTopology
from moesim.errors import InputError
from moesim.layer.faults import Effect, for_the_whole_run
from tests.reference.small_rail import small_rail

PLANES = {"nvlink": {"bandwidth": "200GB/s"}, "nic": {"bandwidth": "50GB/s"}, "leaf_spine": {"spines": 3}}


def leaf_spine():
    spec = LeafSpineTopology(kind="leaf-spine", gpu="h800", nodes=4, gpus_per_node=2, nodes_per_leaf=2, **PLANES)
    return build_fabric(spec, "four nodes")


FABRICS = {
    "rail": lambda: small_rail(3, 4, routing="hash"),
    "sprayed": lambda: small_rail(2, 3),
    "leaf-spine": leaf_spine,
    "explicit": lambda: load_topology("two-nodes-explicit"),
    "planes": lambda: load_topology("h800-256x8-multi-plane").first_ranks(24),
}


@pytest.fixture(scope="module")
def fabrics():
    return {name: make() for name, make in FABRICS.items()}


def pairs(fabric):
    ranks = np.arange(fabric.n_ranks)
    source, target = (side.ravel() for side in np.meshgrid(ranks, ranks, indexing="ij"))
    return source, target


def routes(fabric, source, target):
    ptr, links = fabric.routes(source, target, seed=3)
    return [links[a:b].tolist() for a, b in itertools.pairwise(ptr.tolist())]


def is_left(fabric, dead, source, target):
    """Whether bytes can get there if GPUs of the two ends' nodes forward and no others do."""
    node = {name: int(fabric.rank_node[rank]) for rank, name in enumerate(fabric.rank_names)}
    ends = {int(fabric.rank_node[source]), int(fabric.rank_node[target])}
    graph = nx.DiGraph(
        (fabric.link_source[link], fabric.link_target[link])
        for link in range(fabric.n_links)
        if not dead[link]
        and all(name not in node or node[name] in ends for name in (fabric.link_source[link], fabric.link_target[link]))
    )
    names = fabric.rank_names[source], fabric.rank_names[target]
    return all(name in graph for name in names) and nx.has_path(graph, *names)


@pytest.mark.parametrize("name", FABRICS)
def test_every_route_leads_there_over_living_links_and_none_is_refused_while_a_way_is_left(fabrics, name):
    fabric, rng, refused = fabrics[name], np.random.default_rng(5), 0
    source, target = pairs(fabric)
    usual = routes(fabric, source, target)
    wires = np.flatnonzero(fabric.is_class("nic"))
    reached = wires[np.isin(wires, [link for route in usual for link in route])]
    spines = [links_of(fabric, name) for name in fabric.links_at if "spine" in name]
    for trial in range(30):
        links = rng.choice(reached, rng.integers(1, 1 + max(1, len(reached) // 4)), replace=False).astype(np.int32)
        if spines and trial % 2:  # whole spines: a way down and up again is none
            links = np.concatenate([links, spines[trial % len(spines)]])
        faulty = for_the_whole_run([Effect(dead=links)], fabric)
        dead = np.isin(np.arange(fabric.n_links), links)
        try:
            found = routes(faulty, source, target)
        except InputError:
            refused += 1
            assert not all(is_left(fabric, dead, s, t) for s, t in zip(source, target, strict=True)), (trial, links)
            continue
        for s, t, before, route in zip(source, target, usual, found, strict=True):
            assert not dead[route].any()
            if not dead[before].any():
                assert route == before
            at = fabric.rank_names[s]
            for link in route:
                assert fabric.link_source[link] == at
                at = fabric.link_target[link]
            assert at == fabric.rank_names[t]
    assert refused < 30


def test_those_that_a_dead_spine_displaces_spread_over_all_the_others(fabrics):
    fabric = fabrics["leaf-spine"]
    source, target = pairs(fabric)
    dead = links_of(fabric, "spine0")
    before = routes(fabric, source, target)
    after = routes(for_the_whole_run([Effect(dead=dead)], fabric), source, target)
    spines = [
        {fabric.link_target[link] for link in after[i]} & {"spine1", "spine2"}
        for i in range(len(before))
        if set(before[i]) & set(dead.tolist())
    ]
    assert {next(iter(one)) for one in spines} == {"spine1", "spine2"}


@pytest.mark.parametrize("cable", ["leaf0->spine1", "spine1->leaf1"])
def test_one_dead_direction_of_an_uplink_is_gone_round_by_spines_without_a_detour(fabrics, cable):
    fabric = fabrics["leaf-spine"]
    (dead,) = links_of(fabric, cable)
    source, target = pairs(fabric)
    after = routes(for_the_whole_run([Effect(dead=np.array([dead], np.int32))], fabric), source, target)
    for before, route in zip(routes(fabric, source, target), after, strict=True):
        assert len(route) == len(before) and dead not in route


def test_a_dead_plane_goes_over_the_next_gpus_plane(fabrics):
    fabric = fabrics["planes"]
    faulty = for_the_whole_run([Effect(dead=links_of(fabric, "plane0"))], fabric)
    (route,) = routes(faulty, [0], [8])
    assert [fabric.link_names[link] for link in route] == [
        "n0.gpu0->n0.nvswitch",
        "n0.nvswitch->n0.gpu1",
        "n0.gpu1->plane1.leaf0",
        "plane1.leaf0->n1.gpu1",
        "n1.gpu1->n1.nvswitch",
        "n1.nvswitch->n1.gpu0",
    ]


def test_faults_of_a_healthy_cluster_change_no_route(fabrics):
    fabric = fabrics["rail"]
    same = for_the_whole_run([Effect()], fabric)
    assert not isinstance(same.paths, FaultyPaths)
    with pytest.raises(InputError, match="leave no way from"):
        everything = np.flatnonzero(fabric.is_class("nic")).astype(np.int32)
        routes(for_the_whole_run([Effect(dead=everything)], fabric), *pairs(fabric))

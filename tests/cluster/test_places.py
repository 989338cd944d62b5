"""Places: what each stands for on every kind of cluster, and what is said of one that is not there."""

import numpy as np
import pytest

from moesim.cluster import build_fabric, links_of, load_topology, overridden, topology_names
from moesim.cluster.topology_spec import ExplicitTopology, HgxTopology, LeafSpineTopology
from moesim.errors import InputError
from tests.reference.small_rail import small_rail

GB = 1e9
SMALL = sorted(set(topology_names()) - {"h800-16x8-rail", "h800-32x8-rail", "h800-256x8-multi-plane"})


def names(fabric, place):
    return {fabric.link_names[link] for link in links_of(fabric, place)}


def both(*pairs):
    return {f"{a}->{b}" for a, b in pairs} | {f"{b}->{a}" for a, b in pairs}


def leaf_spine():
    spec = LeafSpineTopology(
        kind="leaf-spine",
        gpu="h800",
        nodes=4,
        gpus_per_node=2,
        nodes_per_leaf=2,
        nvlink={"bandwidth": "200GB/s"},
        nic={"bandwidth": "50GB/s"},
        leaf_spine={"spines": 2},
    )
    return build_fabric(spec, "four nodes")


def own_names(switches=("tor-a", "tor-b"), extra=()):
    gpus = [("x", 0), ("y", 0), ("z", 1)]
    link = {"bandwidth": "50GB/s", "class": "nic"}
    spec = ExplicitTopology(
        kind="explicit",
        gpu="h100",
        nodes=[{"name": name, "type": "gpu", "node": node} for name, node in gpus]
        + [{"name": name, "type": "switch"} for name in switches],
        links=[
            {"source": "x", "target": switches[0], **link},
            {"source": "y", "target": switches[0], **link},
            {"source": "z", "target": switches[1], **link},
            {"source": switches[0], "target": switches[1], "bandwidth": "10GB/s", "class": "long-haul"},
            *extra,
        ],
    )
    return build_fabric(spec, "own names")


RAIL = small_rail(3, 2)
ON_RAIL = {
    "n2": both(*((f"n2.gpu{i}", end) for i in range(2) for end in ("n2.nvswitch", f"rail{i}.leaf"))),
    "n2.gpu1": both(("n2.gpu1", "n2.nvswitch"), ("n2.gpu1", "rail1.leaf")),
    "n2.gpu1.nic": both(("n2.gpu1", "rail1.leaf")),
    "n2.gpu1.nvlink": both(("n2.gpu1", "n2.nvswitch")),
    "n2.nic": both(("n2.gpu0", "rail0.leaf"), ("n2.gpu1", "rail1.leaf")),
    "rail1": both(*((f"n{node}.gpu1", "rail1.leaf") for node in range(3))),
    "rail1.nvlink": both(*((f"n{node}.gpu1", f"n{node}.nvswitch") for node in range(3))),
    "leaf1": both(*((f"n{node}.gpu1", "rail1.leaf") for node in range(3)), ("rail1.leaf", "spines")),
    "leaf1.leaf-spine": both(("rail1.leaf", "spines")),
    "spines": both(("rail0.leaf", "spines"), ("rail1.leaf", "spines")),
    "n2.gpu1->leaf1": {"n2.gpu1->rail1.leaf"},
    "leaf1 -> n2.gpu1": {"rail1.leaf->n2.gpu1"},
    "n2->rail0.leaf": {"n2.gpu0->rail0.leaf"},
    "rail1->leaf1": {f"n{node}.gpu1->rail1.leaf" for node in range(3)},
}


@pytest.mark.parametrize("place", ON_RAIL)
def test_a_place_on_a_rail_optimised_cluster(place):
    assert names(RAIL, place) == ON_RAIL[place]


def test_places_where_nodes_share_leaves_and_spines_are_apart():
    fabric = leaf_spine()
    gpus = [f"n{node}.gpu{gpu}" for node in (2, 3) for gpu in range(2)]
    assert names(fabric, "leaf1") == both(*((gpu, "leaf1") for gpu in gpus), ("leaf1", "spine0"), ("leaf1", "spine1"))
    assert names(fabric, "spine1") == both(("leaf0", "spine1"), ("leaf1", "spine1"))
    assert names(fabric, "rail0") == both(*((f"n{node}.gpu0", f"leaf{node // 2}") for node in range(4)))
    assert names(fabric, "leaf0->spine1") == {"leaf0->spine1"}


def test_a_rail_of_planes_that_no_link_joins_is_what_leaves_by_one_plane():
    fabric = load_topology("h800-256x8-multi-plane")
    assert names(fabric, "rail3") == both(*((f"n{node}.gpu3", f"plane3.leaf{node // 32}") for node in range(256)))


def test_a_plane_is_all_its_switches():
    fabric = load_topology("h800-256x8-multi-plane")
    assert names(fabric, "plane3") > names(fabric, "rail3")
    assert all("plane3." in name for name in names(fabric, "plane3"))


def test_devices_of_an_explicit_topology_go_by_their_own_names_and_by_position():
    fabric = own_names()
    assert names(fabric, "y") == names(fabric, "n0.gpu1") == names(fabric, "n0.gpu1.nic") == both(("y", "tor-a"))
    assert names(fabric, "n0") == both(("x", "tor-a"), ("y", "tor-a"))
    assert names(fabric, "rail0") == both(("x", "tor-a"), ("z", "tor-b"))
    assert names(fabric, "tor-a.long-haul") == names(fabric, "tor-b.long-haul") == both(("tor-a", "tor-b"))
    assert names(fabric, "tor-b->tor-a") == {"tor-b->tor-a"}


def test_a_devices_own_name_comes_before_what_it_would_stand_for():
    fabric = own_names(("rail0", "n1"))
    assert names(fabric, "rail0") == both(("x", "rail0"), ("y", "rail0"), ("rail0", "n1"))
    assert names(fabric, "n1") == both(("z", "n1"), ("rail0", "n1"))
    assert names(fabric, "n1.gpu0") == both(("z", "n1"))


def test_several_places_are_their_links_together_each_once():
    links = links_of(RAIL, ["n2.gpu1.nic", "rail1", "n0.gpu0->leaf0"])
    assert {RAIL.link_names[link] for link in links} == ON_RAIL["rail1"] | {"n0.gpu0->rail0.leaf"}
    assert (np.diff(links) > 0).all()
    assert links.dtype == np.int32
    assert len(links_of(RAIL, [])) == 0


@pytest.mark.parametrize("name", SMALL)
def test_the_place_of_a_link_is_that_link_and_no_other(name):
    fabric = load_topology(name)
    assert all(links_of(fabric, fabric.link_names[link]).tolist() == [link] for link in range(fabric.n_links))


def test_a_node_and_its_class_suffixes_part_the_links_at_its_gpus():
    fabric = load_topology("b200-4x8-rail")
    whole = links_of(fabric, "n1")
    by_gpu = [links_of(fabric, f"n1.gpu{gpu}") for gpu in range(8)]
    by_class = [links_of(fabric, f"n1.{name}") for name in ("nvlink", "nic")]
    for parts in (by_gpu, by_class):
        assert sorted(np.concatenate(parts).tolist()) == whole.tolist()


UNKNOWN = {
    "n3": ("no place 'n3'", "there are n0 to n2"),
    "n2.gpu2": ("no place 'n2.gpu2'", "n0.gpu0 to n2.gpu1"),
    "n2.gpu2.nic": ("no place 'n2.gpu2'", "n0.gpu0 to n2.gpu1"),
    "rail2": ("no place 'rail2'", "rail0 to rail1"),
    "leaf2": ("no place 'leaf2'", "rail0.leaf to rail1.leaf"),
    "spine0": ("no place 'spine0'", "did you mean 'spines'?"),
    "n2.gpu1.nics": ("no place 'n2.gpu1.nics'", "did you mean 'n2.gpu1.nic'?"),
    "n2.gpu1.leaf-spine": ("no link at 'n2.gpu1.leaf-spine'", "link classes there: nvlink, nic"),
    "n2.gpu1->leaf0": ("no link from 'n2.gpu1->leaf0'", "links lead from there to n2.nvswitch, rail1.leaf"),
    "n2.gpu1->": ("no place ''", ""),
    "": ("no place ''", ""),
    "\x1b[31m": ("no place", ""),
    "n" + "9" * 400: ("no place 'n999", ""),
}


@pytest.mark.parametrize("place", UNKNOWN)
def test_a_place_that_is_not_there_is_refused_with_what_there_is(place):
    what, fix = UNKNOWN[place]
    with pytest.raises(InputError) as refused:
        links_of(RAIL, place)
    error = refused.value
    assert error.where == "place"
    assert error.what.startswith(what)
    assert error.what.endswith(" in 3 x 2")
    assert fix in error.fix
    assert "\x1b" not in error.line()


def test_a_node_without_nics_has_no_place_for_them():
    spec = HgxTopology(kind="hgx", gpu="h800", gpus_per_node=2, nvlink={"bandwidth": "200GB/s"})
    with pytest.raises(InputError, match=r"no place 'n0\.gpu0\.nic' in one node"):
        links_of(build_fabric(spec, "one node"), "n0.gpu0.nic")


def test_an_override_gives_its_links_another_capacity_and_leaves_all_others():
    changed = overridden(RAIL, [("n2.gpu1.nic", 20 * GB), (["leaf0->spines", "n0.nvlink"], 7 * GB)])
    want = RAIL.capacity.copy()
    for name in both(("n2.gpu1", "rail1.leaf")):
        want[RAIL.link_names.index(name)] = 20 * GB
    for name in ("rail0.leaf->spines", *both(("n0.gpu0", "n0.nvswitch"), ("n0.gpu1", "n0.nvswitch"))):
        want[RAIL.link_names.index(name)] = 7 * GB
    assert changed.capacity.tolist() == want.tolist()
    assert changed.link_names == RAIL.link_names
    assert RAIL.capacity[RAIL.link_names.index("n2.gpu1->rail1.leaf")] == 50 * GB
    assert overridden(RAIL, []).capacity.tolist() == RAIL.capacity.tolist()


def test_the_later_of_two_overrides_holds_where_both_name_a_link():
    changed = overridden(RAIL, [("n2.nic", 20 * GB), ("n2.gpu1->leaf1", 5 * GB)])
    at = dict(zip(RAIL.link_names, changed.capacity, strict=True))
    assert at["n2.gpu1->rail1.leaf"] == 5 * GB
    assert at["rail1.leaf->n2.gpu1"] == at["n2.gpu0->rail0.leaf"] == 20 * GB


def test_all_overrides_that_cannot_be_are_told_at_once():
    with pytest.raises(InputError) as refused:
        overridden(RAIL, [("n2", GB), (["rail1", "rail7"], GB), ("n0.gpu0", GB), ("n0->rail0.leaf", GB)])
    first, *others = (refused.value, *refused.value.others)
    assert [error.where for error in (first, *others)] == ["[0].where", "[1].where[1]", "[2].where"]
    assert "n2.nvlink or n2.nic" in first.fix
    assert "links of 2 classes" in first.what

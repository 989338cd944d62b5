"""What is said of a cluster, and its picture."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from moesim.cluster import (
    bisection,
    describe,
    draw,
    facts,
    find_topology,
    link_class_rows,
    load_topology,
    read_topology,
)
from moesim.errors import InputError

GB = 1e9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hgx-h800", 4 * 200 * GB),  # NVLink alone: the NICs of a single node are idle
        ("h800-8x8-rail", 32 * 50 * GB),  # the NICs of four nodes
        ("h100-8x8-leaf-spine", 2 * 8 * 50 * GB * 2 / 2),  # the uplinks of two leaves, 2:1
        ("two-nodes-explicit", 50 * GB),  # the one cable
    ],
)
def test_the_bisection_is_the_smallest_cut_between_the_halves(name, expected):
    assert bisection(load_topology(name)) == expected


def test_one_rank_has_no_bisection():
    assert bisection(load_topology("hgx-h100").first_ranks(1)) == 0


def test_facts_of_the_tapered_cluster():
    about = facts(load_topology("h100-8x8-leaf-spine"))
    assert (about["ranks"], about["nodes"], about["ranks_per_node"], about["gpu"]) == (64, 8, 8, "h100")
    assert about["oversubscription"] == pytest.approx(2)
    assert about["network_latency_min_s"] == pytest.approx(3.6e-6)
    assert about["network_latency_max_s"] == pytest.approx(5.6e-6)


def test_a_single_node_has_no_network_facts():
    about = facts(load_topology("hgx-h200"))
    assert about["network_latency_max_s"] is None and about["oversubscription"] is None
    assert about["node_latency_s"] == pytest.approx(3.33e-6)


def test_capacity_of_a_class_is_counted_at_its_sender_ports():
    rows = {row["link_class"]: row for row in link_class_rows(load_topology("h800-8x8-rail"))}
    assert rows["nvlink"]["sender_capacity_bytes_per_s"] == 64 * 200 * GB
    assert rows["nic"]["sender_capacity_bytes_per_s"] == 64 * 50 * GB
    assert rows["nic"]["links"] == 128 and rows["nic"]["sender_ports"] == 64


def test_the_description_names_what_matters():
    text = describe(load_topology("h100-8x8-leaf-spine"))
    for part in ("64 H100 in 8 nodes", "450 GB/s", "3.6 us to 5.6 us", "2 : 1", "800 GB/s"):
        assert part in text
    mixed = describe(load_topology("two-nodes-explicit"))
    assert "long-haul" in mixed and "oversubscription" not in mixed
    assert "latency between nodes: 3.7 us" in mixed.splitlines()  # all the same: no span
    one = describe(load_topology("hgx-h800").first_ranks(1))
    assert "1 H800 in 1 node" in one and "latency" not in one


def test_a_small_cluster_is_drawn_device_by_device(tmp_path):
    path = draw(read_topology(find_topology("two-nodes-explicit")), tmp_path / "t.svg", title="two <nodes> & a cable")
    root = ElementTree.parse(path).getroot()  # noqa: S314 - our own file
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"two <nodes> & a cable", "node 0", "node 1", "tor-a", "tor-b", "nvswitch"} <= set(texts)
    assert any(text and text.startswith("long-haul: 2 one-way links of 50 GB/s") for text in texts)


def test_a_large_cluster_is_drawn_node_by_node_and_the_middle_is_counted(tmp_path):
    path = draw(read_topology(find_topology("h800-32x8-rail")), tmp_path / "t.svg")
    text = path.read_text()
    assert "node 31" in text and "... 25 more ..." in text and "node 20" not in text
    assert "rail7" in text and "32 x 8 H800" in text


def test_a_long_row_of_switches_is_cut_too(tmp_path):
    spec = read_topology(find_topology("h100-8x8-leaf-spine"))
    spines = spec.leaf_spine.model_copy(update={"spines": 40})
    path = draw(spec.model_copy(update={"leaf_spine": spines}), tmp_path / "t.svg")
    root = ElementTree.parse(path).getroot()  # noqa: S314 - our own file
    at = {element.text: float(element.get("x")) for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert [name for name in at if name and name.startswith("spine")] == [f"spine{i}" for i in (*range(14), 39)]
    assert at["spine13"] < at["25 more"] < at["spine39"]  # where they were left out


def test_the_same_topology_gives_the_same_picture(tmp_path):
    spec = read_topology(find_topology("hgx-h800"))
    one, two = (draw(spec, tmp_path / f"{name}.svg").read_bytes() for name in ("one", "two"))
    assert one == two
    assert draw(spec, tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="svg or"):
        draw(read_topology(find_topology("hgx-h800")), tmp_path / "t.gif")


def test_the_package_imports_neither_networkx_nor_matplotlib():
    heavy = "('networkx', 'matplotlib', 'pandas')"
    code = f"import sys, moesim.cluster; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

"""Mistakes in topology files: each told with its line, all of them at once."""

import re

import pytest

from moesim.cluster import load_topology, read_topology
from moesim.errors import InputError

RAIL = """\
kind: rail
gpu: h800
nodes: 2
gpus_per_node: 2
nvlink: {bandwidth: 200GB/s}
nic: {bandwidth: 400Gb/s}
leaf_spine: {spines: 2}
"""
EXPLICIT = """\
kind: explicit
gpu: h100
nodes:
  - {name: a, type: gpu, node: 0}
  - {name: b, type: gpu, node: 0}
  - {name: sw, type: switch, node: 0}
links:
  - {source: a, target: sw, bandwidth: 450GB/s, class: nvlink}
  - {source: b, target: sw, bandwidth: 450GB/s, class: nvlink}
"""


def complaint(tmp_path, text: str) -> InputError:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_topology(path)
    return error.value


def test_the_files_that_the_mistakes_are_made_in_are_right(tmp_path):
    for text in (RAIL, EXPLICIT):
        (tmp_path / "t.yaml").write_text(text)
        assert load_topology(tmp_path / "t.yaml").n_ranks in (2, 4)


@pytest.mark.parametrize(
    ("before", "after", "line", "said"),
    [
        ("nodes: 2\n", "nodse: 2\n", 3, "did you mean 'nodes'"),
        ("bandwidth: 400Gb/s", "bandwith: 400Gb/s", 6, "did you mean 'bandwidth'"),
        ("400Gb/s", "400", 6, "no unit"),
        ("400Gb/s", "400Gb", 6, "400Gb/s"),
        ("400Gb/s", "0GB/s", 6, "more than 0"),
        ("400Gb/s", "-1GB/s", 6, "more than 0"),
        ("400Gb/s", "400Gb/s, latency: 2.8", 6, "no unit"),
        ("400Gb/s", "400Gb/s, latency: 5s", 6, "at most 1"),
        ("400Gb/s", "400Gb/s, per_gpu: 0", 6, "at least 1"),
        ("kind: rail", "kind: rial", 1, "did you mean 'rail'"),
        ("kind: rail", "kind: [rail]", 1, "unknown kind"),
        ("gpu: h800", "gpu: H800 SXM", 2, "gpu"),
        ("nodes: 2\n", "nodes: two\n", 3, "whole number"),
        ("nodes: 2\n", "nodes: 0\n", 3, "at least 1"),
        ("nodes: 2\n", "nodes: 1e9\n", 3, "at most 8192"),
        ("nodes: 2\ngpus_per_node: 2", "nodes: 8192\ngpus_per_node: 1024", 3, "more than 65536 ranks"),
        ("spines: 2", "spines: 2, oversubscription: 0", 7, "more than 0"),
        ("spines: 2", "spines: 2, oversubscription: 2, uplink_bandwidth: 9GB/s", 7, "keep one"),
        ("spines: 2", "spines: 2\n  oops: 3", 8, "YAML"),
        ("leaf_spine: {spines: 2}\n", "leaf_spine: {spines: 2}\nrouting: ecmp\n", 8, "hash, static, spray"),
        ("leaf_spine: {spines: 2}\n", "leaf_spine: {spines: 2}\nfabric: infinband\n", 8, "did you mean 'infiniband'"),
        ("gpus_per_node: 2", "gpus_per_node: 512\n#", 8, "too many links"),
        ("gpu: h800\n", "gpu: h800\ngpu: h100\n", 3, "twice"),
    ],
)
def test_a_mistake_in_a_regular_topology_is_told_with_its_line(tmp_path, before, after, line, said):
    assert before in RAIL
    text = RAIL.replace(before, after, 1)
    if "too many" in said:
        text = text.replace("spines: 2", "spines: 1024")
    error = complaint(tmp_path, text)
    assert said in str(error), str(error)
    told = next(text for text in str(error).splitlines() if said in text)
    assert re.search(rf"t\.yaml:{line}:\d+: ", told), told


@pytest.mark.parametrize(
    ("before", "after", "line", "said"),
    [
        ("name: b,", "name: a,", 5, "device a is listed twice"),
        ("{name: b, type: gpu, node: 0}", "{name: b, type: gpu}", 5, "GPU b has no node"),
        ("{name: b, type: gpu, node: 0}", "{name: b, type: gpu, node: 2}", 5, "none in node 1"),
        ("{name: b, type: gpu, node: 0}", "{name: b, type: gpv, node: 0}", 5, "did you mean 'gpu'"),
        ("source: b,", "source: bb,", 9, "bb is not a device"),
        ("source: b,", "source: sw,", 9, "linked to itself"),
        ("source: b,", "source: a,", 9, "the link from a to sw is listed twice"),
        ("source: b, target: sw", "source: sw, target: a", 9, "the link from sw to a is listed twice"),
        (
            "  - {source: b, target: sw, bandwidth: 450GB/s, class: nvlink}\n",
            "",
            5,
            "no link leads out of or into GPU b",
        ),
        ("class: nvlink}\n", "class: nvlink, both_ways: false}\n", 4, "no link leads into GPU a"),
        ("450GB/s", "450", 8, "no unit"),
    ],
)
def test_a_mistake_in_an_explicit_topology_is_told_with_its_line(tmp_path, before, after, line, said):
    assert before in EXPLICIT
    error = complaint(tmp_path, EXPLICIT.replace(before, after, 1))
    assert said in str(error), str(error)
    assert f"t.yaml:{line}:" in next(text for text in str(error).splitlines() if said in text)


def test_a_topology_without_gpus_is_refused(tmp_path):
    error = complaint(tmp_path, EXPLICIT.replace("type: gpu", "type: switch"))
    assert "there is no GPU" in error.line()


def test_more_gpus_than_may_be_listed_are_refused(tmp_path):
    gpus = "".join(f"  - {{name: g{i}, type: gpu, node: 0}}\n" for i in range(1025))
    links = "".join(f"  - {{source: g{i}, target: sw, bandwidth: 1GB/s, class: nvlink}}\n" for i in range(1025))
    text = EXPLICIT.replace("links:\n", gpus + "links:\n") + links
    assert "1027 GPUs are more than the 1024" in complaint(tmp_path, text).line()


def test_ranks_that_cannot_reach_each_other_are_one_line(tmp_path):
    island = "  - {name: c, type: gpu, node: 1}\n  - {name: tor, type: switch}\n"
    text = EXPLICIT.replace("links:\n", island + "links:\n")
    text += "  - {source: c, target: tor, bandwidth: 50GB/s, class: nic}\n"
    error = complaint(tmp_path, text)
    assert "no route from a to c (and 3 more pairs)" in error.line() and not error.others
    assert "t.yaml" in error.line()


def test_a_way_there_without_a_way_back_is_no_connection(tmp_path):
    text = EXPLICIT.replace("nodes:\n", "nodes:\n  - {name: c, type: gpu, node: 1}\n  - {name: tor, type: switch}\n")
    text += "".join(
        f"  - {{source: {a}, target: {b}, bandwidth: 50GB/s, class: nic, both_ways: {both}}}\n"
        for a, b, both in (
            ("a", "tor", "true"),
            ("b", "tor", "true"),
            ("c", "sw", "true"),
            ("tor", "c", "false"),
        )
    )
    text = text.replace("source: c, target: sw", "source: c, target: sw2").replace(
        "  - {name: tor,", "  - {name: sw2, type: switch}\n  - {name: tor,"
    )
    assert "no route from c to a (and 1 more pairs)" in complaint(tmp_path, text).line()


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path):
    text = RAIL.replace("nodes: 2", "nodes: 0").replace("200GB/s", "200").replace("spines", "spine")
    lines = str(complaint(tmp_path, text)).splitlines()
    assert [int(re.search(r"t\.yaml:(\d+):", line)[1]) for line in lines] == [3, 5, 7, 7]
    two = EXPLICIT.replace("source: b", "source: bb").replace("{name: b, type: gpu, node: 0}", "{name: b, type: gpu}")
    assert len(str(complaint(tmp_path, two)).splitlines()) == 3  # no node, no device bb, no port of b


@pytest.mark.parametrize("text", ["- 1\n", "hgx\n", "gpu: h800\n", "kind: hgx\n", ""])
def test_what_is_no_topology_at_all_is_refused(tmp_path, text):
    assert "t.yaml" in complaint(tmp_path, text).line()


def test_a_topology_without_nic_takes_no_other_nic_bandwidth(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("kind: hgx\ngpu: h800\nnvlink: {bandwidth: 200GB/s}\n")
    assert load_topology(path).link_classes == ("nvlink",)
    with pytest.raises(InputError, match="no NIC"):
        load_topology(path, nic_bandwidth=1e9)
    path.write_text(EXPLICIT)
    with pytest.raises(InputError, match="no NIC"):
        load_topology(path, nic_bandwidth=1e9)


def test_what_was_read_is_written_back_with_units(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(RAIL)
    dumped = read_topology(path).model_dump()
    assert dumped["nic"] == {"bandwidth": "50GB/s", "latency": "2.8us", "per_gpu": 1, "card": "connectx"}

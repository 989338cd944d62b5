"""GPUs that PCIe alone joins: over their own PCIe switch, their host bridge, or both host bridges."""

import pytest

from moesim.cluster import load_topology
from moesim.errors import InputError

NODE = "kind: rail\ngpu: l40s\nnodes: 2\ngpus_per_node: 8\nleaf_spine: {spines: 2}\n"
PCIE = "pcie: {bandwidth: 31.5GB/s, hosts: 2, between_hosts: 20GB/s}\n"
PAIRS = "nic: {bandwidth: 200Gb/s, latency: 2us, gpus: [[0, 1], [2, 3], [4, 5], [6, 7]]}\n"


def cluster(folder, text):
    (folder / "t.yaml").write_text(text)
    return load_topology(folder / "t.yaml")


def way(fabric, source, target):
    return [fabric.link_names[link] for link in fabric.routes([source], [target])[1]]


def test_a_pair_goes_over_the_nearest_device_that_joins_it(tmp_path):
    fabric = cluster(tmp_path, NODE + PCIE + PAIRS)
    assert way(fabric, 0, 1) == ["n0.gpu0->n0.nic0", "n0.nic0->n0.gpu1"]
    up, down = ["n0.gpu0->n0.nic0", "n0.nic0->n0.host0"], ["n0.nic1->n0.gpu3"]
    assert way(fabric, 0, 3) == [*up, "n0.host0->n0.nic1", *down]
    assert way(fabric, 0, 7) == [*up, "n0.host0->n0.host1", "n0.host1->n0.nic3", "n0.nic3->n0.gpu7"]
    assert fabric.pairs_inside() == {("pcie", "host"): 2 * 8 * 6, ("pcie",): 2 * 8}


def test_a_gpu_leaves_its_node_by_the_nic_beside_it_and_by_no_other(tmp_path):
    fabric = cluster(tmp_path, NODE + PCIE + PAIRS)
    for source in range(8):
        for target in range(8, 16):
            links = way(fabric, source, target)
            assert links[1] == f"n0.nic{source // 2}->rail{source // 2}.leaf"
            assert links[-2].endswith(f"->n1.nic{target % 8 // 2}")
            assert len(links) == (4 if source // 2 == target % 8 // 2 else 6)
            assert not any("host" in name for name in links)


def test_every_gpu_has_a_switch_of_its_own_where_none_is_shared(tmp_path):
    fabric = cluster(tmp_path, NODE + PCIE + "nic: {bandwidth: 200Gb/s, per_gpu: 2}\n")
    assert way(fabric, 2, 8 + 2) == [
        "n0.gpu2->n0.nic2",
        "n0.nic2->rail2.leaf",
        "rail2.leaf->n1.nic2",
        "n1.nic2->n1.gpu2",
    ]
    assert fabric.capacity[fabric.link_names.index("n0.nic2->rail2.leaf")] == 50e9


def test_a_node_alone_needs_no_nic(tmp_path):
    fabric = cluster(tmp_path, "kind: hgx\ngpu: rtx4090\ngpus_per_node: 4\npcie: {bandwidth: 31.5GB/s}\n")
    assert way(fabric, 0, 3) == ["n0.gpu0->n0.host0", "n0.host0->n0.gpu3"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NODE + PAIRS, "nvlink or pcie is required"),
        (NODE + PCIE + PAIRS + "nvlink: {bandwidth: 450GB/s}\n", "nvlink and pcie are both given"),
        (NODE + "pcie: {bandwidth: 31.5GB/s, hosts: 2}\n" + PAIRS, "between_hosts is not given"),
        (NODE + "pcie: {bandwidth: 31.5GB/s, between_hosts: 2GB/s}\n" + PAIRS, "between_hosts is given"),
        (NODE.replace("rail", "multi-plane") + PCIE + "nic: {bandwidth: 200Gb/s}\n", "joined over NVLink alone"),
        (NODE.replace("nodes: 2", "nodes: 200") + PCIE + PAIRS, "more than 1024 ranks"),
        (NODE + PCIE + PAIRS + "routing: static\n", "not for nodes without NVLink"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        cluster(tmp_path, text)

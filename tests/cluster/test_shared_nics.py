"""Fewer NICs than GPUs: GPUs share a card, whose link the flows of both cross, each behind a PCIe link of its own."""

import itertools

import numpy as np
import pytest

from moesim.cluster import links_of, load_topology
from moesim.errors import InputError
from moesim.network import solve_flows
from moesim.scenario.cluster_section import Cluster
from moesim.timeline.interchangeable_ranks import ranks_are_alike
from moesim.traffic.ports.port_count import N_ROWS, NIC_IN, NIC_OUT
from moesim.traffic.ports.port_wires import wires_of

NIC = 50e9


def cluster(folder, nic="per_node: 4", kind="leaf-spine", nodes=2):
    own = {"leaf-spine": f"nodes_per_leaf: {nodes}\n", "multi-plane": "", "rail": "", "hgx": ""}[kind]
    tiers = f"nodes: {nodes}\n{own}leaf_spine: {{spines: 1}}\n" if kind != "hgx" else ""
    (folder / "t.yaml").write_text(
        f"kind: {kind}\ngpu: h100\ngpus_per_node: 8\nnvlink: {{bandwidth: 450GB/s}}\n{tiers}"
        f"nic: {{bandwidth: 400Gb/s, latency: 2us, {nic}}}\n"
    )
    return load_topology(folder / "t.yaml")


def written_out(folder):
    """The same cluster as devices and links: GPUs 2i and 2i + 1 on NIC i, all NICs on one leaf."""
    devices, links = ["{name: leaf, type: switch}"], []
    for n in range(2):
        devices += [f"{{name: n{n}.nvs, type: switch, node: {n}}}"]
        devices += [f"{{name: n{n}.nic{i}, type: switch}}" for i in range(4)]
        devices += [f"{{name: n{n}.gpu{i}, type: gpu, node: {n}}}" for i in range(8)]
        for i in range(8):
            ends = f"source: n{n}.gpu{i}, target: n{n}"
            links.append(f"{{{ends}.nvs, bandwidth: 450GB/s, latency: 3.33us, class: nvlink}}")
            links.append(f"{{{ends}.nic{i // 2}, bandwidth: 55GB/s, class: pcie}}")
        for i in range(4):
            links.append(f"{{source: n{n}.nic{i}, target: leaf, bandwidth: 400Gb/s, latency: 2us, class: nic}}")
    text = "kind: explicit\ngpu: h100\n"
    for key, entries in (("nodes", devices), ("links", links)):
        text += f"{key}:\n" + "".join(f"  - {entry}\n" for entry in entries)
    (folder / "e.yaml").write_text(text)
    return load_topology(folder / "e.yaml")


def finish_s(fabric, pairs, size=1e9):
    source, target = np.array(pairs).T
    ptr, links = fabric.routes(source, target)
    n = len(pairs)
    latency = fabric.latency_of(ptr, links)
    return solve_flows(fabric.capacity, np.zeros(fabric.n_links), ptr, links, np.full(n, size), latency)


def test_flows_of_two_gpus_on_one_card_have_half_of_it_each(tmp_path):
    fabric = cluster(tmp_path)
    assert finish_s(fabric, [(0, 8)]) == pytest.approx(1e9 / NIC + 2e-6)
    assert finish_s(fabric, [(0, 8), (1, 10)]) == pytest.approx([2e9 / NIC + 2e-6] * 2)  # one card sends both
    assert finish_s(fabric, [(0, 8), (2, 10)]) == pytest.approx([1e9 / NIC + 2e-6] * 2)  # a card each
    assert finish_s(fabric, [(0, 8), (2, 9)]) == pytest.approx([2e9 / NIC + 2e-6] * 2)  # one card receives both


def test_routes_cross_the_same_capacities_as_those_of_the_cluster_written_out(tmp_path):
    regular, explicit = cluster(tmp_path, "per_node: 4, pcie: 55GB/s"), written_out(tmp_path)
    pairs = [(s, t) for s, t in itertools.product(range(16), repeat=2) if s != t]
    source, target = np.array(pairs).T
    seen = []
    for fabric in (regular, explicit):
        ptr, links = fabric.routes(source, target)
        seen.append((np.diff(ptr).tolist(), fabric.capacity[links].tolist(), fabric.latency_of(ptr, links).tolist()))
    assert seen[0] == seen[1]
    some = pairs[::7]
    assert finish_s(regular, some) == pytest.approx(finish_s(explicit, some), rel=1e-12)


def test_a_route_goes_by_the_cards_of_both_ends(tmp_path):
    fabric = cluster(tmp_path, kind="rail")
    ptr, links = fabric.routes([1, 0, 3], [10, 1, 11])
    ways = [[fabric.link_names[link] for link in links[a:b]] for a, b in itertools.pairwise(ptr.tolist())]
    assert ways[0] == [
        *("n0.gpu1->n0.nic0", "n0.nic0->rail0.leaf", "rail0.leaf->spine0"),
        *("spine0->rail1.leaf", "rail1.leaf->n1.nic1", "n1.nic1->n1.gpu2"),
    ]
    assert ways[1] == ["n0.gpu0->n0.nvswitch", "n0.nvswitch->n0.gpu1"]
    assert ways[2] == ["n0.gpu3->n0.nic1", "n0.nic1->rail1.leaf", "rail1.leaf->n1.nic1", "n1.nic1->n1.gpu3"]


def test_a_slow_pcie_link_bounds_one_gpu_and_a_card_of_two_ports(tmp_path):
    assert finish_s(cluster(tmp_path, "per_node: 4, pcie: 32GB/s"), [(0, 8)]) == pytest.approx(1e9 / 32e9 + 2e-6)
    two_ports = cluster(tmp_path, "ports: 2")
    assert finish_s(two_ports, [(0, 8)]) == pytest.approx(1e9 / (2 * NIC) + 2e-6)
    capped = cluster(tmp_path, "ports: 2, pcie: 63GB/s")
    assert finish_s(capped, [(0, 8)]) == pytest.approx(1e9 / 63e9 + 2e-6)


def test_gpus_hang_on_the_cards_that_the_file_says(tmp_path):
    fabric = cluster(tmp_path, "gpus: [[0, 7], [1, 2, 3, 4, 5, 6]]", kind="rail")
    on_card_0 = {"n0.gpu0", "n0.gpu7"}
    assert {fabric.link_source[i] for i in range(fabric.n_links) if fabric.link_target[i] == "n0.nic0"} - {
        "rail0.leaf"
    } == on_card_0
    assert {fabric.link_target[i] for i in links_of(fabric, "n0.gpu7.nic")} == {"n0.nic0", "rail0.leaf"}


def test_as_many_cards_as_gpus_are_cards_of_their_own(tmp_path):
    one, other = cluster(tmp_path, "per_node: 16"), cluster(tmp_path, "per_gpu: 2")
    assert one.link_names == other.link_names
    assert one.capacity.tolist() == other.capacity.tolist()


@pytest.mark.parametrize(
    ("nic", "kind", "said"),
    [
        ("per_node: 3", "rail", "cannot be divided evenly"),
        ("per_node: 4, per_gpu: 2", "rail", "keep per_gpu or per_node"),
        ("gpus: [[0, 1], [2]]", "rail", "do not hold GPUs 0 to 7 once each"),
        ("per_node: 2, gpus: [[0, 1, 2, 3, 4, 5, 6, 7]]", "hgx", "do not hold"),
        ("per_node: 4", "multi-plane", "planes of their own"),
    ],
)
def test_cards_that_gpus_cannot_share_are_refused(tmp_path, nic, kind, said):
    with pytest.raises(InputError, match=said):
        cluster(tmp_path, nic, kind)


def test_ranks_that_share_a_card_are_not_taken_for_interchangeable(tmp_path):
    assert ranks_are_alike(cluster(tmp_path, "per_gpu: 1"))
    assert not ranks_are_alike(cluster(tmp_path))


def test_port_flows_of_both_gpus_cross_the_card_between_them(tmp_path):
    fabric = cluster(tmp_path)
    counts = np.zeros((N_ROWS, 16), np.int64)
    counts[NIC_OUT, :2], counts[NIC_IN, 8] = (5, 7), 3
    nothing = np.zeros((4, 1), np.int64), np.zeros((2, 16, 0), np.int64)
    wires = wires_of(counts, *nothing, fabric.paths, 16, is_dispatch=True)
    crossed = [
        [fabric.link_names[link] for link in wires.links[begin:end]]
        for begin, end in itertools.pairwise(wires.ptr.tolist())
    ]
    assert crossed == [
        ["n0.gpu0->n0.nic0", "n0.nic0->leaf0"],
        ["n0.gpu1->n0.nic0", "n0.nic0->leaf0"],
        ["leaf0->n1.nic0", "n1.nic0->n1.gpu0"],
    ]
    assert wires.copies.tolist() == [5, 7, 3]


def test_a_regular_clusters_name_says_how_many_nics_a_node_has():
    fabric = load_topology("h100-2x8-rail-4nics-2to1")
    assert fabric.name == "h100-2x8-rail-4nics-2to1"
    assert sum(one.endswith(".leaf") for one in fabric.link_target if ".nic" not in one) > 0
    assert len({one for one in fabric.link_source if ".nic" in one}) == 8
    scenario = Cluster(gpu="h100", nodes=2, nics_per_node=4)
    assert scenario.name == "h100-2x8-rail-4nics"
    assert Cluster(gpu="h100", nodes=2, nics_per_node=8).name == "h100-2x8-rail"
    with pytest.raises(InputError, match="cannot be divided evenly"):
        load_topology("h100-2x8-rail-3nics")

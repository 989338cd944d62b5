"""The topologies that come with moesim, against what their names promise."""

import numpy as np
import pytest

from moesim.cluster import Fabric, find_topology, load_topology, topology_names
from moesim.errors import InputError

GB = 1e9
NVLINK_PEAK = {
    "h800": 200 * GB,
    "h100": 450 * GB,
    "h200": 450 * GB,
    "h20": 450 * GB,
    "b200": 900 * GB,
    "gb200": 900 * GB,
    "b300": 900 * GB,
    "gb300": 900 * GB,
}
NIC_PEAK = {"b300": 100 * GB, "gb300": 100 * GB}
SIZES = {
    "hgx-h800": (8, 1),
    "hgx-h100": (8, 1),
    "hgx-h200": (8, 1),
    "hgx-h20": (8, 1),
    "hgx-b200": (8, 1),
    "hgx-b300": (8, 1),
    "gb200-nvl72": (72, 1),
    "gb300-nvl72": (72, 1),
    "b200-4x8-rail": (32, 4),
    "h800-8x8-rail": (64, 8),
    "h800-16x8-rail": (128, 16),
    "h800-32x8-rail": (256, 32),
    "h100-8x8-leaf-spine": (64, 8),
    "two-nodes-explicit": (4, 2),
}


def names_of(fabric: Fabric, source: int, target: int, seed: int = 0) -> list[str]:
    _, links = fabric.routes([source], [target], seed)
    return [fabric.link_names[link] for link in links]


def all_pairs(fabric: Fabric) -> tuple[np.ndarray, np.ndarray]:
    return np.divmod(np.arange(fabric.n_ranks**2), fabric.n_ranks)


def test_every_topology_that_should_come_with_moesim_does():
    assert set(SIZES) <= set(topology_names())


@pytest.mark.parametrize("name", SIZES)
def test_a_shipped_topology_has_the_ranks_nodes_and_peaks_of_its_name(name):
    fabric = load_topology(name)
    assert (fabric.n_ranks, fabric.n_nodes) == SIZES[name]
    assert fabric.ranks_per_node == fabric.n_ranks // fabric.n_nodes
    assert (fabric.rank_node == np.arange(fabric.n_ranks) // fabric.ranks_per_node).all()
    assert fabric.rank_node.dtype == np.int32
    nvlink, nic = fabric.is_class("nvlink"), fabric.is_class("nic")
    assert (fabric.capacity[nvlink] == NVLINK_PEAK[fabric.gpu]).all()
    assert (fabric.capacity[nic] == NIC_PEAK.get(fabric.gpu, 50 * GB)).all()
    assert nvlink.sum() == nic.sum() == 2 * fabric.n_ranks
    assert len(set(fabric.link_names)) == fabric.n_links == len(fabric.latency)


@pytest.mark.parametrize("name", SIZES)
def test_a_route_is_a_chain_of_links_from_the_source_gpu_to_the_target_gpu(name):
    fabric = load_topology(name)
    source, target = all_pairs(fabric)
    ptr, links = fabric.routes(source, target)
    assert ptr.dtype == np.int64 and links.dtype == np.int32 and ptr[0] == 0 and ptr[-1] == len(links)
    for flow in range(0, len(source), 7):
        route = links[ptr[flow] : ptr[flow + 1]]
        at = fabric.rank_names[source[flow]]
        for link in route:
            assert fabric.link_source[link] == at
            at = fabric.link_target[link]
        assert at == fabric.rank_names[target[flow]]
        inside = fabric.rank_node[source[flow]] == fabric.rank_node[target[flow]]
        classes = {fabric.link_class[link] for link in route}
        assert classes == (set() if source[flow] == target[flow] else {"nvlink"}) if inside else "nic" in classes


def test_the_flagship_routes_are_those_of_a_rail_optimised_cluster():
    fabric = load_topology("h800-8x8-rail")
    assert names_of(fabric, 3, 3) == []
    assert names_of(fabric, 0, 7) == ["n0.gpu0->n0.nvswitch", "n0.nvswitch->n0.gpu7"]
    assert names_of(fabric, 3, 8 * 5 + 3) == ["n0.gpu3->rail3.leaf", "rail3.leaf->n5.gpu3"]
    assert names_of(fabric, 3, 8 * 5 + 4) == [
        "n0.gpu3->rail3.leaf",
        "rail3.leaf->spines",
        "spines->rail4.leaf",
        "rail4.leaf->n5.gpu4",
    ]


def test_latencies_of_routes_are_the_published_base_latencies():
    fabric = load_topology("h800-8x8-rail")
    ptr, links = fabric.routes([0, 0, 0, 0], [0, 1, 8, 9])
    assert fabric.latency_of(ptr, links) == pytest.approx([0, 3.33e-6, 2.8e-6, 3.7e-6], rel=1e-12)
    roce = load_topology("h100-8x8-leaf-spine")
    assert roce.latency_of(*roce.routes([0, 0], [8, 16])) == pytest.approx([3.6e-6, 5.6e-6], rel=1e-12)


def test_only_the_sending_half_of_a_hop_pair_has_latency():
    fabric = load_topology("h800-8x8-rail")
    assert ((fabric.latency > 0) == fabric.sender_port).all()


def test_a_fan_out_behind_the_forwarder_counts_nvlink_latency_once():
    fabric = load_topology("h800-8x8-rail")
    _, network = fabric.routes([0], [8])
    _, spread = fabric.routes([8] * 7, range(9, 16))
    tree = np.union1d(network, spread)
    assert fabric.latency[tree].sum() == pytest.approx(2.8e-6 + 3.33e-6, rel=1e-12)


def test_sender_ports_count_each_byte_of_a_class_once():
    for name in ("h800-8x8-rail", "h100-8x8-leaf-spine", "two-nodes-explicit"):
        fabric = load_topology(name)
        ptr, links = fabric.routes(*all_pairs(fabric))
        flow = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
        for link_class in fabric.link_classes:
            crossing = np.unique(flow[fabric.is_class(link_class)[links]])
            entering = flow[(fabric.is_class(link_class) & fabric.sender_port)[links]]
            assert (entering == crossing).all(), f"{name}: {link_class}"


def test_ports_of_a_rank_are_the_links_that_its_routes_begin_and_end_with():
    fabric = load_topology("h800-8x8-rail")
    # To and from GPU 3 of node 2, then GPU 4 of the own node.
    ptr, links = fabric.routes([11, 19, 11, 12], [19, 11, 12, 11])
    names = [[fabric.link_names[link] for link in row] for row in np.split(links, ptr[1:-1])]
    assert names == [
        ["n1.gpu3->rail3.leaf", "rail3.leaf->n2.gpu3"],
        ["n2.gpu3->rail3.leaf", "rail3.leaf->n1.gpu3"],
        ["n1.gpu3->n1.nvswitch", "n1.nvswitch->n1.gpu4"],
        ["n1.gpu4->n1.nvswitch", "n1.nvswitch->n1.gpu3"],
    ]


def test_a_full_bisection_leaf_sends_up_what_its_gpus_send_and_two_to_one_half_of_it():
    rail = load_topology("h800-8x8-rail")
    up = rail.is_class("leaf-spine") & rail.sender_port
    assert rail.capacity[up].sum() == 64 * 50 * GB
    tapered = load_topology("h100-8x8-leaf-spine")
    up = tapered.is_class("leaf-spine") & tapered.sender_port
    assert up.sum() == 4 * 4 and tapered.capacity[up].sum() == 64 * 50 * GB / 2


def test_another_nic_bandwidth_scales_the_uplinks_with_it():
    fabric = load_topology("h100-8x8-leaf-spine", nic_bandwidth=100 * GB)
    assert (fabric.capacity[fabric.is_class("nic")] == 100 * GB).all()
    assert (fabric.capacity[fabric.is_class("leaf-spine")] == 16 * 100 * GB / 2 / 4).all()
    assert (fabric.capacity[fabric.is_class("nvlink")] == 450 * GB).all()
    explicit = load_topology("two-nodes-explicit", nic_bandwidth=25 * GB)
    assert (explicit.capacity[explicit.is_class("nic")] == 25 * GB).all()
    assert (explicit.capacity[explicit.is_class("long-haul")] == 50 * GB).all()


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_nic_bandwidth_is_refused(bandwidth):
    with pytest.raises(InputError, match="NIC bandwidth"):
        load_topology("hgx-h800", nic_bandwidth=bandwidth)


def test_the_first_ranks_keep_their_links_and_routes():
    whole = load_topology("h800-8x8-rail")
    part = whole.first_ranks(16)
    assert (part.n_ranks, part.n_nodes, part.ranks_per_node, part.n_links) == (16, 2, 8, whole.n_links)
    pairs = np.repeat(np.arange(16), 16), np.tile(np.arange(16), 16)
    for mine, its in zip(part.routes(*pairs), whole.routes(*pairs), strict=True):
        assert (mine == its).all()
    with pytest.raises(InputError, match="rank 16 does not exist"):
        part.routes([0], [16])
    assert load_topology("h800-8x8-rail").first_ranks(12).ranks_per_node == 8
    for n_ranks in (0, 65):
        with pytest.raises(InputError, match=f"{n_ranks} ranks asked for"):
            whole.first_ranks(n_ranks)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ([0, -1], [1, 1], "source rank -1 does not exist"),
        ([0], [64], "target rank 64 does not exist"),
        ([0, 1], [1], "2 sources but 1 targets"),
        ([0.5], [1], "source must be a list of ranks"),
        ([[0]], [[1]], "source must be a list of ranks"),
    ],
)
def test_ranks_that_do_not_exist_are_refused(source, target, said):
    with pytest.raises(InputError, match=said):
        load_topology("h800-8x8-rail").routes(source, target)


def test_no_flows_have_no_routes():
    ptr, links = load_topology("h800-8x8-rail").routes([], [])
    assert ptr.tolist() == [0] and links.size == 0


def test_a_topology_is_found_by_name_with_or_without_suffix_and_by_path(tmp_path, monkeypatch):
    shipped = find_topology("hgx-h100")
    assert find_topology("hgx-h100.yaml") == shipped == find_topology(shipped)
    mine = tmp_path / "mine.yaml"
    mine.write_text(shipped.read_text())
    monkeypatch.chdir(tmp_path)
    assert load_topology("mine.yaml").name == load_topology(mine).name == load_topology("./mine.yaml").name == "mine"


def test_a_misspelt_topology_is_answered_with_the_nearest_name_and_the_list():
    with pytest.raises(InputError) as error:
        load_topology("h800-8x8-rial")
    line = error.value.line()
    assert "did you mean 'h800-8x8-rail'?" in line and "two-nodes-explicit" in line


@pytest.mark.parametrize("name", ["", "no/such/file.yaml", "x" * 5000, "a\0b", ".", "/"])
def test_what_is_no_file_is_no_topology(name):
    with pytest.raises(InputError):
        load_topology(name)

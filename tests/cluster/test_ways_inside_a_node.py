"""Which way two GPUs of one node take: NVLink before PCIe before a NIC, then the widest, then the shortest."""

import itertools

import networkx as nx
import numpy as np
import pytest

from moesim.cluster import load_topology

NVLINK = "bandwidth: 450GB/s, latency: 3us, class: nvlink"


def fabric(folder, devices, links):
    lines = ["kind: explicit", "gpu: h100", "nodes:"]
    lines += [f"  - {{name: {name}, type: {kind}, node: 0}}" for name, kind in devices]
    lines += ["links:"]
    lines += [f"  - {{source: {a}, target: {b}, {rest}}}" for a, b, rest in links]
    (folder / "t.yaml").write_text("\n".join(lines) + "\n")
    return load_topology(folder / "t.yaml")


def link(rate, link_class):
    return f"bandwidth: {rate}GB/s, latency: 1us, class: {link_class}"


GPUS = [(f"g{i}", "gpu") for i in range(4)]


def classes_of(fabric, source, target):
    ptr, links = fabric.routes([source], [target])
    return [fabric.link_class[one] for one in links[ptr[0] : ptr[1]]]


@pytest.mark.parametrize("shared", ["pcie", "nic"])
def test_a_switch_that_two_gpus_share_does_not_draw_their_nvlink_traffic(tmp_path, shared):
    links = [(gpu, "nvs", NVLINK) for gpu, _ in GPUS] + [(gpu, "near", link(64, shared)) for gpu, _ in GPUS]
    made = fabric(tmp_path, [*GPUS, ("nvs", "switch"), ("near", "switch")], links)
    assert made.pairs_inside() == {("nvlink",): 12}


def test_nvlink_over_more_hops_wins_over_one_pcie_switch(tmp_path):
    links = [(gpu, "low" if i < 2 else "high", NVLINK) for i, (gpu, _) in enumerate(GPUS)]
    links += [("low", "top", NVLINK), ("high", "top", NVLINK), *((gpu, "pcie", link(900, "pcie")) for gpu, _ in GPUS)]
    devices = [*GPUS, *((name, "switch") for name in ("low", "high", "top", "pcie"))]
    assert classes_of(fabric(tmp_path, devices, links), 0, 3) == ["nvlink"] * 4


def test_pairs_without_nvlink_go_over_pcie_and_the_widest_of_two_switches(tmp_path):
    links = [("g0", "nvs", NVLINK), ("g1", "nvs", NVLINK)]
    for switch, rate in (("slow", 32), ("fast", 64)):
        links += [(gpu, switch, link(rate, "pcie")) for gpu, _ in GPUS]
    made = fabric(tmp_path, [*GPUS, ("nvs", "switch"), ("slow", "switch"), ("fast", "switch")], links)
    assert made.pairs_inside() == {("pcie",): 10, ("nvlink",): 2}
    used = made.routes([0], [2])[1]
    assert {made.capacity[one] for one in used} == {64e9}


@pytest.mark.parametrize("seed", range(30))
def test_the_worst_class_of_every_way_is_the_best_that_any_simple_path_has(tmp_path, seed):
    rng = np.random.default_rng(seed)
    switches = [f"s{i}" for i in range(5)]
    graph, links = nx.Graph(), []
    order = {"nvlink": 0, "pcie": 1, "nic": 2}
    pairs = list(itertools.combinations(switches, 2)) + [(gpu, switch) for gpu, _ in GPUS for switch in switches]
    for a, b in pairs:
        if rng.random() < 0.5 or (a, b) in {(gpu, "s0") for gpu, _ in GPUS}:
            kind = str(rng.choice(list(order)))
            rate = int(rng.choice([32, 64, 450]))
            links.append((a, b, link(rate, kind)))
            graph.add_edge(a, b, worst=order[kind])
    made = fabric(tmp_path, [*GPUS, *((name, "switch") for name in switches)], links)
    for source, target in itertools.permutations(range(4), 2):
        inner = graph.subgraph([f"g{source}", f"g{target}", *switches])
        best = min(
            max(inner.edges[pair]["worst"] for pair in itertools.pairwise(path))
            for path in nx.all_simple_paths(inner, f"g{source}", f"g{target}")
        )
        assert max(order[kind] for kind in classes_of(made, source, target)) == best

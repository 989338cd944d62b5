"""What importers make of small files: forms, glued cells, ties, rates; what they refuse and what they ask for."""

import itertools
import time

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.errors import InputError
from moesim.topology_files import Answers, import_topology, topology_yaml

GIVEN = Answers(gpu="h100", nic=50e9, pcie=63e9)


def read(folder, text, answers=GIVEN):
    paths = []
    for i, one in enumerate([text] if isinstance(text, str) else text):
        paths.append(folder / f"file{i}.txt")
        paths[-1].write_text(one)
    return import_topology(paths, answers)


def matrix(cells, nics=0, tail="\t0-55\t0\t\tN/A", joint="\t"):
    """A matrix of two and more GPUs; ``cells`` are its rows without the diagonal."""
    n = len(cells)
    names = [f"GPU{i}" for i in range(n - nics)] + [f"NIC{i}" for i in range(nics)]
    lines = ["\t" + "\t".join([*names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"])]
    for i, row in enumerate(cells):
        own = row.split()
        lines.append(names[i] + "\t" + joint.join([*own[:i], " X ", *own[i:]]) + (tail if i < n - nics else ""))
    lines += ["", "NIC Legend:", *(f"  NIC{i}: mlx5_{i}" for i in range(nics))]
    return "\n".join(lines) + "\n"


THREE = matrix(["NV18 NV18 PIX SYS SYS", "NV18 NV18 SYS PIX SYS", "NV18 NV18 SYS SYS PIX",
                "PIX SYS SYS SYS SYS", "SYS PIX SYS SYS SYS", "SYS SYS PIX SYS SYS"], nics=3)  # fmt: skip


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: f"0: {line}",
        lambda line: f"(RayWorker pid=12) {line}",
        lambda line: f"[1,3]<stdout>:{line}",
        lambda line: f"\x1b[4m{line}\x1b[0m\r",
        lambda line: line.expandtabs(8),
        lambda line: line.replace("PIX\tSYS", "PIXSYS").replace("SYS\tSYS", "SYSSYS"),
    ],
)
def test_what_surrounds_a_matrix_does_not_matter(tmp_path, wrap):
    text = "my node:\n```\n" + "\n".join(wrap(line) for line in THREE.split("\n")) + "\n```\n"
    imported = read(tmp_path, text)
    assert imported.facts["nic_of_gpu"] == {f"gpu{i}": [f"mlx5_{i}"] for i in range(3)}
    assert imported.spec == {
        "kind": "hgx",
        "gpu": "h100",
        "gpus_per_node": 3,
        "nvlink": {"bandwidth": "450GB/s"},
        "nic": {"bandwidth": "400Gb/s"},
    }


def test_glued_cpus_and_numa_node_are_cut_where_hyper_threads_are_as_many(tmp_path):
    text = matrix(["NV18 NV18", "NV18 NV18", "NV18 NV18"], tail="\t0-45,92-1370\t\tN/A")
    assert [device["numa"] for device in read(tmp_path, text).facts["devices"][:3]] == ["0"] * 3


def test_a_row_of_another_length_is_refused_by_row_and_cell(tmp_path):
    text = THREE.replace("GPU1\tNV18\t X ", "GPU1\tNV18\t X \tNV18", 1)
    with pytest.raises(InputError, match="row GPU1 has more cells") as refused:
        read(tmp_path, text)
    assert refused.value.where.endswith("file0.txt:3")
    with pytest.raises(InputError, match="row GPU1 has 5 cells for 6 columns"):
        read(tmp_path, THREE.replace("GPU1\tNV18\t X \tNV18", "GPU1\tNV18\t X ", 1).replace("tN/A", "t"))


def test_nic_rows_that_disagree_with_gpu_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match="row GPU0 says PIX for NIC0, row NIC0 says PXB for GPU0"):
        read(tmp_path, THREE.replace("NIC0\tPIX", "NIC0\tPXB"))


def test_an_h800_that_shows_18_links_has_the_rate_of_its_8(tmp_path):
    imported = read(tmp_path, THREE, Answers(gpu="h800", nic=50e9))
    assert imported.spec["nvlink"] == {"bandwidth": "200GB/s"}
    assert any("capped at its 200 GB/s" in line for line in imported.facts["warnings"])


@pytest.mark.parametrize("cell", ["SYS", "PHB", "NODE"])
def test_distances_that_are_all_alike_are_asked_for(tmp_path, cell):
    text = THREE.replace("PIX", cell).replace("SYS", cell)
    imported = read(tmp_path, text)
    assert list(imported.asked) == ["--nic-map"]
    with pytest.raises(InputError, match="does not say"):
        topology_yaml(imported, "t.yaml")
    named = read(tmp_path, text, Answers(gpu="h100", nic=50e9, nic_map=("mlx5_2", "mlx5_0", "mlx5_1")))
    assert named.spec["kind"] == "hgx"


def test_hosts_alike_are_a_cluster_and_unlike_ones_are_refused(tmp_path):
    fabric = Answers(gpu="h100", nic=50e9, fabric="rail", spines=2)
    imported = read(tmp_path, [THREE, THREE], fabric)
    (tmp_path / "t.yaml").write_text(topology_yaml(imported, "t.yaml"))
    assert load_topology(tmp_path / "t.yaml").n_ranks == 6
    with pytest.raises(InputError, match="is another host"):
        read(tmp_path, [THREE, THREE.replace("PIX", "PXB")], fabric)
    assert {"--fabric"} <= read(tmp_path, [THREE, THREE]).asked.keys()


def test_four_gpus_in_a_ring_of_nvlink_are_a_mesh_listed_link_by_link(tmp_path):
    rows = ["NV4 SYS NV4", "NV4 NV4 SYS", "SYS NV4 NV4", "NV4 SYS NV4"]
    imported = read(tmp_path, matrix(rows), Answers(gpu="a100", pcie=31e9))
    nvlinks = [link for link in imported.spec["links"] if link["class"] == "nvlink"]
    assert {link["bandwidth"] for link in nvlinks} == {"100GB/s"}
    (tmp_path / "t.yaml").write_text(topology_yaml(imported, "t.yaml"))
    assert load_topology(tmp_path / "t.yaml").pairs_inside() == {("nvlink",): 8, ("pcie",): 4}


def xml(gpus=2, nvlink='<nvlink target="0000:05:00.0" count="18" tclass="0x068000"/>', pci=""):
    inner = ""
    for i in range(gpus):
        speed = 'link_speed="32.0 GT/s PCIe" link_width="16"'
        net = f'<nic><net name="mlx5_{i}" dev="{i}" speed="400000" guid="0x{i + 1}"/></nic>'
        inner += (
            f'<pci busid="0000:{i}0:00.0" class="0x060400" {speed}>{pci}'
            f'<pci busid="0000:{i}1:00.0" class="0x030200" {speed}>'
            f'<gpu dev="{i}" sm="90" rank="{i}">{nvlink}</gpu></pci>'
            f'<pci busid="0000:{i}2:00.0" class="0x020700" {speed}>{net}</pci>{"</pci>" if pci else ""}</pci>\n'
        )
    return f'<!-- a node -->\n<system version="1">\n<cpu numaid="0">\n{inner}</cpu>\n</system>\n'


def test_a_dump_gives_links_by_chip_summed_and_peaks_beside_nccls(tmp_path):
    facts = read(tmp_path, "NCCL INFO\n" + xml()).facts
    link = facts["links"][0]
    assert (link["count"], link["GBps"]) == (18, 450)
    assert link["nccl_GBps"] == pytest.approx(370.8)
    assert facts["distance"] == "PIX"
    assert next(one["GBps"] for one in facts["links"] if one["class"] == "pcie") == pytest.approx(16 * 4 * 128 / 130)


def test_two_bridges_are_pxb_unless_they_are_one_broadcom_switch(tmp_path):
    nested = '<pci busid="0000:99:00.0" class="0x060400" vendor="0x1000" device="0xc030">'
    twice = xml(pci=nested)
    # Of the way gpu, inner bridge, nic only the inner one counts: both hang on it.
    assert read(tmp_path, twice).facts["distance"] == "PIX"


def test_nvlinks_to_other_gpus_and_to_oneself(tmp_path):
    other = '<nvlink target="0000:11:00.0" count="12" tclass="0x030200"/>'
    facts = read(tmp_path, xml(nvlink=other)).facts
    assert [(link["source"], link["target"]) for link in facts["links"] if link["class"] == "nvlink"] == [
        ("gpu0", "gpu1")
    ]
    assert any("lead to the GPU itself" in line for line in facts["warnings"])


HOSTILE = {
    "entity": '<!DOCTYPE a [<!ENTITY x "y">]><system><cpu>&x;</cpu></system>',
    "deep": "<system>" + "<pci>" * 5000 + "</pci>" * 5000 + "</system>",
    "many elements": "<system>" + "<cpu/>" * 300_000 + "</system>",
    "cut": "<system><cpu>",
    "no gpu": "<system><cpu/></system>",
    "not xml": "<system><cpu></system>",
    "huge counts": "1000000000 8 2 10 48 H100\n1 2\n",
    "negative": "9 8 200 10 48 H100\n",
    "no link": "6 2 1 1 1 H100\n4 5\n0 4 NaNGbps 1ms 0\n",
    "id": "6 2 1 1 1 H100\n4 5\n0 99 1Gbps 1ms 0\n",
    "nan": "topology: [Switch]\nnpus_count: [8]\nbandwidth: [.nan]\nlatency: [1]\n",
    "10^9": "topology: [Switch, Switch]\nnpus_count: [1000000000, 2]\nbandwidth: [1, 1]\nlatency: [1, 1]\n",
    "unequal": "topology: [Switch, Switch]\nnpus_count: [8]\nbandwidth: [1, 1]\nlatency: [1, 1]\n",
    "speed": 'Switch\t2 "S-1"\t# "a" base port 0 lid 1 lmc 0\n[1]\t"H-2"[1](2)\t# "n mlx5_0" lid 1 4xZDR\n',
    "wide": "\t" + "\t".join(f"GPU{i}" for i in range(100_000)) + "\tCPU Affinity\n",
    "header alone": "\tGPU0\tGPU1\tCPU Affinity\n",
    "prose": "hello\n",
    "empty": "",
    "long": "x" * 25_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_and_soon(tmp_path, name):
    begin = time.process_time()
    with pytest.raises(InputError) as refused:
        read(tmp_path, HOSTILE[name])
    assert time.process_time() - begin < 2
    assert "\n" not in str(refused.value)


def test_odd_numbers_in_an_xml_do_not_get_through(tmp_path):
    text = xml().replace('count="18"', 'count="99999999999999999999"').replace('speed="400000"', 'speed="nan"')
    facts = read(tmp_path, text.replace('link_width="16"', 'link_width="1e300"')).facts
    assert all(0 <= (link["GBps"] or 0) < 1e5 for link in facts["links"])


SIMAI = "\n".join(
    ["9 2 2 3 14 A100", "4 5 6 7 8"]
    + [f"{gpu} {4 + gpu // 2} 2400Gbps 0.000025ms 0" for gpu in range(4)]
    + [f"{gpu} {6 + gpu % 2} 200Gbps 0.0005ms 0" for gpu in range(4)] * 1
    + ["6 8 200Gbps 0.0005ms 0", "7 8 200Gbps 0.0005ms 0"] * 3
)


def test_parallel_cables_of_simai_add(tmp_path):
    imported = read(tmp_path, SIMAI, Answers())
    assert imported.spec["kind"] == "rail"
    assert imported.spec["leaf_spine"] == {"spines": 1, "uplink_bandwidth": "600Gb/s", "latency": "1us"}


@pytest.mark.parametrize(
    ("blocks", "kind", "links"),
    [("[FullyConnected]", "explicit", 6), ("[Ring]", "explicit", 8), ("[Switch]", "hgx", 0)],
)
def test_dimensions_of_astra_sim(tmp_path, blocks, kind, links):
    text = f"topology: {blocks}\nnpus_count: [4]\nbandwidth: [50]\nlatency: [500]\n"
    spec = read(tmp_path, text).spec or {}
    assert spec.get("kind", "") == kind
    assert len(spec.get("links", ())) == links


def ib_fabric(nodes=2, slow=-1):
    lines, port = [], 0
    for leaf in range(2):
        lines.append(f'Switch\t65 "S-{leaf}"\t\t# "MF0;leaf{leaf}:MQM9700/U1" enhanced port 0 lid 1 lmc 0')
        for n in range(nodes):
            port += 1
            rate = "4xHDR" if port == slow else "4xNDR"
            lines.append(f'[{n + 1}]\t"H-{n}{leaf}"[1](1) \t\t# "node{n} mlx5_{leaf}" lid 1 {rate}')
        lines.append(f'[9]\t"S-a"[{leaf + 1}]\t\t# "spine" lid 2 4xNDR')
        lines.append(f'[10]\t"S-a"[{leaf + 5}][ext 5]\t\t# "spine" lid 2 s=1 w=2 v=3 4xNDR')
    lines.append('Switch\t65 "S-a"\t\t# "spine" base port 0 lid 1 lmc 0')
    lines += [f'Ca\t1 "H-{n}{leaf}"\t\t# "node{n} mlx5_{leaf}"' for n in range(nodes) for leaf in range(2)]
    return "\n".join(lines) + "\n"


def test_a_fabric_and_a_host_are_joined_by_the_names_of_hcas(tmp_path):
    rows = ["NV18 SYS PIX", "NV18 PIX SYS", "SYS PIX SYS", "PIX SYS SYS"]
    imported = read(tmp_path, [matrix(rows, nics=2), ib_fabric()], Answers(gpu="h100"))
    assert imported.spec["kind"] == "rail"
    assert imported.spec["leaf_spine"] == {"spines": 1, "uplink_bandwidth": "800Gb/s"}
    assert imported.spec["nodes"] == 2
    asked = read(tmp_path, ib_fabric(), Answers(gpu="h100")).asked
    assert list(asked) == ["--gpus-per-node"]


def test_a_degraded_port_is_said_with_the_override_that_gives_it(tmp_path):
    imported = read(tmp_path, ib_fabric(slow=4), Answers(gpu="h100", gpus_per_node=2))
    assert (
        "node1 mlx5_1 runs at HDR (200 Gb/s), its three neighbours at NDR: degraded link" in imported.facts["warnings"]
    )
    assert "{where: n1.gpu1.nic, bandwidth: 200Gb/s}" in imported.facts["moesim_note"]
    assert imported.facts["oversubscription"] == {"leaf0": 1.0, "leaf1": 0.75}


def fabric_of(folder, imported):
    (folder / "t.yaml").write_text(topology_yaml(imported, "t.yaml"))
    return load_topology(folder / "t.yaml")


@pytest.mark.parametrize("count", [4, 5, 8])
def test_npus_of_a_ring_forward_for_others_the_shorter_way_round(tmp_path, count):
    text = f"topology: [Ring]\nnpus_count: [{count}]\nbandwidth: [50]\nlatency: [500]\n"
    fabric = fabric_of(tmp_path, read(tmp_path, text))
    source, target = np.divmod(np.arange(count * count), count)
    ptr, links = fabric.routes(source, target)
    ring = np.array([fabric.link_class[link] == "nvlink" for link in links])
    crossed = np.add.reduceat(np.append(ring, 0), ptr[:-1]) * (np.diff(ptr) > 0)
    apart = (target - source) % count
    assert crossed.tolist() == np.minimum(apart, count - apart).tolist()
    assert fabric.latency_of(ptr, links) == pytest.approx(500e-9 * crossed)
    assert fabric.capacity[fabric.is_class("nvlink")] == pytest.approx(50 * 2**30, rel=1e-5)


def test_a_torus_of_nodes_crosses_as_many_links_as_its_rings_are_apart(tmp_path):
    text = "topology: [Switch, Ring]\nnpus_count: [2, 4]\nbandwidth: [400, 50]\nlatency: [250, 1000]\n"
    fabric = fabric_of(tmp_path, read(tmp_path, text))
    ptr, links = fabric.routes([0, 0, 0], [1, 2, 5])
    classes = [[fabric.link_class[link] for link in links[a:b]] for a, b in itertools.pairwise(ptr)]
    assert [one.count("nic") for one in classes] == [0, 1, 2]
    assert [one.count("nvlink") for one in classes] == [2, 0, 2]


def test_rails_that_no_spine_joins_are_planes(tmp_path):
    lines = [f"{gpu} {8 + gpu // 4} 2400Gbps 0.000025ms 0" for gpu in range(8)]
    lines += [f"{gpu} {10 + gpu % 4} 50GB/s 0.0005ms 0" for gpu in range(8)]
    imported = read(tmp_path, "\n".join(["14 4 2 4 16 H100", "8 9 10 11 12 13", *lines]), Answers())
    assert imported.spec["kind"] == "multi-plane"
    fabric = fabric_of(tmp_path, imported)
    _, links = fabric.routes([0], [7])
    assert [fabric.link_class[link] for link in links] == ["nvlink", "nvlink", "nic", "nic"]


def test_cables_of_simai_add_whichever_end_is_named_first(tmp_path):
    turned = SIMAI.replace("6 8 200Gbps", "8 6 200Gbps", 1)
    assert read(tmp_path, turned, Answers()).spec == read(tmp_path, SIMAI, Answers()).spec


NO_NVLINK = matrix(["PIX SYS SYS PIX SYS", "PIX SYS SYS PIX SYS", "SYS SYS PIX SYS PIX", "SYS SYS PIX SYS PIX",
                    "PIX PIX SYS SYS SYS", "SYS SYS PIX PIX SYS"], nics=2, tail="")  # fmt: skip


def two_hosts(text):
    lines = text.split("\n")
    return "\n".join(line + f"\t0-9\t{int(i > 2)}\t\tN/A" * line.startswith("GPU") for i, line in enumerate(lines))


def test_gpus_that_pcie_alone_joins_are_one_node_of_a_regular_kind(tmp_path):
    asked = read(tmp_path, two_hosts(NO_NVLINK), Answers(gpu="l40s")).asked
    assert set(asked) == {"--nic", "--pcie", "--smp"}
    answers = Answers(gpu="l40s", nic=25e9, pcie=31.5e9, smp=20e9, nodes=2, fabric="rail", spines=1)
    imported = read(tmp_path, two_hosts(NO_NVLINK), answers)
    assert imported.spec["pcie"] == {"bandwidth": "31.5GB/s", "hosts": 2, "between_hosts": "20GB/s"}
    assert imported.spec["nic"] == {"bandwidth": "200Gb/s", "gpus": [[0, 1], [2, 3]]}
    fabric = fabric_of(tmp_path, imported)
    assert (fabric.n_nodes, fabric.ranks_per_node) == (2, 4)


def test_shared_nics_of_several_nodes_take_any_fabric(tmp_path):
    text = matrix(["NV18 NV18 NV18 PIX SYS", "NV18 NV18 NV18 PIX SYS", "NV18 NV18 NV18 SYS PIX",
                   "NV18 NV18 NV18 SYS PIX", "PIX PIX SYS SYS SYS", "SYS SYS PIX PIX SYS"], nics=2)  # fmt: skip
    answers = Answers(gpu="h20", nic=50e9, pcie=63e9, nodes=4, fabric="rail", spines=2)
    spec = read(tmp_path, text, answers).spec
    assert (spec["kind"], spec["nic"]["gpus"]) == ("rail", [[0, 1], [2, 3]])
    assert read(tmp_path, text, Answers(gpu="h20", nic=50e9, pcie=63e9)).spec["kind"] == "explicit"


@pytest.mark.parametrize("cells", ["SYS NODE NODE NODE", "NODE NODE NODE NODE"])
def test_four_gpus_on_grace_may_be_a_tray_of_a_rack(tmp_path, cells):
    rows = [f"NV18 NV18 NV18 {cells}"] * 4 + [" ".join([cell] * 4 + ["SYS"] * 3) for cell in cells.split()]
    text = matrix(rows, nics=4, tail="\t0-71\t0\t\t2")
    assert "--nvlink-domain" in read(tmp_path, text, Answers(gpu="gb200", nic=50e9)).asked
    grace = xml(gpus=4).replace('numaid="0"', 'numaid="0" arch="arm64"').replace('sm="90"', 'sm="100"')
    assert "--nvlink-domain" in read(tmp_path, grace, Answers()).asked
    whole = read(tmp_path, grace, Answers(nvlink_domain=72))
    assert (whole.spec["gpu"], whole.spec["gpus_per_node"]) == ("gb200", 72)


def test_two_nics_for_each_gpu_are_in_order(tmp_path):
    rows = [
        "NV18 NV18 PIX PIX SYS SYS SYS SYS",
        "NV18 NV18 SYS SYS PIX PIX SYS SYS",
        "NV18 NV18 SYS SYS SYS SYS PIX PIX",
    ]
    rows += [" ".join("PIX" if gpu == nic // 2 else "SYS" for gpu in range(3)) + " SYS" * 5 for nic in range(6)]
    imported = read(tmp_path, matrix(rows, nics=6))
    assert imported.spec["nic"] == {"bandwidth": "400Gb/s", "per_gpu": 2}
    assert imported.facts["warnings"] == []


PAIRS_ON_NICS = ["NV18 NV18 NV18 PIX SYS", "NV18 NV18 NV18 PIX SYS", "NV18 NV18 NV18 SYS PIX",
                 "NV18 NV18 NV18 SYS PIX", "PIX PIX SYS SYS SYS", "SYS SYS PIX PIX SYS"]  # fmt: skip


@pytest.mark.parametrize("inside", ["nvlink", "pcie"])
def test_gpus_that_share_the_hcas_of_a_fabric(tmp_path, inside):
    rows = PAIRS_ON_NICS if inside == "nvlink" else [row.replace("NV18", "PHB") for row in PAIRS_ON_NICS]
    answers = Answers(gpu="h20" if inside == "nvlink" else "l40s", pcie=63e9)
    imported = read(tmp_path, [matrix(rows, nics=2), ib_fabric(slow=4)], answers)
    spec = imported.spec
    assert (spec["kind"], spec["gpus_per_node"], spec["nic"]["gpus"]) == ("rail", 4, [[0, 1], [2, 3]])
    assert "{where: n1.gpu2.nic, bandwidth: 200Gb/s}" in imported.facts["moesim_note"]
    fabric = fabric_of(tmp_path, imported)
    _, links = fabric.routes([0, 1], [1, 6])
    assert fabric.link_class[links[0]] == inside
    assert fabric.link_names[links[3]] == "n0.nic0->rail0.leaf"


def test_hosts_are_counted_in_nvlink_domains(tmp_path):
    rows = [f"NV18 NV18 NV18 {'SYS ' * i}NODE{' SYS' * (3 - i)}" for i in range(4)]
    rows += [f"{'SYS ' * i}NODE{' SYS' * (3 - i)} SYS SYS SYS" for i in range(4)]
    text = matrix(rows, nics=4, tail="\t0-71\t0\t\t2")
    answers = Answers(gpu="gb200", nic=50e9, nvlink_domain=72, nodes=36, fabric="rail", spines=4)
    spec = read(tmp_path, text, answers).spec
    assert (spec["nodes"], spec["gpus_per_node"]) == (2, 72)
    assert "--nodes" in read(tmp_path, text, Answers(gpu="gb200", nic=50e9, nvlink_domain=72, nodes=17)).asked


def simai(leaf_of, slow=()):
    """Four servers of two GPUs, an NVSwitch each; two leaves (12, 13) and a spine (14)."""
    lines = [f"{gpu} {8 + gpu // 2} 2400Gbps 0.000025ms 0" for gpu in range(8)]
    lines += [f"{gpu} {leaf_of(gpu)} {200 if gpu in slow else 400}Gbps 0.0005ms 0" for gpu in range(8)]
    lines += [f"{leaf} 14 800Gbps 0.0005ms 0" for leaf in (12, 13)]
    return "\n".join([f"15 2 4 3 {len(lines)} H100", "8 9 10 11 12 13 14", *lines])


def test_servers_whose_nics_are_all_on_one_leaf_are_leaf_spine(tmp_path):
    imported = read(tmp_path, simai(lambda gpu: 12 + gpu // 4), Answers())
    assert imported.spec["kind"] == "leaf-spine" and imported.spec["nodes_per_leaf"] == 2
    assert imported.spec["leaf_spine"] == {"spines": 1, "uplink_bandwidth": "800Gb/s", "latency": "1us"}
    assert any(
        "oversubscription of a leaf is 4 x 50 / (1 x 100): 2 with 4 nodes" in one for one in imported.facts["warnings"]
    )
    fabric = fabric_of(tmp_path, imported)
    ptr, links = fabric.routes([0, 0, 0], [1, 2, 4])
    classes = [[fabric.link_class[link] for link in links[a:b]] for a, b in itertools.pairwise(ptr)]
    assert classes == [["nvlink"] * 2, ["nic"] * 2, ["nic", "leaf-spine", "leaf-spine", "nic"]]


@pytest.mark.parametrize(
    "text", [simai(lambda gpu: 12 + gpu // 4, slow=(5,)), simai(lambda gpu: 12 + (gpu in (1, 2, 5, 6)))]
)
def test_what_no_regular_kind_holds_is_listed_link_by_link(tmp_path, text):
    imported = read(tmp_path, text, Answers())
    assert imported.facts["moesim_note"] == "no regular kind holds it: listed link by link"
    assert len(imported.spec["links"]) == 18
    fabric = fabric_of(tmp_path, imported)
    assert fabric.n_ranks == 8 and fabric.n_links == 36
    rates = {fabric.capacity[link] / 1e9 for link in np.flatnonzero(fabric.is_class("nic"))}
    assert rates == ({25, 50} if "200Gbps" in text else {50})


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ("topology: Ring\nnpus_count: [4]\nbandwidth: [50]\nlatency: [5]", "needs lists of one length"),
        ("topology: [Ring]\nnpus_count: [4, 2]\nbandwidth: [50]\nlatency: [5]", "lists of unequal length"),
        ("topology: [Ring, Ring]\nnpus_count: [300, 300]\nbandwidth: [50, 50]\nlatency: [5, 5]", "90000 NPUs are more"),
    ],
)
def test_dimensions_that_do_not_go_together(tmp_path, lists, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, lists)


def test_links_of_simai_that_are_none(tmp_path):
    with pytest.raises(InputError, match="17 links, the first line says 18"):
        read(tmp_path, simai(lambda gpu: 12).rsplit("\n", 1)[0], Answers())
    with pytest.raises(InputError, match="is no link; source target"):
        read(tmp_path, simai(lambda gpu: 12).replace("12 14 800Gbps 0.0005ms 0", "12 14 800Gbps"), Answers())


def test_the_nvlink_rate_is_the_answer_the_data_sheets_or_asked_for(tmp_path):
    rows = ["NV4 PIX SYS", "NV4 SYS PIX", "PIX SYS SYS", "SYS PIX SYS"]
    text = matrix(rows, nics=2)
    assert read(tmp_path, text, Answers("h100", nic=50e9, nvlink=123e9)).spec["nvlink"] == {"bandwidth": "123GB/s"}
    assert read(tmp_path, text, Answers("h100", nic=50e9)).spec["nvlink"] == {"bandwidth": "100GB/s"}
    assert "--nvlink" in read(tmp_path, text, Answers("x7", nic=50e9)).asked

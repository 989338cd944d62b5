"""What is exported and imported again is an equal fabric where the form can hold it."""

import numpy as np
import pytest

from moesim.cluster import find_topology, load_topology, read_topology
from moesim.errors import InputError
from moesim.topology_files import Answers, export_topology, import_topology, topology_yaml


def there_and_back(folder, name, form, gpu):
    text, _ = export_topology(read_topology(find_topology(name)), form, name)
    (folder / "file").write_text(text)
    (folder / "t.yaml").write_text(topology_yaml(import_topology([folder / "file"], Answers(gpu=gpu)), "t.yaml"))
    return load_topology(name), load_topology(folder / "t.yaml")


@pytest.mark.parametrize(
    ("name", "form", "gpu"),
    [
        ("hgx-h100", "nccl-xml", ""),
        ("hgx-b200", "nccl-xml", ""),
        ("hgx-h200", "nccl-xml", "h200"),
        ("hgx-h800", "nccl-xml", ""),
        ("gb200-nvl72", "nccl-xml", "gb200"),
    ],
)
def test_a_node_comes_back_from_nccls_file(tmp_path, name, form, gpu):
    first, second = there_and_back(tmp_path, name, form, gpu)
    assert (first.gpu, first.link_names) == (second.gpu, second.link_names)
    assert np.allclose(first.capacity, second.capacity, rtol=1e-6)


@pytest.mark.parametrize("kind", ["multi-plane", "hgx"])
def test_nodes_and_rails_come_back_from_astra_sims_file(tmp_path, kind):
    tiers = "nodes: 4\nnic: {bandwidth: 400Gb/s, latency: 3us}\nleaf_spine: {spines: 1}\nrouting: spray\n"
    (tmp_path / "own.yaml").write_text(
        f"kind: {kind}\ngpu: h800\ngpus_per_node: 8\nnvlink: {{bandwidth: 200GB/s}}\n{tiers if kind != 'hgx' else ''}"
    )
    first, second = there_and_back(tmp_path, str(tmp_path / "own.yaml"), "astra-sim", "h800")
    assert first.link_names == second.link_names
    assert np.allclose(first.capacity, second.capacity, rtol=1e-5)
    assert np.allclose(first.latency, second.latency, rtol=1e-6)


SHARED = "nvlink: {bandwidth: 450GB/s}\nnic: {bandwidth: 400Gb/s, per_node: 4, pcie: 63GB/s}"
NO_NVLINK = (
    "pcie: {bandwidth: 31.5GB/s, hosts: 2, between_hosts: 20GB/s}\n"
    "nic: {bandwidth: 200Gb/s, gpus: [[0, 1, 2], [3], [4, 5, 6], [7]]}"
)


@pytest.mark.parametrize("node", [SHARED, NO_NVLINK])
def test_who_shares_a_nic_comes_back_from_nccls_file(tmp_path, node):
    text = f"kind: rail\ngpu: v100\nnodes: 2\ngpus_per_node: 8\n{node}\nleaf_spine: {{spines: 2}}\n"
    (tmp_path / "own.yaml").write_text(text.replace("v100", "h100") if node is SHARED else text)
    xml, _ = export_topology(read_topology(tmp_path / "own.yaml"), "nccl-xml", "own")
    (tmp_path / "file").write_text(xml)
    answers = Answers(gpu="h100" if node is SHARED else "v100", smp=20e9, nodes=2, fabric="rail", spines=2)
    spec = topology_yaml(import_topology([tmp_path / "file"], answers), "t.yaml")
    (tmp_path / "t.yaml").write_text(spec)
    first, second = load_topology(tmp_path / "own.yaml"), load_topology(tmp_path / "t.yaml")
    assert first.link_names == second.link_names
    assert np.allclose(first.capacity, second.capacity, rtol=1e-3)
    with pytest.raises(InputError, match="share NICs"):
        export_topology(read_topology(tmp_path / "own.yaml"), "astra-sim", "own")


def test_what_a_form_cannot_hold_is_said_or_refused(tmp_path):
    _, lost = export_topology(read_topology(find_topology("h800-8x8-rail")), "astra-sim", "h800-8x8-rail")
    assert any("spines" in line for line in lost)
    with pytest.raises(InputError, match="lists its links one by one"):
        export_topology(read_topology(find_topology("two-nodes-explicit")), "nccl-xml", "two-nodes-explicit")
    with pytest.raises(InputError, match="unknown form"):
        export_topology(read_topology(find_topology("hgx-h100")), "dot", "hgx-h100")

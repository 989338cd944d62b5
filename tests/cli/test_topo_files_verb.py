"""``moesim topo import`` and ``topo export`` as typed: what is printed, what is written, what is refused."""

import json

import pytest

from moesim.cluster import load_topology

HOST = """\
\tGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV18\tPIX\tSYS\t0-55\t0\t\tN/A
GPU1\tNV18\t X \tSYS\tPIX\t0-55\t0\t\tN/A
NIC0\tPIX\tSYS\t X \tSYS
NIC1\tSYS\tPIX\tSYS\t X

NIC Legend:
  NIC0: mlx5_0
  NIC1: mlx5_1
"""
SAID = ("--gpu", "h100", "--nic", "400Gb/s")


@pytest.fixture
def host(here):
    (here / "host.txt").write_text(HOST)
    return here


def test_a_host_becomes_a_topology_that_is_printed_and_written(host, moesim):
    done = moesim("topo", "import", "host.txt", *SAID, "--out", "made/node.yaml")
    written = (host / "made/node.yaml").read_text()
    mark, _, topology = written.partition("\n")
    assert done.code == 0 and mark.startswith("# moesim, topology, ")
    assert done.out == f"{topology}made/node.yaml\n"
    fabric = load_topology(host / "made/node.yaml")
    assert fabric.n_ranks == 2 and set(fabric.capacity[fabric.is_class("nvlink")]) == {450e9}


def test_as_json_what_the_files_say_is_printed_and_the_name_of_what_is_written_beside_it(host, moesim):
    done = moesim("topo", "import", "host.txt", *SAID, "--json", "--out", "node.yaml")
    assert json.loads(done.out)["nic_of_gpu"] == {"gpu0": ["mlx5_0"], "gpu1": ["mlx5_1"]}
    assert done.err.strip().endswith("node.yaml") and (host / "node.yaml").is_file()
    # Facts need no answers that only a topology does.
    assert json.loads(moesim("topo", "import", "host.txt", "--json").out)["nic_of_gpu"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--fabric", "torus"), "--fabric: unknown fabric 'torus'; one-leaf, rail or leaf-spine"),
        (("--nvlink", "450"), "--nvlink: "),
        (("--pcie", "gen9 x16"), "--pcie: "),
        (("--nic-map", "mlx5_0,mlx5_7"), "mlx5_7 is no NIC of the file"),
        ((), "give --gpu (the GPU's model, such as h100)"),
    ],
)
def test_answers_that_cannot_be_are_refused_in_one_line(host, moesim, typed, said):
    done = moesim("topo", "import", "host.txt", *(SAID if typed else ()), *typed, "--out", "node.yaml")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err
    assert not (host / "node.yaml").exists()


def test_what_is_exported_for_nccl_is_imported_again_with_its_rates(here, moesim):
    done = moesim("topo", "export", "hgx-h100", "--form", "nccl-xml", "--out", "topo.xml")
    assert (done.code, done.out) == (0, "topo.xml\n") and "not held or assumed: PCIe" in done.err
    again = moesim("topo", "import", "topo.xml", "--gpu", "h100", "--nic", "400Gb/s", "--out", "again.yaml")
    assert again.code == 0, again.err
    ours, theirs = load_topology("hgx-h100"), load_topology(here / "again.yaml")
    assert theirs.n_ranks == 8
    for link_class in ("nvlink",):
        rates = [set(fabric.capacity[fabric.is_class(link_class)]) for fabric in (ours, theirs)]
        assert rates[0] == rates[1] == {450e9}


def test_a_form_that_is_none_is_refused(here, moesim):
    done = moesim("topo", "export", "hgx-h100", "--form", "dot", "--out", "topo.dot")
    assert done.code == 2 and "--form" in done.err and not (here / "topo.dot").exists()

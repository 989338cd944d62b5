"""Wrong scenarios, topologies, recordings, tables as a user meets them: exit 2, a line per mistake, nothing written."""

import re
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import SCENARIO
from tests.run.small import small_recording

TOPOLOGY = """\
kind: hgx
gpu: h800
gpus_per_node: 4
nvlink: {bandwidth: 200GB/s, latency: 3us}
nic: {bandwidth: 400Gb/s, latency: 3us}
"""
TABLE = "kernel,dtype,tokens_per_expert,experts,hidden,inter,time_us\n"
PLACE = re.compile(r"^[\w./-]+\.(yaml|csv):\d+(:\d+)?: ")


def changed(old, new):
    assert old in SCENARIO
    return SCENARIO.replace(old, new)


# what is wrong: (text of the scenario, words of the message, lines of the mistake)
SCENARIOS = {
    "a misspelt key": (changed("top_k", "topk"), "did you mean 'top_k'", [4]),
    "a misspelt block": (changed("routing:", "rooting:"), "did you mean 'routing'", [4]),
    "a word for a number": (changed("top_k: 4", "top_k: four"), "expected a whole number, got 'four'", [4]),
    "a number out of bounds": (changed("top_k: 4", "top_k: 0"), "at least 1", [4]),
    "more experts per token than experts": (changed("top_k: 4", "top_k: 64"), "but only 32 experts", [4]),
    "an unknown kind": (changed("kind: v3", "kind: v4"), "expected one of v1, v2, v3", [4]),
    "an unknown topology": (changed("hgx-h800", "hgx-h80"), "did you mean 'hgx-h800'", [2]),
    "an unknown preset": (changed("deepseek-v3,", "deepseek-v33,"), "did you mean 'deepseek-v3'", [3]),
    "no cluster": (changed("cluster: {topology: hgx-h800}\n", ""), "this key is required", [1]),
    "a key twice": (SCENARIO + "name: again\n", "name", [8]),
    "broken YAML": (SCENARIO + "losses: {form: paper\n", "", None),
    "a tab": (SCENARIO + "losses:\n\tform: paper\n", "", [9]),
    "a list for a block": ("- a\n- b\n", "expected a block of keys", [1]),
    "two sources of tokens": (SCENARIO + "  counts: counts.csv\n", "synthetic and counts given", None),
    "not a number": (changed("sigma: 0.8", "sigma: .nan"), "finite", [6]),
    "a time without unit": (SCENARIO + "schedule: {other_time: 30}\n", "unit", [8]),
    "a threshold of no number": (SCENARIO + 'thresholds: ["speed < 3"]\n', "no number 'speed'", [8]),
    "a threshold without unit": (SCENARIO + 'thresholds: ["layer_time_s < 3"]\n', "unit", [8]),
    "replicas without eplb": (SCENARIO + "placement: {redundant_experts: 8}\n", "places no replicas", [8]),
    "a path out of the folder": (changed("hgx-h800", "../secret.yaml"), "out of the scenario's folder", [2]),
    "a file that is not there": (changed("hgx-h800", "absent.yaml"), "no such file", [2]),
    "an anchor bomb": (SCENARIO + "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n", "", None),
    "a fault": (SCENARIO + "faults: [{kind: slow_nic}]\n", "slow_nic needs the key where", [8]),
    "a variant with a mistake": (SCENARIO + "variants:\n  a: {routing.topk: 2}\n", "top_k", [9]),
    "three mistakes": (
        changed("top_k: 4", "topk: 4").replace("tokens_per_rank: 64", "tokens_per_rank: -1") + "seed: x\n",
        "",
        [4, 7, 8],
    ),
}


def assert_refused(done, here, before, said):
    assert done.code == 2, done
    assert "Traceback" not in done.err and done.out == ""
    assert said in done.err, done.err
    lines = done.err.splitlines()
    assert lines and all(0 < len(line) <= 500 for line in lines)
    assert {path.name for path in here.iterdir()} == before
    return lines


@pytest.mark.parametrize(("text", "said", "at"), SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_wrong_scenario_is_refused_with_a_line_per_mistake_and_its_place(moesim, here, text, said, at):
    (here / "wrong.yaml").write_text(text)
    before = {path.name for path in here.iterdir()}
    lines = assert_refused(moesim("run", "wrong.yaml"), here, before, said)
    assert all(PLACE.match(line) and line.startswith("wrong.yaml:") for line in lines), lines
    if at is not None:
        assert [int(line.split(":")[1]) for line in lines] == at


def test_bytes_that_are_no_text_are_refused(moesim, here):
    for content in (b"\xff\xfe\x00a", SCENARIO.encode() + b"\x80\n", b"\x00" * 100, b"{" * 5000):
        (here / "wrong.yaml").write_bytes(content)
        done = moesim("run", "wrong.yaml")
        assert done.code == 2 and len(done.err.splitlines()) == 1 and "wrong.yaml" in done.err


def test_an_empty_scenario_is_refused(moesim, here):
    (here / "wrong.yaml").write_text("# nothing but a comment\n")
    done = moesim("run", "wrong.yaml")
    assert done.code == 2 and done.err.startswith("wrong.yaml: ") and len(done.err.splitlines()) == 1


def test_a_wrong_override_is_refused_by_its_own_text(moesim, here):
    for override, said in (
        ("routing.top_k=four", "-o routing.top_k=four"),
        ("routing.topk=4", "did you mean 'top_k'"),
        ("top_k", "top_k"),
        ("=3", "=3"),
        ("routing.top_k=[", "routing.top_k"),
    ):
        done = moesim("run", "small.yaml", "-o", override)
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done.err


def test_an_override_of_links_that_are_not_there_is_refused_where_it_was_written(moesim, here):
    links = "[{where: n0.gpu1.nvlink, bandwidth: 1GB/s}, {where: n1.nic, bandwidth: 1GB/s}]"
    text = changed("{topology: hgx-h800}", f"{{topology: hgx-h800, overrides: {links}}}")
    (here / "wrong.yaml").write_text(text)
    before = {path.name for path in here.iterdir()}
    for arguments, where in (
        (("wrong.yaml",), f"wrong.yaml:2:{text.splitlines()[1].index('n1.nic') + 1}: "),
        (("small.yaml", "-o", f"cluster.overrides={links}"), f"-o cluster.overrides={links}: "[:100]),
    ):
        done = moesim("run", *arguments, "-q")
        (line,) = assert_refused(
            done, here, before, "cluster.overrides[1].where: no place 'n1' in hgx-h800; there are n0, "
        )
        assert line.startswith(where)


def test_a_wrong_command_line_is_exit_2_with_one_line(moesim, here):
    for arguments in (("rum",), ("run",), ("run", "small.yaml", "--bogus"), ("run", "small.yaml", "--jobs", "-1")):
        done = moesim(*arguments)
        assert done.code == 2 and len(done.err.splitlines()) == 1 and "see moesim --help" in done.err, done


def test_a_scenario_that_does_not_ship_is_refused_with_those_that_do(moesim, here):
    assert "did you mean 'quickstart'" in moesim("run", "quikstart").err
    assert moesim("run", "nowhere/none.yaml").code == 2


TOPOLOGIES = {
    "an unknown kind": (TOPOLOGY.replace("hgx", "ring"), "hgx"),
    "a misspelt key": (TOPOLOGY.replace("gpus_per_node", "gpu_per_node"), "did you mean 'gpus_per_node'"),
    "a bandwidth without unit": (TOPOLOGY.replace("200GB/s", "200"), "unit"),
    "a negative latency": (TOPOLOGY.replace("latency: 3us}\nnic", "latency: -3us}\nnic"), ""),
    "no links": (TOPOLOGY.split("nvlink")[0], "required"),
    "no GPUs": (TOPOLOGY.replace("gpus_per_node: 4", "gpus_per_node: 0"), "at least 1"),
    "no YAML": ("[1, 2", ""),
}


@pytest.mark.parametrize(("text", "said"), TOPOLOGIES.values(), ids=TOPOLOGIES.keys())
def test_a_wrong_topology_is_refused_at_its_place_in_its_file(moesim, here, text, said):
    (here / "wrong.yaml").write_text(text)
    before = {path.name for path in here.iterdir()}
    for arguments in (("run", "small.yaml", "-o", "cluster.topology=wrong.yaml", "-q"), ("topo", "show", "wrong.yaml")):
        lines = assert_refused(moesim(*arguments), here, before, said)
        assert all(re.search(r"wrong\.yaml:\d+:\d+: ", line) for line in lines), lines


TABLES = {
    "another header": ("kernel,time\n", "wrong.csv"),
    "a word for a time": (TABLE + "grouped_gemm,fp8,64,4,1024,256,fast\n", "wrong.csv:2"),
    "a negative time": (TABLE + "grouped_gemm,fp8,64,4,1024,256,-1\n", "wrong.csv:2"),
    "not a number": (TABLE + "grouped_gemm,fp8,64,4,1024,256,nan\n", "wrong.csv:2"),
    "an unknown kernel": (TABLE + "softmax,fp8,64,4,1024,256,1\n", "wrong.csv:2"),
    "a row twice": (TABLE + "grouped_gemm,fp8,64,4,1024,256,1\n" * 2, "wrong.csv:3"),
    "nothing": ("", "wrong.csv"),
}


@pytest.mark.parametrize(("text", "said"), TABLES.values(), ids=TABLES.keys())
def test_a_wrong_kernel_table_is_refused_at_its_line(moesim, here, text, said):
    (here / "wrong.csv").write_text(text)
    before = {path.name for path in here.iterdir()}
    assert_refused(moesim("run", "small.yaml", "-o", "compute.table=wrong.csv", "-q"), here, before, said)
    assert_refused(moesim("kernels", "show", "wrong.csv", "--gpu", "h800"), here, before, said)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_member(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.npy", b"x")


def no_archive(path):
    path.write_bytes(b"PK\x03\x04 and then nothing")


def pickled(path):
    np.savez(path, meta=np.array([{"a": 1}], object))


@pytest.mark.parametrize("spoil", [cut, other_member, no_archive, pickled, Path.unlink])
def test_a_wrong_recording_is_refused_by_name(moesim, here, spoil):
    spoil(small_recording(here / "wrong.npz"))
    before = {path.name for path in here.iterdir()}
    workload = "workload={recording: {name: wrong.npz}, tokens_per_rank: 4}"
    lines = assert_refused(moesim("run", "small.yaml", "-o", workload, "-q"), here, before, "wrong.npz")
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{name: good.npz, layers: [7]}", "no MoE layer 7"),
        ("{name: good.npz, step: 11}", "no snapshot of training step 11"),
        ("{name: tiny-v33}", "tiny-v33"),
    ],
)
def test_what_a_recording_does_not_hold_is_refused(moesim, here, source, said):
    small_recording(here / "good.npz")
    done = moesim("run", "small.yaml", "-o", f"workload={{recording: {source}, tokens_per_rank: 4}}", "-q")
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done.err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("counts.csv", "layer,expert,count\n0,0,many\n", "counts.csv:2"),
        ("counts.csv", "expert\n1\n", "counts.csv"),
        ("counts.csv", "", "counts.csv"),
        ("ids.npy", "no array", "ids.npy"),
    ],
)
def test_wrong_counts_and_ids_are_refused(moesim, here, name, content, said):
    (here / name).write_text(content)
    key = "counts" if name.endswith("csv") else "expert_ids"
    done = moesim("run", "small.yaml", "-o", f"workload={{{key}: {name}, tokens_per_rank: 4}}", "-q")
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done.err


def test_a_folder_that_is_no_result_is_refused_by_every_verb_that_reads_one(moesim, here, run_folder):
    for arguments in (
        ("explain", ".", "layer_time_s"),
        ("trace", "."),
        ("report", "."),
        ("compare", run_folder, "."),
        ("report", run_folder, "absent"),
    ):
        done = moesim(*arguments)
        assert done.code == 2 and "fix" not in done.err and len(done.err.splitlines()) == 1, done
        assert "give the --out of a run" in done.err


def test_a_result_whose_trace_or_scenario_is_spoilt_is_refused(moesim, here, run_folder):
    shutil.copytree(run_folder, here / "run")
    whole = (here / "run/trace.json.gz").read_bytes()
    for content in (b"", b"no gzip", whole[:-20], whole[:30] + b"x" + whole[31:]):
        (here / "run/trace.json.gz").write_bytes(content)
        done = moesim("trace", "run", "--out", "trace.json")
        assert done.code == 2 and len(done.err.splitlines()) == 1 and not (here / "trace.json").exists(), done
    for content in ("- a\n", "thresholds: [1]\n", "a: [\n"):
        (here / "run/scenario.resolved.yaml").write_text(content)
        done = moesim("report", "run", "--out", "page.html")
        assert done.code == 2 and len(done.err.splitlines()) == 1 and not (here / "page.html").exists(), done


def cpu_of_children():
    """Seconds of processor that ended child processes took: other work on the machine does not move it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_wrong_scenario_is_refused_before_anything_heavy_is_loaded(tmp_path):
    (tmp_path / "wrong.yaml").write_text(changed("top_k: 4", "topk: 4"))
    code = (
        "import sys; sys.argv = ['moesim', 'run', 'wrong.yaml']\nfrom moesim.cli import main\n"
        "try: main()\nexcept SystemExit as left: print(left.code, *sorted(sys.modules))"
    )
    path = str(Path(__file__).parents[2])
    best = 60.0
    for _ in range(2):
        began = cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        best = min(best, cpu_of_children() - began)
    code_found, *modules = done.stdout.split()
    assert code_found == "2" and done.stderr.startswith("wrong.yaml:4:")
    assert not {"numpy", "numba", "pandas", "networkx", "matplotlib", "bokeh", "scipy"} & set(modules)
    assert best < 3

"""What a run needs is known before the work, within a factor of two, and refused above a limit with what would fit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moesim import load_scenario
from moesim.cli.memory_limit import limit_bytes, total_bytes
from moesim.cli.memory_need import Need, need_of, refuse_too_large
from moesim.errors import InputError
from moesim.layer import build_parts

ROOT = Path(__file__).parents[2]
BIG = {
    "cluster": {"topology": "hgx-h800"},
    "model": {"preset": "deepseek-v3"},
    "routing": {"kind": "v1", "top_k": 8, "groups": 1, "top_groups": 1},
    "workload": {"synthetic": {"kind": "zipf"}, "tokens_per_rank": 4096, "layers_simulated": 1},
}
MANY = {"cluster.topology": "h800-256x8-multi-plane", "workload.tokens_per_rank": 512}
PREFILL, DECODE = "deepseek-v3-prefill-ep64", "deepseek-v3-decode-ep128"
# Shipped ones, then one of each thing that memory follows: tokens, layers, steps, experts, flows, ranks, micro-batches.
CASES = {
    "quickstart": ("quickstart", {}),
    "prefill": (PREFILL, {}),
    "decode": (DECODE, {}),
    "prefill step": ("deepseek-v3-prefill-step", {}),
    "decode step": ("deepseek-v3-decode-step", {}),
    "V3 of the document": ("document-v3", {}),
    "V2 against the paper": ("document-against-paper-v2", {}),
    "out of domain": ("out-of-domain", {}),
    "variants": ("v1-v2-v3", {}),
    "10 million tokens a rank": (BIG, {"workload.tokens_per_rank": 10_000_000}),
    "1e9 selections": (BIG, {"workload.tokens_per_rank": 15_700_000}),
    "sequences of one token": (BIG, {"workload.tokens_per_rank": 5_000_000, "workload.synthetic.sequence_length": 1}),
    "58 layers": (BIG, {"workload.layers_simulated": 58}),
    "40 steps": (BIG, {"workload.tokens_per_rank": 512, "workload.steps": 40, "workload.layers_simulated": 3}),
    "16,384 experts": (BIG, {"model.n_experts": 16_384}),
    "256 ranks, pairs": (PREFILL, MANY | {"parallel.ep": 256, "alltoall.algorithm": "nccl-direct"}),
    "256 ranks, puts": (PREFILL, MANY | {"parallel.ep": 256, "alltoall.algorithm": "deepep-low-latency"}),
    "1,024 ranks, trees": (PREFILL, MANY | {"parallel.ep": 1024}),
    "2,048 ranks, ports": (PREFILL, MANY | {"cluster.flows": "ports"}),
    "30 steps of 64 ranks": (PREFILL, {"workload.steps": 30, "workload.tokens_per_rank": 512}),
}
FEW = ("quickstart",)
# Runs the command line and writes what the process held before the work and at its peak.
MEASURED = """
import json, sys
from pathlib import Path
def now(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
import moesim.cli.memory_need as need
refuse, found = need.refuse_too_large, {}
def measured(*given):
    found["before"] = now("VmRSS")
    return refuse(*given)
need.refuse_too_large = measured
from moesim.cli.app import program
try:
    program()(args=sys.argv[2:], standalone_mode=False)
except SystemExit:
    pass
Path(sys.argv[1]).write_text(json.dumps(found | {"peak": now("VmHWM")}))
"""


def written(source, overrides, folder):
    """The scenario as a file or a name, and its overrides as options."""
    if isinstance(source, dict):
        path = folder / "big.json"
        path.write_text(json.dumps(source))
        source = str(path)
    return source, [f"{key}={value}" for key, value in overrides.items()]


def measured(source, overrides, folder):
    """Bytes before the work, at the peak, and as estimated."""
    scenario, options = written(source, overrides, folder)
    arguments = ["run", scenario, "-q", "--jobs", "1", "--out", str(folder / "out")]
    arguments += [part for option in options for part in ("-o", option)]
    out = folder / "peak.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", MEASURED, str(out), *arguments], env=environment, check=True, cwd=folder)
    found = json.loads(out.read_text())
    loaded = load_scenario(scenario, overrides=options)
    runs = list((loaded.variant_scenarios() or {"": loaded}).values())
    return found["before"], found["peak"], max(need_of(one).total() for one in runs)


def within_a_factor_of_two(name, folder):
    before, peak, estimate = measured(*CASES[name], folder)
    assert 0.5 <= (estimate - before) / (peak - before) <= 2, f"{name}: estimated {estimate:,}, taken {peak:,}"
    return peak


@pytest.mark.jit
@pytest.mark.parametrize("name", FEW)
def test_a_small_run_takes_what_was_estimated(name, tmp_path):
    within_a_factor_of_two(name, tmp_path)


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in FEW])
def test_a_run_takes_what_was_estimated(name, tmp_path):
    peak = within_a_factor_of_two(name, tmp_path)
    if name == "10 million tokens a rank":
        assert peak < 1 << 30
    if name == "1e9 selections":
        assert peak < 2 << 30


def test_a_run_above_the_limit_is_refused_with_what_would_fit():
    many = load_scenario(PREFILL, overrides=[f"{key}={value}" for key, value in (MANY | {"parallel.ep": 1024}).items()])
    refuse_too_large(many, "4GB")
    with pytest.raises(
        InputError, match=r"about [\d.]+ GB of memory are needed \(estimated\), 600 MB is the limit"
    ) as no:
        refuse_too_large(many, "600MB")
    assert "cluster.flows: ports fits" in no.value.fix
    with pytest.raises(InputError) as no:
        refuse_too_large(load_scenario(BIG, overrides=["workload.layers_simulated=58"]), "400MB")
    knob, most = re.match(r"([\w.]+): (\d+) fits", no.value.fix).groups()
    fits, beyond = (
        load_scenario(BIG, overrides=["workload.layers_simulated=58", f"{knob}={int(most) + more}"]) for more in (0, 1)
    )
    refuse_too_large(fits, "400MB")
    with pytest.raises(InputError):
        refuse_too_large(beyond, "400MB")


def test_processes_side_by_side_share_the_limit():
    scenario = load_scenario("quickstart")
    need = need_of(scenario).total()
    refuse_too_large(scenario, f"{2 * need}B", processes=2)
    with pytest.raises(InputError, match="by 3 processes") as no:
        refuse_too_large(scenario, f"{2 * need}B", processes=3)
    assert no.value.fix == "--jobs 2 fits"
    with pytest.raises(InputError) as no:
        refuse_too_large(scenario, "1MB")
    assert no.value.fix == "nothing smaller fits, give --max-mem"


@pytest.mark.parametrize("typed", ["8", "8 gigs", "-1GB", "8Gb"])
def test_a_limit_without_a_unit_of_bytes_is_refused(typed):
    with pytest.raises(InputError, match="--max-mem"):
        limit_bytes(typed)


def tree(folder, groups, **limits):
    """A root with /proc/self/cgroup and limits of cgroups by their paths."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for path, value in limits.items():
        file = (
            folder
            / "sys/fs/cgroup"
            / path.replace("__", "/").replace("_max", ".max").replace("_limit", ".limit_in_bytes")
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return total_bytes(folder)


def test_the_tightest_cgroup_of_either_version_counts(tmp_path):
    version_2 = {"a__b__memory_max": "max", "a__memory_max": 3 << 20}
    assert tree(tmp_path / "2", "0::/a/b\n", **version_2) == 3 << 20
    version_1 = {"memory__a__memory_limit": 5 << 20, "memory__memory_limit": 1 << 62}
    assert tree(tmp_path / "1", "4:cpu:/x\n3:memory:/a\n", **version_1) == 5 << 20
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert tree(tmp_path / "none", "0::/elsewhere\n") == whole == total_bytes(tmp_path / "no such root")
    # In a container the path is the host's and only the top is to be seen.
    assert tree(tmp_path / "container", "0::/docker/abc\n", memory_max=7 << 20) == 7 << 20
    assert limit_bytes(None) == 0.8 * total_bytes()


def test_need_grows_with_whatever_is_held():
    need = need_of(load_scenario("quickstart"))
    assert isinstance(need, Need)
    assert need.ranks == 8 and need.routed == 3 and need.flows == "trees"
    for overrides in (["workload.steps=3000"], ["cluster.topology=h800-8x8-rail"], ["placement.policy=affinity"]):
        assert need_of(load_scenario("quickstart", overrides=overrides)).total() > need.total()


def test_files_of_a_folder_of_recorded_routing_count_with_their_bytes(tmp_path):
    folder = tmp_path / "ranks"
    folder.mkdir()
    for rank in range(3):
        (folder / f"rank{rank}.npy").write_bytes(b"x" * 1000)
    scenario = {"cluster": {"topology": "hgx-h800"}, "workload": {"routing": str(folder)}}
    assert need_of(load_scenario(scenario)).file_bytes == 3000


BEYOND = {
    "more tokens than fit": (BIG, ["workload.tokens_per_rank=4000000"]),
    "tokens of each rank": (BIG, ["workload.tokens_per_rank=[9000000,1,1,1,1,1,1,1]"]),
    "requests of a step": ("deepseek-v3-decode-step", ["cluster.flows=pairs"]),
    "a step of prefill": ("deepseek-v3-prefill-step", ["workload.layers_simulated=6"]),
    "groups that move experts": ("deepseek-v3-four-groups", []),
    "a step of training": ("deepseek-v3-training-step", []),
    "ranks that no power of two divides": ("deepseek-v3-plan-h200", ["parallel.ep=24", "workload.steps=50"]),
    "variants": ("v1-v2-v3", []),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_said_to_fit_can_be_built_and_does_fit(name):
    source, overrides = BEYOND[name]
    suggested = set()
    for megabytes in (236, 270, 380):
        try:
            refuse_too_large(load_scenario(source, overrides=overrides), f"{megabytes}MB")
        except InputError as no:
            assert "--max-mem" in no.where, no
            found = re.match(r"([\w.]+): (\w+) fits", no.fix)
            if found is None:
                assert no.fix == "nothing smaller fits, give --max-mem"
                continue
            changed = load_scenario(source, overrides=[*overrides, f"{found[1]}={found[2]}"])
            for one in (changed.variant_scenarios() or {"": changed}).values():
                build_parts(one)
            refuse_too_large(changed, f"{megabytes}MB")
            suggested.add(found[1])
    assert suggested


def test_ranks_beyond_the_cluster_are_that_mistake_whatever_memory_they_need():
    beyond = load_scenario("quickstart", overrides=["parallel.ep=4000"])
    with pytest.raises(InputError, match="ep is 4000 but hgx-h800 has 8 GPUs"):
        refuse_too_large(beyond, "230MB")

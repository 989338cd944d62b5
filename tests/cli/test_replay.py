"""A run's traffic for nccl-tests and back: the matrix against the run's own copies, the prediction by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from moesim import load_result, load_scenario, simulate
from moesim.cli.app import program
from moesim.errors import InputError

SCENARIO = """\
cluster: {topology: ./cluster.yaml}
model: {n_experts: 8, hidden: 128, expert_hidden: 128, n_shared: 0}
routing: {kind: v1, top_k: 2}
workload: {expert_ids: ./ids.npy, tokens_per_rank: 2}
alltoall: {algorithm: deepep-normal}
"""
CLUSTER = """\
kind: rail
gpu: h100
nodes: 2
gpus_per_node: 2
nvlink: {bandwidth: 450GB/s, latency: 0us}
nic: {bandwidth: 400Gb/s, latency: 0us}
leaf_spine: {spines: 1, latency: 0us}
"""
# Rank r holds experts 2 r and 2 r + 1; two tokens start on each rank.
IDS = [[0, 1], [2, 4], [2, 3], [6, 7], [4, 0], [4, 1], [6, 0], [0, 1]]
# By hand: FP8 copies of 132 bytes, at most 16 n of them; selections of each rank to each rank.
SELECTIONS = [[2, 1, 1, 0], [0, 2, 0, 2], [2, 0, 2, 0], [3, 0, 0, 1]]
CONSTANTS = """\
algorithm: nccl-direct
gpu: h100
source: ours
dispatch: {nvlink_rate: 100GB/s, nic_rate: 25GB/s}
combine: {nvlink_rate: 100GB/s, nic_rate: 25GB/s}
"""


def call(*arguments):
    return CliRunner().invoke(program(), ["replay", *map(str, arguments)], catch_exceptions=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    np.save(folder / "ids.npy", np.array(IDS, np.int32))
    (folder / "cluster.yaml").write_text(CLUSTER)
    (folder / "s.yaml").write_text(SCENARIO)
    (folder / "own.yaml").write_text(CONSTANTS)
    return simulate(load_scenario(folder / "s.yaml")).save(folder / "out")


def compare(measured, run, *options):
    return call("import", measured, run, "--topology", run.parent / "cluster.yaml", *options)


def result_of(folder, time_us, busiest, **changes):
    """What alltoallv_perf -J writes of one size, the keys that matter."""
    alg_bw = round(busiest / 1e9 / (time_us * 1e-6), 6)
    row = {"size": busiest, "out_of_place": {"time": time_us, "alg_bw": alg_bw, "bus_bw": 0.75 * alg_bw}} | changes
    path = folder / "result.json"
    path.write_text(json.dumps({"version": 1, "results": [row]}))
    return path


def read(path):
    return [[int(cell) for cell in line.split()] for line in path.read_text().splitlines()]


def test_the_matrix_is_what_the_ranks_select_in_bytes_rounded_down_to_16(run, tmp_path):
    done = call("export", run, "--out", tmp_path / "m.txt")
    assert done.exit_code == 0, done.output
    assert read(tmp_path / "m.txt") == [[n * 132 // 16 * 16 for n in row] for row in SELECTIONS]
    # rank 0 receives most, 2, 2 and 3 selections: 256 + 256 + 384
    assert "-b 896 -e 896" in done.output
    assert f"NCCL_TESTS_ALLTOALLV_MATRIX_FILE={tmp_path / 'm.txt'} mpirun -np 4 alltoallv_perf -g 1" in done.output


def test_combine_goes_back_in_bf16_and_copies_may_be_per_rank(run, tmp_path):
    call("export", run, "--out", tmp_path / "m.txt", "--phase", "combine", "--copies", "rank")
    per_rank = load_result(run).traffic["rank_copies_layer0"]
    assert read(tmp_path / "m.txt") == (per_rank.T * 256).tolist()
    assert per_rank[0].tolist() == [1, 1, 1, 0]  # both experts of the first token are on rank 0


def test_import_says_how_far_the_prediction_is_off(run, tmp_path):
    # By hand: rank 0's NIC takes 2 and 3 selections' 256 and 384 bytes; 640 / 25 = 25.6 ns. The others end before.
    measured = result_of(tmp_path, 0.032, 896)
    done = compare(measured, run, "--calibration", run.parent / "own.yaml")
    assert done.exit_code == 0, done.output
    assert "predicted is -20.0 % of measured, with the constants own (ours)" in done.output
    assert "28.00" in done.output  # 896 bytes in 32 ns


def test_a_matrix_of_ones_own_may_be_given(run, tmp_path):
    (tmp_path / "m.txt").write_text("0 1600 0 0\n0 0 0 0\n0 0 0 0\n0 0 0 0\n")
    own = ("--matrix", tmp_path / "m.txt", "--calibration", run.parent / "own.yaml")
    done = compare(result_of(tmp_path, 0.016, 1600), run, *own)
    assert "predicted is +0.0 % of measured" in done.output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"out_of_place": None}, "is not the result of one alltoallv_perf size"),
        ({"out_of_place": {"time": "fast", "alg_bw": 1}}, "is not the result of one alltoallv_perf size"),
        ({"out_of_place": {"time": -1, "alg_bw": 1}}, "time -1 us"),
        ({"out_of_place": {"time": 10.0, "alg_bw": 1.0}}, "was measured with 10,000 bytes on the busiest rank"),
    ],
)
def test_another_file_or_another_matrix_is_refused(run, tmp_path, changes, says):
    done = compare(result_of(tmp_path, 0.02, 896, **changes), run)
    assert isinstance(done.exception, InputError)
    assert says in str(done.exception)
    assert "result.json" in str(done.exception)


def test_other_mistakes_are_told_too(run, tmp_path):
    assert "the run has no layer 7" in str(call("export", run, "--layer", 7, "--out", tmp_path / "m").exception)
    assert "not a result folder" in str(call("export", tmp_path).exception)
    measured = result_of(tmp_path, 0.02, 896)
    assert "give --topology" in str(call("import", measured, run).exception)
    (tmp_path / "m.txt").write_text("1 2\n3 4\n")
    assert "is not a 4 x 4 matrix" in str(compare(measured, run, "--matrix", tmp_path / "m.txt").exception)
    (tmp_path / "m.txt").write_text("0 -1 0 0\n" * 4)
    assert "a cell is no size" in str(compare(measured, run, "--matrix", tmp_path / "m.txt").exception)
    assert "no such file" in str(compare(tmp_path / "nothing.json", run).exception)

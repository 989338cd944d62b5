"""Small logs in the form that each tool prints, against rows worked out by hand."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.logs import FORMS, read_log

SAMPLES = Path(__file__).parent / "samples"
ON_16 = {"gpu": "h100", "ranks": 16, "gpus_per_node": 8}

# File: what its user gave, its form, and the rows as (op, dtype, tokens, quantity, value).
LOGS = {
    "normal-events.log": (
        ON_16,
        "DeepEP normal mode",
        [
            ("dispatch", "fp8", 2048, "rdma_GBps", 41.0),
            ("dispatch", "bf16", 2048, "rdma_GBps", 51.0),
            ("combine", "bf16", 2048, "rdma_GBps", 48.5),
        ],
    ),
    "normal-transmit-uccl.log": (
        ON_16 | {"ranks": 32},
        "DeepEP normal mode",
        [
            ("dispatch", "fp8", 1024, "rdma_GBps", 44.97),
            ("dispatch", "fp8", 1024, "time_us", 600.0),
            ("combine", "bf16", 1024, "rdma_GBps", 47.57),
            ("combine", "bf16", 1024, "time_us", 1100.0),
        ],
    ),
    "normal-sums-ray.log": (
        ON_16,
        "DeepEP normal mode",
        [
            ("dispatch", "fp8", 8192, "rdma_GBps", 55.0),
            ("dispatch", "fp8", 8192, "time_us", 2200.0),
            ("combine", "bf16", 8192, "rdma_GBps", 50.6),
            ("combine", "bf16", 8192, "time_us", 4650.5),
        ],
    ),
    "intranode-old.log": (
        {"gpu": "h800", "ranks": 8},
        "DeepEP normal mode",
        [("dispatch", "fp8", 4096, "nvl_GBps", 210.5), ("combine", "bf16", 4096, "nvl_GBps", 150.25)],
    ),
    "intranode-uccl.log": (
        {"gpu": "h200", "ranks": 8},
        "DeepEP normal mode",
        [("dispatch", "fp8", 4096, "nvl_GBps", 320.0), ("dispatch", "fp8", 4096, "time_us", 505.2)],
    ),
    "low-latency.log": (
        {"gpu": "h20", "gpus_per_node": 2},
        "DeepEP low latency",
        [("dispatch", "fp8", 128, "time_us", 103.5), ("combine", "bf16", 128, "time_us", 201.75)],
    ),
    "low-latency-bf16-logfmt.log": (
        {"gpu": "h20", "nodes": 1, "tokens": 64, "hidden": 2048, "top_k": 6, "experts": 64},
        "DeepEP low latency",
        [("dispatch", "bf16", 64, "time_us", 51.0), ("combine", "logfmt", 64, "time_us", 61.0)],
    ),
    "low-latency-pplx.log": (
        ON_16,
        "DeepEP low latency",
        [("dispatch", "fp8", 128, "time_us", 150.0), ("combine", "bf16", 128, "time_us", 250.0)],
    ),
    "v2.log": (
        {"gpu": "gb300"},
        "DeepEP V2 test_ep",
        [
            ("dispatch", "fp8", 1024, "time_us", 406.5),
            ("dispatch", "bf16", 1024, "time_us", 701.5),
            ("combine", "bf16", 1024, "time_us", 907.0),
        ],
    ),
    "nccl-2021.txt": (
        {},
        "nccl-tests table",
        [
            ("alltoall", None, 8388608, "time_us", 400.0),
            ("alltoall", None, 8388608, "busbw_GBps", 15.73),
            ("alltoall", None, 16777216, "time_us", 700.0),
            ("alltoall", None, 16777216, "busbw_GBps", 17.98),
        ],
    ),
    "nccl-per-iteration.txt": (
        {},
        "nccl-tests table",
        [
            ("alltoall", None, 1048576, "time_us", 50.0),
            ("alltoall", None, 1048576, "busbw_GBps", 18.35),
            ("alltoall", None, 4194304, "time_us", 120.0),
            ("alltoall", None, 4194304, "busbw_GBps", 30.58),
        ],
    ),
    "nccl-v3.json": (
        {},
        "nccl-tests JSON",
        [("alltoall", None, 8388608, "time_us", 60.0), ("alltoall", None, 16777216, "time_us", 90.0)],
    ),
    "nvshmem.txt": (
        {"gpu": "h100", "ranks": 8, "nodes": 1},
        "NVSHMEM perftest",
        [
            ("alltoall", None, 65536, "time_us", 20.0),
            ("alltoall", None, 65536, "busbw_GBps", 2.867),
            ("alltoall", None, 1048576, "time_us", 50.0),
            ("alltoall", None, 1048576, "busbw_GBps", 18.35),
            ("alltoall", None, 1048576, "time_us", 64.0),
            ("alltoall", None, 1048576, "busbw_GBps", 14.336),
            ("shmem_put", None, 1048576, "link_GBps", 44.5),
        ],
    ),
    "nvshmem-machine.txt": (
        {"gpu": "h100", "ranks": 8, "nodes": 1},
        "NVSHMEM perftest",
        [("alltoall", None, 262144, "time_us", 31.25), ("shmem_put", None, 4194304, "link_GBps", 46.75)],
    ),
    "perftest-gb.txt": (
        {},
        "perftest ib_write_bw",
        [("rdma_write", None, 65536, "link_GBps", 48.0), ("rdma_write", None, 65536, "link_GBps", 47.0)],
    ),
    "perftest-mb.txt": ({}, "perftest ib_write_bw", [("rdma_read", None, 1048576, "link_GBps", 24.0)]),
    "pplx.tsv": (
        {"gpu": "h100", "gpus_per_node": 8},
        "pplx-kernels",
        [("dispatch", "bf16", 16, "time_us", 40.0), ("combine", "bf16", 16, "time_us", 48.0)],
    ),
}


def values(rows):
    return [(row.op, row.dtype, row.tokens, row.quantity, pytest.approx(row.value, rel=1e-4)) for row in rows]


def read(text, given, tmp_path, name="a.log"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_log(path, given)


@pytest.mark.parametrize("name", LOGS)
def test_a_log_is_read_as_a_person_would(name):
    given, form, expected = LOGS[name]
    log = read_log(SAMPLES / name, given)
    assert log.form == form
    assert form in FORMS
    assert values(log.rows) == expected


PREFIXES = {
    "srun": lambda number: f"{number % 2}: ",
    "ray": lambda number: f"(RayWorker pid={300 + number % 2}, ip=10.1.0.{number % 2}) ",
    "mpirun": lambda number: f"[1,{number % 8}]<stdout>:",
    "pdsh": lambda number: f"gpu-{number % 2}.cluster: ",
    "kubectl": lambda number: f"2026-01-01T10:00:{number % 60:02}Z stdout F ",
    "torchrun": lambda number: f"[default{number % 8}]:",
}
DRESSED = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "colours": lambda text: "".join(f"\x1b[4m\x1b[36m{line}\x1b[0m\n" for line in text.splitlines()),
    "an issue": lambda text: f"Hello, on our cluster:\n\n```text\n{text}```\nIs this expected?\n",
    "UTF-16": lambda text: text.encode("utf-16"),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
} | {
    name: lambda text, prefix=prefix: "".join(f"{prefix(i)}{line}\n" for i, line in enumerate(text.splitlines()))
    for name, prefix in PREFIXES.items()
}


@pytest.mark.parametrize("dress", DRESSED)
@pytest.mark.parametrize("name", LOGS)
def test_what_a_terminal_or_a_launcher_adds_changes_no_row(name, dress, tmp_path):
    given, form, expected = LOGS[name]
    text = (SAMPLES / name).read_text(encoding="utf-8")
    log = read(DRESSED[dress](text), given, tmp_path)
    assert log.form == form
    assert values(log.rows) == expected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["low-latency.log", "v2.log"])
def test_ranks_print_in_any_order(name, seed, tmp_path):
    """Lines move among those of the same case only: a header tells of what follows it."""
    given, _, expected = LOGS[name]
    shuffle = random.Random(seed).shuffle
    blocks, lines = [], []
    for line in (SAMPLES / name).read_text().splitlines():
        if line.startswith((" >", "Config", "Running")):
            shuffle(lines)
            blocks += [*lines, line]
            lines = []
        else:
            lines.append(line)
    shuffle(lines)
    assert values(read("\n".join([*blocks, *lines]), given, tmp_path).rows) == expected


def test_several_benchmarks_in_one_file_are_all_read(tmp_path):
    names = ["normal-sums-ray.log", "nccl-per-iteration.txt"]
    text = "\n".join((SAMPLES / name).read_text() for name in names)
    log = read(text, ON_16 | {"ranks": 16}, tmp_path)
    assert log.form == "nccl-tests table and DeepEP normal mode"
    assert len(log.rows) == 8


def test_which_clock_it_was_stands_in_the_definition():
    events = read_log(SAMPLES / "normal-events.log", ON_16).rows[0].definition
    kernel = read_log(SAMPLES / "normal-sums-ray.log", ON_16).rows[0].definition
    inside = read_log(SAMPLES / "intranode-uccl.log", {"gpu": "h200", "ranks": 8}).rows[0].definition
    assert "event time of the call incl. notify" in events
    assert kernel.endswith("kernel time")
    assert "event time" in inside
    assert inside.endswith("intranode")


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("normal-transmit-uccl.log", "uccl-ep"),
        ("intranode-uccl.log", "uccl-ep"),
        ("normal-events.log", "deepep-v1"),
        ("low-latency-pplx.log", "uccl-ep-ll"),
        ("low-latency.log", "deepep-ll"),
    ],
)
def test_a_copy_of_a_librarys_test_is_told_from_the_librarys(name, library):
    assert {row.library for row in read_log(SAMPLES / name, LOGS[name][0]).rows} == {library}


def test_where_it_ran_is_read_where_it_is_printed():
    v2 = read_log(SAMPLES / "v2.log", {"gpu": "gb300"}).rows[0]
    assert (v2.nodes, v2.ranks, v2.top_k, v2.experts, v2.hidden, v2.sms) == (2, 4, 8, 128, 4096, 16)
    old = read_log(SAMPLES / "nccl-2021.txt").rows[0]
    assert (old.gpu, old.gpu_moesim, old.ranks, old.nodes) == ("A100", "a100", 4, 2)
    new = read_log(SAMPLES / "nccl-per-iteration.txt").rows[0]
    assert (new.gpu, new.ranks, new.nodes, new.version) == ("H200", 8, 2, "NCCL 2.30.2")
    # One process drives eight GPUs and lists one of them.
    one = read_log(SAMPLES / "nccl-v3.json").rows[0]
    assert (one.gpu, one.ranks, one.nodes) == ("B200", 8, 1)
    assert one.definition.endswith("CPU time")
    nic = read_log(SAMPLES / "perftest-gb.txt").rows
    assert [(row.nic, row.definition) for row in nic] == [
        ("bnxt_re0", "ib_write_bw, BW average, one direction, 2 QPs, host memory"),
        ("mlx5_1", "ib_write_bw, BW average, half of both directions, 1 QPs, GPU memory"),
    ]


@pytest.mark.parametrize(
    ("name", "given", "asked"),
    [
        ("normal-events.log", {}, ("--gpu", "--ranks", "--gpus-per-node")),
        ("normal-events.log", {"gpu": "h100", "ranks": 16}, ("--gpus-per-node",)),
        ("intranode-old.log", {"gpu": "h100"}, ("--ranks",)),
        ("low-latency.log", {"gpus_per_node": 2}, ("--gpu",)),
        ("low-latency-bf16-logfmt.log", {"gpu": "h20", "nodes": 1}, ("--tokens", "--hidden", "--top-k")),
        ("low-latency-pplx.log", {"gpu": "h100", "ranks": 40, "gpus_per_node": 8}, ("--experts",)),
        ("v2.log", {}, ("--gpu",)),
        ("pplx.tsv", {"gpu": "h100"}, ("--gpus-per-node",)),
        ("nvshmem.txt", {"gpu": "h100", "nodes": 1}, ("--ranks",)),
    ],
)
def test_what_a_file_cannot_say_is_asked_for_by_name(name, given, asked):
    with pytest.raises(InputError) as refused:
        read_log(SAMPLES / name, given)
    message = str(refused.value)
    assert name in message
    assert "\n" not in message
    wanted = message.partition("; give ")[2]
    assert set(wanted.split(", ")) == set(asked)


def test_hosts_are_no_nodes_where_nvlink_spans_a_rack(tmp_path):
    text = (SAMPLES / "nccl-per-iteration.txt").read_text().replace("NVIDIA H200", "NVIDIA GB200")
    with pytest.raises(InputError, match="--gpus-per-node"):
        read(text, {}, tmp_path)
    assert {row.nodes for row in read(text, {"gpus_per_node": 72}, tmp_path).rows} == {1}


def test_everything_in_one_scale_up_domain_may_be_several_hosts(tmp_path):
    lines = "".join(
        f"   * EP: {rank:3}/16 | dispatch: 50 GB/s (SO), 50 GB/s (SU), 800.000 us, 40000000 bytes | copy: 9 GB/s, 5 us"
        "\n"
        for rank in range(16)
    )
    text = (SAMPLES / "v2.log").read_text().split("\n\n")[0].replace("2 x 2", "1 x 16") + "\n" + lines
    with pytest.raises(InputError, match="--gpus-per-node"):
        read(text, {"gpu": "h100"}, tmp_path)
    assert read(text, {"gpu": "h100", "gpus_per_node": 8}, tmp_path).rows[0].nodes == 2
    assert read(text, {"gpu": "gb200"}, tmp_path).rows[0].nodes == 1


def notes_of(name, old, new, tmp_path):
    text = (SAMPLES / name).read_text(encoding="utf-8")
    assert old in text
    return " | ".join(read(text.replace(old, new, 1), LOGS[name][0], tmp_path).notes)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("normal-events.log", "52.00 GB/s (RDMA)", "25.00 GB/s (RDMA)", "25.0 GB/s (RDMA) and 161.2 GB/s (NVL)"),
        ("normal-transmit-uccl.log", "transmit: 600.00 us", "transmit: 6000.00 us", "copies of each token"),
        ("v2.log", "400.000 us", "500.000 us", "bytes in 500 us are 80.0 GB/s, not 100"),
        ("nccl-2021.txt", "400.00   20.97", "400.00   29.97", "not 29.97 GB/s (algbw)"),
        ("nvshmem.txt", "18.350", "10.486", "not that of 8 PEs"),
        ("perftest-gb.txt", "0.732422", "0.366211", "not 384 as printed"),
        ("pplx.tsv", "9.830GB/s", "19.830GB/s", "not 19.83 GB/s as printed"),
    ],
)
def test_a_number_that_disagrees_with_its_neighbours_is_noted(name, old, new, said, tmp_path):
    assert said not in " ".join(read_log(SAMPLES / name, LOGS[name][0]).notes)
    assert said in notes_of(name, old, new, tmp_path)


def test_masked_selections_show_in_the_bytes_and_are_noted():
    notes = read_log(SAMPLES / "low-latency.log", LOGS["low-latency.log"][0]).notes
    assert "dispatch: GB/s x us is 7.512 MB, 1014 fp8 selections of 1024" in notes
    assert "not printed, the benchmark's defaults: tokens 128, hidden 7168, top_k 8, experts 288" in notes


def rank_lines(ranks, us, selections, hidden=7168):
    dispatch, combine = selections * (hidden * 33 / 32 + 16) / us / 1e3, selections * 2 * hidden / us / 2e3
    return "".join(
        f"[rank {rank}] Dispatch bandwidth: {dispatch:.2f} GB/s, avg_t={us:.2f} us | "
        f"Combine bandwidth: {combine:.2f} GB/s, avg_t={2 * us:.2f} us\n"
        for rank in ranks
    )


def test_runs_in_one_file_are_rows_of_their_own(tmp_path):
    place = {"gpu": "h20", "gpus_per_node": 8}
    text = rank_lines(range(8), 100, 1014) + rank_lines(range(16), 150, 1014)
    rows = read(text, place, tmp_path).rows
    assert [(row.op, row.ranks, row.value) for row in rows] == [
        ("dispatch", 8, 100), ("combine", 8, 200), ("dispatch", 16, 150), ("combine", 16, 300),
    ]  # fmt: skip
    # Two runs, of which each node kept its own ranks' lines.
    nodes = [range(8), range(8, 16)]
    rows = read("".join(rank_lines(node, us, 1014) for node in nodes for us in (100, 150)), place, tmp_path).rows
    assert [(row.op, row.ranks, row.value) for row in rows] == [
        ("dispatch", 16, 100), ("combine", 16, 200), ("dispatch", 16, 150), ("combine", 16, 300),
    ]  # fmt: skip


def test_lines_of_different_sizes_are_not_averaged(tmp_path):
    text = rank_lines(range(4), 100, 1014) + rank_lines(range(4, 8), 100, 500)
    with pytest.raises(InputError, match="keep one run"):
        read(text, {"gpu": "h20", "gpus_per_node": 8}, tmp_path)


def test_the_run_inside_a_test_of_normal_mode_has_sizes_of_its_own(tmp_path):
    row = read(rank_lines(range(8), 40, 135, hidden=5120), {"gpu": "h20", "gpus_per_node": 8}, tmp_path).rows[0]
    assert (row.tokens, row.hidden, row.top_k, row.experts, row.dtype) == (16, 5120, 9, 256, "fp8")


def test_few_tokens_of_which_many_are_masked_are_still_told_by_their_bytes(tmp_path):
    given = {"gpu": "h20", "gpus_per_node": 8, "tokens": 4}
    log = read(rank_lines(range(8), 40, 22), given, tmp_path)
    assert [row.dtype for row in log.rows] == ["fp8", "bf16"]
    assert not any("disagree" in note for note in log.notes)
    assert any("disagree" in note for note in read(rank_lines(range(8), 40, 40), given, tmp_path).notes)


def test_of_a_cut_log_the_best_trial_is_taken_and_said(tmp_path):
    text = (SAMPLES / "normal-events.log").read_text().partition("[tuning] Best dispatch (FP8)")[0]
    log = read(text, ON_16, tmp_path)
    assert values(log.rows) == [("dispatch", "fp8", 2048, "rdma_GBps", 40.0)]
    assert any("ends before Best of dispatch (fp8)" in note for note in log.notes)
    # The chunk that is the library's own is never the best of a tuning.
    inside = (SAMPLES / "intranode-old.log").read_text().partition("[tuning] Best dispatch (FP8)")[0]
    assert values(read(inside, {"gpu": "h800", "ranks": 8}, tmp_path).rows) == [
        ("dispatch", "fp8", 4096, "nvl_GBps", 210.5)
    ]


def test_lines_of_other_tests_and_wrong_results_are_left_out_and_said():
    assert "1 lines of allreduce left out: no all-to-all" in read_log(SAMPLES / "nccl-2021.txt").notes
    assert "1 line with wrong results dropped" in read_log(SAMPLES / "nccl-per-iteration.txt").notes
    assert "barrier_all_on_stream" in " ".join(
        read_log(SAMPLES / "nvshmem.txt", {"gpu": "h100", "ranks": 8, "nodes": 1}).notes
    )


def test_the_uneven_all_to_all_is_told_from_the_even_one(tmp_path):
    text = (SAMPLES / "nccl-per-iteration.txt").read_text().replace("alltoall_perf", "alltoallv_perf")
    row = read(text, {}, tmp_path).rows[0]
    assert (row.op, row.value) == ("alltoallv", 50.0)
    assert "largest rank" in row.definition


def test_a_name_in_the_prose_around_a_table_does_not_rename_it(tmp_path):
    text = (SAMPLES / "nccl-2021.txt").read_text()
    rows = read(
        "all_reduce_perf is fine, but this is slow:\n"
        + text[text.index("$ mpirun -np 4 ./build/alltoall") :].replace("alltoall_perf", "run.sh"),
        {},
        tmp_path,
    ).rows
    assert [row.value for row in rows] == [400.0, 15.73, 700.0, 17.98]


def test_ranks_follow_from_the_parts_of_a_message_where_no_device_is_listed(tmp_path):
    text = (SAMPLES / "nccl-2021.txt").read_text()
    without = "\n".join(line for line in text.splitlines() if " Pid " not in line)
    assert {row.ranks for row in read(without, {"gpu": "a100", "gpus_per_node": 2}, tmp_path).rows} == {4}
    fewer = "\n".join(line for line in text.splitlines() if "Rank  3" not in line)
    log = read(fewer, {}, tmp_path)
    assert {row.ranks for row in log.rows} == {4}
    assert "3 ranks are listed, but messages have 4 parts: that many ranks are taken" in log.notes


def test_groups_side_by_side_are_ranks_of_their_own(tmp_path):
    text = (SAMPLES / "nccl-per-iteration.txt").read_text()
    split = re.sub(r"Rank +(\d) Group  0", lambda found: f"Rank {found[1]} Group {int(found[1]) // 4}", text)
    split = re.sub(r"^( +\d+) +(\d+)", lambda found: f"{found[1]} {2 * int(found[2])}", split, flags=re.MULTILINE)
    log = read(split, {}, tmp_path)
    assert (log.rows[0].ranks, log.rows[0].nodes) == (4, 1)
    assert "2 groups ran side by side: ranks are those of one" in log.notes


def test_a_second_from_another_profiler_is_no_time(tmp_path):
    text = re.sub(r"\(SU\), [\d.]+ us", "(SU), 1000000.000 us", (SAMPLES / "v2.log").read_text())
    with pytest.raises(InputError, match="no measurement"):
        read(text, {"gpu": "h100"}, tmp_path)


def test_what_was_given_stands_in_the_rows_and_what_the_file_says_comes_first(tmp_path):
    given = ON_16 | {"cluster": "mine", "nic": "CX7 400G", "nics_per_node": 8, "health": "ok", "tokens": 999}
    log = read_log(SAMPLES / "normal-events.log", given)
    row = log.rows[0]
    assert (row.cluster, row.nic, row.nics_per_node, row.health) == ("mine", "CX7 400G", 8, "ok")
    assert row.tokens == 2048
    assert "tokens is 2048 in the file, not 999 as given" in log.notes
    assert [each.id for each in log.rows] == ["normal-events-01", "normal-events-02", "normal-events-03"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 16}, "did you mean 'ranks'"),
        ({"ranks": 1.5}, "a whole number"),
        ({"ranks": "many"}, "--ranks"),
        ({"health": "fair"}, "ok or poor"),
        (ON_16 | {"ranks": 15}, "15 ranks on 2 nodes"),
    ],
)
def test_a_given_fact_that_cannot_be_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        read_log(SAMPLES / "normal-events.log", given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\nTraceback (most recent call last):\n", "its first line is 'Traceback"),
        ('{"results": 3}', "nccl-tests JSON"),
        ("{", "its first line is '{'"),
        ('{"results": []}', "is nccl-tests JSON, but holds no measurement"),
        ('{"results": [{"size": "many", "out_of_place": {"time": 3}}]}', "option -J"),
        (b"\x00\x01\x02\x81", "is not text"),
    ],
)
def test_what_is_no_log_is_refused_in_a_line_that_names_the_forms(text, said, tmp_path):
    with pytest.raises(InputError) as refused:
        read(text, {}, tmp_path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "a.log" in str(refused.value)


@pytest.mark.parametrize("name", LOGS)
@settings(deadline=None, max_examples=40)
@drawn(data=st.data())
def test_a_damaged_log_gives_rows_or_one_line_that_says_why(name, data, tmp_path_factory):
    text = (SAMPLES / name).read_text(encoding="utf-8")
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    patch = data.draw(
        st.sampled_from(
            ["", "0", "0.00", "-1", "9" * 30, "9" * 5000, "nan", "inf", "\x00", "\ud7ff", "{", '"', ",", "\n"]
        )
    )
    cut = data.draw(st.integers(0, 12))
    damaged = text[:start] + patch + text[start + cut : end + len(text) // 2]
    try:
        log = read(damaged, LOGS[name][0], tmp_path_factory.mktemp("d"))
    except InputError as refused:
        assert "\n" not in str(refused)
    else:
        assert all(0 < row.value < 1e12 for row in log.rows)


def test_zeros_where_a_rate_should_be_are_refused_in_one_line(tmp_path):
    text = (SAMPLES / "nccl-2021.txt").read_text().replace(" 400.00 ", "   0.00 ")
    with pytest.raises(InputError, match="of nothing"):
        read(text, {}, tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_log(tmp_path / "none.log")

"""``calibrate`` on rows of clusters whose constants and ports are known, because moesim made the rows itself."""

import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.logs import read_log
from moesim.traffic import Uncertain, value_at, with_value
from moesim.traffic.constant_sets import find_set, read_set
from moesim.validate.clusters import first_ranks_of
from moesim.validate.measured_rows import rows_to_fit
from moesim.validate.posterior import worth_moving
from moesim.validate.prior import open_constants
from moesim.validate.published_row import TIME, Row, key
from moesim.validate.refit import refit_measured
from moesim.validate.row_simulation import constants_from, simulate_row
from moesim.validate.set_file import spell_set
from tests.cli.conftest import moesim as moesim_fixture

# Fits and runs of many layers.
pytestmark = pytest.mark.jit

moesim = moesim_fixture
SHARED = Path(__file__).resolve().parents[3] / "shared"
# Algorithm -> library, GPU, nodes that are measured, sizes per rank.
MEASURED = {
    "deepep-normal": ("deepep-v1", "h100", (1, 4), (128, 4096)),
    "deepep-low-latency": ("deepep-ll", "h100", (1, 4), (64, 1024)),
    "deepep-v2-hybrid": ("deepep-v2", "h100", (2, 4), (128, 4096)),
    "hybrid-ep": ("hybrid-ep", "h100", (1, 4), (128, 4096)),
    "nccl-direct": ("nccl", "h100", (1, 4), (1 << 20, 1 << 28)),
    "nvl-one-sided": ("trtllm-one-sided", "gb200", (1, 4), (64, 1024)),
    "nvl-two-sided": ("trtllm-two-sided", "gb200", (1, 4), (64, 1024)),
}
MOVED = {"nvlink_rate": 0.97, "nic_rate": 0.7, "setup_intra_node_s": 1.3, "setup_inter_node_s": 1.3}


def made(algorithm, op, nodes, tokens):
    library, gpu, *_ = MEASURED[algorithm]
    one_domain, ranks = gpu == "gb200", 8 * nodes
    return Row(
        table="mine", key=key(op=op, ranks=ranks, tokens=tokens), library=library, release="", gpu=gpu, source="",
        quantity=TIME, published=1.0, op=op, ranks=ranks, nodes=1 if one_domain else nodes, tokens=tokens,
        dtype="fp8" if op == "dispatch" and not one_domain else "bf16",
        sms=24 if library in ("deepep-v1", "deepep-v2", "hybrid-ep") else None,
    )  # fmt: skip


def other_cluster(start):
    """Set-ups a third longer, NICs at 70 % and NVLink at 97 % of what the set says."""
    truth = start
    blocks = [*((phase,) for phase in start.phases), *(("across", phase) for phase in start.across)]
    # NCCL's terms are its protocols', and one without a rate of its own has its block's.
    protocols = [(phase, one.name) for phase, terms in start.phases.items() for one in terms["protocols"]]
    for block in (*blocks, *protocols):
        for term, factor in MOVED.items():
            truth = with_value(truth, (*block, term), factor * value_at(truth, (*block, term)))
    return truth


def of_truth(row, truth):
    return replace(row, published=simulate_row(row, constants_from(truth, row)))


# In every change each algorithm has one pair of ports, in turn.
PORTS = ((160e9, 12.5e9), (450e9, 100e9), (900e9, 25e9))
FOUND_AGAIN = [
    pytest.param(algorithm, *ports, marks=() if i % len(PORTS) == j else pytest.mark.slow)
    for i, algorithm in enumerate(MEASURED)
    for j, ports in enumerate(PORTS)
]


@pytest.mark.jit
@pytest.mark.parametrize(("algorithm", "nvlink", "nic"), FOUND_AGAIN)
def test_a_cluster_is_found_again_from_its_rows_on_any_ports(algorithm, nvlink, nic, tmp_path):
    _, gpu, nodes, sizes = MEASURED[algorithm]
    # Sets of one source, whose constants are all free; one over clusters holds some of what moves here.
    one_source = {name: f"{name}-h100" for name in ("deepep-normal", "deepep-v2-hybrid", "nccl-direct")}
    start = find_set(algorithm, gpu, one_source.get(algorithm, "auto")).with_ports(nvlink, nic)
    truth = other_cluster(start)
    ops = ("alltoall",) if algorithm == "nccl-direct" else ("dispatch", "combine")
    three = (sizes[0], 8 * sizes[0], sizes[1])
    measured = [of_truth(made(algorithm, *setting), truth) for setting in product(ops, nodes, three)]
    found = refit_measured(measured, start, gpu, [])
    assert np.abs(found.fitted.errors).max() < 0.03
    path = tmp_path / "mine.yaml"
    path.write_text(spell_set(found.constants))
    mine = read_set(path)
    assert (mine.nvlink_peak, mine.nic_peak) == pytest.approx((nvlink, nic))
    for op, number, tokens in product(ops, nodes, (4 * sizes[0], 2 * sizes[1])):
        row = made(algorithm, op, number, tokens)
        assert simulate_row(row, constants_from(mine, row)) == pytest.approx(of_truth(row, truth).published, rel=0.03)


@pytest.mark.jit
def test_several_rows_of_a_cluster_are_met_from_the_set_over_clusters_though_no_two_speak_for_each_other():
    """Six rows of NCCL in as many regimes, from constants that all moved: by rows left out alone none would."""
    start, truth = find_set("nccl-direct", "h100"), find_set("nccl-direct", "h100")
    for one in start.uncertain:
        for place in one.places:
            truth = with_value(
                truth, place, {"nvlink": 0.97, "nic": 0.7, "setup": 1.3}[one.kind] * value_at(truth, place)
            )
    sizes = (1 << 20, 1 << 23, 1 << 28)
    rows = [of_truth(made("nccl-direct", "alltoall", *one), truth) for one in product((1, 4), sizes)]
    found = refit_measured(rows, start, "h100", [])
    assert np.abs(found.fitted.errors).max() < 0.01
    rate = ("dispatch", "fast", "nic_rate")
    assert value_at(found.constants, rate) == pytest.approx(value_at(truth, rate), rel=0.02)


@pytest.mark.jit
def test_rates_of_a_file_are_known_better_than_before():
    start = find_set("deepep-low-latency", "h100").with_ports(450e9, 25e9)
    rows = [of_truth(made("deepep-low-latency", *one), other_cluster(start)) for one in product(
        ("dispatch", "combine"), (1, 4), (64, 256, 512, 1024)
    )]  # fmt: skip
    mine = refit_measured(rows, start, "h100", []).constants
    nic = next(one for one in mine.uncertain if one.kind == "nic")
    assert nic.deviation < 0.06  # 0.08 before, a row's own 5 % behind it
    assert mine.row_spread > 0


@pytest.mark.jit
def test_slow_nics_are_not_blamed_on_nvlink(moesim, tmp_path):
    """Two rows of 32 ranks whose NICs have half the usual rate, 24.3 GB/s; the ports were not named."""
    rows = tmp_path / "measured.csv"
    rows.write_text(
        "op,ranks,nodes,tokens,time_us,dtype,sms\ndispatch,32,4,4096,3550.85,fp8,24\n"
        "combine,32,4,4096,6898.70,bf16,24\n"
    )
    out = tmp_path / "mine.yaml"
    common = ("calibrate", rows, "-a", "deepep-normal", "-g", "h100", "--start", "deepep-normal-h100", "--out", out)
    done = moesim(*common)
    assert done.code == 0, done.err
    start, mine = find_set("deepep-normal", "h100", "deepep-normal-h100"), read_set(out)
    place = ("across", "dispatch", "nvlink_rate")
    assert value_at(mine, place) == pytest.approx(value_at(start, place), rel=0.02)
    assert value_at(mine, ("across", "combine", "nic_rate")) == pytest.approx(24.3e9, rel=0.05)
    assert "nobody named the NIC" in done.err
    assert any(line.startswith("open:") and "nvlink_rate" in line for line in done.out.splitlines())
    # with the ports named the file is of these, and the rates hardly move
    assert moesim(*common, "--nic-bandwidth", "200Gb/s").code == 0
    named = read_set(out)
    assert named.nic_peak == 25e9
    assert value_at(named, ("across", "combine", "nic_rate")) == pytest.approx(24.3e9, rel=0.05)


@pytest.mark.jit
def test_a_topology_names_gpu_ports_and_what_posts(moesim, tmp_path):
    topology = tmp_path / "mine.yaml"
    topology.write_text(
        "kind: rail\ngpu: h200\nnodes: 4\ngpus_per_node: 8\nnvlink: {bandwidth: 400GB/s}\n"
        "nic: {bandwidth: 200Gb/s, per_gpu: 2, card: efa}\nleaf_spine: {spines: 1}\n"
    )
    start = find_set("deepep-low-latency", "h200").with_ports(400e9, 50e9)
    rows = tmp_path / "rows.csv"
    lines = [
        f"{op},{8 * nodes},{tokens},{of_truth(row, start).published}"
        for op, nodes, tokens in product(("dispatch", "combine"), (1, 4), (64, 1024))
        if (row := replace(made("deepep-low-latency", op, nodes, tokens), gpu="h200"))
    ]
    rows.write_text("op,ranks,tokens,time_us\n" + "\n".join(lines) + "\n")
    out = tmp_path / "calibrated.yaml"
    done = moesim("calibrate", rows, "-a", "deepep-low-latency", "--topology", topology, "--out", out)
    assert done.code == 0, done.err
    mine = read_set(out)
    assert (mine.gpu, mine.nvlink_peak, mine.nic_peak, mine.transport) == ("h200", 400e9, 50e9, "efa-proxy")
    assert "NVLink 400 GB/s, NIC 50 GB/s" in done.err


@pytest.mark.jit
def test_a_row_that_is_not_met_is_warned_of(moesim, tmp_path):
    """Two times for the same setting, one twice the other: at least one stays far off."""
    rows = tmp_path / "rows.csv"
    rows.write_text("op,ranks,tokens,time_us\ndispatch,8,1024,100\ndispatch,8,1024,200\n")
    done = moesim("calibrate", rows, "-a", "deepep-low-latency", "-g", "h100")
    assert done.code == 0, done.err
    warned = [line for line in done.err.splitlines() if line.startswith("warning:")]
    assert warned and all("% off" in line for line in warned)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nic-bandwidth", "50"), "has no unit"),
        (("--transport", "pigeon"), "unknown transport 'pigeon'"),
        (("--topology", "hgx-h20"), "hgx-h20 has h20, not h100"),
    ],
)
def test_ports_that_cannot_be_are_one_line(arguments, said, moesim, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("op,ranks,tokens,time_us\ndispatch,8,1024,100\n")
    done = moesim("calibrate", rows, "-a", "deepep-low-latency", "-g", "h100", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err


@pytest.mark.jit
def test_rows_that_contradict_each_other_leave_the_start_as_it_was():
    """Small messages twice as fast, middle ones twice as slow, large ones as fast again: no constant has that shape."""
    start = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100")
    rows = [
        replace(row, published=factor * of_truth(row, start).published)
        for tokens, factor in ((16, 0.6), (64, 1.5), (256, 0.9), (1024, 1.1))
        if (row := made("deepep-low-latency", "dispatch", 1, tokens))
    ]
    found = refit_measured(rows, start, "h100", [])
    assert found.constants.phases["dispatch"] == start.phases["dispatch"]
    assert any("left out" in line for line in found.left_open)


@pytest.mark.jit
def test_a_row_of_slower_nics_is_met_after_it_was_calibrated_on():
    """16 H20 with 25 GB/s NICs: 128 tokens of FP8 took 300 us in dispatch."""
    start = find_set("deepep-low-latency", "h20", "deepep-low-latency-h20").with_ports(450e9, 25e9)
    row = replace(made("deepep-low-latency", "dispatch", 2, 128), gpu="h20", experts=288, published=300.0)
    found = refit_measured([row], start, "h20", []).constants
    assert simulate_row(row, constants_from(found, row)) == pytest.approx(300, rel=0.05)
    assert value_at(found, ("dispatch", "nic_rate")) <= 25e9


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "reference" / "clusters.csv").is_file(), reason="the measured clusters are not here")
def test_four_rows_of_a_cluster_that_nobody_fitted_halve_its_error():
    """26 rows of DeepEP V2 on H200 over EFA, from the set of H100: draws of four rows, judged on the other 22."""
    log = read_log(SHARED / "reference" / "clusters.csv")
    log = replace(log, rows=tuple(row for row in log.rows if row.cluster == "aws-p5en-a" and row.health == "ok"))
    rows = [row for row in rows_to_fit(log, "deepep-v2-hybrid", "h200", "") if row.nodes > 1]
    rows = [row for row in rows if row.transport == "efa-gda"]
    start = find_set("deepep-v2-hybrid", "h200", "deepep-v2-hybrid-h100")
    rng, after, before = random.Random(0), [], []
    for _ in range(5):
        drawn = rng.sample(range(len(rows)), 4)
        mine = refit_measured([rows[index] for index in drawn], start, "h200", []).constants
        rest = [row for index, row in enumerate(rows) if index not in drawn]
        for found, errors in ((start, before), (mine, after)):
            off = [abs(simulate_row(row, constants_from(found, row)) / row.published - 1) for row in rest]
            errors.append((np.median(off), np.quantile(off, 0.9)))
    assert all(mine[0] < as_it_was[0] for mine, as_it_was in zip(after, before, strict=True))
    now, then = np.median(after, axis=0), np.median(before, axis=0)
    assert now[0] < 0.5 * then[0]
    assert now[1] < 0.6 * then[1]


@pytest.mark.jit
def test_rows_are_simulated_on_the_topology_itself(moesim, tmp_path):
    """Uplinks at half of what the NICs bring: rows made there are met there, at the constants that made them."""
    topology = tmp_path / "narrow.yaml"
    topology.write_text(
        "kind: rail\ngpu: h100\nnodes: 4\ngpus_per_node: 8\nnvlink: {bandwidth: 450GB/s}\nnic: {bandwidth: 400Gb/s}\n"
        "leaf_spine: {spines: 1, oversubscription: 2}\nrouting: spray\n"
    )
    on = first_ranks_of(load_topology(topology))
    start = find_set("nccl-direct", "h100")
    rows = [made("nccl-direct", "alltoall", nodes, tokens) for nodes in (1, 4) for tokens in (1 << 20, 1 << 28)]
    rows = [replace(row, published=simulate_row(row, constants_from(start, row), on)) for row in rows]
    narrow = refit_measured(rows, start, "h100", [], on=on)
    assert np.abs(narrow.fitted.errors).max() < 1e-3
    assert not narrow.moved
    path = tmp_path / "rows.csv"
    lines = [f"alltoall,{row.ranks},{row.tokens},{row.published}" for row in rows]
    path.write_text("op,ranks,tokens,time_us\n" + "\n".join(lines) + "\nalltoall,64,1048576,99\n")
    done = moesim("calibrate", path, "-a", "nccl-direct", "--topology", topology)
    assert done.code == 2
    assert "narrow has 32 GPUs" in done.err


def test_nics_are_held_least_and_less_where_nobody_named_the_port():
    rows = [made("deepep-low-latency", "dispatch", 2, 128)]
    start = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100")
    named, unnamed = (
        {one.kind: one.spread for one in open_constants(start, rows, "h100", known)[1]} for known in (True, False)
    )
    assert (named["nic"], named["nvlink"]) == (0.25, 0.05)
    assert unnamed == named | {"nic": 0.5}


def test_a_set_over_clusters_says_what_moves_and_nvlink_stays_held():
    rows = [made("deepep-low-latency", "dispatch", 2, 128)]
    rate, setup = (("dispatch", "nvlink_rate"),), (("combine", "setup_inter_node_s"),)
    known = tuple(Uncertain(places, kind, 0.4, {}, {}) for places, kind in ((rate, "nvlink"), (setup, "setup")))
    start = replace(find_set("deepep-low-latency", "h100", "deepep-low-latency-h100"), uncertain=known)
    made_set, free = open_constants(start, rows, "h100", True)
    assert made_set == start
    assert [(one.places, one.kind, one.spread) for one in free] == [(rate, "nvlink", 0.1), (setup, "setup", 0.4)]


def test_of_a_set_over_clusters_ports_move_as_one_and_kernels_by_phase():
    start = find_set("deepep-v2-hybrid", "h100")
    rows = [made("deepep-v2-hybrid", "dispatch", 2, 128)]
    places = [one.places for one in open_constants(start, rows, "h100", True)[1]]
    assert len(set(places)) == len(places)
    assert (("dispatch", "nic_rate"), ("combine", "nic_rate")) in places
    assert (("dispatch", "setup_inter_node_s"),) in places and (("combine", "setup_inter_node_s"),) in places
    # which no cluster told apart, and rows may
    assert (("dispatch", "setup_intra_node_s"), ("combine", "setup_intra_node_s")) in places


def test_rows_that_speak_for_each_other_move_what_they_share_and_a_lone_one_only_where_it_is_grossly_off():
    nic, setup = (np.array(one) for one in ((0.0, 0.0, -0.9, -0.9), (0.9, 0.9, 0.0, 0.0)))
    slopes, spread = np.column_stack([nic, setup]), np.array([0.2, 0.5])
    assert worth_moving(np.array([0.0, 0.0, -0.3, -0.3]), slopes, spread, 0.05) == [0]
    assert worth_moving(np.array([0.2, -0.2, 0.3, -0.3]), slopes, spread, 0.05) == []
    alone = slopes[[0, 2, 3]]
    assert worth_moving(np.array([0.3, 0.0, 0.0]), alone, spread, 0.05) == []
    assert worth_moving(np.array([1.2, 0.0, 0.0]), alone, spread, 0.05) == [1]
    # what rows follow by a tenth is not theirs to say
    assert worth_moving(np.array([0.2, 0.2, 0.2, 0.2]), np.full((4, 1), 0.1), np.array([2.0]), 0.05) == []


@pytest.mark.jit
def test_what_runs_before_the_kernel_may_be_uncertain_and_rows_of_kernels_leave_it(tmp_path):
    shipped = find_set("deepep-normal", "h100")
    path = tmp_path / "mine.yaml"
    host = Uncertain((("dispatch", "layout_s"),), "host", 0.3, {}, {})
    path.write_text(spell_set(replace(shipped, uncertain=(*shipped.uncertain, host))))
    start = read_set(path)
    # Sizes enough that a row left out is predicted by the others; of two, a set-up and a rate, the start would be kept.
    sizes = (128, 512, 1024, 2048, 4096)
    rows = [of_truth(made("deepep-normal", "dispatch", 1, tokens), other_cluster(start)) for tokens in sizes]
    mine = refit_measured(rows, start, "h100", []).constants
    assert value_at(mine, ("dispatch", "layout_s")) == value_at(start, ("dispatch", "layout_s"))
    assert value_at(mine, ("dispatch", "setup_intra_node_s")) > value_at(start, ("dispatch", "setup_intra_node_s"))

"""Fits: constants that made the measurements are found again, and files of sets survive a round trip."""

import json
from dataclasses import replace

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.logs import read_log
from moesim.traffic import value_at, with_value
from moesim.traffic.constant_sets import DATA, find_set, read_set, set_names
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.fit_constants import Free, fit
from moesim.validate.ledger import FIT, read_ledger
from moesim.validate.measured_rows import rows_to_fit
from moesim.validate.published import published_rows
from moesim.validate.published_row import TIME, Row, key
from moesim.validate.refit import refit_measured
from moesim.validate.row_simulation import constants_from, simulate_row
from moesim.validate.set_file import rounded, spell_set
from refit.free_constants import BASE, FREE
from refit.shipped_sets import refit_published


def low_latency_rows(truth):
    """Times that the simulation gives with known constants, as if measured."""
    rows = []
    for ranks in (8, 16):
        for op, dtype in (("dispatch", "fp8"), ("combine", "bf16")):
            for tokens in (8, 128):
                row = Row(
                    table="mine", key=key(op=op, ranks=ranks, tokens=tokens), library="deepep-ll", release="",
                    gpu="h100", source="", quantity=TIME, published=1.0, op=op, ranks=ranks, nodes=ranks // 8,
                    tokens=tokens, dtype=dtype,
                )  # fmt: skip
                rows.append(replace(row, published=simulate_row(row, constants_from(truth, row))))
    return rows


@pytest.mark.jit
def test_known_constants_are_found_again_from_wrong_ones():
    free = FREE["deepep-low-latency-h20"]
    start = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100-cx7")
    truth = start
    for one, factor in zip(free, (1.3, 0.8, 1.4, 0.7), strict=True):
        for place in one.places:
            truth = with_value(truth, place, factor * value_at(start, place))
    found = fit(start, free, low_latency_rows(truth), simulate_row, constants_from)
    for one in free:
        assert value_at(found.constants, one.places[0]) == pytest.approx(value_at(truth, one.places[0]), rel=2e-3)
    assert found.off.p90 < 1e-3


@pytest.mark.jit
def test_a_rate_never_passes_the_ports_peak():
    start = find_set("nvl-one-sided", "gb200", "nvl-one-sided-gb200")
    row = Row(
        table="mine", key="", library="trtllm-one-sided", release="", gpu="gb200", source="", quantity=TIME,
        published=1.0, op="dispatch", ranks=8, tokens=4096,
    )  # fmt: skip
    impossible = replace(row, published=0.5 * simulate_row(row))
    found = fit(start, [Free((("dispatch", "nvlink_rate"),))], [impossible], simulate_row, constants_from)
    assert 0.99 * start.nvlink_peak < value_at(found.constants, ("dispatch", "nvlink_rate")) <= start.nvlink_peak


def test_fewer_rows_than_constants_determine_nothing():
    start = find_set("deepep-low-latency", "h100")
    with pytest.raises(InputError, match="do not determine"):
        fit(start, FREE["deepep-low-latency-h20"], [], simulate_row, constants_from)


@pytest.mark.parametrize("name", sorted(FREE))
def test_a_sets_file_reads_back_as_the_set(name, tmp_path):
    found = read_set(set_path(name))
    copy = tmp_path / f"{name}.yaml"
    copy.write_text(spell_set(rounded(found)))
    assert read_set(copy).phases == read_set(set_path(name)).phases
    assert spell_set(rounded(read_set(copy))) == copy.read_text()


def set_path(name):
    from moesim.traffic.constant_sets import DATA

    return DATA / f"{name}.yaml"


@pytest.mark.parametrize("name", sorted(FREE))
def test_a_shipped_set_names_the_rows_that_it_was_fitted_on_and_none_of_them_is_held_out(name):
    found = read_set(set_path(name))
    ledger = {f"{table}: {row}": entry for (table, row), entry in read_ledger().items()}
    assert found.rows
    assert all(ledger[row].role == FIT for row in found.rows)
    assert set(found.error) == {"median", "p90"}
    assert found.error["median"] <= 0.045
    free = {place for one in FREE[name] for place in one.places}
    assert all(value_at(found, place) > 0 or "slope" in place[-1] for place in free)


@pytest.mark.jit
@pytest.mark.parametrize("name", ["deepep-normal-h800", "deepep-low-latency-h20", "nvl-one-sided-gb200"])
def test_a_shipped_set_says_how_far_off_it_is_where_it_was_not_fitted(name):
    ledger = read_ledger()
    rows = [row for row in published_rows() if is_transfer(row) and bench_of(row).calibration == name]
    entries = [ledger[row.name] for row in rows]
    judged = [row for row, e in zip(rows, entries, strict=True) if e.role != FIT and not e.suspect]
    off = [abs(simulate_row(row) / row.published - 1) for row in judged]
    said = find_set(bench_of(rows[0]).algorithm, rows[0].gpu, name).held_out
    assert said["rows"] == len(judged) > 0
    assert said["median"] == pytest.approx(np.median(off), abs=1e-4)
    assert said["p90"] == pytest.approx(np.quantile(off, 0.9), abs=1e-4)


def test_every_fitted_set_says_so():
    for name in FREE:
        assert read_set(DATA / f"{name}.yaml").held_out.keys() == {"rows", "median", "p90"}, name


def test_sets_build_on_sets_that_are_fitted_before_them():
    order = list(FREE)
    assert set(FREE) <= set(set_names())
    for name, base in BASE.items():
        assert order.index(base) < order.index(name)


@pytest.mark.jit
def test_fitting_the_shipped_sets_again_changes_next_to_nothing():
    """The constants that ship are the fit's own fixed point."""
    (again,) = refit_published(published_rows(), read_ledger(), lambda name: name == "deepep-v2-direct-b200")
    shipped = find_set("deepep-v2-direct", "b200", "deepep-v2-direct-b200")
    for one in FREE["deepep-v2-direct-b200"]:
        place = one.places[0]
        assert value_at(again.constants, place) == pytest.approx(value_at(shipped, place), rel=2e-3)
    assert (again.constants.rows, again.constants.held_out) == (shipped.rows, shipped.held_out)


def nccl_json(tmp_path, times, ranks=8, hosts=1):
    devices = [{"rank": rank, "hostname": f"host{rank * hosts // ranks}"} for rank in range(ranks)]
    results = [{"size": size, "out_of_place": {"time": us, "alg_bw": 1.0, "bus_bw": 1.0}} for size, us in times]
    path = tmp_path / "alltoall.json"
    path.write_text(json.dumps({"version": 2, "config": {"devices": devices}, "results": results}))
    return path


@pytest.mark.jit
def test_a_clusters_own_rate_follows_from_its_nccl_tests(tmp_path):
    """Two nodes: half of what a rank sends crosses its NIC; 40 GB/s and 30 us are found again."""
    sizes = [1 << shift for shift in range(20, 31, 2)]
    times = [(size, 30 + size / 2 / 40e9 * 1e6) for size in sizes]
    rows = of_log(nccl_json(tmp_path, times, 16, 2), "nccl-direct", "h800")
    assert {(row.ranks, row.nodes, row.op) for row in rows} == {(16, 2, "alltoall")}
    found = refit_measured(
        rows, find_set("nccl-direct", "h800", "nccl-direct-h800"), "h800", [tmp_path / "alltoall.json"]
    )
    assert value_at(found.constants, ("dispatch", "nic_rate")) == pytest.approx(40e9, rel=0.01)
    # routes under one leaf begin 0.9 us before those across, which the set-up is told for
    assert value_at(found.constants, ("dispatch", "setup_inter_node_s")) == pytest.approx(30e-6, rel=0.04)
    assert np.abs(found.fitted.errors).max() < 0.01
    assert "alltoall.json" in found.constants.source


def of_log(path, algorithm, gpu, **given):
    return rows_to_fit(read_log(path, {"gpu_moesim": gpu, "gpus_per_node": 8} | given), algorithm, gpu, str(path))


def test_of_a_time_and_a_bandwidth_the_time_is_fitted(tmp_path):
    path = tmp_path / "normal.log"
    path.write_text(
        "[config] num_tokens=2048, hidden=7168, num_topk_groups=2, num_topk=8\n"
        "[tuning] Best dispatch (FP8): SMs 24, NVL chunk 8, RDMA chunk 16: 40 + 690 us, 43.50 GB/s (RDMA), "
        "142.00 GB/s (NVL)\n"
        "[tuning] Best combine: SMs 24, NVL chunk 1, RDMA chunk 32: 44.10 GB/s (RDMA), 144.00 GB/s (NVL)\n"
    )
    dispatch, combine = of_log(path, "deepep-normal", "h100", ranks=16)
    assert (dispatch.quantity, dispatch.published, dispatch.nodes, dispatch.sms) == (TIME, 690.0, 2, 24)
    assert (combine.quantity, combine.published, combine.dtype) == ("deepep_rdma_GBps", 44.1, "bf16")
    assert (dispatch.tokens, dispatch.hidden, dispatch.experts, dispatch.top_k) == (2048, 7168, 256, 8)


def test_a_bus_bandwidth_alone_is_the_time_that_it_was_made_of(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("op,ranks,tokens,quantity,value\nalltoall,8,80000000,busbw_GBps,70\n")
    (row,) = of_log(path, "nccl-direct", "h100")
    assert (row.quantity, row.published) == (TIME, pytest.approx(1000))


@pytest.mark.parametrize(
    ("cells", "algorithm", "said"),
    [
        ("deepep-ll,H100,dispatch,16", "deepep-normal", "no measurement of deepep-normal on h100"),
        ("deepep-v1,H200,dispatch,16", "deepep-normal", "dispatch on H200"),
        (",H100,dispatch,1", "deepep-normal", "1 ranks, 2 to 512 are simulated"),
        (",H100,dispatch,16,20000", "deepep-normal", "20000 tokens per rank; past 16384"),
    ],
)
def test_what_another_library_gpu_or_nobody_measured_is_not_fitted(cells, algorithm, said, tmp_path):
    path = tmp_path / "mine.csv"
    cells = cells if cells.count(",") == 4 else f"{cells},4096"
    path.write_text(f"library,gpu,op,ranks,tokens,time_us\n{cells},900\n")
    with pytest.raises(InputError, match=said):
        rows_to_fit(read_log(path, {"gpus_per_node": 8}), algorithm, "h100", str(path))


def test_uccls_copy_of_a_test_measures_the_same_algorithm(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("library,op,ranks,tokens,time_us\nuccl-ep,dispatch,16,4096,900\ndeepep-v1,combine,16,4096,1700\n")
    assert [row.published for row in of_log(path, "deepep-normal", "h100")] == [900, 1700]


@pytest.mark.jit
def test_a_set_up_time_is_found_where_the_shipped_set_has_none(tmp_path):
    shipped = find_set("deepep-normal", "h800", "deepep-normal-h800")
    assert value_at(shipped, ("dispatch", "setup_intra_node_s")) == 0
    truth = with_value(shipped, ("dispatch", "setup_intra_node_s"), 40e-6)
    path, rows = tmp_path / "mine.csv", []
    path.write_text("op,ranks,tokens,time_us\ndispatch,8,64,1\ndispatch,8,1024,1\n")
    for row in of_log(path, "deepep-normal", "h800"):
        rows.append(replace(row, published=simulate_row(row, constants_from(truth, row))))
    found = refit_measured(rows, shipped, "h800", [path])
    assert value_at(found.constants, ("dispatch", "setup_intra_node_s")) == pytest.approx(40e-6, rel=0.01)
    assert value_at(found.constants, ("dispatch", "nvlink_rate")) == pytest.approx(
        shipped.phases["dispatch"]["nvlink_rate"], rel=0.01
    )

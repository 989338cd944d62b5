"""The measured tables that ship: their rows are the published ones, and price what lies at or between them."""

from pathlib import Path

import numpy as np
import pytest

from moesim.compute import KernelTable, gpus, load_gpu
from moesim.compute.curves import priced
from moesim.compute.measured import load_measured
from moesim.compute.published_tables import FOLDER, KINDS, Published
from moesim.compute.roofline import LAUNCH_S
from moesim.compute.table_format import floor_seconds
from moesim.compute.table_reading import read_rows
from tests.reference import kernel_rows

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
V3 = {"hidden": 7168, "inter": 2048}
FILES = sorted(FOLDER.glob("*.csv"))


def rows_of(name):
    file = FOLDER / f"{name}.csv"
    return [row for row, _ in read_rows(file.read_text(), file.name).rows]


def models(gpu):
    return KernelTable(load_gpu(gpu), published={})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_table_is_of_the_gpu_and_kind_that_its_name_says_and_names_its_source(file):
    gpu, _, kind = file.stem.partition("-")
    assert kind in KINDS
    table = load_measured(file, gpu)
    (source,) = (line for line in table.comments if line.startswith("source: "))
    assert " @ " in source and "published 20" in source and "Apache-2.0" in source
    assert all(row.seconds >= floor_seconds(load_gpu(gpu), row) for row in rows_of(file.stem))
    if kind in ("masked", "contiguous"):
        assert {row.layout for row in rows_of(file.stem)} == {kind}


def test_the_tables_stay_small():
    assert sum(file.stat().st_size for file in FILES) < 500_000


def test_no_gpu_takes_the_rows_of_another():
    assert {gpu: sorted(Published(gpu)) for gpu in gpus()} == {
        gpu: sorted(KINDS) if gpu in ("h100", "h200", "h800", "h20") else [] for gpu in gpus()
    }
    # The H20 has no row of DeepSeek-V3's expert: the price is the models', on every layout.
    for layout in ("masked", "contiguous"):
        shape = {"tokens_per_expert": [300, 310], **V3, "layout": layout}
        assert KernelTable.load("h20").time("grouped_gemm_fp8", **shape) == models("h20").time(
            "grouped_gemm_fp8", **shape
        )


def same(shipped, made):
    key = [(*row.key, row.layout, row.error, row.max_over_mean) for row in shipped]
    assert len(set(key)) == len(key)
    assert {k: row.seconds for k, row in zip(key, shipped, strict=True)} == {
        (*row.key, row.layout, row.error, row.max_over_mean): pytest.approx(row.seconds, rel=1e-9) for row in made
    }


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published rows are not part of moesim")
@pytest.mark.parametrize("gpu", ["h800", "h20"])
@pytest.mark.parametrize("layout", ["masked", "contiguous"])
def test_grouped_gemms_are_the_published_rows(gpu, layout):
    made = kernel_rows.grouped_gemms(REFERENCE, gpu, layout)
    same(rows_of(f"{gpu}-{layout}"), [row for row in made if row.seconds >= floor_seconds(load_gpu(gpu), row)])


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published rows are not part of moesim")
@pytest.mark.parametrize("gpu", ["h100", "h200"])
@pytest.mark.parametrize("n_drawn", [4, pytest.param(None, marks=pytest.mark.slow)])
def test_expert_mlps_are_the_published_rows_or_worked_out_from_them(gpu, n_drawn):
    made = kernel_rows.masked_mlps(REFERENCE, gpu, n_drawn)
    keys = {row.key for row in made}
    shipped = rows_of(f"{gpu}-masked")
    same([row for row in shipped if row.load_shape == "balanced" or row.key in keys], made)
    assert n_drawn or keys == {row.key for row in shipped}
    same(rows_of(f"{gpu}-contiguous"), kernel_rows.contiguous_mlps(REFERENCE, gpu))


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published rows are not part of moesim")
@pytest.mark.parametrize("gpu", ["h100", "h200", "h800", "h20"])
def test_mla_and_dense_gemms_are_the_published_rows(gpu):
    same([row for row in rows_of(f"{gpu}-attention") if row.kernel[:3] == "mla"], kernel_rows.attention(REFERENCE, gpu))
    if gpu == "h800":
        same(rows_of("h800-dense"), kernel_rows.dense_gemms(REFERENCE, gpu))


def test_a_published_row_is_returned_as_it_stands():
    # aiconfigurator, wideep_generation_moe_perf: 8192 tokens on 64 ranks of 4 experts, 0.0960966 ms on the H200.
    time = KernelTable.load("h200").time("grouped_gemm_fp8", tokens_per_expert=[256] * 4, **V3, layout="masked")
    assert time.seconds == pytest.approx(96.1e-6, rel=1e-3)
    assert time.source == "measured" and time.shares == {"measured": 1.0}
    assert "aiconfigurator" in time.note and "/home" not in time.note and ".csv" not in time.note
    # InferSim, gemm: 4096 rows x 4096 x 7168 on the H800.
    gemm = KernelTable.load("h800").time("gemm_fp8", rows=[4096], n=4096, k=7168, layout="dense")
    assert (gemm.seconds, gemm.source) == (pytest.approx(169.08e-6), "measured")
    # The shared expert is its two GEMMs, and a SwiGLU that nobody measured.
    mlp = KernelTable.load("h800").time("dense_mlp_fp8", tokens=4096, **V3)
    swiglu = LAUNCH_S + 4096 * 2048 * (5 + 1 / 32) / 3000e9
    assert mlp.seconds == pytest.approx(169.08e-6 + 98.102e-6 + swiglu)
    assert mlp.shares["estimated"] == pytest.approx(swiglu / mlp.seconds)


def test_experts_of_uneven_loads_lie_between_the_rows_around_them():
    # H800, contiguous, four experts: 8000 and 14720 padded rows were timed, 1409 + 812 and 2581 + 1455 us.
    time = KernelTable.load("h800").time(
        "grouped_gemm_fp8", tokens_per_expert=[8100, 9000, 10000, 11000], **V3, layout="contiguous"
    )
    assert 1409e-6 + 812e-6 < time.seconds < 2581e-6 + 1455e-6 + 130e-6
    assert time.source == "interpolated" and 0.02 < time.error < 0.1
    even = KernelTable.load("h800").time("grouped_gemm_fp8", tokens_per_expert=[9600] * 4, **V3, layout="contiguous")
    assert even.error < time.error  # what uneven loads add is part of the bar


def test_contiguous_rows_are_padded_to_whole_tiles():
    table = KernelTable.load("h800")
    one, full = (
        table.time("gemm_fp8", rows=[rows] * 4, n=4096, k=7168, layout="contiguous").seconds for rows in (8065, 8192)
    )
    assert one == full


def test_skewed_rows_are_met_at_their_mean_and_skew():
    # H100, power law 0.6 on 128 ranks, 16384 tokens: 763.2 rows per expert in the mean draw, fullest 1.073 times that.
    row = next(
        row for row in rows_of("h100-masked") if (row.outer, row.inner, row.load_shape) == (2, 763.2, "power-law-0.6")
    )
    time = KernelTable.load("h100").time("grouped_gemm_fp8", tokens_per_expert=[819, 707], **V3, layout="masked")
    assert time.seconds == pytest.approx(row.seconds, rel=0.01) and time.source == "interpolated"
    # Past the largest draw nothing was measured.
    far = KernelTable.load("h100").time("grouped_gemm_fp8", tokens_per_expert=[9000, 8000], **V3, layout="masked")
    assert far == models("h100").time("grouped_gemm_fp8", tokens_per_expert=[9000, 8000], **V3, layout="masked")


def test_drawn_rows_say_nothing_of_loads_in_whole_tiles():
    table = KernelTable.load("h800")
    for loads, source in (([500, 530], "interpolated"), ([512, 512], "fitted")):
        assert table.time("gemm_fp8", rows=loads, n=4096, k=7168, layout="masked").source == source


def test_ranks_that_rows_cover_take_them_and_the_others_the_models():
    loads = np.array([[8100, 9000, 10000, 11000], [0] * 4, [100, 120, 130, 90]])
    together = KernelTable.load("h800").grouped_gemm("fp8", loads, 7168, 2048, layout="contiguous")
    alone = models("h800").grouped_gemm("fp8", loads, 7168, 2048, layout="contiguous")
    assert together.seconds[0] != alone.seconds[0]
    assert together.seconds[1] == 3 * LAUNCH_S
    assert together.seconds[2] == alone.seconds[2]
    assert set(together.shares) == {"interpolated", "fitted", "estimated"}


def test_an_experts_two_gemms_in_a_table_of_ones_own_price_it(tmp_path):
    rows = [f"expert_gemm,fp8,{m},4,{n},{k},{m * n * k / 1e6},h200"
            for n, k in ((512, 1024), (1024, 256)) for m in (64, 128, 256)]  # fmt: skip
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["kernel,dtype,tokens_per_expert,experts,n,k,time_us,gpu", *rows]))
    time = KernelTable.load(path).time("grouped_gemm_fp8", tokens_per_expert=[128] * 4, hidden=1024, inter=256)
    swiglu = LAUNCH_S + 512 * 256 * (5 + 1 / 32) / (4.8e12 * 3000 / 3350)
    assert time.seconds == pytest.approx(128 * 3 * 1024 * 256 / 1e12 + swiglu)
    assert time.shares["measured"] + time.shares["estimated"] == pytest.approx(1.0)
    gemm = priced(
        KernelTable.load(path), "expert_gemm_fp8", {"tokens_per_expert": 64, "experts": 4, "n": 512, "k": 1024}
    )
    assert (gemm.seconds, gemm.source) == (pytest.approx(64 * 512 * 1024 / 1e12), "measured")


def test_worked_out_rows_are_never_called_measured_and_agree_with_the_same_chip():
    # The H100 and the H800 are the same chip; on the latter the two GEMMs were timed by themselves.
    own = KernelTable.load("h100").time("grouped_gemm_fp8", tokens_per_expert=[8192] * 4, **V3, layout="contiguous")
    assert own.source == "interpolated" and 0.04 < own.error < 0.08
    other = KernelTable.load("h800").time("grouped_gemm_fp8", tokens_per_expert=[8192] * 4, **V3, layout="contiguous")
    assert own.seconds == pytest.approx(other.seconds, rel=0.06)


@pytest.mark.jit
@pytest.mark.parametrize(("scenario", "gpu", "least"), [
    ("deepseek-v3-prefill-ep64", "h800", 0.95), ("deepseek-v3-prefill-ep64", "h100", 0.99),
    ("deepseek-v3-prefill-ep64", "h200", 0.99), ("deepseek-v3-decode-ep128", "h800", 0.94),
    ("deepseek-v3-decode-ep128", "h100", 0.99), ("deepseek-v3-decode-ep128", "h200", 0.99),
])  # fmt: skip
def test_most_of_the_experts_time_is_measured_or_between_measurements(scenario, gpu, least):
    import moesim

    result = moesim.simulate(moesim.load_scenario(f"{scenario}", overrides=[f"compute.table={gpu}"]))
    rows = [row for row in result.explanation["kernels"] if row["kernel"] == "grouped_gemm_fp8"]
    seconds = {row["source"]: row["seconds"] for row in rows}
    measured = seconds.get("measured", 0.0) + seconds.get("interpolated", 0.0)
    assert measured / sum(seconds.values()) >= least
    assert result.summary["source_measured_share"] + result.summary["source_interpolated_share"] > 0.78

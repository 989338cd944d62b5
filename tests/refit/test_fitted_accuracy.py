"""The shipped coefficients against the measured rows: bars on held-out shapes, uneven loads, floors, the split."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from moesim.compute import load_gpu
from moesim.compute.fitted import coefficients
from moesim.compute.roofline import gemm_work, mla_decode_work
from moesim.errors import InputError
from refit.families import FAMILIES, parameters, with_draws
from refit.kernel_check import DRAWS, check, check_models, checked, drawn, even, frozen_split, held_out
from refit.kernel_fit import files, fit, plain
from refit.timed_rows import READERS, nominal_loads, read
from tests.reference.kernel_rows import split_by_rule

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
needs_rows = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the measured rows are not part of the project")
PAIRS = [(family, gpu) for family, reader in READERS.items() for gpu in reader.gpus]
BARS = {
    "grouped_masked": (0.06, 0.18),
    "grouped_contiguous": (0.06, 0.18),
    "deepep_generation": (0.06, 0.18),
    "deepep_context": (0.06, 0.18),
    "mla_prefill": (0.06, 0.18),
    "mha_prefill": (0.06, 0.18),
    "mla_decode": (0.06, 0.22),
    "dense_gemm": (0.09, 0.21),
    "flashmla_decode": (0.13, 0.17),
    "fused_moe": (0.07, 0.17),
}


def misses(family, gpu, rows):
    """Return the relative error of each row, the models taken straight from the file."""
    found = np.zeros(len(rows))
    names = np.array(rows.variant)
    for variant in set(rows.variant):
        own = rows.where(names == variant)
        c = checked()[family, gpu, variant].coefficients
        work = FAMILIES[family].prepare(load_gpu(gpu), own)
        found[names == variant] = FAMILIES[family].seconds(load_gpu(gpu), variant, c, work) / own.seconds - 1
    return found


@needs_rows
@pytest.mark.parametrize(("family", "gpu"), PAIRS)
def test_held_out_shapes_keep_their_bar(family, gpu):
    rows = even(read(REFERENCE, family, gpu))
    out = rows.where(held_out(rows))
    assert len(out) > 0
    found = np.abs(misses(family, gpu, out))
    variants = {"fused_moe": [set(out.variant)]}.get(family, [{name} for name in set(out.variant)])
    for together in variants:
        own = found[[name in together for name in out.variant]]
        median, p90 = np.quantile(own, [0.5, 0.9])
        assert median <= BARS[family][0] and p90 <= BARS[family][1]


@needs_rows
@pytest.mark.parametrize(("family", "gpu"), [pair for pair in PAIRS if pair[0].startswith("deepep")])
def test_uneven_loads_lie_inside_the_spread_of_their_draws(family, gpu):
    rows = drawn(FAMILIES[family], read(REFERENCE, family, gpu))
    out = rows.where(held_out(rows))
    spread = misses_of_draws(family, gpu, out)
    low, high = np.quantile(spread, [0.1, 0.9], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) >= 0.70
    assert abs(spread.mean()) <= 0.05


def misses_of_draws(family, gpu, rows):
    spread = with_draws(rows, DRAWS)
    c = coefficients.fitted()[family, gpu, ""].coefficients
    work = FAMILIES[family].prepare(load_gpu(gpu), spread)
    seconds = FAMILIES[family].seconds(load_gpu(gpu), "", c, work)
    return seconds.reshape(len(rows), DRAWS) / rows.seconds[:, None] - 1


@needs_rows
@pytest.mark.parametrize(("family", "gpu"), PAIRS)
def test_no_measured_row_beats_the_peaks(family, gpu):
    # A row that does would not be of the work that its model takes it for.
    rows, peaks = even(read(REFERENCE, family, gpu)), load_gpu(gpu)
    ints = rows.ints
    if family in ("grouped_masked", "grouped_contiguous", "dense_gemm"):
        each = [
            gemm_work(loads, int(n), int(k), "fp8")
            for loads, n, k in zip(rows.loads, ints["n"], ints["k"], strict=True)
        ]
        floor = [max(w.flops.sum() / peaks.fp8_flops, w.moved.sum() / peaks.hbm_bandwidth) for w in each]
    elif family.startswith("deepep"):
        hit, pairs = np.count_nonzero(rows.loads, axis=1), rows.loads.sum(axis=1)
        weights = 3 * 7168 * 2048
        floor = np.maximum(hit * weights / peaks.hbm_bandwidth, 2 * pairs * weights / peaks.fp8_flops)
    elif family in ("mla_decode", "flashmla_decode"):
        floor = mla_decode_work(ints["batch"], ints["kv_len"], 128, 1, 512, 64).floor(peaks)
        # The FP8 variant reads a byte less per value than this floor counts, and casts it first.
    elif family == "mha_prefill":
        floor = ints["q_len"] ** 2.0 * 128 * 320 / peaks.bf16_flops
    elif family == "mla_prefill":
        floor = ints["batch"] * ints["q_len"] ** 2.0 * 128 * 1088 / peaks.bf16_flops
    else:
        local = np.minimum(ints["experts"] // ints["ranks"], ints["tokens"] * ints["top_k"] // ints["ranks"])
        width = np.array([{"fp8": 1, "bf16": 2}[name.split()[0]] for name in rows.variant])
        floor = local * 3 * ints["hidden"] * ints["inter"] * width / peaks.hbm_bandwidth
    assert (rows.seconds >= np.array(floor)).all()


@needs_rows
@pytest.mark.parametrize(("family", "gpu"), PAIRS)
def test_the_frozen_split_is_what_its_rule_gives(family, gpu):
    shapes = set(read(REFERENCE, family, gpu).shape)
    roles = {shape: role for (f, g, shape), role in frozen_split().items() if (f, g) == (family, gpu)}
    assert set(roles) == shapes
    assert {shape for shape, role in roles.items() if role == "held_out"} == split_by_rule(family, shapes)


@needs_rows
def test_a_fit_gives_the_shipped_coefficients_again():
    # One fit of grouped_contiguous ends at the upper end of p's range.
    found = fit(REFERENCE, ["flashmla_decode", "mha_prefill", "grouped_contiguous"])
    for entry in found["models"]:
        shipped = coefficients.fitted()[entry["family"], entry["gpu"], entry["variant"]]
        assert entry["coefficients"] == pytest.approx(shipped.coefficients, rel=1e-3)
        assert entry["held_out"]["median"] == pytest.approx(shipped.held_out.median, rel=0.02)
    assert {row["role"] for row in found["check"]} == {"fit", "held_out"}


@pytest.mark.slow
@needs_rows
def test_fitting_everything_again_changes_nothing():
    found = fit(REFERENCE)
    assert len(found["models"]) == len(checked())
    for entry in found["models"]:
        shipped = checked()[entry["family"], entry["gpu"], entry["variant"]]
        assert entry["held_out"]["median"] == pytest.approx(shipped.held_out.median, rel=0.05)
        assert entry["covered"] == {axis: list(span) for axis, span in shipped.covered.items()}
    assert [row["meets"] for row in found["check"]] == [row.meets for row in check()]


@needs_rows
def test_the_stored_check_is_what_the_rows_say():
    families = ["grouped_masked", "mla_decode", "fused_moe"]
    found = check_models(REFERENCE, checked(), families)
    stored = [row for row in check() if row.family in families]
    for row, before in zip(found, stored, strict=True):
        assert (row.family, row.gpu, row.role, row.rows, row.shapes) == (
            before.family, before.gpu, before.role, before.rows, before.shapes
        )  # fmt: skip
        assert (row.median, row.p90) == pytest.approx((before.median, before.p90), rel=0.01)


def test_the_check_names_every_family_on_every_gpu_and_every_bar_is_kept():
    rows = check()
    assert {(row.family, row.gpu) for row in rows if row.role == "held_out"} == set(PAIRS)
    for row in rows:
        judged = row.role in ("held_out", "skew_held_out")
        assert (row.meets is not None) == judged == (row.bar_median is not None)
        if row.role == "held_out":
            assert (row.bar_median, row.bar_p90) == BARS[row.family]
            assert row.meets == (row.median <= row.bar_median and row.p90 <= row.bar_p90)
    assert all(row.meets for row in rows if row.meets is not None)


def test_the_file_is_complete():
    for (family, gpu, variant), model in checked().items():
        bounded = parameters(family, variant)
        assert set(model.coefficients) == {parameter.name for parameter in bounded}
        for parameter in bounded:
            assert parameter.low <= model.coefficients[parameter.name] <= parameter.high
        assert " @ " in model.source and model.covered and gpu in READERS[family].gpus
        assert model.fit.rows > 0 and model.held_out.rows > 0
        assert 0 < model.held_out.median <= model.held_out.p90
        assert all(low <= high for low, high in model.covered.values())


def test_the_shipped_files_are_what_a_fit_writes():
    models = [plain(model) for model in checked().values()]
    written = files({"models": models, "check": [asdict(row) for row in check()]})
    for file in (coefficients.FILE, coefficients.CHECK_FILE):
        assert written[file.name] == file.read_bytes()


def test_held_out_shapes_lie_inside_the_range_of_the_fit():
    by_pair = {}
    for (family, gpu, shape), role in frozen_split().items():
        by_pair.setdefault((family, gpu), {}).setdefault(role, []).append(
            [int(part.partition("=")[2]) for part in shape.split()]
        )
    assert set(by_pair) == set(PAIRS)
    for roles in by_pair.values():
        fit_, out = np.array(roles["fit"]), np.array(roles["held_out"])
        assert (out.min(axis=0) >= fit_.min(axis=0)).all() and (out.max(axis=0) <= fit_.max(axis=0)).all()
        assert 0.2 < len(out) / (len(out) + len(fit_)) < 0.45


def test_nominal_loads_sum_to_what_was_measured():
    assert nominal_loads(512, 1, 383) == [383]
    loads = nominal_loads(64, 16, 947)
    assert sum(loads) == 947 and min(loads) < 64 < max(loads)
    few = nominal_loads(1, 256, 127)  # int(U(0.7, 1.3)) is 0 for half of them
    assert sum(few) == 127 and sum(load > 0 for load in few) == pytest.approx(128, abs=1)


def test_a_missing_folder_and_an_unknown_family_are_refused_in_one_line(tmp_path):
    for call, says in (
        (lambda: check(tmp_path), "no such reference table"),
        (lambda: fit(tmp_path, ["grouped_maskd"]), "did you mean grouped_masked"),
    ):
        with pytest.raises(InputError, match=says) as refused:
            call()
        assert "\n" not in str(refused.value)

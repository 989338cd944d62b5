"""From a profile to a page: the file of `moesim profile`, the table made of it, a run priced with it, its report.

``docs/examples/profile.csv`` has every column and kind of row that a profile has. Its times are round shares of the
peaks, not measurements: what is tested is the way of a number, from the profile's median to the share on the page.
"""

import csv
import json
from pathlib import Path

import pytest

from moesim import load_result
from moesim.profile.csv_columns import COLUMNS

PROFILE = Path(__file__).parents[2] / "docs/examples/profile.csv"
RUN = ("-o", "model.n_experts=64", "-o", "model.hidden=7168", "-o", "model.expert_hidden=2048",
       "-o", "routing.top_k=8", "-o", "workload.tokens_per_rank=256")  # fmt: skip


def median(kernel, **sizes):
    with PROFILE.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["kernel"] == kernel]
    (found,) = (row for row in rows if all(row[name] == str(value) for name, value in sizes.items()))
    return float(found["median_us"]) * 1e-6


def test_the_fixture_has_the_columns_that_a_profile_writes():
    assert PROFILE.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_profile_becomes_a_table_that_prices_a_run_and_its_shares_stand_on_the_page(moesim, here):
    done = moesim("kernels", "import", PROFILE, "--gpu", "h800", "--out", "mine.csv")
    assert done.code == 0 and "53 rows read, 46 in the table" in done.out
    done = moesim("run", "small.yaml", *RUN, "-o", "compute.table=mine.csv", "--out", "run", "--json")
    assert done.code == 0, done.err
    shares = {name: value for name, value in json.loads(done.out).items() if name.startswith("source_")}
    result = load_result("run")
    kernels = {}
    for row in result.explanation["kernels"]:
        kernels.setdefault(row["kernel"], {})[row["source"]] = row
    # Each of the eight ranks has 256 tokens, a row of the shared expert and of the gate: the medians themselves.
    for kernel, seconds in {
        "dense_mlp_fp8": median("dense_mlp", dtype="fp8", tokens=256),
        "router": median("router", tokens=256),
        "quantize_fp8": median("quantize_fp8", tokens=256),
    }.items():
        assert set(kernels[kernel]) == {"measured"}
        assert kernels[kernel]["measured"]["seconds"] == pytest.approx(8 * seconds, rel=1e-9)
        assert kernels[kernel]["measured"]["note"].endswith("mine.csv")
    # The experts' loads are uneven: between the profile's rows, with its error.
    experts = kernels["grouped_gemm_fp8"]["interpolated"]
    low, high = (median("expert_mlp", dtype="fp8", tokens=8 * m, load_shape="balanced", impl="torch+triton")
                 for m in (128, 512))  # fmt: skip
    assert low < experts["seconds"] / 8 < high * 1.15 and 0 < experts["error"] < 0.2
    measured = sum(by["measured"]["seconds"] for by in kernels.values() if "measured" in by)
    whole = sum(row["seconds"] for by in kernels.values() for row in by.values())
    assert shares["source_measured_share"] == pytest.approx(measured / whole, rel=1e-9) and measured > 0
    assert shares["source_measured_share"] + shares["source_interpolated_share"] > 0.8
    assert sum(shares.values()) == pytest.approx(1.0, rel=1e-9)
    page = Path("run/report.html").read_text()
    for source in ("measured", "interpolated"):
        assert f'<i class="source {source}"></i>{source}' in page
        assert f"{source}: {100 * shares[f'source_{source}_share']:.3g} %" in page

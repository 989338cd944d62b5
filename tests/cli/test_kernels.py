"""``moesim kernels``: what is known, one time and its source, the check, an import, a picture, a hole in a table."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from moesim.compute import KernelTable, gpus
from moesim.compute.left_out import SeriesCheck

HEADER = "kernel,dtype,tokens_per_expert,experts,hidden,inter,time_us,gpu\n"
# The small scenario's experts on an H800: half a microsecond and 2 ns per token for each, 5 us for the kernel.
ROWS = [(m, e, 5 + e * (2 + m * 0.02)) for e in (1, 2, 4) for m in (1, 4, 16, 64, 256, 1024)]


DENSE = [(m, 1, 7 + m * 0.02) for m in (1, 16, 1024)]


def table_text(rows=ROWS, gpu="h800"):
    text = HEADER + "".join(f"grouped_gemm,fp8,{m},{e},1024,256,{us},{gpu}\n" for m, e, us in rows)
    return text + "".join(f"dense_mlp,fp8,{m},{e},1024,256,{us},{gpu}\n" for m, e, us in DENSE)


@pytest.fixture
def table(here):
    path = here / "mine.csv"
    path.write_text(table_text())
    return path


@pytest.mark.parametrize("arguments", [("kernels",), ("kernels", "list"), ("kernels", "list", "--json")])
def test_every_gpu_is_listed_with_its_evidence(moesim, arguments):
    done = moesim(*arguments)
    assert done.code == 0 and not done.err
    if "--json" in arguments:
        assert {row["gpu"] for row in json.loads(done.out)} == set(gpus())
        assert all(row["source"] for row in json.loads(done.out))
    else:
        assert set(gpus()) <= {line.split()[0] for line in done.out.splitlines() if line.strip()}


def test_the_kernels_of_a_gpu_have_a_source_each(moesim):
    rows = json.loads(moesim("kernels", "show", "h800", "--json").out)
    assert {row["kernel"] for row in rows} == set(KernelTable.load("h800").kernels)
    assert all(row["source"] for row in rows)
    (row,) = json.loads(moesim("kernels", "show", "h800", "mla_decode", "--json").out)
    assert row["kernel"] == "mla_decode"


def test_the_kernels_of_a_table_have_their_ranges_and_errors(moesim, table):
    row, dense = json.loads(moesim("kernels", "show", table, "--json").out)
    assert dense["kernel"] == "dense_mlp_fp8" and "of 1 points (log-log)" in dense["error"]
    assert row["kernel"] == "grouped_gemm_fp8" and row["source"] == "measured, 18 points"
    assert row["range"] == "1 to 1024 tokens per expert, 1 to 4 experts, hidden 1024, inter 256"
    assert "of 12 points (linear); " in row["error"] and "of 6 points across curves (linear)" in row["error"]


def test_one_time_comes_with_source_error_floor_and_rate(moesim, table):
    arguments = ("kernels", "show", table, "grouped_gemm_fp8", "--tokens-per-expert", 64, "--experts", 4,
                 "--hidden", 1024, "--inter", 256)  # fmt: skip
    answer = json.loads(moesim(*arguments, "--json").out)
    assert (answer["seconds"], answer["source"]) == (pytest.approx(18.12e-6), "measured")
    assert answer["sizes"] == {"tokens_per_expert": 64, "experts": 4, "hidden": 1024, "inter": 256}
    assert answer["flops_per_s"] == pytest.approx(6 * 64 * 4 * 1024 * 256 / 18.12e-6)
    # Both GEMMs wait for memory: weights in FP8, inputs in FP8, outputs in BF16, at 3.35 TB/s.
    moved = 4 * (3 * 1024 * 256 + 64 * (1024 + 2 * 512 + 256 + 2 * 1024))
    assert answer["floor_s"] == pytest.approx(moved / 3.35e12)
    shown = moesim(*arguments).out
    assert "time   18.12 us (measured, error unknown)" in shown and "TFLOP/s" in shown
    between = moesim(*arguments[:5], 100, *arguments[6:]).out
    assert "(interpolated, median error 0.0 %)" in between and "band   " in between


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [
        ("router", ("--tokens", 64)),
        ("gemm_bf16", ("--tokens", 64, "--n", 4096, "--k", 7168)),
        ("dense_mlp_fp8", ("--tokens-per-expert", 64)),
        ("permute", ("--rows", 512)),
        ("quantize_fp8", ("--tokens", 64)),
        ("mla_decode", ("--batch", 4, "--kv-len", 4096)),
        ("mla_prefill", ("--kv-len", 4096)),
        ("mla_prefill_absorbed", ("--kv-len", 4096)),
    ],
)
def test_each_kernel_is_timed_with_the_sizes_of_deepseek_v3_where_left_out(moesim, kernel, sizes):
    answer = json.loads(moesim("kernels", "show", "h100", kernel, *sizes, "--json").out)
    assert answer["seconds"] >= answer["floor_s"] > 0 and answer["source"]
    assert answer["sizes"].get("hidden", 7168) == 7168 and answer["sizes"].get("heads", 128) == 128


def test_the_layout_of_grouped_gemms_can_be_asked_for(moesim):
    def seconds(layout):
        arguments = ("--tokens-per-expert", 128, "--experts", 8, "--layout", layout, "--json")
        return json.loads(moesim("kernels", "show", "h800", "grouped_gemm_fp8", *arguments).out)["seconds"]

    table, loads = KernelTable.load("h800"), [128] * 8
    for layout in ("masked", "contiguous"):
        price = table.time("grouped_gemm_fp8", tokens_per_expert=loads, hidden=7168, inter=2048, layout=layout).seconds
        assert seconds(layout) == price
    assert seconds("masked") != seconds("contiguous")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "h10"), "did you mean h100"),
        (("show", "h100", "grouped_gem_fp8"), "did you mean grouped_gemm_fp8"),
        (("show", "h100", "mla_decode", "--batch", 4), "mla_decode needs kv_len; --kv-len NUMBER"),
        (("show", "h100", "router", "--tokens", 64, "--batch", 4), "router has no 'batch'"),
        (
            ("show", "h100", "attn_decode", "--kv-len", 64, "--kv-heads", 8, "--head-dim", 128),
            "moesim has no model of it",
        ),
        (("show", "h100", "attn_decode", "--kv-len", 64), "attn_decode needs kv_heads; --kv-heads NUMBER"),
        (("show", "h100", "--batch", 4), "sizes without a kernel"),
        (("plot", "h100", "router", "--out", "plot.pdf"), "NAME.svg or NAME.png"),
        (("plot", "h100", "unpermute", "--out", "plot.svg"), "unpermute has no curve"),
        (("plot", "h100", "gemm_bf16", "--out", "plot.svg"), "gemm_bf16 needs n; --n NUMBER"),
        (("import", "none.csv", "--gpu", "h100", "--out", "out.csv"), "none.csv"),
        (("import", "mine.csv", "--gpu", "h100", "--out", "out.csv"), "this is a kernel table already"),
        (("import", "mine.csv", "--gpu", "h100", "--out", "o.csv", "--duplicates", "mean"), "did you mean median"),
        (("plot", "h800", "grouped_gemm_fp8", "--table", "mine.csv", "--out", "p.svg"), "no rows of grouped_gemm_fp8"),
        (("plot", "h100", "grouped_gemm_fp8", "--table", "mine.csv", "--out", "p.svg"), "measured on h800, but h100"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(moesim, table, arguments, says):
    done = moesim("kernels", *arguments)
    assert done.code == 2 and says in done.err and len(done.err.splitlines()) == 1
    assert not list(table.parent.glob("p*.svg"))


def profile_text():
    columns = ("schema_version,kernel,impl,dtype,tokens,experts_hit,hidden,inter,load_shape,largest_load,cache,"
               "median_us,status,device\n")  # fmt: skip
    mark = "NVIDIA H800"
    rows = [f"1,expert_mlp,torch,fp8,{m * e},{e},1024,256,balanced,{m},cold,{us},ok,{mark}\n" for m, e, us in ROWS]
    return columns + "".join(rows) + f"1,expert_mlp,torch,fp8,8,4,1024,256,balanced,2,cold,,unsupported: no,{mark}\n"


def test_an_import_says_what_it_read_took_and_refused_and_writes_a_table_that_prices(moesim, here):
    (here / "profile.csv").write_text(profile_text())
    done = moesim("kernels", "import", "profile.csv", "--gpu", "h800", "--out", "made/h800.csv")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "profile.csv (profile): 19 rows read, 18 in the table"
    assert lines[1].split() == ["refused", "1", "x", "not", "timed:", "unsupported"]
    assert lines[-2].startswith("leave one out: grouped_gemm fp8 1024 256, 18 points: ")
    assert lines[-1] == "made/h800.csv"
    time = KernelTable.load("made/h800.csv").time(
        "grouped_gemm_fp8", tokens_per_expert=[64] * 4, hidden=1024, inter=256
    )
    assert (time.seconds, time.source) == (pytest.approx(18.12e-6), "measured")
    again = json.loads(
        moesim("kernels", "import", "profile.csv", "--gpu", "h800", "--out", "made/h800.csv", "--json").out
    )
    assert (again["read"], again["taken"], again["refused"]) == (19, 18, {"not timed: unsupported": 1})
    assert again["leave_one_out"]["grouped_gemm fp8 1024 256"]["method"] == "linear"


def test_a_picture_is_the_same_bytes_each_time_and_has_points_price_and_floor(moesim, table):
    arguments = ("kernels", "plot", "h800", "grouped_gemm_fp8", "--hidden", 1024, "--inter", 256, "--experts", 4)
    for name in ("one.svg", "two.svg"):
        done = moesim(*arguments, "--table", table, "--out", name)
        assert (done.code, done.out.strip()) == (0, name), done.err
    one = (table.parent / "one.svg").read_text()
    assert one == (table.parent / "two.svg").read_text()
    for words in ("grouped_gemm_fp8 on NVIDIA H800", "experts 4, hidden 1024, inter 256", "measured, cold cache",
                  "floor: the GPU", "mine.csv: ", "TFLOP/s", "time in us", "tokens per expert"):  # fmt: skip
        assert words in one


@pytest.mark.slow
def test_a_picture_of_a_kernel_that_computes_nothing_has_its_times(moesim, here):
    assert moesim("kernels", "plot", "h800", "permute", "--out", "bytes.png").code == 0
    assert (here / "bytes.png").read_bytes().startswith(b"\x89PNG")


ROW = {"family": "dense", "gpu": "h800", "rows": 42, "shapes": 4, "role": "held_out", "median": 0.075, "p90": 0.191,
       "bar_median": 0.09, "bar_p90": 0.21, "meets": True, "note": ""}  # fmt: skip


@pytest.fixture
def models(monkeypatch):
    """The fitted models' two functions, replaced by ones that keep what they were asked."""
    from dataclasses import make_dataclass

    line = make_dataclass("CheckRow", list(ROW))
    asked = SimpleNamespace()

    def check(reference):
        asked.check = reference
        return [line(**ROW), line(**ROW | {"role": "fit", "bar_median": None, "bar_p90": None, "meets": None})]

    def fit(reference, families):
        asked.fit = (str(reference), families)
        return {"models": [{"family": "dense", "coefficients": {"t0": 4.07e-06}}]}

    left_out = [SeriesCheck("gemm fp8", "h800", "interpolated", 110, 10, 0.045, 0.145)]
    series = SimpleNamespace(check_series=lambda gpus: left_out if "h800" in gpus else [])
    monkeypatch.setitem(sys.modules, "moesim.compute.left_out", series)
    monkeypatch.setitem(sys.modules, "moesim.compute.fitted.check", SimpleNamespace(check=check))
    monkeypatch.setitem(sys.modules, "moesim.compute.fitted.fit", SimpleNamespace(fit=fit))
    return asked


def test_the_check_prints_errors_beside_their_bars(moesim, here, models):
    done = moesim("kernels", "check")
    held, fitted = (line.split() for line in done.out.splitlines()[-2:])
    assert held[:5] == ["dense", "h800", "42", "4", "held_out"] and models.check is None
    assert held[5:] == ["7.5", "%", "19.1", "%", "9.0", "%", "21.0", "%", "yes"] and fitted[-1] == "-"
    assert ["gemm", "fp8", "h800", "interpolated", "110", "10", "4.5", "%", "14.5", "%"] in map(
        str.split, done.out.splitlines()
    )
    rows = json.loads(moesim("kernels", "check", "--reference", here, "--json").out)
    assert rows[0] == ROW and models.check == here and rows[-1]["source"] == "interpolated"


def test_a_fit_is_printed_or_written(moesim, here, models):
    done = moesim("kernels", "fit", "--reference", "rows", "--family", "dense", "--out", "fitted.yaml")
    assert done.out == "fitted.yaml\n" and models.fit == ("rows", ["dense"])
    mark, _, written = (here / "fitted.yaml").read_text().partition("\n")
    assert (
        mark.startswith("# moesim, kernel model, ")
        and "family: dense" in written
        and re.search(r"t0: 4.07e-0?6", written)
    )
    assert moesim("kernels", "fit", "--reference", "rows").out == written and models.fit == ("rows", None)


def run_with(moesim, here, rows):
    (here / "mine.csv").write_text(table_text(rows))
    (here / "mine.yaml").write_text((here / "small.yaml").read_text() + "compute: {table: mine.csv}\n")
    done = moesim("run", "mine.yaml", "--out", "out", "-q")
    assert done.code == 0, done.err
    explanation = json.loads((here / "out" / "explanation.json").read_text())["explanation"]
    return (here / "out" / "report.html").read_text(), explanation["kernels"]


def first_screen(page):
    return page[page.index('<div class="screen">') : page.index('<section id="traffic">')]


@pytest.mark.jit
def test_a_hole_in_a_table_is_on_the_first_screen_of_the_report(moesim, here):
    page, kernels = run_with(moesim, here, [row for row in ROWS if row[0] <= 4])
    assert any(row["source"] == "extrapolated" and row["kernel"] == "grouped_gemm_fp8" for row in kernels)
    screen = " ".join(first_screen(page).split())
    share = re.search(r'<span class="badge degraded">degraded</span> (\d+) % of compute time is extrapolated', screen)
    assert share is not None and int(share[1]) > 0
    assert "grouped_gemm_fp8 extrapolated (error unknown)" in screen


@pytest.mark.jit
def test_no_compute_time_stands_in_a_report_without_its_source_and_error(moesim, here):
    page, kernels = run_with(moesim, here, ROWS)
    screen = " ".join(first_screen(page).split())
    assert "degraded" not in screen
    for row in kernels:
        assert row["kernel"] in screen and row["source"] in screen
    assert re.search(r"grouped_gemm_fp8(, dense_mlp_fp8)? (measured, )?interpolated ± [0-9.e-]+ %", screen)
    assert "mine.csv" in page[page.index('id="behind"') :]


def test_attention_of_a_table_is_priced_by_its_rows(moesim, here):
    header = "kernel,dtype,batch,kv_len,heads,kv_heads,head_dim,time_us,gpu"
    rows = [f"attn_decode,bf16,4,{kv},32,8,128,{20 + kv / 100},h100" for kv in (1024, 4096)]
    (here / "attention.csv").write_text("\n".join([header, *rows]))
    sizes = ("--batch", 4, "--kv-len", 4096, "--heads", 32, "--kv-heads", 8, "--head-dim", 128)
    answer = json.loads(moesim("kernels", "show", "attention.csv", "attn_decode", *sizes, "--json").out)
    assert (answer["seconds"], answer["source"]) == (pytest.approx(60.96e-6), "measured")
    # Keys and values of 8 heads, 128 wide, in BF16, and the queries and outputs of 32.
    assert answer["floor_s"] == pytest.approx(4 * (4096 * 8 + 32) * 2 * 128 * 2 / 3.35e12)

"""Tables of other tools: what each column means, what is refused and why, and what the table then says."""

import csv
from pathlib import Path

import numpy as np
import pytest

from moesim.compute import KernelTable, load_measured
from moesim.compute.gpus import load_gpu
from moesim.compute.importers import import_table
from moesim.compute.importers.records import device_is
from moesim.errors import InputError

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "kernels"


def write(folder, rows, name="rows.csv"):
    """Write rows (dicts of equal keys) as CSV, or as parquet by the ending of ``name``."""
    path = folder / name
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def key(row):
    return (row.kernel, row.dtype, row.fixed, row.outer, row.inner)


# aiconfigurator


def moe(**changes):
    row = {
        "framework": "SGLang", "version": "0.5.10", "device": "NVIDIA H100 80GB HBM3", "op_name": "moe_generation",
        "kernel_source": "deepepmoe", "moe_dtype": "fp8_block", "num_tokens": 4096, "hidden_size": 7168,
        "inter_size": 2048, "topk": 8, "num_experts": 256, "moe_tp_size": 1, "moe_ep_size": 16,
        "distribution": "uniform", "latency": 0.35,
    }  # fmt: skip
    return row | changes


def mla(**changes):
    row = {
        "framework": "SGLang", "version": "0.5.14", "device": "NVIDIA H100 80GB HBM3", "op_name": "mla_generation",
        "kernel_source": "flash_attention", "mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "num_heads": 128,
        "batch_size": 4, "isl": 1, "tp_size": 1, "step": 4095, "latency": 0.05,
    }  # fmt: skip
    return row | changes


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_aiconfigurators_tokens_are_of_all_ranks_and_its_times_milliseconds(tmp_path, name):
    # 4,096 tokens to 8 of 256 experts: 128 rows each, wherever they are; 16 of them on each of 16 ranks.
    made = import_table(write(tmp_path, [moe()], name), "h100")
    (row,) = made.rows
    assert key(row) == ("grouped_gemm", "fp8", (7168, 2048), 16, 128)
    assert (row.seconds, row.layout, made.format) == (pytest.approx(350e-6), "masked", "aiconfigurator")


def test_aiconfigurators_fused_rows_may_have_a_fraction_of_a_token_and_shards_of_an_expert(tmp_path):
    rows = [moe(op_name="moe", distribution="balanced", num_tokens=48, moe_ep_size=1, moe_tp_size=4, latency=1.3)]
    (row,) = import_table(write(tmp_path, rows), "h100").rows
    assert key(row) == ("grouped_gemm", "fp8", (7168, 512), 256, 1.5) and row.layout == ""


def test_aiconfigurators_mla_rows_count_the_new_token_to_the_cache(tmp_path):
    rows = [mla(), mla(kv_cache_dtype="fp8"), mla(op_name="mla_context", isl=1024, step=0, latency=5)]
    decode, small, prefill = import_table(write(tmp_path, rows), "h100").rows
    assert key(decode) == ("mla_decode", "bf16", (128,), 4, 4096)
    assert key(small) == ("mla_decode", "fp8", (128,), 4, 4096)
    assert key(prefill) == ("mla_prefill_absorbed", "bf16", (128,), 4, 1024) and prefill.seconds == 5e-3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (moe(device="NVIDIA H200"), "measured on NVIDIA H200, not on h100"),
        (moe(device=""), "measured on a device without a name, not on h100"),
        (
            moe(distribution="power_law_1.2"),
            "distribution power_law_1.2: the loads behind the time are not in the file",
        ),
        (moe(moe_dtype="int4_wo"), "moe_dtype int4_wo: tables hold bf16 and fp8"),
        (moe(num_tokens=16), "under one token per expert: how many experts got one is not in the file"),
        (moe(op_name="moe_context", num_tokens=2048), "context under 128 tokens per expert: only some"),
        (moe(op_name="moe_shared"), "op_name moe_shared is not a kernel of a table"),
        (moe(moe_ep_size=3), "the experts or their width do not divide among the ranks"),
        (moe(latency=0), "latency is not a number above 0"),
        (moe(latency="nan"), "latency is not a number above 0"),
        (moe(num_tokens="4096.5"), "num_tokens is not a whole number"),
        (moe(latency=0.2), "faster than the peaks of h100 allow"),  # 705 MB of weights take 210 us
    ],
)
def test_aiconfigurators_rows_are_refused_with_their_reason(tmp_path, row, reason):
    made = import_table(write(tmp_path, [moe(num_tokens=8192), row, row]), "h100")
    ((why, count),) = made.refused.items()
    assert why.startswith(reason) and count == 2 and (made.read, len(made.rows)) == (3, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (mla(op_name="mla_context", step=512), "prefill behind a cached prefix"),
        (mla(gemm_type=""), None),
        (mla(gemm_type="fp8_block"), "times a whole attention module, not the kernel alone"),
    ],
)
def test_mla_rows_of_modules_or_prefixes_are_refused(tmp_path, row, reason):
    good = mla(batch_size=2) | ({"gemm_type": ""} if "gemm_type" in row else {})
    made = import_table(write(tmp_path, [good, row]), "h100")
    assert list(made.refused) == ([] if reason is None else [reason])


def test_aiconfigurators_dense_gemms_and_attention_come_in_too(tmp_path):
    common = {"device": "NVIDIA H100 80GB HBM3", "kernel_source": "sglang", "latency": 0.1}
    gemm = {"op_name": "gemm", "gemm_dtype": "fp8_block", "m": 512, "n": 4096, "k": 7168} | common
    made = import_table(
        write(tmp_path, [gemm, gemm | {"gemm_dtype": "bfloat16"}, gemm | {"gemm_dtype": "fp8"}]), "h100"
    )
    assert [key(row) for row in made.rows] == [("gemm", dtype, (4096, 7168), 1, 512) for dtype in ("fp8", "bf16")]
    (reason,) = made.refused
    assert "one scale per tensor" in reason
    sizes = {"batch_size": 4, "isl": 1023, "step": 1, "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    decode = {"op_name": "generation_attention", "kv_cache_dtype": "bfloat16", "window_size": 0} | sizes | common
    prefill = decode | {"op_name": "context_attention", "step": 0}
    rows = [decode, prefill, prefill | {"step": 64}, decode | {"window_size": 128}]
    made = import_table(write(tmp_path, rows), "h100")
    assert [key(row) for row in made.rows] == [
        ("attn_decode", "bf16", (32, 8, 128), 4, 1024), ("attn_prefill", "bf16", (32, 8, 128), 4, 1023)
    ]  # fmt: skip
    assert made.refused == {"attention in a sliding window": 1, "prefill behind a cached prefix": 1}


def test_a_file_whose_rows_are_all_of_another_gpu_is_refused_and_says_so(tmp_path):
    (tmp_path / "h200").mkdir()
    path = write(tmp_path / "h200", [moe()])  # the folder says one thing, the rows another
    with pytest.raises(InputError, match="none of 1 rows can be taken; 1 x measured on NVIDIA H100 80GB HBM3, not on"):
        import_table(path, "h200")
    assert len(import_table(path, "h100").rows) == 1


def test_a_device_is_known_by_a_word_of_its_name():
    assert device_is("NVIDIA H100 80GB HBM3", load_gpu("h100")) and device_is("NVIDIA H20", load_gpu("h20"))
    assert not device_is("NVIDIA H200", load_gpu("h20")) and not device_is("NVIDIA GB200", load_gpu("b200"))


def test_masked_beside_contiguous_rows_have_to_be_chosen_from(tmp_path):
    path = write(tmp_path, [moe(), moe(op_name="moe_context", num_tokens=8192, latency=0.9)])
    with pytest.raises(InputError, match=r"rows.csv:3: masked \(line 2\) beside contiguous kernels .*--layout masked"):
        import_table(path, "h100")
    made = import_table(path, "h100", layout="contiguous")
    assert [row.layout for row in made.rows] == ["contiguous"] and made.refused == {"masked, not contiguous": 1}
    with pytest.raises(InputError, match="did you mean masked"):
        import_table(path, "h100", layout="maskd")


def test_duplicate_keys_are_refused_or_their_median_is_taken(tmp_path):
    rows = [mla(latency=latency) for latency in (0.05, 0.07, 0.052)]
    path = write(tmp_path, rows)
    with pytest.raises(InputError, match=r"rows.csv:3: 1 key stands there more than once.*lines 2 and 3; --duplicates"):
        import_table(path, "h100")
    made = import_table(path, "h100", duplicates="median")
    assert [row.seconds for row in made.rows] == [pytest.approx(52e-6)] and made.merged == 3
    assert any("3 rows share their key" in note for note in made.notes)


def test_keys_of_two_implementations_are_told_apart_by_name(tmp_path):
    path = write(tmp_path, [mla(), mla(kernel_source="fa3", latency=0.06)])
    with pytest.raises(InputError, match="--duplicates median, or --impl fa3"):
        import_table(path, "h100")
    made = import_table(path, "h100", impl="fa3")
    assert made.rows[0].seconds == pytest.approx(60e-6)
    assert made.refused == {"computed by flash_attention, not by fa3": 1}


# InferSim


def grouped(**changes):
    row = {
        "num_experts": 256, "num_gpus": 32, "num_local_experts": 8, "topk": 8, "hidden_size": 7168,
        "intermediate_size": 2048, "batch_size_per_gpu": 128, "tokens_per_expert": 128, "up_proj_us": 100.0,
        "up_mfu": 0.0, "down_proj_us": 60.0, "down_mfu": 0.0,
    }  # fmt: skip
    return row | changes


def test_infersims_masked_rows_ran_with_the_rows_that_their_mfu_counts(tmp_path):
    # 120 rows on each of 8 experts: 2 * 8 * 120 * 4096 * 7168 = 56.37 GFLOP in 100 us are 28.5 % of 1,979 TFLOP/s.
    up = 2 * 8 * 120 * 4096 * 7168 / 100e-6 / 1979e12
    down = 2 * 8 * 120 * 7168 * 2048 / 60e-6 / 1979e12
    assert up == pytest.approx(0.2849, abs=1e-4)
    (row,) = import_table(write(tmp_path, [grouped(up_mfu=up, down_mfu=down)]), "h800").rows
    assert key(row) == ("grouped_gemm", "fp8", (7168, 2048), 8, pytest.approx(120)) and row.layout == "masked"
    # SwiGLU reads two BF16 values and writes an FP8 one with its share of a scale: 960 rows, 5 * 2048 bytes and more.
    swiglu = row.seconds - 160e-6
    assert 960 * 2048 * 5 / 3.35e12 < swiglu < 10e-6


def test_infersims_contiguous_rows_say_what_they_ran_with(tmp_path):
    row = {"seq_len_per_gpu" if name == "batch_size_per_gpu" else name: value for name, value in grouped().items()}
    (row,) = import_table(write(tmp_path, [row | {"tokens_per_expert": 512, "up_proj_us": 200.0}]), "h800").rows
    assert key(row) == ("grouped_gemm", "fp8", (7168, 2048), 8, 512) and row.layout == "contiguous"


def test_infersims_attention_takes_its_heads_from_the_name(tmp_path):
    decode = [{"dtype": "bf16", "kv_dtype": "bf16", "batch_size": 16, "kv_len": 4096, "latency_us": 70.0, "mfu": 0.4}]
    (row,) = import_table(write(tmp_path, decode, "128-512-64.csv"), "h800").rows
    assert key(row) == ("mla_decode", "bf16", (128,), 16, 4096) and row.seconds == pytest.approx(70e-6)
    prefill = [{"dtype": "bf16", "seq_len": 4096, "latency_us": 1104.7, "mfu": 0.629}]
    (row,) = import_table(write(tmp_path, prefill, "128-128-64.csv"), "h800").rows
    assert key(row) == ("mla_prefill", "bf16", (128,), 1, 4096)
    with pytest.raises(InputError, match="attention other than MLA"):
        import_table(write(tmp_path, decode, "32-8-128.csv"), "h800")


def test_infersims_gemms_are_dense(tmp_path):
    rows = [{"m": 64, "k": 7168, "n": 1536, "latency_us": 13.5, "mfu": 0.05}]
    (row,) = import_table(write(tmp_path, rows), "h800").rows
    assert key(row) == ("gemm", "fp8", (1536, 7168), 1, 64)


def test_a_file_without_a_device_is_believed_unless_its_path_names_another_gpu(tmp_path):
    (tmp_path / "h20").mkdir()
    rows = [{"m": 64, "k": 7168, "n": 1536, "latency_us": 13.5, "mfu": 0.05}]
    with pytest.raises(InputError, match="the path says h20, but h800 is asked for"):
        import_table(write(tmp_path / "h20", rows), "h800")
    made = import_table(write(tmp_path, rows), "h800")
    assert any("h800 was given" in note for note in made.notes)


# Vidur


def test_vidurs_gated_mlp_is_the_sum_of_its_three_medians(tmp_path):
    row = {
        "time_stats.mlp_up_proj.median": 0.3, "time_stats.mlp_act.median": 0.03,
        "time_stats.mlp_down_proj.median": 0.2, "n_head": 32, "n_kv_head": 32, "n_embd": 4096,
        "n_expanded_embd": 22016, "use_gated_mlp": True, "num_tokens": 512, "num_tensor_parallel_workers": 2,
    }  # fmt: skip
    made = import_table(write(tmp_path, [row, row | {"use_gated_mlp": False}]), "h100")
    (own,) = made.rows
    assert key(own) == ("dense_mlp", "bf16", (4096, 11008), 1, 512) and own.seconds == pytest.approx(530e-6)
    assert made.refused == {"an MLP without a gate": 1}


def test_vidurs_attention_is_of_one_workers_heads(tmp_path):
    row = {
        "time_stats.attn_decode.median": 0.05, "time_stats.attn_prefill.median": "", "n_embd": 8192, "n_q_head": 64,
        "n_kv_head": 8, "num_tensor_parallel_workers": 2, "batch_size": 4, "prefill_chunk_size": 0,
        "kv_cache_size": 4096, "is_prefill": False, "attention_backend": "AttentionBackend.FLASH_ATTENTION",
    }  # fmt: skip
    prefill = {"is_prefill": True, "time_stats.attn_prefill.median": 0.4, "time_stats.attn_decode.median": ""}
    rows = [row, row | prefill | {"kv_cache_size": 0, "prefill_chunk_size": 1024, "batch_size": 1}, row | prefill]
    made = import_table(write(tmp_path, rows), "h100")
    assert [key(own) for own in made.rows] == [
        ("attn_decode", "bf16", (32, 4, 128), 4, 4096),
        ("attn_prefill", "bf16", (32, 4, 128), 1, 1024),
    ]
    assert made.refused == {"prefill behind a cached prefix": 1}


# moesim profile


def profile(**changes):
    row = dict.fromkeys(
        ("schema_version", "kernel", "impl", "dtype", "variant", "tokens", "tokens_per_expert", "experts_local",
         "hidden", "inter", "topk", "load_shape", "cache", "median_us", "status", "batch", "kv_len", "heads",
         "largest_load", "experts_hit", "device"), "",
    )  # fmt: skip
    row |= {"schema_version": 1, "status": "ok", "cache": "cold", "impl": "torch", "device": "NVIDIA H100 80GB HBM3"}
    return row | changes


MLP = {"kernel": "expert_mlp", "dtype": "bf16", "tokens": 1024, "experts_local": 8, "hidden": 2048, "inter": 1408,
       "load_shape": "balanced", "experts_hit": 8, "largest_load": 128, "median_us": 120.0}  # fmt: skip
ONE = {"impl": "torch+triton"}


def test_a_profiles_columns_are_those_that_its_package_writes():
    columns = pytest.importorskip("moesim.profile.csv_columns")
    assert set(profile()) <= set(columns.COLUMNS)
    assert {"expert_mlp", "dense_mlp", "dense_gemm", "router", "permute", "quantize_fp8", "mla_decode", "mla_prefill",
            "mha_decode", "gqa_prefill", "grouped_gemm_up", "swiglu"} <= set(columns.KERNELS)  # fmt: skip
    assert str(columns.SCHEMA_VERSION) == "1"


def test_a_profiles_expert_rows_know_their_loads(tmp_path):
    rows = [
        profile(**MLP),
        profile(**MLP | {"load_shape": "zipf1.2", "largest_load": 452, "median_us": 150.0}),
        profile(**MLP | {"load_shape": "one-hot", "largest_load": 1024, "experts_hit": 1}),
        profile(**MLP | {"cache": "hot", "median_us": 90.0}),
        profile(**MLP | {"tokens": 4, "experts_hit": 4, "largest_load": 1, "median_us": 60.0}),
    ]
    made = import_table(write(tmp_path, rows), "h100")
    balanced, zipf, hot, few = made.rows
    assert key(balanced) == ("grouped_gemm", "bf16", (2048, 1408), 8, 128)
    assert (zipf.load_shape, zipf.max_over_mean, zipf.inner) == ("zipf1.2", 452 / 128, 128)
    assert (hot.cache, hot.seconds) == ("hot", pytest.approx(90e-6))
    assert (few.outer, few.inner) == (4, 1)  # four experts with a token each, four with none
    assert list(made.refused) == ["one-hot: one expert has all rows, as in the balanced rows of one expert"]


def test_a_profiles_other_kernels(tmp_path):
    rows = [
        profile(kernel="dense_mlp", dtype="fp8", tokens=64, hidden=7168, inter=2048, median_us=40.0),
        profile(kernel="dense_gemm", dtype="bf16", tokens=64, hidden=7168, inter=2048, median_us=50.0),
        profile(kernel="router", dtype="bf16", tokens=64, hidden=7168, experts_local=256, topk=8, median_us=20.0),
        profile(kernel="permute", dtype="fp8", tokens=64, hidden=7168, topk=8, median_us=9.0),
        profile(kernel="permute", dtype="bf16", tokens=64, hidden=7168, topk=8, median_us=15.0),
        profile(kernel="quantize_fp8", dtype="bf16", tokens=64, hidden=7168, median_us=5.0),
        profile(kernel="mla_decode", dtype="bf16", tokens=1, batch=4, kv_len=4096, heads=128, median_us=60.0),
        profile(kernel="gqa_prefill", dtype="bf16", tokens=512, batch=1, kv_len=512, heads=64, median_us=60.0),
    ]
    assert [key(row) for row in import_table(write(tmp_path, rows), "h100").rows] == [
        ("dense_mlp", "fp8", (7168, 2048), 1, 64),
        ("gemm", "bf16", (4096, 7168), 1, 64),
        ("router", "bf16", (7168, 256, 8), 1, 64),
        ("permute", "fp8", (), 7168, 512),
        ("permute", "bf16", (), 14336, 512),
        ("quantize_fp8", "fp8", (7168,), 1, 64),
        ("mla_decode", "bf16", (128,), 4, 4096),
        ("attn_prefill", "bf16", (64, 8, 128), 1, 512),
    ]


def test_of_several_implementations_in_a_profile_the_fastest_counts(tmp_path):
    rows = [
        profile(**MLP | {"median_us": 130.0}),
        profile(**MLP | ONE),
        profile(**MLP | {"impl": "b", "median_us": 140}),
    ]
    made = import_table(write(tmp_path, rows), "h100")
    assert [row.seconds for row in made.rows] == [pytest.approx(120e-6)]
    assert made.refused == {f"a slower implementation of the same shape ({impl})": 1 for impl in ("b", "torch")}
    assert import_table(write(tmp_path, rows), "h100", impl="torch").rows[0].seconds == pytest.approx(130e-6)
    with pytest.raises(InputError, match="1 key stands there more than once"):
        import_table(write(tmp_path, [*rows, profile(**MLP | ONE)]), "h100")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "unsupported: no fp8"}, "not timed: unsupported"),
        ({"status": "wrong: 0.3"}, "not timed: wrong"),
        ({"schema_version": "2"}, "schema_version 2: this version reads 1"),
        ({"cache": "warm"}, "cache warm: a table has cold and hot"),
        ({"kernel": "grouped_gemm_up"}, "grouped_gemm_up: a part of expert_mlp, whose rows are taken"),
        ({"kernel": "anchor_copy"}, "kernel anchor_copy is not one that a table has"),
        ({"device": "cpu"}, "measured on cpu, not on h100"),
    ],
)
def test_a_profiles_rows_are_refused_with_their_reason(tmp_path, changes, reason):
    made = import_table(write(tmp_path, [profile(**MLP), profile(**MLP | {"tokens": 2048} | changes)]), "h100")
    assert made.refused == {reason: 1}


# All formats


def test_the_table_says_where_it_is_from_and_reads_back_as_it_was_made(tmp_path):
    rows = [moe(num_tokens=tokens, latency=0.3 + tokens / 1e5) for tokens in (256, 512, 1024, 2048, 4096, 8192)]
    made = import_table(write(tmp_path, [*rows, moe(distribution="power_law_0.6")]), "h100")
    path = tmp_path / "table.csv"
    path.write_text(made.text())
    head = [line for line in made.text().splitlines() if line.startswith("# ")]
    assert head[0] == "# kernel times of NVIDIA H100 SXM5, imported by moesim from rows.csv (aiconfigurator)"
    assert head[1].endswith(made.digest) and len(made.digest) == 64
    assert head[2] == "# 7 rows read, 6 in this table, 0 merged, 1 refused"
    assert head[-1].startswith("# leave-one-out: grouped_gemm fp8 7168 2048: ") and "of 4 points (linear)" in head[-1]
    table = KernelTable.load(path)
    for row in made.rows:
        loads = [int(row.inner)] * int(row.outer)
        time = table.time("grouped_gemm_fp8", tokens_per_expert=loads, hidden=7168, inter=2048)
        assert (time.seconds, time.source) == (pytest.approx(row.seconds, rel=1e-8), "measured")
    assert load_measured(path).layouts == dict.fromkeys(load_measured(path).surfaces, "masked")


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"a": 1}], {}, "a table in no known format; known: profile, aiconfigurator, infersim, vidur"),
        ([moe()], {"format": "vidur"}, "not a table of vidur; it has columns num_tensor_parallel_workers, n_embd"),
        ([moe()], {"format": "vidru"}, "unknown format 'vidru'; did you mean vidur?"),
        ([{"kernel": "gemm", "dtype": "fp8", "seconds": 1}], {}, "this is a kernel table already"),
    ],
)
def test_a_file_that_cannot_be_read_as_asked_says_what_would_fit(tmp_path, rows, options, says):
    with pytest.raises(InputError) as refused:
        import_table(write(tmp_path, rows), "h100", **options)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "gone.csv", "gone.parquet"])
def test_a_broken_or_missing_file_is_one_line(tmp_path, name):
    if name.startswith("rows"):
        (tmp_path / name).write_bytes(b'op_name,kernel_source,latency\n"moe')
    with pytest.raises(InputError) as refused:
        import_table(tmp_path / name, "h100")
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_a_row_that_is_too_short_is_refused_with_its_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("op_name,kernel_source,latency\nmoe,x,1\nmoe,x\n")
    with pytest.raises(InputError, match=r"rows.csv:3: 2 fields where the header has 3"):
        import_table(path, "h100")


# The published tables


@pytest.mark.parametrize(
    ("file", "gpu", "options", "rows", "refused"),
    [
        ("aic_sglang_fused_moe_h100_h200.csv", "h100", {}, 751, 15),
        ("aic_sglang_fused_moe_h100_h200.csv", "h200", {}, 751, 15),
        ("aic_mla_decode_kernel_h100_h200.csv", "h100", {"duplicates": "median"}, 362, 0),
        ("aic_wideep_moe_grouped_gemm_dsv3_h100_h200.csv", "h200", {"layout": "masked"}, 50, 0),
        ("aic_wideep_moe_grouped_gemm_dsv3_h100_h200.csv", "h100", {"layout": "contiguous"}, 50, 0),
        ("infersim_h20_grouped_gemm_decode.csv", "h20", {}, 259, 0),
        ("infersim_h800_mla_decode_128h_512_64.csv", "h800", {}, 41, 0),
        ("infersim_h800_gemm.csv", "h800", {}, 110, 0),
    ],
)
def test_published_tables_come_in_with_what_is_known_to_be_wrong_left_out(file, gpu, options, rows, refused):
    if not (REFERENCE / file).exists():
        pytest.skip("published tables are not here")
    made = import_table(REFERENCE / file, gpu, **options)
    assert len(made.rows) == rows
    # 15 rows of the fused kernel at one rank beat the memory of both GPUs; no other published row does.
    assert made.refused.get(f"faster than the peaks of {gpu} allow", 0) == refused
    assert all(np.isfinite(row.seconds) for row in made.rows)


def test_the_mfu_of_published_masked_rows_agrees_for_both_projections():
    """Up and down projection ran with draws of the same mean: what their MFUs count differs by a few per cent."""
    path = REFERENCE / "infersim_h800_grouped_gemm_decode.csv"
    if not path.exists():
        pytest.skip("published tables are not here")
    with path.open() as file:
        nominal = [float(row["tokens_per_expert"]) for row in csv.DictReader(file)]
    ran = [row.inner for row in import_table(path, "h800").rows]
    assert len(ran) == len(nominal) - 1  # one token per expert, of which half got none
    ratios = np.array(ran) / np.array(nominal[1:])
    assert ratios.min() > 0.7 and ratios.max() < 1.3 and 0.9 < np.median(ratios) < 1.05

"""``moesim kernels``: where compute times come from, how far they can be trusted, and tables of the user's own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

_GPU_OF_TABLE = typer.Option(
    None, "--gpu", help="The GPU that a CSV table was measured on, if the table does not name it."
)
_TABLE = typer.Argument(..., help="A GPU, or the path of a CSV table.")
_KERNEL = (
    "grouped_gemm, expert_gemm, dense_mlp and gemm with _bf16 or _fp8; router, permute, quantize_fp8, mla_decode, "
    "mla_prefill, mla_prefill_absorbed, attn_decode, attn_prefill."
)
_JSON = typer.Option(False, "--json", help="Print the answer as JSON.")
# Sizes that a kernel's time depends on, under the names of a table's columns.
_TOKENS_PER_EXPERT = typer.Option(None, "--tokens-per-expert", min=1, help="Rows of each expert.")
_EXPERTS = typer.Option(None, "--experts", min=1, help="Experts on the GPU that got tokens; default 1.")
_HIDDEN = typer.Option(None, "--hidden", min=1, help="Hidden size; default DeepSeek-V3's 7168.")
_INTER = typer.Option(None, "--inter", min=1, help="Width of one expert; default DeepSeek-V3's 2048.")
_TOKENS = typer.Option(None, "--tokens", min=1, help="Tokens: of gemm, router, quantize_fp8.")
_N = typer.Option(None, "--n", min=1, help="Columns of a gemm's output.")
_K = typer.Option(None, "--k", min=1, help="Columns of a gemm's input.")
_N_EXPERTS = typer.Option(None, "--n-experts", min=1, help="Experts that the router chooses among; default 256.")
_TOP_K = typer.Option(None, "--top-k", min=1, help="Experts per token; default 8.")
_ROWS = typer.Option(None, "--rows", min=1, help="Rows that are permuted.")
_ROW_BYTES = typer.Option(None, "--row-bytes", min=1, help="Bytes of one such row; default 14336.")
_BATCH = typer.Option(None, "--batch", min=1, help="Sequences of attention; default 1.")
_KV_LEN = typer.Option(None, "--kv-len", min=1, help="Cached tokens of each sequence, the new ones included.")
_HEADS = typer.Option(None, "--heads", min=1, help="Query heads; default 128.")
_KV_HEADS = typer.Option(None, "--kv-heads", min=1, help="Heads of keys and values, of attn_decode and attn_prefill.")
_LAYOUT = typer.Option(None, "--layout", help="Of grouped GEMMs: masked, contiguous, or by their size (default).")
_HEAD_DIM = typer.Option(None, "--head-dim", min=1, help="Width of an attention head.")


group = typer.Typer(name="kernels", help="Kernel tables: where compute times come from.", invoke_without_command=True)


@group.callback()
def kernels_alone(context: typer.Context) -> None:
    """Where compute times come from, how far to trust them, and your own tables; without a sub-verb, lists them.

    Example: moesim kernels
    """
    if context.invoked_subcommand is None:
        kernels_list(as_json=False)


@group.command("list")
def kernels_list(as_json: bool = _JSON) -> None:
    """List the GPUs whose kernel times are known, and on what evidence.

    Example: moesim kernels list
    """
    from moesim.cli.kernels_show import print_rows
    from moesim.compute import KernelTable, gpus

    rows = [{"gpu": name, **evidence} for name in gpus() for evidence in KernelTable.load(name).sources()]
    print_rows(rows, as_json)


@group.command("show")
def kernels_show(
    name: str = _TABLE,
    kernel: str | None = typer.Argument(None, help=_KERNEL),
    gpu: str | None = _GPU_OF_TABLE,
    tokens_per_expert: int | None = _TOKENS_PER_EXPERT,
    experts: int | None = _EXPERTS,
    hidden: int | None = _HIDDEN,
    inter: int | None = _INTER,
    tokens: int | None = _TOKENS,
    n: int | None = _N,
    k: int | None = _K,
    n_experts: int | None = _N_EXPERTS,
    top_k: int | None = _TOP_K,
    rows: int | None = _ROWS,
    row_bytes: int | None = _ROW_BYTES,
    batch: int | None = _BATCH,
    kv_len: int | None = _KV_LEN,
    heads: int | None = _HEADS,
    kv_heads: int | None = _KV_HEADS,
    head_dim: int | None = _HEAD_DIM,
    layout: str | None = _LAYOUT,
    as_json: bool = _JSON,
) -> None:
    """Show the kernels of a table with source, range and error; or, given sizes, one kernel's time.

    Example: moesim kernels show h100 grouped_gemm_fp8 --tokens-per-expert 256 --experts 8
    """
    from moesim.cli.kernels_show import own_rows, print_rows, print_time
    from moesim.compute import KernelTable
    from moesim.compute.gpus import nearest
    from moesim.compute.table_format import AXES
    from moesim.errors import InputError

    sizes = _given(
        tokens_per_expert=tokens_per_expert, experts=experts, hidden=hidden, inter=inter, tokens=tokens, n=n, k=k,
        n_experts=n_experts, top_k=top_k, rows=rows, row_bytes=row_bytes, batch=batch, kv_len=kv_len, heads=heads,
        kv_heads=kv_heads, head_dim=head_dim, layout=layout,
    )  # fmt: skip
    table = KernelTable.load(name, gpu=gpu)
    if gpu is not None and table.measured is None:
        raise InputError(f"{name} is a GPU itself", "--gpu", "leave it out")
    if kernel is None:
        if sizes:
            raise InputError("sizes without a kernel", "KERNEL", f"one of: {', '.join(table.kernels)}")
        print_rows(own_rows(table) or table.describe(), as_json)
        return
    if kernel not in (*table.kernels, *AXES, "expert_gemm_bf16", "expert_gemm_fp8"):
        raise InputError(f"unknown kernel {kernel!r}", "KERNEL", nearest(kernel, table.kernels))
    if sizes:
        print_time(table, kernel, sizes, as_json)
        return
    known = [row for row in (*own_rows(table), *table.describe()) if row["kernel"] == kernel]
    print_rows(known, as_json)


@group.command("check")
def kernels_check(
    as_json: bool = _JSON,
) -> None:
    """Compare kernel times with measured rows: by GPU, kernel and source.

    First the tables that ship: each row is priced with its whole series left out, from the series beside it
    (interpolated) or, where those do not reach, by a model (fitted, extrapolated). Then the fitted models, on the rows
    that they were fitted on and on those held out, as stored with the fit.

    Example: moesim kernels check
    """
    from moesim.cli.kernels_show import print_rows, share
    from moesim.compute import gpus
    from moesim.compute.fitted.coefficients import stored_check
    from moesim.compute.left_out import check_series

    series, models = [asdict(row) for row in check_series(gpus())], stored_check()
    if as_json:
        print_rows((*models, *series), as_json)
        return
    for row in series:
        row |= {name: share(row[name]) for name in ("median", "p90")}
    for row in models:
        row |= {name: share(row[name]) for name in ("median", "p90", "bar_median", "bar_p90")}
        row["meets"] = {True: "yes", False: "no"}.get(row["meets"], "-")
    print_rows(series, as_json)
    print_rows(models, as_json)


@group.command("import")
def kernels_import(
    file: Path = typer.Argument(..., help="CSV or parquet file of another tool, or a profile."),
    gpu: str = typer.Option(..., "--gpu", help="The GPU it was measured on; rows of another are refused."),
    out: Path = typer.Option(..., "--out", help="CSV table to write, for compute.table of a scenario."),
    format: str = typer.Option("auto", "--format", help="aiconfigurator, infersim, vidur, profile, or auto."),
    impl: str | None = typer.Option(None, "--impl", help="Take only rows of this implementation."),
    layout: str | None = typer.Option(None, "--layout", help="Take only masked or only contiguous grouped GEMMs."),
    duplicates: str = typer.Option("refuse", "--duplicates", help="Duplicate keys: refuse, or take the median."),
    as_json: bool = _JSON,
) -> None:
    """Turn measured kernel times of another tool, or a profile, into a table for ``compute.table``.

    Example: moesim kernels import moe_perf.parquet --gpu h200 --out h200.csv
    """
    from moesim.cli.kernels_show import print_import
    from moesim.compute.gpus import nearest
    from moesim.compute.importers import import_table
    from moesim.errors import InputError
    from moesim.files import check_replaceable, marked, write_files

    if duplicates not in ("refuse", "median"):
        raise InputError(f"unknown choice {duplicates!r}", "--duplicates", nearest(duplicates, ("refuse", "median")))
    check_replaceable(out, "kernel table")
    made = import_table(file, gpu, format, impl, layout, "median" if duplicates == "median" else "refuse")
    write_files(out.parent, {out.name: marked("kernel table", made.text().encode())})
    print_import(made, out, as_json)


@group.command("plot")
def kernels_plot(
    name: str = typer.Argument(..., help="A GPU."),
    kernel: str = typer.Argument(..., help=_KERNEL),
    out: Path = typer.Option(..., "--out", help="Picture to write: .svg or .png."),
    table: Path | None = typer.Option(None, "--table", help="CSV table whose points and curve are drawn too."),
    experts: int | None = _EXPERTS,
    hidden: int | None = _HIDDEN,
    inter: int | None = _INTER,
    n: int | None = _N,
    k: int | None = _K,
    n_experts: int | None = _N_EXPERTS,
    top_k: int | None = _TOP_K,
    row_bytes: int | None = _ROW_BYTES,
    batch: int | None = _BATCH,
    heads: int | None = _HEADS,
    kv_heads: int | None = _KV_HEADS,
    head_dim: int | None = _HEAD_DIM,
    layout: str | None = _LAYOUT,
) -> None:
    """Draw a kernel's time and TFLOP/s over its size: measured points, the model with its band, the floor.

    Example: moesim kernels plot h100 grouped_gemm_fp8 --hidden 7168 --inter 2048 --experts 8 --out plot.svg
    """
    from moesim.cli.kernels_show import picture
    from moesim.compute import KernelTable
    from moesim.errors import InputError
    from moesim.files import PICTURE, check_replaceable, write_files

    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise InputError(f"cannot draw a {out.suffix or 'file without an ending'}", "--out", "NAME.svg or NAME.png")
    check_replaceable(out, PICTURE)
    sizes = _given(
        experts=experts, hidden=hidden, inter=inter, n=n, k=k, n_experts=n_experts, top_k=top_k, row_bytes=row_bytes,
        batch=batch, heads=heads, kv_heads=kv_heads, head_dim=head_dim, layout=layout,
    )  # fmt: skip
    model = KernelTable.load(name)
    measured = None if table is None else KernelTable.load(table, gpu=model.gpu.name)
    write_files(out.parent, {out.name: picture(model, measured, kernel, sizes)[kind]})
    typer.echo(str(out))


def _given(**sizes: int | str | None) -> dict[str, Any]:
    return {name: size for name, size in sizes.items() if size is not None}

"""A kernel's time over its size, for drawing: the price with its band, the floor, the FLOPs, the measured points."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.compute import published_tables
from moesim.compute.interpolate import Curve, Grid
from moesim.compute.kernel_table import KernelTable
from moesim.compute.measured import MeasuredTable
from moesim.compute.roofline import Floats
from moesim.compute.surfaces import Shape, mlp_floor
from moesim.compute.table_format import AXES, MLP, OVER_EXPERTS, kernel_work
from moesim.compute.times import KernelTime
from moesim.errors import InputError

# Sizes of DeepSeek-V3's MoE layer and attention, for those that a caller leaves out.
V3_SIZES = {"hidden": 7168, "inter": 2048, "n_experts": 256, "top_k": 8, "heads": 128, "experts": 1, "batch": 1,
            "row_bytes": 14336}  # fmt: skip
_LONGEST = {"tokens_per_expert": 8192, "tokens": 32768, "rows": 262144, "kv_len": 131072}


@dataclass(frozen=True)
class KernelCurve:
    """One kernel's times over ``x[points]``, all arrays alike.

    ``low`` and ``high`` are the seconds at the stated relative error, NaN where none is known; ``source`` says
    where each time comes from; ``floor`` is what the GPU's peaks allow and ``flops`` what is computed.
    """

    kernel: str
    axis: str
    sizes: dict[str, int]
    x: Floats
    seconds: Floats
    low: Floats
    high: Floats
    source: tuple[str, ...]
    floor: Floats
    flops: Floats


def split_name(kernel: str) -> tuple[str, str]:
    """Return what tables call a kernel, and its number format: grouped_gemm and fp8 of grouped_gemm_fp8."""
    stem, _, dtype = kernel.rpartition("_")
    return (stem, dtype) if stem in (*OVER_EXPERTS, "gemm") else (kernel, "bf16")


def call_of(kernel: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `KernelTable.time` for sizes under the names that tables use.

    Raises:
        InputError: a size of the kernel is missing.
    """
    stem, _ = split_name(kernel)
    if stem not in AXES:
        return dict(sizes)
    given = {name: sizes[name] for name in sizes if sizes[name] is not None}
    for column in AXES[stem].columns:
        if column not in given and column not in V3_SIZES:
            raise InputError(f"{kernel} needs {column}", kernel, f"--{column.replace('_', '-')} NUMBER")
    named = {**V3_SIZES, **given}
    own: dict[str, Any]
    columns: tuple[str, ...]
    match stem:
        case "grouped_gemm":
            own = {"tokens_per_expert": [named["tokens_per_expert"]] * int(named["experts"])}
            columns = ("hidden", "inter")
        case "dense_mlp":
            own, columns = {"tokens": named["tokens_per_expert"]}, ("hidden", "inter")
        case "expert_gemm":
            own = {"rows": [named["tokens_per_expert"]] * int(named["experts"])}
            columns = ("n", "k")
        case "gemm":
            own, columns = {"rows": [named["tokens"]], "layout": "dense"}, ("n", "k")
        case "mla_prefill" | "mla_prefill_absorbed":
            tokens = named["batch"] * named["kv_len"]
            own, columns = {"tokens": tokens, "sequences": named["batch"]}, ("kv_len", "heads")
        case _:
            own, columns = {}, AXES[stem].columns
    rest = {name: value for name, value in given.items() if name not in AXES[stem].columns}
    return {**own, **{column: named[column] for column in columns}, **rest}


def priced(table: KernelTable, kernel: str, sizes: Mapping[str, Any]) -> KernelTime:
    """Return the time of a kernel under the name that tables use, for sizes as in `call_of`.

    Raises:
        InputError: also for a kernel that nothing but rows of a table can price, where the table has none.
    """
    call = call_of(kernel, sizes)
    if kernel == "mla_prefill_absorbed":
        return table.time("mla_prefill", **call, form="absorbed")
    if kernel in table.kernels:
        return table.time(kernel, **call)
    stem, dtype = split_name(kernel)
    if stem == "expert_gemm":
        return table.time(f"gemm_{dtype}", **call)
    own = table.measured.times(kernel, call) if table.measured is not None else None
    if own is None:
        own = published_tables.times(table.published, kernel, call)
    if own is None:
        raise InputError(f"{kernel} needs rows of a table", table.name, "moesim has no model of it")
    return own.one()


def kernel_curve(table: KernelTable, kernel: str, sizes: Mapping[str, Any], x: Floats | None = None) -> KernelCurve:
    """Return a kernel's times at ``x``, or at powers of two up to a usual size.

    Args:
        table: what prices it.
        kernel: a name of `KernelTable.kernels` that tables can hold.
        sizes: the columns of its rows but the one it runs over, those of DeepSeek-V3 where left out; what else
            `KernelTable.time` knows of it goes through, such as the layout of grouped GEMMs.
        x: whole numbers, ascending.
    """
    stem, dtype = split_name(kernel)
    if stem not in AXES:
        raise InputError(f"{kernel} has no curve", kernel, f"one of: {', '.join(sorted(AXES))}")
    axes = AXES[stem]
    named = {**V3_SIZES, **sizes}
    if x is None:
        x = np.unique(np.rint(np.geomspace(1, _LONGEST[axes.inner], 4 * int(np.log2(_LONGEST[axes.inner])) + 1)))
    times = [priced(table, kernel, {**sizes, axes.inner: int(at)}) for at in x]
    seconds = np.array([time.seconds for time in times])
    errors = np.array([np.nan if time.error is None else time.error for time in times])
    fixed = [int(named[column]) for column in axes.fixed]
    outer = float(named[axes.outer]) if axes.outer else 1.0
    if stem in MLP:
        floor = outer * mlp_floor(table.gpu, x[:, None], fixed[0], fixed[1], dtype)
        flops = 6.0 * outer * x * fixed[0] * fixed[1]
    else:
        work = kernel_work(stem, dtype, fixed, outer, x)
        floor, flops = work.floor(table.gpu), np.broadcast_to(work.flops, x.shape)
    shown = {column: int(named[column]) for column in axes.columns if column != axes.inner}
    sources = tuple(time.source for time in times)
    low, high = np.maximum(seconds * (1 - errors), floor), seconds * (1 + errors)
    return KernelCurve(kernel, axes.inner, shown, x, seconds, low, high, sources, floor, flops)


def measured_points(measured: MeasuredTable, kernel: str, sizes: Mapping[str, int]) -> dict[str, Curve]:
    """Return the points of a table on a kernel's curve, by cache state (cold, hot).

    Raises:
        InputError: the table has none there, with the places of the outer axis where it has some.
    """
    stem, dtype = split_name(kernel)
    axes = AXES[stem]
    fixed = tuple(int(sizes[column]) for column in axes.fixed)
    grids: dict[str, Grid] = {}
    if stem in OVER_EXPERTS:
        shape = Shape(stem, dtype, *fixed)
        for cache, surfaces in (("cold", measured.surfaces), ("hot", measured.hot)):
            if shape in surfaces:
                grids[cache] = surfaces[shape].grid
    elif (key := (stem, "" if stem == "permute" else dtype, fixed)) in measured.grids:
        grids["cold"] = measured.grids[key]
    outer = float(sizes[axes.outer]) if axes.outer else 1.0
    points = {cache: grid.curves[i] for cache, grid in grids.items() for i in np.flatnonzero(grid.outer == outer)}
    if not points:
        shown = ", ".join(f"{column} {size}" for column, size in sizes.items())
        known = sorted({f"{place:g}" for grid in grids.values() for place in grid.outer}, key=float)
        fix = f"{axes.outer} with rows: {', '.join(known)}" if known else "see moesim kernels show TABLE"
        raise InputError(f"no rows of {kernel} with {shown}", measured.path, fix)
    return points

"""How far the shipped tables are from their own rows when a row's whole series is taken out first.

A series is one curve: the rows of a kernel and shape with one number of experts (or batch) and one load; of rows that
were worked out, those of one number of tokens; of a kernel with one axis, as a dense GEMM, all rows of its shape.
Its rows are then priced as a scenario would price them:
between the series that are left (`interpolated`), or where those do not reach, by a fitted model. The models have seen
two thirds of the rows; their own held-out error is that of `refit.kernel_check`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from moesim.compute import published_tables
from moesim.compute.curves import priced, split_name
from moesim.compute.gpus import Gpu, load_gpu
from moesim.compute.kernel_table import KernelTable
from moesim.compute.measured import measured_of, read_table_file
from moesim.compute.table_format import AXES, BALANCED, MLP, OVER_EXPERTS, Row
from moesim.compute.table_reading import read_rows
from moesim.compute.times import SOURCES


@dataclass(frozen=True)
class SeriesCheck:
    """Relative errors of one kernel's rows on one GPU whose price came from ``source``: median, 90th percentile."""

    kernel: str
    gpu: str
    source: str
    rows: int
    series: int
    median: float
    p90: float


def check_series(gpus: Iterable[str]) -> list[SeriesCheck]:
    """Return one line per GPU, kernel and source of the prices, with the relative error of its rows."""
    lines = []
    for name in gpus:
        gpu = load_gpu(name)
        for kind in published_tables.KINDS:
            file = published_tables.FOLDER / f"{name}-{kind}.csv"
            if file.is_file():
                rows = [row for row, _ in read_rows(read_table_file(file), str(file), gpu).rows]
                lines += _check(gpu, kind, rows)
    return lines


def _check(gpu: Gpu, kind: str, rows: list[Row]) -> list[SeriesCheck]:
    misses: dict[tuple[str, str], list[float]] = {}
    series: dict[tuple[str, str], set[tuple[object, ...]]] = {}
    shapes: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        shapes.setdefault((row.kernel, row.dtype, row.fixed), []).append(row)
    for own in shapes.values():
        for name in dict.fromkeys(map(_series, own)):
            kept = [row for row in own if _series(row) != name]
            if name[-1] == BALANCED:  # what the skewed rows of as many experts add is measured from them
                kept = [row for row in kept if row.outer != name[-2] or row.load_shape == BALANCED]
            table = KernelTable(gpu, published={kind: measured_of(kept, gpu, kind)} if kept else {})
            for row in (row for row in own if _series(row) == name):
                found = _price(table, row)
                if found is not None:
                    key = (_kernel(row), found[1])
                    misses.setdefault(key, []).append(abs(found[0] / row.seconds - 1.0))
                    series.setdefault(key, set()).add(name)
    return [
        SeriesCheck(
            *(kernel, gpu.name, source, len(found), len(series[kernel, source])),
            *(float(f"{np.quantile(found, q):.4g}") for q in (0.5, 0.9)),
        )
        for (kernel, source), found in sorted(misses.items(), key=lambda one: (one[0][0], SOURCES.index(one[0][1])))
    ]


def _series(row: Row) -> tuple[object, ...]:
    if row.error is not None and row.load_shape == BALANCED:  # worked out from one column of the source
        return (row.kernel, row.dtype, row.fixed, row.inner, "worked out")
    return (row.kernel, row.dtype, row.fixed, row.outer, row.load_shape)


def _kernel(row: Row) -> str:
    load = "" if row.load_shape in (BALANCED, "drawn") else ", skewed"
    return " ".join(filter(None, (row.kernel, row.dtype, row.layout))) + load


def _price(table: KernelTable, row: Row) -> tuple[float, str] | None:
    """Return a row's price and its source, None for a kernel that nothing but its own series prices."""
    if row.kernel in OVER_EXPERTS:
        sizes = dict(zip(("hidden", "inter") if row.kernel in MLP else ("n", "k"), row.fixed, strict=True))
        name = "tokens_per_expert" if row.kernel in MLP else "rows"
        stem = row.kernel if row.kernel in MLP else "gemm"
        time = table.time(f"{stem}_{row.dtype}", **{name: loads_of(row)}, **sizes, layout=row.layout)
        return time.seconds, time.source
    axes = AXES[row.kernel]
    sizes = {axes.inner: int(row.inner), **dict(zip(axes.fixed, row.fixed, strict=True))}
    if axes.outer:
        sizes[axes.outer] = int(row.outer)
    kernel = f"gemm_{row.dtype}" if row.kernel == "gemm" else row.kernel
    extra = {} if split_name(kernel)[0] == "gemm" else {"kv_dtype": row.dtype}
    if row.kernel.startswith("attn"):
        own = published_tables.times(table.published, kernel, {**sizes, **extra})
        return None if own is None else (float(own.seconds.item()), own.source)
    time = priced(table, kernel, {**sizes, **extra})
    return time.seconds, time.source


def loads_of(row: Row) -> list[int]:
    """Return whole rows of each expert with a row's mean and, where it has one, its max/mean."""
    experts, mean, ratio = int(row.outer), row.inner, row.max_over_mean
    if experts == 1 or ratio == 1.0:
        share, rest = divmod(round(mean * experts), experts)
        return [share + 1] * rest + [share] * (experts - rest)
    if ratio <= 2.0:
        spread = np.linspace(ratio, 2.0 - ratio, experts)
    else:
        spread = np.array([ratio, *[(experts - ratio) / (experts - 1)] * (experts - 1)])
    return [max(int(load), 1) for load in np.rint(mean * spread)]

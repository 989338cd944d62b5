"""A user's own kernel table: measured times, looked up exactly, between rows, and past them.

The format of the file is in `moesim.compute.table_format`, what happens between rows in `moesim.compute.interpolate`
and to uneven loads in `moesim.compute.surfaces`. Rows of a hot cache are kept apart: a layer's weights come from
memory, so only cold rows price one. No time of a table lies below the GPU's peaks.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moesim.broken_files import reading
from moesim.compute import shapes
from moesim.compute.gpus import Gpu, load_gpu
from moesim.compute.interpolate import Curve, Floor, Found, Grid
from moesim.compute.roofline import LAUNCH_S
from moesim.compute.surfaces import Shape, Skew, Surface, Uneven, floor
from moesim.compute.table_format import (
    AXES,
    BALANCED,
    COLD,
    DRAWN,
    HOT,
    MLA_LATENT,
    MLA_QK,
    MLA_ROPE,
    MLA_V,
    OVER_EXPERTS,
    Row,
    kernel_work,
)
from moesim.compute.table_reading import read_rows
from moesim.compute.times import Bill, KernelTimes
from moesim.errors import InputError, ResourceError

LARGEST_FILE = 64 << 20
CONTIGUOUS_TILE = 128  # rows of an expert start at a multiple of it (DeepGEMM, contiguous layout)
# Sizes that a table's rows are of; another size is not in the table. Missing in a call: the kernel's own default.
_REQUIRED = {"q_tokens": 1, "kv_lora_rank": MLA_LATENT, "rope_head_dim": MLA_ROPE, "qk_head_dim": MLA_QK,
             "v_head_dim": MLA_V}  # fmt: skip
_DEFAULTS = _REQUIRED | {"heads": 128, "layout": "grouped", "kv_dtype": "bf16", "form": "multi-head"}

# Kernel, dtype ("" where it does not matter) and fixed sizes of a kernel other than the expert MLP.
GridKey = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True)
class MeasuredTable:
    """A user's table: what its rows make, the GPU they were measured on, and where they came from.

    ``surfaces`` price kernels over experts, ``grids`` the others; ``hot`` has the former with a warm cache.
    ``layouts`` says which shapes are of masked or contiguous kernels, where the file does; ``comments`` are the
    file's own.
    """

    gpu: Gpu
    surfaces: dict[Shape, Surface]
    path: str
    digest: str
    rows: int
    grids: dict[GridKey, Grid] = field(default_factory=dict)
    hot: dict[Shape, Surface] = field(default_factory=dict)
    layouts: dict[Shape, str] = field(default_factory=dict)
    comments: tuple[str, ...] = ()

    def times(self, kernel: str, shape: Mapping[str, Any]) -> KernelTimes | None:
        """Return the times of a kernel other than the expert MLP, None where the table has no rows of it.

        Args:
            kernel: as in `KernelTable.times`.
            shape: its arguments; numbers, or arrays [ranks] for counts.
        """
        found = _coordinates(kernel, shape)
        if found is None or (grid := self.grids.get(found[0])) is None:
            return None
        outer, inner = (np.atleast_1d(values).astype(np.float64) for values in np.broadcast_arrays(*found[1:]))
        bill = Bill()
        self.add(bill, grid.look_up(outer, inner))
        bill.add("estimated", np.where(outer * inner == 0, LAUNCH_S, 0.0))
        return bill.close()

    def add(self, bill: Bill, found: Found) -> None:
        """Add times that were looked up in this table, those past its rows too."""
        bill.add("measured", np.where(found.exact, found.seconds, 0.0), None, f"table {self.path}")
        bill.add("interpolated", np.where(found.inside, found.seconds, 0.0), found.error(found.inside))
        beyond = int(np.count_nonzero(found.outside))
        note = f"{beyond} ranks outside the table" if beyond else ""
        bill.add("extrapolated", np.where(found.outside, found.seconds, 0.0), None, note)


def _coordinates(kernel: str, shape: Mapping[str, Any]) -> tuple[GridKey, Any, Any] | None:
    """Return which grid a call asks for, and where in it; None for a call that no table has rows of."""
    asked = {**_DEFAULTS, **shape}
    if any(asked[name] != value for name, value in _REQUIRED.items()):
        return None
    stem, _, dtype = kernel.rpartition("_")
    if stem == "gemm":
        rows = shapes.loads("rows", asked["rows"])
        if asked["layout"] != "dense" or rows.shape[1] != 1:
            return None
        return ("gemm", dtype, (asked["n"], asked["k"])), 1.0, rows[:, 0]
    if kernel not in AXES or kernel in OVER_EXPERTS:
        return None
    axes = AXES[kernel]
    fixed = tuple(asked[name] for name in axes.fixed)
    if kernel == "mla_prefill":
        sequences, tokens, kv_len = (np.asarray(asked.get(n, 1)) for n in ("sequences", "tokens", "kv_len"))
        if np.any(sequences * kv_len != tokens):  # the rows are of prompts without a prefix in the cache
            return None
        named = kernel if asked["form"] == "multi-head" else f"{kernel}_{asked['form']}"
        return (named, asked["kv_dtype"], fixed), sequences, kv_len
    dtype = {"router": "bf16", "permute": "", "quantize_fp8": "fp8"}.get(kernel, asked["kv_dtype"])
    outer = asked[axes.outer] if axes.outer else 1.0
    return (kernel, dtype, fixed), np.asarray(outer, dtype=np.float64), np.asarray(asked[axes.inner], dtype=np.float64)


def load_measured(path: str | Path, gpu: str | None = None) -> MeasuredTable:
    """Read a user's kernel table.

    ``gpu`` is needed where the file has no gpu column and must agree with it where it has. Raises InputError
    with ``file:line`` for every mistake (missing or unknown column, unknown unit, value that is not a positive
    number, duplicate key, a time below what the GPU's peaks allow), ResourceError when it cannot be read.
    """
    file = Path(path)
    content = read_table_file(file)
    reading = read_rows(content, str(file), load_gpu(gpu) if gpu is not None else None)
    rows = [row for row, _ in reading.rows]
    if not rows or reading.gpu is None:
        raise InputError("the kernel table has no rows", str(file), "columns: kernel, dtype, sizes, seconds")
    digest = hashlib.sha256(content.encode()).hexdigest()
    return measured_of(rows, reading.gpu, str(file), digest, tuple(reading.comments))


def measured_of(
    rows: list[Row], gpu: Gpu, path: str, digest: str = "", comments: tuple[str, ...] = ()
) -> MeasuredTable:
    """Return the table of ``rows``. Raises InputError for a shape with skewed rows alone."""
    cold = [row for row in rows if row.cache == COLD]
    return MeasuredTable(
        gpu=gpu,
        surfaces=surfaces_of(cold, gpu, path),
        path=path,
        digest=digest,
        rows=len(rows),
        grids=grids_of(cold, gpu),
        hot=surfaces_of([row for row in rows if row.cache == HOT], gpu, path),
        layouts={_shape(row): row.layout for row in rows if row.kernel in OVER_EXPERTS and row.layout},
        comments=comments,
    )


def read_table_file(file: Path) -> str:
    """Return the text of a table. Raises InputError if it is not a text file, ResourceError if it is unreadable."""
    try:
        if not file.exists() or file.is_dir():
            raise InputError("no such kernel table", str(file), "a CSV file or one of the GPUs' names")
        if file.stat().st_size > LARGEST_FILE:
            raise InputError("the kernel table is larger than 64 MiB", str(file), "split it by model")
        with reading(file):
            raw = file.read_bytes()
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not a UTF-8 text file", str(file), "save the kernel table as CSV in UTF-8") from None
    except OSError as error:
        raise ResourceError(f"{file}: cannot be read: {error.strerror}") from error
    if "\0" in content:
        raise InputError("not a text file (it holds NUL bytes)", str(file), "save the kernel table as CSV")
    return content


def _shape(row: Row) -> Shape:
    return Shape(row.kernel, row.dtype, *row.fixed)


def surfaces_of(rows: list[Row], gpu: Gpu, file: str) -> dict[Shape, Surface]:
    """Return the surface of each shape of a kernel over experts.

    Raises:
        InputError: a shape has skewed rows and no balanced ones to compare them with.
    """
    by_shape: dict[Shape, list[Row]] = {}
    for row in rows:
        if row.kernel in OVER_EXPERTS:
            by_shape.setdefault(_shape(row), []).append(row)
    surfaces = {}
    for shape, own in by_shape.items():
        on_grid = [row for row in own if row.load_shape in (BALANCED, DRAWN)]
        if not on_grid:
            raise InputError(f"{' '.join(map(str, shape))} has skewed rows alone", file, "add its balanced rows")
        grid = Grid.of({(row.outer, row.inner): row.seconds for row in on_grid}, _over_experts(gpu, shape))
        skewed = [row for row in own if row.load_shape not in (BALANCED, DRAWN)]
        surfaces[shape] = Surface(
            grid,
            _skew(grid, skewed),
            worked_out=_row_error(on_grid),
            skew_error=_row_error(skewed),
            tile=CONTIGUOUS_TILE if own[0].layout == "contiguous" else 1,
            drawn=any(row.load_shape == DRAWN for row in on_grid),
        )
    return surfaces


def _over_experts(gpu: Gpu, shape: Shape) -> Floor:
    return lambda experts, tokens: experts * floor(gpu, shape, tokens[:, None])


def _row_error(rows: list[Row]) -> float | None:
    """Return the median error of rows that were worked out."""
    errors = [row.error for row in rows if row.error is not None]
    return float(np.median(errors)) if errors else None


def _skew(grid: Grid, rows: list[Row]) -> Skew | None:
    """Return factors over balanced loads: each (load, experts) is one curve over tokens at its median max/mean."""
    loads: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        loads.setdefault((row.load_shape, row.outer), []).append(row)
    uneven = []
    for (_, experts), own in loads.items():
        own.sort(key=lambda row: row.inner)
        x = np.array([row.inner for row in own])
        balanced, _ = grid.at(experts, x)
        factors = np.array([row.seconds for row in own]) / balanced
        uneven.append(Uneven(experts, float(np.median([row.max_over_mean for row in own])), Curve(x, factors)))
    return Skew(tuple(uneven)) if uneven else None


def grids_of(rows: list[Row], gpu: Gpu) -> dict[GridKey, Grid]:
    """Return the grid of each kernel and fixed sizes of a kernel without experts."""
    points: dict[GridKey, dict[tuple[float, float], float]] = {}
    for row in rows:
        if row.kernel not in OVER_EXPERTS:
            dtype = "" if row.kernel == "permute" else row.dtype
            points.setdefault((row.kernel, dtype, row.fixed), {})[row.outer, row.inner] = row.seconds
    return {key: Grid.of(own, _floor(gpu, key)) for key, own in points.items()}


def _floor(gpu: Gpu, key: GridKey) -> Floor:
    kernel, dtype, fixed = key
    # The work of a kernel does not depend on the dtype where its key leaves it out.
    return lambda outer, inner: kernel_work(kernel, dtype or "bf16", fixed, outer, inner).floor(gpu)

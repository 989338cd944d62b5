"""Measured tables that ship with moesim: published rows of a GPU, looked up before any model.

Each is a file ``data/kernels/measured/GPU-KIND.csv`` in the format of `moesim.compute.table_format`; its comments name
the library, the date and the source. KIND is masked or contiguous (routed experts, one kernel each), dense (GEMMs of
shared experts) or attention. Only times at or between a GPU's own rows are taken; what lies outside, and every GPU
without rows of a kernel, is left to the fitted models. A MLP whose two GEMMs have rows and which has none as a whole is
their sum and a SwiGLU at memory speed, which stays `estimated`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compute import pricing
from moesim.compute.fitted import models
from moesim.compute.gpus import DATA, Gpu
from moesim.compute.interpolate import Found
from moesim.compute.measured import MeasuredTable, load_measured
from moesim.compute.surfaces import Shape, floor
from moesim.compute.times import Bill, KernelTimes

FOLDER = DATA / "kernels" / "measured"
LAYOUTS = ("masked", "contiguous")
KINDS = (*LAYOUTS, "dense", "attention")

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


Tables = Mapping[str, MeasuredTable]


@cache
def _read(file: Path, gpu: str) -> MeasuredTable:
    table = load_measured(file, gpu)
    # What a report names is where the rows come from, not where they lie.
    source = next(line.removeprefix("source: ") for line in table.comments if line.startswith("source: "))
    return replace(table, path=source)


class Published(Mapping[str, MeasuredTable]):
    """The tables of a GPU by kind, each read when it is first asked for; its ``path`` is its source in words."""

    def __init__(self, gpu: str) -> None:
        self._gpu = gpu
        self._files = {kind: FOLDER / f"{gpu}-{kind}.csv" for kind in KINDS}

    def __getitem__(self, kind: str) -> MeasuredTable:
        """Return a table. Raises KeyError for a kind without rows."""
        if kind not in list(self):
            raise KeyError(kind)
        return _read(self._files[kind], self._gpu)

    def __iter__(self) -> Iterator[str]:
        """Yield the kinds that have rows."""
        return (kind for kind, file in self._files.items() if file.is_file())

    def __len__(self) -> int:
        """Return the number of kinds that have rows."""
        return sum(1 for _ in self)


def add_experts(bill: Bill, gpu: Gpu, tables: Tables, shape: Shape, loads: Ints, layout: str) -> Bools:
    """Add the routed experts of the ranks that rows cover, and return which they are, [ranks].

    ``loads``: rows of each slot, [ranks, slots]; ``layout``: masked, contiguous, or auto: by `models.layouts`.
    """
    covered = np.zeros(len(loads), dtype=np.bool_)
    for table, own in _by_layout(tables, loads, layout):
        covered |= _add_mlp(bill, gpu, table, shape, own)
    return covered


def add_gemm(bill: Bill, gpu: Gpu, tables: Tables, shape: Shape, loads: Ints, layout: str) -> Bools:
    """Add one grouped GEMM of the ranks that rows cover, as `add_experts`; ``shape`` is that of an expert_gemm."""
    covered = np.zeros(len(loads), dtype=np.bool_)
    for table, own in _by_layout(tables, loads, layout):
        if shape in table.surfaces:
            covered |= _add(bill, table, (table.surfaces[shape].look_up(own, floor(gpu, shape, own)),))
    return covered


def _by_layout(tables: Tables, loads: Ints, layout: str) -> Iterator[tuple[MeasuredTable, Ints]]:
    """Yield the table of each layout that ranks take, and the loads of these ranks, 0 for the others."""
    for masked, here in models.layouts(loads, layout):
        if (table := tables.get(LAYOUTS[0] if masked else LAYOUTS[1])) is not None:
            yield table, np.where(here[:, None], loads, 0)


def _add_mlp(bill: Bill, gpu: Gpu, table: MeasuredTable, shape: Shape, loads: Ints) -> Bools:
    _, dtype, hidden, inter = shape
    halves = (Shape("expert_gemm", dtype, 2 * inter, hidden), Shape("expert_gemm", dtype, hidden, inter))
    parts = (shape,) if shape in table.surfaces else halves
    if any(part not in table.surfaces for part in parts):
        return np.zeros(len(loads), dtype=np.bool_)
    found = tuple(table.surfaces[part].look_up(loads, floor(gpu, part, loads)) for part in parts)
    covered = _add(bill, table, found)
    if parts is halves:
        pricing.add_swiglu(bill, gpu, dtype, np.where(covered[:, None], loads, 0), inter)
    return covered


def _add(bill: Bill, table: MeasuredTable, parts: tuple[Found, ...]) -> Bools:
    """Add the ranks that every part covers."""
    covered: Bools = np.all([part.exact | part.inside for part in parts], axis=0)
    for part in parts:
        between = covered & part.inside
        bill.add("measured", np.where(covered & part.exact, part.seconds, 0.0))
        bill.add("interpolated", np.where(between, part.seconds, 0.0), part.error(between))
    bill.note(f"table {table.path}" if covered.any() else "")
    return covered


def add_dense_mlp(bill: Bill, gpu: Gpu, tables: Tables, shape: Shape, rows: Ints) -> Bools:
    """Add a shared expert over ``rows[ranks]`` from its two dense GEMMs; return the ranks covered."""
    _, dtype, hidden, inter = shape
    table = tables.get("dense")
    halves = (("gemm", dtype, (2 * inter, hidden)), ("gemm", dtype, (hidden, inter)))
    if table is None or any(half not in table.grids for half in halves):
        return np.zeros(len(rows), dtype=np.bool_)
    ones, at = np.ones(len(rows)), rows.astype(np.float64)
    covered = _add(bill, table, tuple(table.grids[half].look_up(ones, at) for half in halves))
    pricing.add_swiglu(bill, gpu, dtype, np.where(covered, rows, 0)[:, None], inter)
    return covered


def times(tables: Tables, kernel: str, shape: Mapping[str, Any]) -> KernelTimes | None:
    """Return the times of a kernel without experts where rows cover every rank, else None."""
    kind = "dense" if kernel.startswith("gemm_") else "attention"
    if not kernel.startswith(("gemm_", "mla_", "attn_")) or kind not in tables:
        return None
    own = tables[kind].times(kernel, shape)
    return None if own is None or own.shares.get("extrapolated") else own

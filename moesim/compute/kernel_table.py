"""Seconds of every kernel of a Mixture-of-Experts layer, each with where the number comes from.

``KernelTable.load("h800").time("grouped_gemm_fp8", tokens_per_expert=[256] * 4, hidden=7168, inter=2048)``

The first that has an answer gives it: a user's measured table, published rows of the GPU
(`moesim.compute.published_tables`), a model fitted on published measurements (`moesim.compute.fitted`), the roofline.
Where the parts of an MLP have different sources the result names the one with the most time and ``shares`` has them
all. Uneven loads cost what their own tiles cost, expert by expert. No time lies below max(FLOPs / peak, bytes /
bandwidth).

Not modelled: other kernels on the same GPU (the timeline shares the SMs), clocks, the CPU's launch queue.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compute import evidence, pricing, published_tables, shapes
from moesim.compute.fitted.models import MLP_LAYOUTS
from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu, gpus, load_gpu, nearest
from moesim.compute.measured import MeasuredTable, load_measured
from moesim.compute.roofline import LAUNCH_S, Floats
from moesim.compute.surfaces import Shape, mlp_floor, mlp_works
from moesim.compute.times import Bill, KernelTime, KernelTimes
from moesim.errors import InputError


class KernelTable:
    """Kernel times of one GPU: a user's measured table if there is one, published rows, fitted models, a roofline."""

    def __init__(
        self, gpu: Gpu, measured: MeasuredTable | None = None, published: published_tables.Tables | None = None
    ) -> None:
        """``published`` are the tables of the GPU that ship; {} prices by models alone."""
        self.gpu = gpu
        self.measured = measured
        self.published = published_tables.Published(gpu.name) if published is None else published
        self._kernels: dict[str, Callable[..., KernelTimes]] = {
            "router": partial(pricing.router, gpu),
            "permute": partial(pricing.permute, gpu),
            "unpermute": partial(pricing.unpermute, gpu),
            "quantize_fp8": partial(pricing.quantize_fp8, gpu),
            "mla_decode": partial(pricing.mla_decode, gpu),
            "mla_prefill": partial(pricing.mla_prefill, gpu),
        }
        for dtype in BYTES_PER_ELEMENT:
            self._kernels[f"grouped_gemm_{dtype}"] = partial(self._grouped, dtype)
            self._kernels[f"dense_mlp_{dtype}"] = partial(self.dense_mlp, dtype)
            self._kernels[f"gemm_{dtype}"] = partial(self.gemm, dtype)

    @classmethod
    def load(cls, name: str | Path = "auto", gpu: str | None = None) -> Self:
        """Return the table called ``name``.

        ``name`` is a GPU (h800, h100, h200, h20, b200), ``auto`` (the table of ``gpu``, which a topology
        names) or the path of a user's CSV file (see `moesim.compute.measured`; ``gpu`` must agree with it).
        Raises InputError for an unknown name, with the nearest one, and for a malformed file, with its lines.
        """
        text = str(name)
        if text == "auto":
            if gpu is None:
                raise InputError("table auto needs to know the GPU", "compute.table", f"one of: {', '.join(gpus())}")
            return cls(load_gpu(gpu))
        if text.lower() in gpus():
            return cls(load_gpu(text))
        if isinstance(name, Path) or text.endswith(".csv") or "/" in text:
            measured = load_measured(name, gpu)
            return cls(measured.gpu, measured)
        raise InputError(f"unknown kernel table {text!r}", "compute.table", nearest(text.lower(), ["auto", *gpus()]))

    @property
    def name(self) -> str:
        """Return the GPU's name, or the path of the user's table."""
        return self.measured.path if self.measured else self.gpu.name

    @property
    def kernels(self) -> tuple[str, ...]:
        """Return the names of the kernels that `time` knows."""
        return tuple(sorted(self._kernels))

    def time(self, kernel: str, **shape: Any) -> KernelTime:
        """Return the time of ``kernel`` on one rank.

        Kernels and their shapes, all whole numbers:

        - ``grouped_gemm_bf16|fp8`` (tokens_per_expert: one rank's local slots, hidden, inter, layout = auto |
          masked | contiguous): routed experts, up + SwiGLU + down; ``dense_mlp_bf16|fp8`` (tokens, hidden,
          inter): shared experts;
        - ``gemm_bf16|fp8`` (rows: one number per expert, n, k, layout = grouped | masked | contiguous | dense);
        - ``router`` (tokens, hidden, n_experts, top_k), ``quantize_fp8`` (tokens, hidden);
        - ``permute`` (rows, row_bytes), ``unpermute`` (rows written, row_bytes, top_k: rows read for each);
        - ``mla_decode`` (batch, kv_len, heads, q_tokens, kv_lora_rank, rope_head_dim, kv_dtype) and
          ``mla_prefill`` (tokens, kv_len, heads, sequences, qk_head_dim, v_head_dim, form = multi-head |
          absorbed, kv_dtype): all but the first two have defaults.

        Raises InputError for an unknown kernel or shape, with the nearest name.
        """
        times = self.times(kernel, **shape)
        if times.seconds.size != 1:
            raise InputError(f"{kernel}: the shape is of {times.seconds.size} ranks", kernel, "use times()")
        return times.one()

    def times(self, kernel: str, **shape: Any) -> KernelTimes:
        """Return the times of ``kernel`` on many ranks: as `time`, with an array [ranks] for any count.

        The rows of routed experts and of GEMMs are then [ranks, slots]; sizes stay single numbers.
        """
        if kernel not in self._kernels:
            raise InputError(f"unknown kernel {kernel!r}", "kernel", nearest(kernel, self.kernels))
        call = self._kernels[kernel]
        parameters = inspect.signature(call).parameters
        for key in shape:
            if key not in parameters:
                raise InputError(f"{kernel} has no {key!r}", kernel, nearest(key, parameters))
        missing = [key for key, p in parameters.items() if p.default is p.empty and key not in shape]
        if missing:
            raise InputError(f"{kernel} needs {missing[0]!r}", kernel, f"shape: {', '.join(parameters)}")
        own = self.measured.times(kernel, shape) if self.measured else None
        if own is None:
            own = published_tables.times(self.published, kernel, shape)
        return call(**shape) if own is None else own

    def grouped_gemm(
        self,
        dtype: str,
        tokens_per_slot: ArrayLike,
        hidden: int,
        inter: int,
        rank_ptr: ArrayLike | None = None,
        layout: str = "auto",
    ) -> KernelTimes:
        """Return each rank's routed-expert time: up GEMM, SwiGLU and down GEMM over its local slots.

        ``tokens_per_slot[ranks, slots]`` (0: the slot got no token and its weights are not read), or, where
        ranks hold different numbers of slots, ``tokens_per_slot[slots]`` with ``rank_ptr[ranks + 1]`` (CSR).
        A rank without tokens still launches its kernels. Up is [rows, hidden] x [2 inter, hidden], down is
        [rows, inter] x [hidden, inter] (DeepSeek-V3 technical report, 2.1.2). ``layout``: masked, what runs after a
        low-latency dispatch; contiguous, after a normal one; auto, masked for a rank with at most 128 rows per expert
        hit, contiguous for the others.
        """
        loads = shapes.loads("tokens_per_slot", tokens_per_slot, rank_ptr)
        slots = np.full(len(loads), loads.shape[1]) if rank_ptr is None else np.diff(np.asarray(rank_ptr))
        return self._experts(dtype, loads, slots.astype(np.int64), hidden, inter, layout)

    def dense_mlp(self, dtype: str, tokens: ArrayLike, hidden: int, inter: int) -> KernelTimes:
        """Return the time of a dense MLP (a shared expert) over ``tokens`` or ``tokens[ranks]``."""
        loads = shapes.counts("tokens", tokens).astype(np.int64).reshape(-1, 1)
        shape, bill = self._shape("dense_mlp", dtype, hidden, inter), Bill()
        if not self._add_measured(bill, shape, loads):
            left = loads[:, 0]
            for tables in self._tables:
                covered = published_tables.add_dense_mlp(bill, self.gpu, tables, shape, left)
                left = np.where(covered, 0, left)
            pricing.dense_mlp(bill, self.gpu, shape.dtype, left, shape.hidden, shape.inter)
            bill.add("estimated", np.where(loads[:, 0] > 0, 0.0, 3 * LAUNCH_S))
        return bill.close()

    def gemm(self, dtype: str, rows: ArrayLike, n: int, k: int, layout: str = "grouped") -> KernelTimes:
        """Return the time of one GEMM, ``rows[experts]`` or ``rows[ranks, experts]`` times [n, k].

        ``layout``: dense (all rows together), masked, contiguous, or grouped: either of the two by rows per expert.
        """
        if layout not in pricing.GEMM_LAYOUTS:
            raise InputError(f"unknown layout {layout!r}", "layout", f"one of: {', '.join(pricing.GEMM_LAYOUTS)}")
        bill, loads, left = Bill(), shapes.loads("rows", rows), shapes.loads("rows", rows)
        shape = Shape("expert_gemm", shapes.dtype_name(dtype), shapes.size("n", n), shapes.size("k", k))
        if layout != "dense":
            layout = "auto" if layout == "grouped" else layout
            for tables in self._tables:
                covered = published_tables.add_gemm(bill, self.gpu, tables, shape, left, layout)
                left = np.where(covered[:, None], 0, left)
        pricing.gemm(bill, self.gpu, shape.dtype, left, n, k, layout)
        bill.add("estimated", np.where(loads.any(axis=1), 0.0, LAUNCH_S))
        return bill.close()

    def expert_floor_s(
        self,
        dtype: str,
        tokens_per_slot: ArrayLike,
        hidden: int,
        inter: int,
        rank_ptr: ArrayLike | None = None,
    ) -> Floats:
        """Return the floor of `grouped_gemm` in seconds[ranks]: no rank can be faster at its GPU's peaks."""
        loads = shapes.loads("tokens_per_slot", tokens_per_slot, rank_ptr)
        hidden, inter = shapes.size("hidden", hidden), shapes.size("inter", inter)
        return mlp_floor(self.gpu, loads, hidden, inter, shapes.dtype_name(dtype))

    def expert_work(
        self, dtype: str, tokens_per_slot: ArrayLike, hidden: int, inter: int, rank_ptr: ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return FLOPs and least bytes of memory traffic of `grouped_gemm`'s two GEMMs, [ranks] each."""
        loads = shapes.loads("tokens_per_slot", tokens_per_slot, rank_ptr)
        up, down = mlp_works(loads, shapes.size("hidden", hidden), shapes.size("inter", inter), dtype)
        return up.flops + down.flops, up.moved + down.moved

    def sources(self) -> list[dict[str, str]]:
        """Return one row per body of evidence in use: what it prices and who published it."""
        return evidence.sources(self.gpu, self.measured, self.published)

    def describe(self) -> list[dict[str, str]]:
        """Return one row per kernel: the best source it can have, over which range, and its error."""
        return evidence.describe(self.gpu, self.measured, self.published, self.kernels)

    @property
    def _tables(self) -> tuple[published_tables.Tables, ...]:
        """Tables to look a GEMM or an MLP's GEMMs up in, the user's first: one file is one way of running experts."""
        own = {} if self.measured is None else dict.fromkeys(published_tables.KINDS, self.measured)
        return (own, self.published)

    # Routed and shared experts.

    def _grouped(
        self, dtype: str, tokens_per_expert: ArrayLike, hidden: int, inter: int, layout: str = "auto"
    ) -> KernelTimes:
        loads = shapes.loads("tokens_per_expert", tokens_per_expert)
        return self._experts(dtype, loads, np.full(len(loads), loads.shape[1]), hidden, inter, layout)

    def _experts(
        self, dtype: str, loads: NDArray[np.int64], slots: NDArray[np.int64], hidden: int, inter: int, layout: str
    ) -> KernelTimes:
        shape, bill = self._shape("grouped_gemm", dtype, hidden, inter), Bill()
        if layout not in MLP_LAYOUTS:
            raise InputError(f"unknown layout {layout!r}", "layout", nearest(str(layout), MLP_LAYOUTS))
        if not self._add_measured(bill, shape, loads):
            left = loads
            for tables in self._tables:
                covered = published_tables.add_experts(bill, self.gpu, tables, shape, left, layout)
                left = np.where(covered[:, None], 0, left)
            pricing.expert_mlp(bill, self.gpu, shape.dtype, left, slots, shape.hidden, shape.inter, layout)
            bill.add("estimated", np.where(loads.any(axis=1), 0.0, 3 * LAUNCH_S))
        return bill.close()

    @staticmethod
    def _shape(kernel: str, dtype: str, hidden: int, inter: int) -> Shape:
        return Shape(kernel, shapes.dtype_name(dtype), shapes.size("hidden", hidden), shapes.size("inter", inter))

    def _add_measured(self, bill: Bill, shape: Shape, loads: NDArray[np.int64]) -> bool:
        """Add whole MLPs from a user's table, rank by rank; False, with a note, where it has no rows of ``shape``."""
        table = self.measured
        if table is None:
            return False
        if shape not in table.surfaces:
            bill.note(f"{shape.kernel} {shape.dtype} {shape.hidden} x {shape.inter} is not in table {table.path}")
            return False
        floor = mlp_floor(self.gpu, loads, shape.hidden, shape.inter, shape.dtype)
        table.add(bill, table.surfaces[shape].look_up(loads, floor))
        bill.add("estimated", np.where(loads.any(axis=1), 0.0, 3 * LAUNCH_S))
        return True

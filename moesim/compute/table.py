"""Seconds of every kernel of a Mixture-of-Experts layer, each with where the number comes from.

``KernelTable.load("h800").time("grouped_gemm_fp8", tokens_per_expert=[256] * 4, hidden=7168, inter=2048)``

The first that has an answer gives it: a user's measured table, DeepGEMM's published rows (H800, FP8, the two
shapes of DeepSeek-V3's experts), the roofline. An MLP is made of up GEMM, SwiGLU and down GEMM; where their
sources differ the result names the one with the most time and ``shares`` has them all. Uneven loads cost
what their own tiles cost, expert by expert. No time lies below max(FLOPs / peak, bytes / bandwidth).

Not modelled: other kernels on the same GPU (the timeline shares the SMs), clocks, the CPU's launch queue.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compute import ceilings, published, roofline, shapes
from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu, gpus, load_gpu, nearest
from moesim.compute.measured import MeasuredTable, Shape, load_measured, mlp_floor
from moesim.compute.roofline import LAUNCH_S, Floats, Work
from moesim.compute.times import Bill, KernelTime, KernelTimes
from moesim.errors import InputError

Layout = Literal["grouped", "dense"]


class KernelTable:
    """Kernel times of one GPU: a user's measured table if there is one, published rows, a roofline."""

    def __init__(self, gpu: Gpu, measured: MeasuredTable | None = None) -> None:
        self.gpu = gpu
        self.measured = measured
        # DeepGEMM's rows are FP8 on the H800 and nothing else.
        self._curves = published.deepgemm_curves(gpu) if gpu.name == published.DEEPGEMM_GPU else {}
        self._kernels: dict[str, Callable[..., KernelTimes]] = {
            "router": partial(ceilings.router, gpu),
            "permute": partial(ceilings.permute, gpu),
            "unpermute": partial(ceilings.unpermute, gpu),
            "quantize_fp8": partial(ceilings.quantize_fp8, gpu),
            "mla_decode": partial(ceilings.mla_decode, gpu),
            "mla_prefill": partial(ceilings.mla_prefill, gpu),
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

        - ``grouped_gemm_bf16|fp8`` (tokens_per_expert: one rank's local slots, hidden, inter): routed
          experts, up + SwiGLU + down; ``dense_mlp_bf16|fp8`` (tokens, hidden, inter): shared experts;
        - ``gemm_bf16|fp8`` (rows: one number per expert, n, k, layout = grouped | dense): one GEMM;
        - ``router`` (tokens, hidden, n_experts, top_k), ``quantize_fp8`` (tokens, hidden);
        - ``permute`` (rows, row_bytes), ``unpermute`` (rows written, row_bytes, top_k: rows read for each);
        - ``mla_decode`` (batch, kv_len, heads, q_tokens, kv_lora_rank, rope_head_dim) and ``mla_prefill``
          (tokens, kv_len, heads, sequences, qk_head_dim, v_head_dim): all but the first two have defaults.

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
        return call(**shape)

    def grouped_gemm(
        self,
        dtype: str,
        tokens_per_slot: ArrayLike,
        hidden: int,
        inter: int,
        rank_ptr: ArrayLike | None = None,
    ) -> KernelTimes:
        """Return each rank's routed-expert time: up GEMM, SwiGLU and down GEMM over its local slots.

        ``tokens_per_slot[ranks, slots]`` (0: the slot got no token and its weights are not read), or, where
        ranks hold different numbers of slots, ``tokens_per_slot[slots]`` with ``rank_ptr[ranks + 1]`` (CSR).
        A rank without tokens still launches its kernels. Up is [rows, hidden] x [2 inter, hidden], down is
        [rows, inter] x [hidden, inter] (DeepSeek-V3 technical report, 2.1.2).
        """
        return self._mlp("grouped", dtype, shapes.loads("tokens_per_slot", tokens_per_slot, rank_ptr), hidden, inter)

    def dense_mlp(self, dtype: str, tokens: ArrayLike, hidden: int, inter: int) -> KernelTimes:
        """Return the time of a dense MLP (a shared expert) over ``tokens`` or ``tokens[ranks]``."""
        loads = shapes.counts("tokens", tokens).astype(np.int64).reshape(-1, 1)
        return self._mlp("dense", dtype, loads, hidden, inter)

    def gemm(self, dtype: str, rows: ArrayLike, n: int, k: int, layout: Layout = "grouped") -> KernelTimes:
        """Return the time of one GEMM, ``rows[experts]`` or ``rows[ranks, experts]`` times [n, k].

        ``layout`` says which published rows are preferred where there are both.
        """
        if layout not in ("grouped", "dense"):
            raise InputError(f"unknown layout {layout!r}", "layout", "one of: grouped, dense")
        bill = Bill()
        loads = shapes.loads("rows", rows)
        self._add_gemm(bill, layout, shapes.dtype_name(dtype), loads, shapes.size("n", n), shapes.size("k", k))
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

    def sources(self) -> list[dict[str, str]]:
        """Return one row per body of evidence in use: what it prices and who published it."""
        gpu = self.gpu
        rows = [{"what": f"peaks of {gpu.title}", "source": gpu.source}]
        if self.measured is not None:
            source = f"{self.measured.path}, {self.measured.rows} rows, sha256 {self.measured.digest[:12]}"
            rows.append({"what": "expert MLP, measured", "source": source})
        rows.append({"what": "efficiency of GEMMs", "source": f"fitted on 28 rows of {published.DEEPGEMM}"})
        if self._curves:
            names = sorted({f"{n} x {k}" for _, n, k in self._curves})
            rows.append({"what": f"GEMM {', '.join(names)} in fp8", "source": published.DEEPGEMM})
        for kernel in ("mla_decode", "mla_prefill"):
            rate = published.attention_rate(kernel, gpu.name)
            rows.append({"what": f"{kernel}, rate of {rate.gpu}", "source": rate.citation})
        rows.append({"what": "kernels that move data", "source": "FlashMLA at c2067be: 3000 of 3350 GB/s on the H800"})
        return rows

    def describe(self) -> list[dict[str, str]]:
        """Return one row per kernel: the best source it can have, over which range, and its error."""
        rows = []
        for kernel in self.kernels:
            stem, _, dtype = kernel.rpartition("_")
            kind = {"grouped_gemm": "grouped", "dense_mlp": "dense", "gemm": "grouped"}.get(stem)
            row = {"kernel": kernel, "source": "estimated", "range": "any", "error": "unknown"}
            if kind is not None:
                surfaces = self.measured.surfaces if self.measured else {}
                own = [shape for shape in surfaces if shape.kernel == stem and shape.dtype == dtype]
                if own:
                    sizes = ", ".join(f"{shape.hidden} x {shape.inter}" for shape in own)
                    errors = [e for shape in own if (e := surfaces[shape].error) is not None]
                    row |= {
                        "source": "measured",
                        "range": sizes,
                        "error": _percent(max(errors, default=None)),
                    }
                elif self._curves and dtype == "fp8":
                    curves = {(n, k): curve for (k_, n, k), curve in self._curves.items() if k_ == kind}
                    low, high = (next(iter(curves.values())).rows[i] for i in (0, -1))
                    sizes = ", ".join(f"{n} x {k}" for n, k in curves)
                    error = max(curve.error for curve in curves.values())
                    row |= {
                        "source": "interpolated",
                        "range": f"{low} to {high} rows per expert, {sizes}",
                        "error": _percent(error),
                    }
            rows.append(row)
        return rows

    # Routed and shared experts.

    def _grouped(self, dtype: str, tokens_per_expert: ArrayLike, hidden: int, inter: int) -> KernelTimes:
        loads = shapes.loads("tokens_per_expert", tokens_per_expert)
        return self._mlp("grouped", dtype, loads, hidden, inter)

    def _mlp(self, layout: Layout, dtype: str, loads: NDArray[np.int64], hidden: int, inter: int) -> KernelTimes:
        dtype, hidden, inter = (
            shapes.dtype_name(dtype),
            shapes.size("hidden", hidden),
            shapes.size("inter", inter),
        )
        bill = Bill()
        shape = Shape("grouped_gemm" if layout == "grouped" else "dense_mlp", dtype, hidden, inter)
        if self.measured is not None and shape in self.measured.surfaces:
            self._add_measured(bill, self.measured, shape, loads)
            return bill.close()
        if self.measured is not None:
            bill.note(f"{shape.kernel} {dtype} {hidden} x {inter} is not in table {self.measured.path}")
        self._add_gemm(bill, layout, dtype, loads, n=2 * inter, k=hidden)
        swiglu = roofline.swiglu_work(loads.sum(axis=1), inter, dtype).estimate(self.gpu, peak_share=1.0)
        bill.add("estimated", swiglu, None, "SwiGLU estimated at memory speed")
        self._add_gemm(bill, layout, dtype, loads, n=hidden, k=inter)
        return bill.close()

    def _add_measured(self, bill: Bill, table: MeasuredTable, shape: Shape, loads: NDArray[np.int64]) -> None:
        """Add whole MLPs from a user's table, rank by rank."""
        surface = table.surfaces[shape]
        floor = mlp_floor(self.gpu, loads, shape.hidden, shape.inter, shape.dtype)
        measured, inside, outside, idle = np.zeros((4, len(loads)))
        for rank, slots in enumerate(loads):
            hit = slots[slots > 0]
            if len(hit) == 0:
                idle[rank] = 3 * LAUNCH_S
            elif (row := surface.exact(hit)) is not None:
                measured[rank] = row
            else:
                seconds, within = surface.seconds_at(hit)
                (inside if within else outside)[rank] = max(seconds, floor[rank])
        beyond = int(np.count_nonzero(outside))
        bill.add("measured", measured, None, f"table {table.path}")
        bill.add("interpolated", inside, surface.error)
        bill.add("extrapolated", outside, None, f"{beyond} ranks outside the table" if beyond else "")
        bill.add("estimated", idle)

    def _add_gemm(self, bill: Bill, layout: Layout, dtype: str, loads: NDArray[np.int64], n: int, k: int) -> None:
        """Add one GEMM over ``loads[ranks, slots]``: from published rows of [n, k], else the roofline."""
        work = roofline.gemm_work(loads, n, k, dtype)
        floor = Work(work.flops.sum(axis=1), work.moved.sum(axis=1), dtype).floor(self.gpu)
        curve = self._curves.get((layout, n, k)) if dtype == "fp8" else None
        if curve is None:
            expert = roofline.gemm_expert_seconds(self.gpu, loads, n, k, dtype)
            here = (self.gpu.name, dtype) == (published.DEEPGEMM_GPU, "fp8")
            bill.add(
                "estimated",
                np.maximum(LAUNCH_S + expert.sum(axis=1), floor),
                published.roofline_error(self.gpu) if here else None,
                f"GEMM estimated by a roofline fitted on {published.DEEPGEMM}",
            )
            return
        expert, launch, exact, inside = curve.price(self.gpu, loads)
        within = np.where(inside, expert, 0.0).sum(axis=1)
        outside = np.where(inside, 0.0, expert).sum(axis=1)
        total = launch + within + outside
        # The launch goes with the part inside the rows wherever there is one.
        inner = np.where(within > 0, launch + within, 0.0)
        past = np.where(outside > 0, outside + np.where(within > 0, 0.0, launch), 0.0)
        scale = np.maximum(total, floor) / total
        bill.add("measured", np.where(exact, inner * scale, 0.0), None, f"GEMM rows of {published.DEEPGEMM}")
        bill.add("interpolated", np.where(exact, 0.0, inner * scale), curve.error)
        low, high = curve.rows[[0, -1]]
        note = f"experts outside {low} to {high} rows" if past.any() else ""
        bill.add("extrapolated", past * scale, None, note)
        bill.add("estimated", np.where(within + outside > 0, 0.0, launch))


def _percent(error: float | None) -> str:
    return "unknown" if error is None else f"{100 * error:.1f} % (median, leave one out)"

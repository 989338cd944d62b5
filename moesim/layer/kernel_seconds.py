"""Kernel seconds of one MoE layer on every rank, and where each second comes from.

What runs besides the routed experts: the router GEMM with its top-k and, before a normal-mode FP8 dispatch, the cast
(both in ``gate``); sorting by expert (``permute``) and the weighted sum (``unpermute``), which low-latency mode does
inside its communication kernels; the shared experts as one dense MLP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compute import KernelTimes
from moesim.layer.parts import Parts
from moesim.layer.step_kernels import Enter, StepPrices
from moesim.layer.training_kernels import attention_back, beside_experts, layer_back
from moesim.stages import DOWN, KERNELS, OTHER, STEP
from moesim.traffic import CopyTotals, payload_bytes

Floats = NDArray[np.float64]


@dataclass
class KernelLedger:
    """Seconds by (kernel, source), over ranks, and the largest relative error that a source states."""

    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    errors: dict[tuple[str, str], float | None] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, kernel: str, times: KernelTimes) -> Floats:
        """Enter what a kernel took on the ranks, and hand the seconds through."""
        total = float(times.seconds.sum())
        for source, share in times.shares.items():
            key = (kernel, str(source))
            self.seconds[key] = self.seconds.get(key, 0.0) + total * share
            error = times.error if source == times.source else None
            known = self.errors.get(key)
            self.errors[key] = error if known is None or error is None else max(known, error)
            self.notes[key] = times.note
        return times.seconds

    def shares(self) -> dict[str, float]:
        """Share of all compute seconds by source."""
        total = sum(self.seconds.values())
        by_source: dict[str, float] = {}
        for (_, source), seconds in self.seconds.items():
            by_source[source] = by_source.get(source, 0.0) + seconds / total
        return by_source

    def rows(self) -> list[dict[str, Any]]:
        """One row per kernel and source, for the report and ``explain``."""
        return [
            {"kernel": key[0], "source": key[1], "seconds": seconds, "error": self.errors[key], "note": self.notes[key]}
            for key, seconds in sorted(self.seconds.items())
        ]


@dataclass(frozen=True)
class PricedKernel:
    """One kernel of a stage: its seconds on each rank, [ranks], and where most of them come from."""

    kernel: str
    seconds: Floats
    source: str


@dataclass(frozen=True)
class LayerKernels:
    """What each stage of a layer runs on every rank.

    Attributes:
        kernels: of each stage, by its name; those without a kernel are left out.
        experts_floor_s: the routed experts by the roofline at peak, [ranks].
        experts_flops, experts_moved_bytes: what their GEMMs compute, and read and write at least, [ranks].
    """

    kernels: Mapping[str, Sequence[PricedKernel]]
    experts_floor_s: Floats
    experts_flops: Floats
    experts_moved_bytes: Floats

    @cached_property
    def seconds(self) -> dict[str, Floats]:
        """Seconds of every stage that runs kernels, [ranks] each."""
        none = np.zeros(len(self.experts_floor_s))
        return {
            stage.name: sum((kernel.seconds for kernel in self.kernels.get(stage.name, ())), none)
            for stage in (*KERNELS, OTHER, *STEP)
        }


def layer_kernels(
    parts: Parts,
    tokens: NDArray[np.int64],
    slot_tokens: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    copies: CopyTotals,
    ledger: KernelLedger,
    backward: bool = False,
) -> LayerKernels:
    """Time the kernels of a layer.

    Args:
        parts: of the scenario.
        tokens: tokens that start on each rank, [ranks].
        slot_tokens: selections that each slot computes, [slots].
        slot_rank: rank of each slot, [slots].
        copies: how much each rank receives.
        ledger: takes the seconds by source.
        backward: on the way back, of a training step.
    """
    model, table = parts.model, parts.kernels
    top_k, dtype = parts.router.top_k, parts.message_dtype["dispatch"]
    algorithm, kernels = parts.algorithm, dict[str, list[PricedKernel]]()
    prices = None if parts.inference is None else StepPrices(parts, parts.inference)

    def enter(stage: str, kernel: str, times: KernelTimes, work: NDArray[np.int64] | int = 1) -> None:
        # A rank without work launches nothing.
        seconds = np.where(np.asarray(work) > 0, ledger.add(kernel, times), 0.0)
        source = f"{times.source}: {times.note}" if times.note else str(times.source)
        kernels.setdefault(stage, []).append(PricedKernel(kernel, seconds, source))

    def add(stage: str, kernel: str, work: NDArray[np.int64] | int, times: KernelTimes, layout: str = "") -> None:
        made = [(stage, times)]
        if prices is not None:
            times = times.scaled(prices.in_layer(stage, kernel, layout))
            made = [*layer_back(prices, stage, kernel, layout, times)] if backward else [(stage, times)]
        for name, times in made:
            enter(name, kernel, times, work)

    def timed(stage: str, kernel: str, work: NDArray[np.int64], **shape: Any) -> None:
        add(stage, kernel, work, table.times(kernel, **shape))

    timed("gate", "router", tokens, tokens=tokens, hidden=model.hidden, n_experts=model.n_experts, top_k=top_k)
    if dtype == "fp8" and not algorithm.quantises_inside:
        timed("gate", "quantize_fp8", tokens, tokens=tokens, hidden=model.sent)
    row_bytes, out_bytes = payload_bytes(model.sent, dtype), payload_bytes(model.sent, "bf16")
    received = copies.selections_received
    if not algorithm.permutes_inside:
        rows = tokens * top_k if algorithm.permutes_first else received
        timed("permute", "permute", rows, rows=rows, row_bytes=row_bytes)
        merged = tokens if algorithm.permutes_first else copies.ranks_received
        fan_in = rows / np.maximum(merged, 1)
        timed("unpermute", "unpermute", merged, rows=merged, row_bytes=out_bytes, top_k=fan_in)
    if model.shared_width:
        inter = model.shared_width
        timed("shared_expert", f"dense_mlp_{dtype}", tokens, tokens=tokens, hidden=model.hidden, inter=inter)
    order = np.argsort(slot_rank, kind="stable")
    ptr = np.searchsorted(slot_rank[order], np.arange(len(tokens) + 1))
    shape = (dtype, slot_tokens[order], model.sent, model.expert_hidden, ptr)
    # Low-latency kernels leave each expert's rows in a slab of their own, the others lay them one after another.
    layout = "masked" if algorithm.permutes_inside else "contiguous"
    add("experts", f"grouped_gemm_{dtype}", 1, table.grouped_gemm(*shape, layout=layout), layout)
    floor_s = table.expert_floor_s(*shape)
    if prices is None:
        other = np.full(len(tokens), parts.schedule.other_time)
        kernels[OTHER.name] = [PricedKernel("schedule.other_time", other, "scenario")]
    else:
        floor_s = floor_s * _step(prices, tokens, copies, kernels, enter, backward)
    return LayerKernels(kernels, floor_s, *table.expert_work(*shape))


def _step(
    prices: StepPrices,
    tokens: NDArray[np.int64],
    copies: CopyTotals,
    kernels: dict[str, list[PricedKernel]],
    enter: Enter,
    backward: bool,
) -> float:
    """Add what a whole step runs beside the layer; returns the share of the experts that is ahead of combine."""
    prices.chains(tokens, "permute" in kernels and not backward, enter)
    if prices.step.training is not None:
        priced = prices.attention(tokens)
        (attention_back if backward else StepPrices.forward)(prices, priced, tokens, enter)
        enter("experts", "casts, SwiGLU", beside_experts(prices, tokens, copies, backward))
        return 1.0
    prices.stages(tokens, enter)
    if prices.step.overlap != "single-batch":
        return 1.0
    ahead = 1 - 1 / prices.step.spec.ffn_matrices
    whole = kernels["experts"]
    kernels["experts"] = [replace(kernel, seconds=kernel.seconds * ahead) for kernel in whole]
    kernels[DOWN.name] = [replace(kernel, seconds=kernel.seconds * (1 - ahead)) for kernel in whole]
    return ahead

"""Seconds of the way back through a layer, and of what a stage of a pipeline has beside MoE layers.

A GEMM's way back is two GEMMs of as many FLOPs: the gradient of its input takes the forward time of the kernel table,
that of its weights the same times a constant for FP8 (DeepGEMM's weight gradient kernels are slower than its others).
Core attention back is five products for the two of the way forward, at a constant share of their rate. Small kernels
move a constant multiple of the forward bytes. Norms, SwiGLU and MLA's up-projections are computed again where the
scenario says so.

Not modelled: the embedding, the all-to-all's and the pipeline's buffers, gradient clipping.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moesim.compute import KernelTimes, release_factor
from moesim.layer.step_kernels import AttentionKernel, Enter, Ints, StepPrices, fixed, kept_cast_bytes
from moesim.stages import ATTENTION, ATTENTION_WEIGHTS, EXPERT_WEIGHTS, PROJECTIONS
from moesim.traffic import CopyTotals, Floats

_SMALL_IN_LAYER = ("permute", "unpermute")


class Passes(NamedTuple):
    """Seconds of a micro-batch on the slowest rank: forward, gradient of the input, gradients of the weights."""

    forward: float = 0.0
    input: float = 0.0
    weights: float = 0.0

    @property
    def backward(self) -> float:
        """Both parts of the way back."""
        return self.input + self.weights

    def plus(self, other: "Passes", times: float = 1.0) -> "Passes":
        """Return the sum with ``times`` the other one."""
        return Passes(*(own + times * more for own, more in zip(self, other, strict=True)))


def weights_over_forward(prices: StepPrices, kernel: str) -> float:
    """By what a GEMM's forward time is multiplied for the gradient of its weights."""
    if "fp8" not in kernel:
        return 1.0
    date = prices.step.library_date
    return (
        prices.step.constants.weight_gradient * release_factor("weight_gradient", date) / release_factor(kernel, date)
    )


def layer_back(
    prices: StepPrices, stage: str, kernel: str, layout: str, times: KernelTimes
) -> Iterator[tuple[str, KernelTimes]]:
    """Yield stage and times of what a forward kernel of the MoE layer is on the way back."""
    if stage in ("experts", "shared_expert"):
        yield stage, times
        name = f"{kernel} {layout}".strip()
        yield EXPERT_WEIGHTS.name, times.scaled(weights_over_forward(prices, name))
    elif stage in _SMALL_IN_LAYER:
        yield stage, times.scaled(prices.step.constants.backward_small)
    else:
        yield stage, times.scaled(2.0) if kernel == "router" else times


def attention_back(prices: StepPrices, priced: list[AttentionKernel], tokens: Ints, enter: Enter) -> None:
    """Enter the way back through a layer's attention."""
    constants, training = prices.step.constants, prices.step.training
    launches = dict.fromkeys((PROJECTIONS.name, ATTENTION.name, ATTENTION_WEIGHTS.name), 0.0)
    for one in priced:
        times = one.times.scaled(one.share * prices.factor(one.name, one.scales))
        launches[one.stage] += one.share
        if one.widths is not None:
            key, value = one.widths
            flops = (3 * key + 2 * value) / (key + value)
            enter(one.stage, f"{one.name} back", times.scaled(flops / constants.attention_backward_share))
        elif not one.scales:
            enter(one.stage, one.name, times.scaled(constants.backward_small))
        else:
            enter(one.stage, one.name, times)
            launches[ATTENTION_WEIGHTS.name] += one.share
            enter(ATTENTION_WEIGHTS.name, one.name, times.scaled(weights_over_forward(prices, one.name)))
        if one.again and training is not None and training.recompute:
            enter(one.stage, f"{one.name} again", times.scaled(one.again))
    for stage, count in launches.items():
        gaps = np.full(len(tokens), count * constants.launch_gap_s)
        enter(stage, "launch gaps", fixed(gaps, "step constants"))


def beside_experts(prices: StepPrices, tokens: Ints, copies: CopyTotals, backward: bool) -> KernelTimes:
    """Small kernels of the experts that inference has not.

    FP8: what experts take is cast in columns too, for their weights' gradients, copies from FP8 and the rest from BF16;
    gradients likewise. On the way back SwiGLU reads two inputs and a gradient and writes two, ten bytes in all, of
    which five are with the GEMMs; computed again, it takes five more.
    """
    spec, constants, training = prices.step.spec, prices.step.constants, prices.step.training
    rows = copies.selections_received.astype(np.float64)
    inside = rows * spec.expert_hidden + tokens * spec.shared_hidden
    moved = np.zeros(len(tokens))
    if prices.parts.message_dtype["dispatch"] == "fp8":
        moved += kept_cast_bytes(1) * (inside + tokens * spec.hidden * (spec.shared_hidden > 0))
        moved += kept_cast_bytes(1, read=1) * rows * (spec.latent or spec.hidden)
    if backward:
        moved += inside * (10 if training is not None and training.recompute else 5)
    rate = prices.parts.kernels.gpu.hbm_bandwidth * constants.expert_memory_share
    return fixed(moved / rate, "step constants: bytes at a share of the memory's peak")


class _Sum:
    """Adds up kernels by the stage that they are entered in."""

    def __init__(self, ranks: int) -> None:
        self.seconds: dict[str, Floats] = {}
        self._none = np.zeros(ranks)

    def enter(self, stage: str, kernel: str, times: KernelTimes) -> None:
        self.seconds[stage] = self.seconds.get(stage, self._none) + times.seconds

    def total(self, weights: bool) -> float:
        names = [name for name in self.seconds if (name == ATTENTION_WEIGHTS.name) == weights]
        return float(sum((self.seconds[name] for name in names), self._none).max())


def dense_layer(prices: StepPrices, tokens: Ints) -> Passes:
    """A layer without experts."""
    priced, there, back = prices.attention(tokens), _Sum(len(tokens)), _Sum(len(tokens))
    prices.forward(priced, tokens, there.enter)
    attention_back(prices, priced, tokens, back.enter)
    name, ffn = prices.dense_ffn(tokens)
    longest = float(ffn.seconds.max()) * prices.factor(name)
    whole = Passes(there.total(False), back.total(False), back.total(True))
    return whole.plus(Passes(longest, longest, longest * weights_over_forward(prices, name)))


def output_head(prices: StepPrices, tokens: Ints) -> Passes:
    """The output matrix on every token, with the loss: logits are read twice, and their gradients written."""
    gemm = float(prices.head(tokens).seconds.max()) * prices.factor("gemm_bf16")
    logits = float(prices.streamed_s(tokens.astype(np.float64) * (4 * prices.step.spec.vocab)).max())
    return Passes(gemm + logits, gemm + logits, gemm)


def prediction_layer(prices: StepPrices, tokens: Ints) -> Passes:
    """What multi-token prediction has beside an MoE layer: its projection of two tokens to one, and the head again."""
    hidden, dtype = prices.step.spec.hidden, prices.parts.message_dtype["dispatch"]
    shape = {"rows": tokens[:, None], "n": hidden, "k": 2 * hidden, "layout": "dense"}
    name = f"gemm_{dtype}"
    gemm = float(prices.parts.kernels.times(name, **shape).seconds.max()) * prices.factor(name)
    return output_head(prices, tokens).plus(Passes(gemm, gemm, gemm * weights_over_forward(prices, name)))

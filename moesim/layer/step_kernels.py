"""Seconds of what a whole step runs beside a layer's experts: attention, small kernels, dense layers, the head.

Attention is two stages: projections up to the rotated queries, then core attention, the output projection and what a
decode does around them. MLA decodes absorbed and prefills unabsorbed (``docs/mla.md``). GEMMs and core attention come
from the kernel table where it has them; batched products, mixers and attention without rows are estimated by the
roofline. Norms, casts, RoPE and the assembly of keys are bytes at a share of the memory's peak.

Where layers have different attention, every layer takes their mean. Not modelled: sparse attention, whose layers count
as full, tensor-parallel attention, the embedding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compute import (
    STREAM_BANDWIDTH_SHARE,
    KernelTimes,
    Work,
    grouped_attention,
    most_flops,
    release_factor,
    roofline_times,
)
from moesim.layer.inference import Inference
from moesim.layer.parts import Parts
from moesim.model import Attention, attention_work
from moesim.stages import (
    ATTENTION,
    DENSE,
    HEAD,
    HOST,
    PROJECTIONS,
    RECEIVE_COMBINE,
    RECEIVE_DISPATCH,
    SEND_COMBINE,
    SEND_DISPATCH,
)
from moesim.traffic import Floats

Ints = NDArray[np.int64]

Enter = Callable[[str, str, KernelTimes], None]
"""Takes a kernel of a stage: stage, kernel, times."""


class AttentionKernel(NamedTuple):
    """One kernel of an attention.

    Attributes:
        stage: which it is part of; ``name``: what it is called.
        scales: with the SMs it has.
        widths: of keys and values of a head, of core attention alone.
        again: share of it that training computes once more on the way back, where it recomputes norms and MLA's
            up-projections rather than keep what comes of them.
        share: of the layers that have it.
    """

    stage: str
    name: str
    times: KernelTimes
    scales: bool = True
    widths: tuple[int, int] | None = None
    again: float = 0.0
    share: float = 1.0


@dataclass(frozen=True)
class StepPrices:
    """Prices kernels of a step on every rank."""

    parts: Parts
    step: Inference

    @property
    def stretch(self) -> float:
        """S / (S - n) where grids leave n SMs to communication throughout: prefill and training that overlap."""
        if self.step.decode or self.step.overlap != "two-batch":
            return 1.0
        constants = self.parts.constants["dispatch"]
        return constants.total_sms / (constants.total_sms - constants.sms)

    def factor(self, kernel: str, scales: bool = True) -> float:
        """By what a kernel's time in the table is multiplied: its SMs and its release."""
        released = 1.0 if self.step.decode else release_factor(kernel, self.step.library_date)
        return released * (self.stretch if scales else 1.0)

    def attention(self, tokens: Ints) -> list[AttentionKernel]:
        """The kernels of a layer's attention for ``tokens`` [ranks]."""
        spec = self.step.spec
        kinds = [(one, len(one.layers) / spec.layers) for one in spec.attentions if one.layers]
        return [kernel._replace(share=share) for one, share in kinds for kernel in self._attention(one, tokens)]

    def dense_ffn(self, tokens: Ints) -> tuple[str, KernelTimes]:
        """The FFN of a layer without experts: its kernel, and its times in the table."""
        spec, name = self.step.spec, f"dense_mlp_{self.parts.message_dtype['dispatch']}"
        width = spec.dense_hidden or spec.router.top_k * spec.expert_hidden + spec.shared_hidden
        return name, self.parts.kernels.times(name, tokens=tokens, hidden=spec.hidden, inter=width)

    def head(self, rows: Ints) -> KernelTimes:
        """The output matrix on so many rows of every rank."""
        return self._gemm("bf16", rows, self.step.spec.vocab, self.step.spec.hidden)

    def forward(self, priced: list[AttentionKernel], tokens: Ints, enter: Enter) -> None:
        """Enter the attention of a layer."""
        zero = np.zeros(len(tokens))
        for one in priced:
            enter(one.stage, one.name, one.times.scaled(one.share * self.factor(one.name, one.scales)))
        for stage in (PROJECTIONS.name, ATTENTION.name):
            launches = sum(one.share for one in priced if one.stage == stage)
            gaps = np.full(len(tokens), launches * self.step.constants.launch_gap_s)
            enter(stage, "launch gaps", fixed(gaps, "step constants"))
        if self.parts.schedule.other_time:  # what is not known is part of attention here, not beside it
            enter(ATTENTION.name, "schedule.other_time", fixed(zero + self.parts.schedule.other_time, "scenario"))

    def stages(self, tokens: Ints, enter: Enter) -> None:
        """Price all stages beside the MoE layer for ``tokens`` [ranks] of a micro-batch of inference."""
        step, spec = self.step, self.step.spec
        constants, zero = step.constants, np.zeros(len(tokens))
        priced = self.attention(tokens)
        self.forward(priced, tokens, enter)
        for one in priced if step.plain_layers else ():
            weight = step.plain_layers * one.share * self.factor(one.name, one.scales)
            enter(DENSE.name, one.name, one.times.scaled(weight))
        if spec.dense_layers:
            name, ffn = self.dense_ffn(tokens)
            enter(DENSE.name, name, ffn.scaled(spec.dense_layers * self.factor(name)))
        # A prompt's last token alone goes through the output matrix; every token of a decode does.
        rows = tokens * step.micro_batches
        rows = rows if step.decode else np.minimum(rows, np.ceil(rows / np.mean(step.lengths)).astype(np.int64))
        enter(HEAD.name, "gemm_bf16", self.head(rows))
        enter(HOST.name, "host", fixed(zero + constants.host_s, "step constants"))
        hook = constants.hook_s if step.hooks else 0.0
        for stage in (SEND_DISPATCH, RECEIVE_DISPATCH, SEND_COMBINE, RECEIVE_COMBINE):
            enter(stage.name, "hook", fixed(zero + hook, "step constants"))

    def in_layer(self, stage: str, kernel: str, layout: str = "") -> float:
        """By what the time of a kernel of the MoE layer is multiplied in a whole step."""
        if stage in ("permute", "unpermute"):
            return STREAM_BANDWIDTH_SHARE / self.step.constants.expert_memory_share
        if kernel in ("router", "quantize_fp8"):
            return 1.0
        return self.factor(f"{kernel} {layout}".strip())

    def chains(self, tokens: Ints, permutes: bool, enter: Enter) -> None:
        """Price what a step adds to stages of the MoE layer: the gate's chain of small kernels, maps of indices."""
        constants, note = self.step.constants, "step constants"
        chain = constants.gate_chain_decode_s if self.step.decode else constants.gate_chain_prefill_s
        enter("gate", "gate chain", fixed(np.full(len(tokens), chain), note))
        if permutes:
            enter("permute", "index maps", fixed(tokens.astype(np.float64) * constants.index_maps_s, note))

    def _gemm(self, dtype: str, rows: Ints, n: int, k: int) -> KernelTimes:
        return self.parts.kernels.times(f"gemm_{dtype}", rows=rows[:, None], n=n, k=k, layout="dense")

    def _attention(self, one: Attention, tokens: Ints) -> Iterator[AttentionKernel]:
        """Kernels of one layer's attention."""
        spec, gpu = self.step.spec, self.parts.kernels.gpu
        dtype = self.parts.message_dtype["dispatch"]
        gemm, first, second = f"gemm_{dtype}", PROJECTIONS.name, ATTENTION.name
        hidden, per_token, count = spec.hidden, 22.0 * spec.hidden, tokens.astype(np.float64)
        norms = 14.0 * hidden  # two, read and written in BF16 and cast
        if one.kind == "mla":
            latent, nope, rope, value = one.mla_sizes()
            heads, rank = one.heads, one.q_lora_rank or 0
            cached = latent + rope
            down = rank + cached if rank else heads * (nope + rope) + cached
            yield AttentionKernel(first, gemm, self._gemm(dtype, tokens, down, hidden))
            if rank:
                yield AttentionKernel(first, gemm, self._gemm(dtype, tokens, heads * (nope + rope), rank), again=1.0)
            assembled = 10 * (rank + latent) + heads * (4 * rope + 2 * (2 * nope + rope))
            per_token += assembled + heads * 7 * value
            norms += assembled
            if self.step.decode:
                yield AttentionKernel(first, "absorb queries", self._batched(tokens, heads, nope, latent))
                yield AttentionKernel(second, "mla_decode", self._in_dtype(self._mla_decode(one, tokens)))
                yield AttentionKernel(second, "values of heads", self._batched(tokens, heads, latent, value))
            else:
                yield AttentionKernel(first, gemm, self._gemm(dtype, tokens, heads * (nope + value), latent), again=1.0)
                core = self._in_dtype(self._mla_prefill(one, tokens))
                yield AttentionKernel(second, "mla_prefill", core, widths=(nope + rope, value))
            yield AttentionKernel(second, gemm, self._gemm(dtype, tokens, hidden, heads * value))
        elif one.cache_elements:
            kv_heads, key, value = one.grouped()
            values = value or key
            wide = one.heads * key + kv_heads * (key + value)
            yield AttentionKernel(first, gemm, self._gemm(dtype, tokens, wide, hidden))
            core = self._in_dtype(self._grouped(one, tokens))
            yield AttentionKernel(second, "attention", core, widths=(key, values))
            yield AttentionKernel(second, gemm, self._gemm(dtype, tokens, hidden, one.heads * values))
            per_token += 4.0 * (one.heads + 2 * kv_heads) * key
        else:
            weights = float(one.parameters(hidden))
            width = 1 if dtype == "fp8" else 2
            moved = np.where(count > 0, weights * width, 0.0) + 8.0 * count * hidden
            work = Work(2.0 * count * weights, moved, dtype)
            times = roofline_times(gpu, work, f"{one.kind}: estimated from its weights")
            yield AttentionKernel(second, one.kind, times)
        if self.step.training is not None and dtype == "fp8":
            per_token += kept_cast_bytes(hidden + _attention_inputs(one))
        small = fixed(self.streamed_s(count * per_token), "step constants: bytes at a share of the memory's peak")
        yield AttentionKernel(first, "norms, casts, RoPE", small, False, again=norms / per_token)

    def streamed_s(self, moved: Floats) -> Floats:
        """Seconds of small kernels beside the experts that read and write so many bytes."""
        return moved / (self.parts.kernels.gpu.hbm_bandwidth * self.step.constants.attention_memory_share)

    def _batched(self, tokens: Ints, heads: int, k: int, n: int) -> KernelTimes:
        """A BF16 product of every head by its own small matrix."""
        count = tokens.astype(np.float64)
        moved = 2.0 * heads * (np.where(count > 0, float(k * n), 0.0) + count * (k + n))
        work = Work(2.0 * count * heads * k * n, moved)
        return roofline_times(self.parts.kernels.gpu, work, "batched product estimated by the roofline")

    def _requests(self, tokens: Ints) -> tuple[Ints, int]:
        """Requests on every rank, [ranks], and what each keeps: a kernel reads them all at once, so the mean counts."""
        return -(-tokens // self.step.query_tokens), max(round(float(np.mean(self.step.lengths))), 1)

    def _mla_decode(self, one: Attention, tokens: Ints) -> KernelTimes:
        table, step = self.parts.kernels, self.step
        latent, *_, rope, _ = one.mla_sizes()
        requests, context = self._requests(tokens)
        shape = {"heads": one.heads, "q_tokens": step.query_tokens, "kv_lora_rank": latent, "rope_head_dim": rope}
        times = table.times("mla_decode", batch=requests, kv_len=context, **shape)
        date = step.library_date
        if step.query_tokens == 1 and date is None:
            return times
        flops = 2.0 * requests * step.query_tokens * one.heads * context * (2 * latent + rope)
        least = flops / most_flops(table.gpu, date)
        if (least <= times.seconds).all():
            return times
        return fixed(np.maximum(times.seconds, least), "at the most that FlashMLA publishes")

    def _in_dtype(self, times: KernelTimes) -> KernelTimes:
        """Core attention in FP8, of which no kernel is measured: the published share of its time in BF16."""
        if self.step.attention_dtype == "bf16":
            return times
        speedup = self.step.constants.fp8_attention_speedup
        return fixed(times.seconds / speedup, f"FP8: {speedup:g} times as fast as in BF16 ({times.source})")

    def _prompts(self, tokens: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Tokens, prompts and tokens of each, for every length; whole prompts, at least one."""
        share = np.array(self.step.lengths) / sum(self.step.lengths)
        for length, part in zip(self.step.lengths, share, strict=True):
            own = np.rint(tokens * part).astype(np.int64)
            prompts = np.maximum(np.rint(own / length).astype(np.int64), 1)
            yield own, prompts, -(-own // prompts)

    def _mla_prefill(self, one: Attention, tokens: Ints) -> KernelTimes:
        _, nope, rope, value = one.mla_sizes()
        shape: dict[str, Any] = {"heads": one.heads, "qk_head_dim": nope + rope, "v_head_dim": value}
        found = []
        for own, prompts, length in self._prompts(tokens):
            together = self.parts.kernels.times("mla_prefill", tokens=own, kv_len=length, sequences=prompts, **shape)
            # Rows are of one prompt: what fills the GPU takes as many times as long.
            alone = self.parts.kernels.times("mla_prefill", tokens=length, kv_len=length, sequences=1, **shape)
            in_turn = alone.scaled(prompts.astype(np.float64))
            found.append(min(together, in_turn, key=lambda times: float(times.seconds.sum())))
        return added(found)

    def _grouped(self, one: Attention, tokens: Ints) -> KernelTimes:
        """Core attention of MHA, GQA and MQA: the GPU's own rows, else the roofline."""
        table, step = self.parts.kernels, self.step
        kv_heads, key, value = one.grouped()
        found = []
        if step.decode:
            requests, context = self._requests(tokens)
            work = attention_work(one, max(context - step.query_tokens, 0), step.query_tokens)
            seen = min(context, one.window or context)
            shape = {"batch": requests, "kv_len": seen, "heads": one.heads, "kv_heads": kv_heads, "head_dim": key}
            rows = shape if step.query_tokens == 1 and value == key else None
            each = requests.astype(np.float64)
            moved = each * (work.read_bytes + 2.0 * 2 * step.query_tokens * one.heads * key)
            found.append(grouped_attention(table, "attn_decode", rows, Work(each * work.flops, moved), 1.0))
        for own, prompts, length in self._prompts(tokens) if not step.decode else ():
            each = np.array([attention_work(one, 0, int(of)).flops if of else 0.0 for of in length])
            flops = prompts.astype(np.float64) * each
            moved = own.astype(np.float64) * 2.0 * (2 * one.heads * key + kv_heads * (key + value))
            shape = {"batch": prompts, "kv_len": length, "heads": one.heads, "kv_heads": kv_heads, "head_dim": key}
            rows = shape if not one.window and value == key else None
            share = step.constants.attention_peak_share
            found.append(grouped_attention(table, "attn_prefill", rows, Work(flops, moved), share))
        return added(found)


def _attention_inputs(one: Attention) -> int:
    """Elements of a token that the GEMMs behind the first of an attention take."""
    if one.kind == "mla":
        latent, *_, value = one.mla_sizes()
        return latent + (one.q_lora_rank or 0) + one.heads * value
    if not one.cache_elements:
        return 0
    _, key, value = one.grouped()
    return one.heads * (value or key)


def kept_cast_bytes(elements: float, read: int = 2) -> float:
    """Bytes of a cast to FP8 in columns, which gradients of weights take beside the rows of the forward pass."""
    return elements * (read + 1)


def fixed(seconds: Floats, note: str) -> KernelTimes:
    """Times that no kernel table has: estimated."""
    return KernelTimes(seconds, "estimated", None, note, {"estimated": 1.0})


def added(found: list[KernelTimes]) -> KernelTimes:
    """The sum of times, one kernel after the other; shares weighted by seconds."""
    if len(found) == 1:
        return found[0]
    total = float(sum(one.seconds.sum() for one in found)) or 1.0
    shares: dict[Any, float] = {}
    for one in found:
        for source, share in one.shares.items():
            shares[source] = shares.get(source, 0.0) + share * float(one.seconds.sum()) / total
    most = max(found, key=lambda one: float(one.seconds.sum()))
    return KernelTimes(np.sum([one.seconds for one in found], axis=0), most.source, most.error, most.note, shares)

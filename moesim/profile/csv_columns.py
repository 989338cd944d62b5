"""The columns of a profile: one row per kernel, shape and cache state, the same for every GPU.

A row is written once its kernel was checked and timed, and says so in ``status``. Numbers that do not apply are
empty. Times are microseconds, sizes bytes, rates 1e12 FLOP/s and 1e9 bytes/s.
"""

SCHEMA_VERSION = 1

DESCRIPTION = {
    "schema_version": f"{SCHEMA_VERSION}",
    "kernel": "what was timed, see KERNELS",
    "impl": "who computed it, see IMPLEMENTATIONS",
    "dtype": "of the inputs: bf16 or fp8 (e4m3)",
    "variant": "v1, v2, v3 (whose shape it is), gqa; start-1, middle-1, end-1 of an anchor; eager or graph of launch",
    "tokens": "tokens, or rows in all; new tokens per sequence of attention; bytes of copy, side of anchor_gemm",
    "tokens_per_expert": "mean rows per local expert, tokens / experts_local",
    "experts_local": "experts the kernel sees: those of one GPU, for the router all",
    "hidden": "hidden size of the model",
    "inter": "width of one expert, or of the dense MLP",
    "topk": "experts per token",
    "load_shape": "balanced, zipf1.2 or one-hot: how tokens fall on the local experts",
    "cache": "cold (inputs come from memory) or hot (from the L2 cache, if they fit)",
    "median_us": "median time of a call",
    "p20_us": "20th percentile",
    "p80_us": "80th percentile",
    "n": "samples behind the three",
    "flops": "floating-point operations that the result needs",
    "bytes": "bytes that must cross the memory bus: each input read, each output written once",
    "tflops": "flops / median",
    "gbps": "bytes / median",
    "sol_us": "max(flops / peak, bytes / bandwidth): the shortest time at the GPU's nominal peaks; empty if unknown",
    "util": "sol_us / median_us",
    "max_rel_err": "largest error against float32, relative to the largest value; 0 for exact kernels",
    "status": "ok, wrong: ... (not timed), unsupported: ... or failed: ...",
    "batch": "sequences of attention; kernels per call of launch",
    "kv_len": "cached tokens per sequence, the new ones included",
    "heads": "query heads",
    "largest_load": "rows of the fullest local expert",
    "experts_hit": "local experts with at least one row",
    "timer": "graph (a captured chain of calls), events (one call between two events) or clock (perf_counter)",
    "device": "the device's own name for itself",
}
COLUMNS = tuple(DESCRIPTION)

# These name a row: no two rows of a file agree in all of them.
KEY_COLUMNS = (
    "kernel", "impl", "dtype", "variant", "tokens", "tokens_per_expert", "experts_local", "hidden", "inter", "topk",
    "load_shape", "cache", "batch", "kv_len", "heads",
)  # fmt: skip

IMPLEMENTATIONS = {
    "torch": "PyTorch's own operators; grouped GEMMs by grouped_mm, fp8 with one scale per row",
    "torch-block": "fp8 with a scale per 1 x 128 inputs and per 128 x 128 weights",
    "triton": "one kernel of moesim/profile/kernels/fused_moe.py",
    "torch+triton": "GEMMs by PyTorch, what lies between them by Triton",
    "absorbed": "MLA on the latent cache itself: batched GEMM, softmax, batched GEMM",
    "unabsorbed": "MLA that first rebuilds keys and values of all heads from the latent cache",
    "sdpa": "scaled_dot_product_attention, the fused backend that PyTorch picks",
    "sdpa-padded": "the same with values padded from 128 to 192, since FlashAttention wants equal heads",
}

KERNELS = {
    "anchor_copy": "a large copy, repeated at start, middle and end to see the device drift",
    "anchor_gemm": "a large square GEMM, likewise",
    "copy": "device copy; bytes counts the read and the write",
    "launch": "kernels that do nothing, ``batch`` of them one after the other",
    "grouped_gemm_up": "rows[tokens, hidden] x weights[experts, hidden, 2 inter]",
    "grouped_gemm_down": "rows[tokens, inter] x weights[experts, inter, hidden]",
    "expert_mlp": "up, SwiGLU, down over the local experts; with fp8 the cast between them too",
    "router": "logits, scores, (group) top-k and gates of the variant",
    "router_topk": "the same without the GEMM",
    "sort": "rows per expert and the stable order of tokens by expert",
    "permute": "gather tokens into expert order, topk rows each",
    "unpermute": "weighted sum of a token's topk rows",
    "swiglu": "SiLU(gate) * up over rows[tokens, 2 inter]",
    "quantize_fp8": "bf16 to fp8 with one scale per 128 values",
    "dense_gemm": "rows[tokens, hidden] x weights[hidden, 2 inter]",
    "dense_mlp": "the shared expert: up, SwiGLU, down; with fp8 the cast between them too",
    "mla_prefill": "causal multi-head attention of MLA, heads of 192 and 128",
    "mla_decode": "one new token per sequence against the latent cache; absorbed (bmm) or with rebuilt keys",
    "mha_prefill": "causal attention, as many KV heads as query heads",
    "mha_decode": "one new token per sequence",
    "gqa_prefill": "causal attention, 8 KV heads",
    "gqa_decode": "one new token per sequence",
}

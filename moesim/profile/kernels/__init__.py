"""The kernels: from a point of the grid to something that can be checked and timed."""

from collections.abc import Callable

from moesim.profile.kernels import attention_kernels, expert_gemm, moving, router
from moesim.profile.kernels.case import Case, Draw
from moesim.profile.points import Point

_BUILDERS: dict[str, Callable[[Point, Draw], Case]] = {
    "anchor_copy": moving.copy,
    "anchor_gemm": expert_gemm.square,
    "copy": moving.copy,
    "launch": moving.launch,
    "grouped_gemm_up": expert_gemm.gemm,
    "grouped_gemm_down": expert_gemm.gemm,
    "expert_mlp": expert_gemm.mlp,
    "router": router.router,
    "router_topk": router.router,
    "sort": router.sort,
    "permute": moving.permute,
    "unpermute": moving.unpermute,
    "swiglu": moving.swiglu,
    "quantize_fp8": moving.quantize_fp8,
    "dense_gemm": expert_gemm.gemm,
    "dense_mlp": expert_gemm.mlp,
    "mla_prefill": attention_kernels.attention,
    "mla_decode": attention_kernels.mla_decode,
    "mha_prefill": attention_kernels.attention,
    "mha_decode": attention_kernels.attention,
    "gqa_prefill": attention_kernels.attention,
    "gqa_decode": attention_kernels.attention,
}


def build(point: Point, draw: Draw) -> Case:
    """Return the case of ``point``; raises whatever PyTorch raises where the device or version refuses."""
    return _BUILDERS[point.kernel](point, draw)

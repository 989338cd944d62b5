"""The kernels: from a point of the grid to something that can be checked and timed."""

from collections.abc import Callable

from moesim.profile.kernels import attention, elementwise, experts, moving, routing
from moesim.profile.kernels.case import Case, Draw
from moesim.profile.points import Point

_BUILDERS: dict[str, Callable[[Point, Draw], Case]] = {
    "anchor_copy": moving.copy,
    "anchor_gemm": experts.square,
    "copy": moving.copy,
    "launch": moving.launch,
    "grouped_gemm_up": experts.gemm,
    "grouped_gemm_down": experts.gemm,
    "expert_mlp": experts.mlp,
    "router": routing.router,
    "router_topk": routing.router,
    "sort": routing.sort,
    "permute": moving.permute,
    "unpermute": moving.unpermute,
    "swiglu": elementwise.swiglu,
    "quantize_fp8": elementwise.quantize_fp8,
    "dense_gemm": experts.gemm,
    "dense_mlp": experts.mlp,
    "mla_prefill": attention.attention,
    "mla_decode": attention.mla_decode,
    "mha_prefill": attention.attention,
    "mha_decode": attention.attention,
    "gqa_prefill": attention.attention,
    "gqa_decode": attention.attention,
}


def build(point: Point, draw: Draw) -> Case:
    """Return the case of ``point``; raises whatever PyTorch raises where the device or version refuses."""
    return _BUILDERS[point.kernel](point, draw)

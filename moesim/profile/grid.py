"""Which points are measured, from coarse to fine.

Every axis has three levels: its ends and each fourth value, each second, all. A point's level is the largest of its
axes', so that each finished level is a full (tensor) grid by itself, and a run that is cut anywhere leaves a table to
interpolate in. ``quick`` is the coarsest level of the largest model alone.
"""

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from moesim.errors import InputError
from moesim.profile.csv_columns import DATA, SCHEMA_VERSION
from moesim.profile.points import LAYERS, Layer, LoadShape, Point
from moesim.profile.work import mla_heads_bytes

UNEVEN: tuple[LoadShape, ...] = ("balanced", "zipf1.2", "one-hot")


@dataclass(frozen=True)
class Sizes:
    """The axes of a grid: those of a GPU, or small ones that a CPU gets through."""

    layers: tuple[Layer, ...]
    tokens_per_expert: tuple[int, ...]
    experts: tuple[int, ...]
    most_rows: int
    tokens: tuple[int, ...]
    copy_bytes: tuple[int, ...]
    uneven_tokens: tuple[int, ...]
    uneven_experts: int
    prefill: tuple[int, ...]
    batches: tuple[int, ...]
    kv_lens: tuple[int, ...]
    heads: int
    few_heads: int
    most_cache: int
    anchor_side: int
    anchor_bytes: int
    glue: str  # what runs between the GEMMs of an MLP
    fused: bool  # are the Triton kernels asked for


def gpu_sizes(triton: bool) -> Sizes:
    """Return the axes of the full grid; without Triton its kernels are asked for all the same, and refused."""
    return _sizes("gpu", tuple(LAYERS.values()), "torch+triton" if triton else "torch")


def cpu_sizes() -> Sizes:
    """Return the axes that two CPU cores get through: the same kernels at an eighth of the sizes."""
    return _sizes("cpu", tuple(layer.shrunk(8) for layer in LAYERS.values()), "torch")


def _sizes(device: str, layers: tuple[Layer, ...], glue: str) -> Sizes:
    own = tomllib.loads((DATA / "profile_sizes.toml").read_text(encoding="utf-8"))[device]
    axes: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    return Sizes(layers=layers, glue=glue, **axes)


def level(index: int, count: int) -> int:
    """Return the level of value ``index`` on an axis of ``count`` values."""
    return 0 if index % 4 == 0 or index == count - 1 else 1 if index % 2 == 0 else 2


def _levelled(values: Sequence[int]) -> list[tuple[int, int]]:
    return [(level(index, len(values)), value) for index, value in enumerate(values)]


def _copies(sizes: Sizes) -> Iterator[Point]:
    for at, size in _levelled(sizes.copy_bytes):
        yield Point("copy", dtype="", tokens=size, level=at)
    for impl, how, count in product(
        ("torch", "triton") if sizes.fused else ("torch",), ("eager", "graph"), (1, 10, 100)
    ):
        yield Point("launch", impl, dtype="", variant=how, batch=count)


def _grouped(sizes: Sizes) -> Iterator[Point]:
    kernels = (("expert_mlp", sizes.glue), ("grouped_gemm_up", "torch"), ("grouped_gemm_down", "torch"))
    axes = product(reversed(sizes.layers), kernels, ("bf16", "fp8"))
    for layer, (kernel, impl), dtype in axes:
        for (at_experts, experts), (at_tokens, rows) in product(
            _levelled(sizes.experts), _levelled(sizes.tokens_per_expert)
        ):
            at = max(at_experts, at_tokens)
            # The two GEMMs by themselves explain the MLP, whose time is what gets looked up: a coarser grid will do.
            if rows * experts <= sizes.most_rows and (kernel == "expert_mlp" or at < 2):
                yield _expert_point(layer, kernel, impl, dtype, rows * experts, experts, "balanced", at)
                if (kernel, dtype, layer.name, at) == ("grouped_gemm_up", "fp8", "v3", 0):
                    yield _expert_point(layer, kernel, "torch-block", dtype, rows * experts, experts, "balanced", 1)


def _uneven(sizes: Sizes) -> Iterator[Point]:
    kernels = (("grouped_gemm_up", "torch"), ("expert_mlp", sizes.glue))
    axes = product(reversed(sizes.layers), _levelled(sizes.uneven_tokens), ("bf16", "fp8"), kernels, UNEVEN)
    for layer, (at, rows), dtype, (kernel, impl), shape in axes:
        tokens = rows * sizes.uneven_experts
        yield _expert_point(layer, kernel, impl, dtype, tokens, sizes.uneven_experts, shape, at)


def _expert_point(
    layer: Layer, kernel: str, impl: str, dtype: str, tokens: int, experts: int, shape: LoadShape, at: int
) -> Point:
    return Point(
        kernel, impl, dtype, layer.name, tokens=tokens, experts_local=experts, hidden=layer.hidden, inter=layer.inter,
        load_shape=shape, level=at,
    )  # fmt: skip


def _dense(sizes: Sizes) -> Iterator[Point]:
    for layer, (at, tokens), dtype in product(reversed(sizes.layers), _levelled(sizes.tokens), ("bf16", "fp8")):
        shape: dict[str, Any] = {"tokens": tokens, "hidden": layer.hidden, "inter": layer.inter * layer.n_shared}
        yield Point("dense_mlp", sizes.glue, dtype, layer.name, **shape, level=at)
        yield Point("dense_gemm", "torch", dtype, layer.name, **shape, level=at)
        if (dtype, layer.name, at) == ("fp8", "v3", 0):
            yield Point("dense_gemm", "torch-block", dtype, layer.name, **shape, level=at)


def _router(sizes: Sizes) -> Iterator[Point]:
    for layer, (at, tokens), kernel in product(
        reversed(sizes.layers), _levelled(sizes.tokens), ("router", "router_topk", "sort")
    ):
        hidden = layer.hidden if kernel == "router" else 0
        dtype = "bf16" if kernel == "router" else ""
        yield Point(
            kernel, "torch", dtype, layer.name, tokens=tokens, experts_local=layer.n_experts, hidden=hidden,
            topk=layer.top_k, level=at,
        )  # fmt: skip


def _asked(sizes: Sizes, impl: str, at: int) -> bool:
    """Where there are Triton kernels, PyTorch's own are only compared with them on the coarsest level."""
    return at == 0 or impl == "triton" if sizes.fused else impl == "torch"


def _permute(sizes: Sizes) -> Iterator[Point]:
    for layer, (at, tokens), impl in product(reversed(sizes.layers), _levelled(sizes.tokens), ("triton", "torch")):
        if not _asked(sizes, impl, at):
            continue
        shape: dict[str, Any] = {"tokens": tokens, "hidden": layer.hidden, "topk": layer.top_k}
        yield Point("unpermute", impl, "bf16", layer.name, **shape, level=at)
        for dtype in ("bf16", "fp8"):
            yield Point("permute", impl, dtype, layer.name, **shape, level=at)


def _elementwise(sizes: Sizes) -> Iterator[Point]:
    for layer, (at, tokens), impl in product(reversed(sizes.layers), _levelled(sizes.tokens), ("triton", "torch")):
        if not _asked(sizes, impl, at):
            continue
        yield Point("swiglu", impl, "bf16", layer.name, tokens=tokens, inter=layer.inter, level=at)
        yield Point("quantize_fp8", impl, "bf16", layer.name, tokens=tokens, hidden=layer.hidden, level=at)


def _attention(sizes: Sizes) -> Iterator[Point]:
    kinds = (("mla", "v3", sizes.heads), ("mha", "v1", sizes.few_heads), ("gqa", "gqa", sizes.heads // 2))
    for kind, variant, heads in kinds:
        impls = ("sdpa", "sdpa-padded") if kind == "mla" else ("sdpa",)
        for (at, length), impl in product(_levelled(sizes.prefill), impls):
            yield Point(
                f"{kind}_prefill", impl, variant=variant, tokens=length, batch=1, kv_len=length, heads=heads, level=at
            )
        for (a, batch), (b, kv) in product(_levelled(sizes.batches), _levelled(sizes.kv_lens)):
            for impl in ("absorbed", "unabsorbed") if kind == "mla" else ("sdpa",):
                point = Point(
                    f"{kind}_decode", impl, variant=variant, tokens=1, batch=batch, kv_len=kv, heads=heads,
                    level=max(a, b),
                )  # fmt: skip
                if impl == "unabsorbed" and mla_heads_bytes(point) > sizes.most_cache:
                    continue
                yield point


_FAMILIES: dict[str, Callable[[Sizes], Iterator[Point]]] = {
    "copy": _copies,
    "grouped": _grouped,
    "dense": _dense,
    "router": _router,
    "permute": _permute,
    "elementwise": _elementwise,
    "uneven": _uneven,
    "attention": _attention,
}
FAMILIES = tuple(_FAMILIES)


def grid(sizes: Sizes, families: Iterable[str] = FAMILIES, quick: bool = False) -> list[Point]:
    """Return the points of the families, each once, coarse to fine; raises InputError for an unknown family."""
    wanted = set(families)
    if unknown := sorted(wanted - set(FAMILIES)):
        raise InputError(f"no family {unknown[0]!r}", "--families", f"families are {', '.join(FAMILIES)}")
    points: dict[Point, Point] = {}
    for name in FAMILIES:
        for point in _FAMILIES[name](sizes) if name in wanted else ():
            kept = points.get(point)
            if kept is None or point.level < kept.level:  # two families may ask for one point
                points[point] = replace(point, family=name)
    ordered = sorted(points.values(), key=lambda point: (point.level, FAMILIES.index(point.family)))
    return [point for point in ordered if not quick or _is_quick(point)]


def _is_quick(point: Point) -> bool:
    return point.level == 0 and point.variant not in ("v1", "v2")


def digest(sizes: Sizes) -> str:
    """Return the SHA-256 of the whole grid, whatever part of it is asked for."""
    rows = sorted("|".join(point.fields("").values()) for point in grid(sizes))
    return hashlib.sha256("\n".join((str(SCHEMA_VERSION), *rows)).encode()).hexdigest()


def anchors(sizes: Sizes, when: str, session: int) -> list[Point]:
    """Return the anchors of one of a session's moments: start, middle or end."""
    variant = f"{when}-{session}"
    return [
        Point("anchor_copy", dtype="", variant=variant, tokens=sizes.anchor_bytes, family="anchor"),
        Point("anchor_gemm", variant=variant, tokens=sizes.anchor_side, family="anchor"),
    ]

"""What is measured: the layers of three published models, and one point of the grid."""

from dataclasses import dataclass, field
from typing import Literal

LoadShape = Literal["", "balanced", "zipf1.2", "one-hot"]


@dataclass(frozen=True)
class Layer:
    """Sizes and router of one MoE layer: DeepSeekMoE-16B (v1), DeepSeek-V2 (v2), DeepSeek-V3 (v3)."""

    name: str
    hidden: int
    inter: int
    n_experts: int
    top_k: int
    n_shared: int
    score: Literal["softmax", "sigmoid"] = "softmax"
    n_groups: int = 1
    top_groups: int = 1
    scale: float = 1.0

    def shrunk(self, factor: int) -> "Layer":
        """Return the layer with ``hidden`` and ``inter`` divided by ``factor``, for devices that are slow."""
        return Layer(
            self.name, self.hidden // factor, self.inter // factor, self.n_experts, self.top_k, self.n_shared,
            self.score, self.n_groups, self.top_groups, self.scale,
        )  # fmt: skip


LAYERS = {
    "v1": Layer("v1", 2048, 1408, 64, 6, 2),
    "v2": Layer("v2", 5120, 1536, 160, 6, 2, n_groups=8, top_groups=3, scale=16.0),
    "v3": Layer("v3", 7168, 2048, 256, 8, 1, "sigmoid", n_groups=8, top_groups=4, scale=2.5),
}


@dataclass(frozen=True)
class Point:
    """One kernel at one shape; fields as the columns of the same names, 0 or "" where one does not apply.

    ``level`` orders the grid from coarse to fine; ``family`` is the name under which it is asked for.
    """

    kernel: str
    impl: str = "torch"
    dtype: str = "bf16"
    variant: str = ""
    tokens: int = 0
    experts_local: int = 0
    hidden: int = 0
    inter: int = 0
    topk: int = 0
    load_shape: LoadShape = ""
    batch: int = 0
    kv_len: int = 0
    heads: int = 0
    family: str = field(default="", compare=False)
    level: int = field(default=0, compare=False)

    def loads(self) -> list[int]:
        """Return the rows of each local expert; they sum to ``tokens``."""
        return expert_loads(self.tokens, self.experts_local, self.load_shape)

    def fields(self, cache: str) -> dict[str, str]:
        """Return the key columns of the row for one cache state, as the file has them."""
        per_expert = f"{self.tokens / self.experts_local:.6g}" if self.load_shape else ""
        numbers = {
            name: str(getattr(self, name) or "")
            for name in ("tokens", "experts_local", "hidden", "inter", "topk", "batch", "kv_len", "heads")
        }
        words = {name: getattr(self, name) for name in ("kernel", "impl", "dtype", "variant", "load_shape")}
        return {**words, **numbers, "tokens_per_expert": per_expert, "cache": cache}


def expert_loads(tokens: int, experts: int, shape: LoadShape) -> list[int]:
    """Return how ``tokens`` fall on ``experts``: balanced, popularity as 1 / rank^1.2, or all on the first.

    Whole numbers by largest remainder, so that every shape has exactly ``tokens`` rows.
    """
    if shape == "one-hot":
        return [tokens] + [0] * (experts - 1)
    weights = [1 / rank**1.2 if shape == "zipf1.2" else 1.0 for rank in range(1, experts + 1)]
    shares = [tokens * weight / sum(weights) for weight in weights]
    loads = [int(share) for share in shares]
    by_remainder = sorted(range(experts), key=lambda expert: (loads[expert] - shares[expert], expert))
    for expert in by_remainder[: tokens - sum(loads)]:
        loads[expert] += 1
    return loads

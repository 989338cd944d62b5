"""A model from its released ``config.json`` (the file beside a checkpoint).

Read as facts only: sizes, router and attention. The families differ in their names for one thing; the
first name present counts. What a file leaves out and the architecture implies is listed in ``uncertain``.
"""

import json
from pathlib import Path
from typing import Any, Literal

from moesim.errors import InputError
from moesim.model.model_spec import Attention, ModelSpec, PublishedRouter

MAX_BYTES = 10 * 10**6

_NAMES: dict[str, tuple[str, ...]] = {
    "hidden": ("hidden_size",),
    "layers": ("num_hidden_layers",),
    "vocab": ("vocab_size",),
    "n_experts": ("n_routed_experts", "num_experts", "num_local_experts"),
    "n_shared": ("n_shared_experts", "num_shared_experts"),
    "expert_hidden": ("moe_intermediate_size", "intermediate_size"),
    "dense_hidden": ("intermediate_size_mlp", "intermediate_size"),
    "first_k_dense": ("first_k_dense_replace",),
    "moe_layer_step": ("interleave_moe_layer_step", "moe_layer_freq", "decoder_sparse_step"),
    "top_k": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token"),
    "n_groups": ("n_group",),
    "top_groups": ("topk_group",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "kv_lora_rank": ("kv_lora_rank",),
    "q_lora_rank": ("q_lora_rank",),
    "nope_head_dim": ("qk_nope_head_dim",),
    "rope_head_dim": ("qk_rope_head_dim",),
    "value_head_dim": ("v_head_dim",),
}
_DEFAULTS = {"n_shared": 0, "first_k_dense": 0, "moe_layer_step": 1, "n_groups": 1, "top_groups": 1}


def read_config_json(path: str | Path) -> ModelSpec:
    """Read the sizes of a model from a released ``config.json``.

    Raises:
        InputError: not a readable JSON object of at most 10 MB, or a size is missing or not positive.
    """
    where = str(path)
    config = _read(path, where)
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config  # multimodal models keep the language model there
    size = _Sizes(config, where)
    heads, hidden = size("heads"), size("hidden")
    router, uncertain = _router(config, size, where)
    attention = (
        Attention(
            kind="mla",
            heads=heads,
            kv_lora_rank=size("kv_lora_rank"),
            q_lora_rank=size.optional("q_lora_rank"),
            nope_head_dim=size("nope_head_dim"),
            rope_head_dim=size("rope_head_dim"),
            value_head_dim=size("value_head_dim"),
        )
        if size.optional("kv_lora_rank")
        else _grouped(heads, size.optional("kv_heads") or heads, size.optional("head_dim") or hidden // heads)
    )
    return ModelSpec(
        name=where,
        title=str(config.get("model_type", Path(where).stem)),
        hidden=hidden,
        layers=size("layers"),
        first_k_dense=size("first_k_dense"),
        moe_layer_step=size("moe_layer_step"),
        dense_hidden=size.optional("dense_hidden"),
        vocab=size("vocab"),
        n_experts=size("n_experts"),
        n_shared=size("n_shared"),
        expert_hidden=size("expert_hidden"),
        router=router,
        attention=attention,
        published_total=None,
        published_active=None,
        sources=(where,),
        uncertain=uncertain,
    )


class _Sizes:
    """Look-up of a size under any of its names."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def optional(self, name: str) -> int | None:
        for key in _NAMES[name]:
            value = self.config.get(key)
            if value is None:
                continue
            lowest = 0 if _DEFAULTS.get(name) == 0 else 1
            if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value < 10**9:
                raise InputError(f"{key} must be a whole number >= {lowest}, got {value!r:.60}", self.where)
            return value
        return _DEFAULTS.get(name)

    def __call__(self, name: str) -> int:
        value = self.optional(name)
        if value is None:
            raise InputError(f"has no {' or '.join(_NAMES[name])}", self.where, "is it a config.json of an MoE model?")
        return value


def _grouped(heads: int, kv_heads: int, head_dim: int) -> Attention:
    if kv_heads == heads:
        return Attention("mha", heads, heads, head_dim)
    return Attention("mqa" if kv_heads == 1 else "gqa", heads, kv_heads, head_dim)


def _router(config: dict[str, Any], size: _Sizes, where: str) -> tuple[PublishedRouter, tuple[str, ...]]:
    score = config.get("scoring_func", "softmax")
    if score not in ("softmax", "sigmoid"):
        raise InputError(f"scoring_func must be softmax or sigmoid, got {score!r:.60}", where)
    groups = size("n_groups")
    kind: Literal["v1", "v2", "v3"] = "v3" if score == "sigmoid" else "v2" if groups > 1 else "v1"
    normalize = config.get("norm_topk_prob")
    uncertain: tuple[str, ...] = ()
    if normalize is None:
        normalize = True
        uncertain = ("norm_topk_prob is not in the file: gates taken as normalised over the selected experts",)
    scale = config.get("routed_scaling_factor", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < 1e6:
        raise InputError(f"routed_scaling_factor must be a positive number, got {scale!r:.60}", where)
    router = PublishedRouter(
        kind=kind,
        top_k=size("top_k"),
        n_groups=groups,
        top_groups=size("top_groups"),
        score=score,
        group_score="top2" if kind == "v3" else "max",
        normalize=bool(normalize),
        scale=float(scale),
    )
    return router, uncertain


def _read(path: str | Path, where: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", where) from None
    if len(content) > MAX_BYTES:
        raise InputError("more than 10 MB of JSON", where)
    try:
        config = json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg}", f"{where}:{error.lineno}:{error.colno}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"not valid JSON: {type(error).__name__}", where) from None
    if not isinstance(config, dict):
        raise InputError("expected a JSON object", where)
    return config

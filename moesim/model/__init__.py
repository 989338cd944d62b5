"""Sizes, parameters and KV cache of published and own models. Imports neither numpy nor anything heavy."""

from moesim.model.attention_work import (
    AttentionWork,
    attention_work,
    crossover_tokens,
    not_counted,
    other_kinds,
    with_attention,
)
from moesim.model.kv_cache import kv_cache_bytes
from moesim.model.layer_attention import Attention
from moesim.model.memory import RankMemory, held_bytes, rank_memory
from moesim.model.model_spec import ModelSpec, PublishedRouter
from moesim.model.presets import load_model, model_names

__all__ = [
    "Attention",
    "AttentionWork",
    "ModelSpec",
    "PublishedRouter",
    "RankMemory",
    "attention_work",
    "crossover_tokens",
    "held_bytes",
    "kv_cache_bytes",
    "load_model",
    "model_names",
    "not_counted",
    "other_kinds",
    "rank_memory",
    "with_attention",
]

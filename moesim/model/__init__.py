"""Sizes, parameters and KV cache of published and own models. Imports neither numpy nor anything heavy."""

from moesim.model.kv_cache import kv_cache_bytes
from moesim.model.layer_attention import Attention
from moesim.model.model_spec import ModelSpec, PublishedRouter
from moesim.model.presets import load_model, model_names

__all__ = ["Attention", "ModelSpec", "PublishedRouter", "kv_cache_bytes", "load_model", "model_names"]

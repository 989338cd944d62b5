"""The published models of ``data/models.yaml``, by name."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, did_you_mean, load_yaml, validate
from moesim.model.config_json import read_config_json
from moesim.model.layer_attention import Attention
from moesim.model.model_spec import ModelSpec, PublishedRouter
from moesim.units import Count, Number

_FILE = Path(__file__).resolve().parent.parent / "data" / "models.yaml"
Size = Annotated[Count, Field(ge=1)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Sizes(_Block):
    hidden: Size
    layers: Size
    vocab: Size
    first_k_dense: Count = 0
    moe_layer_step: Size = 1
    dense_hidden: Size | None = None


class _Experts(_Block):
    n_experts: Size
    n_shared: Count
    expert_hidden: Size


class _Router(_Block):
    kind: Literal["v1", "v2", "v3"]
    top_k: Size
    n_groups: Size = 1
    top_groups: Size = 1
    score: Literal["softmax", "sigmoid"]
    group_score: Literal["max", "sum", "top2", "topk_over_m"] | None = None
    normalize: bool
    scale: Number


class _Attention(_Block):
    kind: Literal["mla", "mha", "gqa", "mqa"]
    heads: Size
    kv_heads: Size | None = None
    head_dim: Size | None = None
    kv_lora_rank: Size | None = None
    q_lora_rank: Size | None = None
    nope_head_dim: Size | None = None
    rope_head_dim: Size | None = None
    value_head_dim: Size | None = None
    index_heads: Count = 0
    index_head_dim: Count = 0
    index_top_k: Count = 0
    window: Size | None = None
    full_every: Size = 1


class _Published(_Block):
    total: Number | None = None
    active: Number | None = None


class _Entry(_Block):
    title: str
    sizes: _Sizes
    experts: _Experts
    router: _Router
    attention: _Attention
    published: _Published = _Published()
    sources: tuple[str, ...]
    uncertain: tuple[str, ...] = ()


def model_names() -> tuple[str, ...]:
    """Return the names that ``load_model`` knows, in the order of ``data/models.yaml``."""
    return tuple(_document().data)


def load_model(name: str) -> ModelSpec:
    """Return a model by name, or read a released ``config.json`` where ``name`` ends in ``.json``.

    Raises:
        InputError: no such model (suggests the nearest name), or a configuration that lacks a size.
    """
    if name.endswith(".json"):
        return read_config_json(name)
    if name not in _document().data:
        raise InputError(f"no model {name!r:.60}", fix=did_you_mean(name, model_names()))
    return _preset(name)


@lru_cache(maxsize=1)
def _document() -> LocatedDocument:
    return load_yaml(_FILE)


@lru_cache(maxsize=64)
def _preset(name: str) -> ModelSpec:
    entry = validate(_Entry, _document(), at=(name,))
    router = entry.router.model_dump()
    router["group_score"] = entry.router.group_score or ("top2" if entry.router.kind == "v3" else "max")
    sizes = entry.sizes.model_dump()
    dense, step, layers = sizes.pop("first_k_dense"), sizes.pop("moe_layer_step"), entry.sizes.layers
    moe = tuple(range(dense + step - 1, layers, step))
    attention = entry.attention.model_dump()
    window, every = attention.pop("window"), attention.pop("full_every")
    full = Attention(**attention, layers=tuple(range(every - 1, layers, every)))
    rest = tuple(layer for layer in range(layers) if layer not in full.layers)
    return ModelSpec(
        name=name,
        title=entry.title,
        **sizes,
        moe_layer_ids=moe,
        dense_layers=layers - len(moe),
        **entry.experts.model_dump(),
        router=PublishedRouter(**router),
        attentions=(full, *((replace(full, layers=rest, window=window),) if rest else ())),
        published_total=entry.published.total,
        published_active=entry.published.active,
        sources=entry.sources,
        uncertain=entry.uncertain,
    )

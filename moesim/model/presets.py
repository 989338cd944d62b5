"""The published models of ``data/models.yaml``, by name."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, load_yaml, validate
from moesim.mistakes import did_you_mean
from moesim.model.config_json import read_config_json
from moesim.model.layer_attention import Attention
from moesim.model.model_spec import ModelSpec, PublishedRouter
from moesim.units import Count, Number

_FILE = Path(__file__).resolve().parent.parent / "data" / "models.yaml"
Size = Annotated[Count, Field(ge=1)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Sizes(_Block):
    hidden: Size
    layers: Size
    vocab: Size
    first_k_dense: Count = 0
    moe_layer_step: Size = 1
    dense_hidden: Size | None = None
    full_every: Size = 1
    mtp_layers: Count = 0


class _Experts(_Block):
    n_experts: Size
    n_shared: Count
    expert_hidden: Size


class _Published(_Block):
    total: Number | None = None
    active: Number | None = None


class _Entry(_Block):
    title: str
    sizes: _Sizes
    experts: _Experts
    router: PublishedRouter
    attention: Attention
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
    sizes, layers = entry.sizes.model_dump(), entry.sizes.layers
    dense, step, every = (sizes.pop(name) for name in ("first_k_dense", "moe_layer_step", "full_every"))
    moe = tuple(range(dense + step - 1, layers, step))
    seeing = tuple(range(every - 1, layers, every))
    rest = tuple(layer for layer in range(layers) if layer not in seeing)
    full = replace(entry.attention, layers=seeing, window=None)
    published = entry.published
    return ModelSpec(
        name=name, title=entry.title, sources=entry.sources, uncertain=entry.uncertain, **sizes,
        **entry.experts.model_dump(), moe_layer_ids=moe, dense_layers=layers - len(moe), router=entry.router,
        shared_hidden=entry.experts.n_shared * entry.experts.expert_hidden,
        attentions=(full, *((replace(entry.attention, layers=rest),) if rest else ())),
        published_total=published.total, published_active=published.active,
    )  # fmt: skip

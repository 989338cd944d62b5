"""The rows of ``data/families.yaml``: which family a configuration is of, and what its code says."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from moesim.located_yaml import load_yaml, validate

_FILE = Path(__file__).resolve().parent.parent / "data" / "families.yaml"
_ENDINGS = re.compile("(ForCausalLM|ForConditionalGeneration|LMHeadModel|_text)$")

Score = Literal["softmax", "sigmoid", "sqrtsoftplus"]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class RouterRow(_Block):
    """What a family's code does where no key of the file says it."""

    score: Score
    normalize: bool
    bias: bool = False


class Family(_Block):
    """One row: see the head of ``data/families.yaml``."""

    of: tuple[str, ...]
    router: RouterRow
    names: dict[str, tuple[str, ...]] = {}
    given: dict[str, int | bool | str] = {}
    special: Literal["parallel_dense", "ernie", "jetmoe", "longcat", "deepseek_v4", "encoder_decoder"] | None = None
    notes: tuple[str, ...] = ()


class _File(_Block):
    names: dict[str, tuple[str, ...]]
    harmless: tuple[str, ...]
    families: tuple[Family, ...]


def family_of(architectures: Iterable[Any], types: Iterable[Any]) -> Family | None:
    """Return the family of the first architecture that is known, else of the first model type; None if none is."""
    table = _by_name()
    names = (_plain(name) for name in (*architectures, *types) if isinstance(name, str))
    return next((table[name] for name in names if name in table), None)


def names_for(family: Family | None) -> Mapping[str, Sequence[str]]:
    """Return the keys of each fact; the family's own replace the common ones."""
    return {**_rows().names, **(family.names if family else {})}


def known_keys() -> set[str]:
    """Return every key that holds a fact in some family."""
    keys = (key for family in _rows().families for keys in names_for(family).values() for key in keys)
    return {key.partition(".")[0] for key in keys}


def harmless() -> Sequence[str]:
    """Return regular expressions of keys about experts that change neither sizes nor routing."""
    return _rows().harmless


@lru_cache(maxsize=1)
def _rows() -> _File:
    return validate(_File, load_yaml(_FILE))


@lru_cache(maxsize=1)
def _by_name() -> Mapping[str, Family]:
    return {_plain(name): family for family in _rows().families for name in family.of}


def _plain(name: str) -> str:
    """Write a model type or architecture so that the two of one family are equal: qwen3_moe, Qwen3MoeForCausalLM."""
    return re.sub("[^a-z0-9]", "", _ENDINGS.sub("", name).lower())

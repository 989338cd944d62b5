"""Facts of a released ``config.json``: a value under any of its names, checked, with the place of what is wrong.

Every release has its own names for one thing; ``data/families.yaml`` lists them, and a family may put its own first.
What was looked up is remembered, so that a key about experts that nobody read is told and not passed over.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moesim.errors import InputError
from moesim.located_yaml import parse_yaml
from moesim.mistakes import Loc, dotted

# What no released model comes near; the scenario's own bounds are no wider.
_MOST = {"hidden": 10**6, "layers": 10_000, "n_experts": 100_000, "zero_experts": 100_000, "top_k": 1024,
         "n_shared": 1000, "vocab": 10**8, "heads": 10**5}  # fmt: skip
# Sizes and periods of which 0 says nothing, where 0 shared experts or 0 dense layers do.
_NEVER_0 = ("expert_hidden", "heads", "kv_heads", "head_dim", "kv_lora_rank", "moe_step", "moe_period")
_ABOUT_EXPERTS = re.compile("expert|moe|rout|shared|sparse|topk|top_k")
BY_HAND = "give the sizes by hand, as in model: {n_experts: 64, hidden: 2048, expert_hidden: 1408, n_shared: 2}"
_LOCATED_BYTES = 200_000  # finding a place reads the text once more, slowly


@dataclass
class Facts:
    """The facts of the language model in a configuration.

    Attributes:
        block: the keys of the language model.
        at: where that block stands in the file.
        names: the keys of each fact, the first that is there counts; ``a.b`` is the key b of the block a.
        given: facts that the family's code settles where the file does not.
        where: the file; ``text`` its content.
        notes: what was assumed so far.
    """

    block: Mapping[str, Any]
    at: Loc
    names: Mapping[str, Sequence[str]]
    given: Mapping[str, Any]
    where: str
    text: str = ""
    notes: list[str] = field(default_factory=list)
    _read: set[str] = field(default_factory=set)

    def find(self, fact: str) -> tuple[str, Any]:
        """Return the key that holds a fact and its value, or an empty key and None."""
        there = [(key, value) for key in self.names.get(fact, (fact,)) if (value := self.at_key(key)) is not None]
        if not fact.endswith("hidden"):  # an expert's width stands beside the general one
            other = next((key for key, value in there[1:] if value != there[0][1]), None)
            if other is not None:
                self.notes.append(f"{there[0][0]} and {other} differ: {there[0][0]} is used")
        return there[0] if there else ("", None)

    def at_key(self, key: str) -> Any:
        """Return the value of a key, None where there is none."""
        self._read.add(key.partition(".")[0])
        value: Any = self.block
        for step in key.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    def size(self, fact: str, lowest: int = 1) -> int:
        """Return a size that the model must have.

        Raises:
            InputError: it is missing, or not a whole number from ``lowest`` on.
        """
        value = self.maybe(fact, lowest)
        if value is None:
            there = [f"{key:.40}" for key, one in self.block.items() if type(one) is int][:20] or ["no whole number"]
            what = f"has no {' or '.join(self.names.get(fact, (fact,))[:5])}; it has {', '.join(there)}"
            raise InputError(what, self.place(self.at), BY_HAND)
        return value

    def maybe(self, fact: str, lowest: int = 0) -> int | None:
        """Return a size, or what the family's code settles; null is None, and so are 0 and a window of -1.

        Of a list with a value per layer (or kind) it is the most frequent one, and a note says so.
        """
        key, value = self.find(fact)
        if not key:
            return self.given.get(fact)
        if fact == "window" and value == -1:
            return None
        size = self.whole(key, self._one(key, value), lowest, _MOST.get(fact, 10**7)) or None
        if size is None and fact in _NEVER_0:
            self.notes.append(f"{key} is 0: read as not given")
        return size

    def whole(self, key: str, value: Any, lowest: int, most: int = 10**7) -> int:
        """Check that a value is a whole number between bounds."""
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= most:
            bounds = f">= {lowest}" if isinstance(value, int) and value < lowest else f"from {lowest} to {most}"
            raise self.error(key, f"must be a whole number {bounds}, got {value!r:.60}")
        return value

    def flag(self, fact: str) -> bool | None:
        """Return a switch, or what the family's code settles; a number is on where it is not 0."""
        key, value = self.find(fact)
        if key and not isinstance(value, bool | int | float):
            raise self.error(key, f"must be true or false, got {value!r:.60}")
        return bool(value) if key else self.given.get(fact)

    def word(self, fact: str) -> str | None:
        """Return a word in lower case."""
        key, value = self.find(fact)
        if key and not isinstance(value, str):
            raise self.error(key, f"must be a word, got {value!r:.60}")
        return value.lower() if key else None

    def factor(self, fact: str) -> float:
        """Return a positive number, 1 where no key says it."""
        key, value = self.find(fact)
        if key and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6):
            raise self.error(key, f"must be a positive number, got {value!r:.60}")
        return float(value) if key else 1.0

    def per_layer(self, fact: str, layers: int) -> list[Any]:
        """Return a list with one value per layer, empty where there is none; what follows (MTP layers) is cut off."""
        key, value = self.find(fact)
        if not isinstance(value, list | str) or not value:
            return []
        if len(value) < layers:
            raise self.error(key, f"has {len(value)} entries for {layers} layers")
        return list(value[:layers])

    def ids(self, fact: str, layers: int, first: int = 0) -> list[int] | None:
        """Return a list of layers, given as numbers or as text with commas; None where there is none."""
        key, value = self.find(fact)
        if not key:
            return None
        listed = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(listed, list):
            raise self.error(key, f"must be a list of layers, got {value!r:.60}")
        numbers = [int(one) if isinstance(one, str) and one.isascii() and one.isdigit() else one for one in listed]
        found = [self.whole(key, one, first, 10**6) - first for one in numbers]
        return [one for one in found if one < layers]

    def error(self, key: str, what: str, fix: str = "") -> InputError:
        """Return an error about a key."""
        return InputError(f"{key} {what}", self.place((*self.at, *key.split("."))), fix)

    def place(self, loc: Loc) -> str:
        """Return ``file:line:column`` of a value, as far as it can be found."""
        if len(self.text) > _LOCATED_BYTES:
            return self.where
        try:
            return parse_yaml(self.text, self.where).where(loc)
        except InputError:  # JSON that is not YAML, such as a tab before a key
            return f"{self.where}: {dotted(loc)}" if loc else self.where

    def unread(self, harmless: Sequence[str]) -> list[str]:
        """Return the keys about experts that nobody has looked up and that are neither off nor known as harmless."""
        off = re.compile("|".join(harmless))
        return [
            key
            for key, value in self.block.items()
            if key not in self._read and value and _ABOUT_EXPERTS.search(key.lower()) and not off.search(key)
        ]

    def _one(self, key: str, value: Any) -> Any:
        if not isinstance(value, list) or not value:
            return value
        for one in value:
            self.whole(key, one, 0)
        (most, times), *others = Counter([one for one in value if one] or value).most_common()
        if others:  # 0 is a layer without
            span = f"{min(value)} to {max(value)}"
            self.notes.append(f"{key} differs ({span}): {most}, as {times} of {len(value)} have it")
        return most

"""The names that engines, recorders and papers give to logits, expert ids, counts and what comes with them."""

import re
from collections.abc import Iterable

from moesim.dumps.routing_trace import Unit

LOGITS = ("logits", "router_logits", "gate_logits", "routing_logits")
IDS = (
    "ids", "topk_idx", "topk_ids", "topk_indices", "topk_id", "top_indices", "expert_ids", "expert_indices", "experts",
    "selected_experts", "routed_experts", "prompt_routed_experts", "indices", "topk_ids_of_layer", "topk_experts",
)  # fmt: skip
COUNTS = (
    "count", "counts", "logical_count", "expert_counts", "expert_count", "expert_load", "expert_loads", "load",
    "tokens_per_expert", "num_tokens_per_expert", "token_count", "num_tokens", "tokens", "exp_counts",
    "activation_counts", "selections", "tokens_routed",
)  # fmt: skip
SLOT_COUNTS = ("global_physical_count", "physical_count", "expert_load_window", "expert_load_pass")
GATES = ("gates", "scores", "topk_weights", "expert_weights", "routing_weights", "weights")
MAPS = ("physical_to_logical_map", "last_physical_to_logical_map", "phy2log")
LAYERS = ("layers", "layer_ids", "layer_id", "moe_layers", "layer", "layer_idx")
_UNITS: tuple[tuple[Unit, tuple[str, ...]], ...] = (
    ("logits", LOGITS), ("ids", IDS), ("counts", (*COUNTS, *SLOT_COUNTS)),
)  # fmt: skip
_OF: dict[str, Unit] = {name: unit for unit, names in _UNITS for name in names}
_LAYER = re.compile(r"(?:layers?[._-]?)?([0-9]{1,4})")
_PER_LAYER = re.compile(
    r"(?:.*?[._])??(?:layers?[._]?)?([0-9]+)[._](?:.*[._])?([a-z_]+)|([a-z_]+?)[._](?:layers?[._]?)?([0-9]+)"
)


def named(have: Iterable[str], wanted: Iterable[str]) -> str | None:
    """Return the first of the wanted names that is there; None where none is."""
    there = set(have)
    return next((name for name in wanted if name in there), None)


def unit_of(name: str) -> Unit | None:
    """Return what an array of this name holds; None where the name says nothing."""
    return _OF.get(name.lower())


def layer_and_name(name: str) -> tuple[int, str] | None:
    """Return layer and plain name of an array of one layer (logits_3, layers.3.topk_ids, layer_3); else None."""
    if bare := _LAYER.fullmatch(name.lower()):
        return int(bare[1]), ""
    found = _PER_LAYER.fullmatch(name.lower())
    if not found:
        return None
    layer, plain = (found[1], found[2]) if found[1] is not None else (found[4], found[3])
    return (int(layer), plain) if plain in _OF else None

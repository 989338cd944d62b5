"""The names that engines, recorders and papers give to logits, expert ids, counts and what comes with them."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from moesim.dumps.routing_trace import Unit

_FILE = tomllib.loads((Path(__file__).parents[1] / "data" / "routing_names.toml").read_text(encoding="utf-8"))
LOGITS, IDS, COUNTS, SLOT_COUNTS, GATES, MAPS, LAYERS = (
    tuple(_FILE["arrays"][kind]) for kind in ("logits", "ids", "counts", "slot_counts", "gates", "maps", "layers")
)
COLUMNS: dict[str, tuple[str, ...]] = {kind: tuple(found) for kind, found in _FILE["columns"].items()}
"""Of a table: ``layer``, ``expert``, ``slot``, ``token``, ``step``, ``rank``, ``sequence``."""
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

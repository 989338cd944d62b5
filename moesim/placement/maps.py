"""Placement maps as files: what SGLang and TensorRT-LLM load, and moesim's own.

SGLang (``--init-expert-location``): JSON with ``physical_to_logical_map`` [layers][slots] and no other key, a row for
every layer of the model; rows of dense layers hold the experts in order. TensorRT-LLM (``load_balancer``): YAML with
``num_slots`` and ``initial_global_assignments`` {layer: [slots]}, slots by rank. Both spread slots evenly over ranks
and do not say how many those are. moesim's own JSON says that too.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import read_json
from moesim.broken_files import content, reading
from moesim.errors import InputError
from moesim.files import marked, write_files
from moesim.located_yaml import MANY_VALUES, load_yaml
from moesim.placement.slots import Placement

MapForm = Literal["sglang", "tensorrt-llm", "json"]
SCHEMA_VERSION = 1
MAX_BYTES = 256 << 20
MAX_SLOTS = 1 << 20
_SGLANG, _TENSORRT, _OURS = "physical_to_logical_map", "initial_global_assignments", "slot_expert"


def map_kind(form: str) -> str:
    """Return the kind of file that a form is; SGLang takes no key for a mark."""
    return "" if form == "sglang" else f"placement in {form}"


def write_map(
    path: str | Path,
    placement: Placement,
    form: MapForm = "json",
    layers: Sequence[int] | None = None,
    model_layers: int | None = None,
) -> None:
    """Write a placement, whole or not at all.

    Args:
        path: the file.
        placement: one row for all layers, or a row for each.
        form: sglang, tensorrt-llm or json.
        layers: the model's number of each row; those of the placement, or 0, 1, ... by default.
        model_layers: layers of the model with the dense ones, for sglang; up to the last of ``layers`` by default.

    Raises:
        InputError: slots that the engine's form cannot hold, since they are not spread evenly and in order of rank.
        ResourceError: the place cannot be written.
    """
    rows = np.atleast_2d(placement.slot_expert)
    numbers = tuple(layers if layers is not None else placement.layers or range(len(rows)))
    if len(rows) == 1:
        rows = np.repeat(rows, len(numbers), axis=0)
    if len(rows) != len(numbers) or not numbers:
        raise InputError(f"{len(rows)} rows for {len(numbers)} layers", "layers", "number each row once")
    slots = rows.shape[1]
    if form != "json" and not _spread(placement):
        raise InputError(
            f"{slots} slots on {placement.n_ranks} ranks, not the same number on each in order", str(path),
            "write it as json, or use a number of slots that the ranks divide",
        )  # fmt: skip
    if form == "sglang":
        whole = np.tile(np.arange(slots, dtype=np.int64) % placement.n_experts, (model_layers or 1 + max(numbers), 1))
        if max(numbers) >= len(whole):
            raise InputError(f"layer {max(numbers)} of a model of {len(whole)} layers", "layers")
        whole[list(numbers)] = rows
        text = json.dumps({_SGLANG: whole.tolist()}) + "\n"
    elif form == "tensorrt-llm":
        text = f"num_slots: {slots}\n{_TENSORRT}:\n"
        text += "".join(f"  {n}: {row.tolist()}\n" for n, row in zip(numbers, rows, strict=True))
        text += "layer_updates_per_iter: 0\n"
    else:
        own = {"schema_version": SCHEMA_VERSION, "layers": list(numbers), _OURS: rows.tolist(),
               "slot_rank": placement.slot_rank.tolist(), "n_ranks": placement.n_ranks}  # fmt: skip
        text = json.dumps(own) + "\n"
    path, kind = Path(path), map_kind(form)
    write_files(path.parent, {path.name: marked(kind, text.encode()) if kind else text.encode()})


def read_map(path: str | Path, n_ranks: int | None = None) -> Placement:
    """Read a placement in any of the forms, recognised by its keys.

    Args:
        path: the file.
        n_ranks: ranks that the slots are spread over, where the form does not say it; 1 by default.

    Raises:
        InputError: another form, slots that the ranks do not divide, or an expert without a slot.
    """
    where = str(path)
    data = _document(Path(path))
    if set(data) & {"logical_count"}:
        raise InputError("counts of experts, from which the engine places by itself", where, "it is a workload.routing")
    form = next((key for key in (_SGLANG, _TENSORRT, _OURS) if key in data), None)
    if form is None:
        keys = ", ".join(map(str, data))[:100] or "nothing"
        raise InputError(f"no placement: it holds {keys}", where, f"{_SGLANG}, {_TENSORRT} or {_OURS} is needed")
    layers: tuple[int, ...] | None = None
    value = data[form]
    if form == _TENSORRT:
        if (
            not isinstance(value, Mapping)
            or not value
            or not all(re.fullmatch("[0-9]{1,9}", str(layer)) for layer in value)
        ):
            raise InputError(f"{form} is no block of layers", where)
        by_number = {int(layer): row for layer, row in value.items()}
        layers = tuple(sorted(by_number))
        value = [by_number[layer] for layer in layers]
    rows = _rows(value, form, where)
    if form == _TENSORRT and data.get("num_slots") != rows.shape[1]:
        raise InputError(f"num_slots is {data.get('num_slots')!r:.20}, the layers have {rows.shape[1]}", where)
    if form != _OURS:
        ranks = n_ranks or 1
        if rows.shape[1] % ranks:
            raise InputError(f"{rows.shape[1]} slots do not spread evenly over {ranks} ranks", where)
        slot_rank = np.repeat(np.arange(ranks, dtype=np.int32), rows.shape[1] // ranks)
    else:
        if data.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"schema version {data.get('schema_version')!r:.20}", where, f"{SCHEMA_VERSION} is read")
        layers = tuple(_rows([data.get("layers")], "layers", where)[0].tolist())
        slot_rank = _rows([data.get("slot_rank")], "slot_rank", where)[0].astype(np.int32)
        ranks = int(data["n_ranks"]) if _whole(data.get("n_ranks")) else 0
        if len(layers) != len(rows) or n_ranks not in (None, ranks):
            raise InputError(f"{len(rows)} rows for {len(layers)} layers on {ranks} ranks, not {n_ranks}", where)
    try:
        placement = Placement(rows.astype(np.int32), slot_rank, ranks)
    except InputError as error:
        raise InputError(error.what, where, error.fix) from None
    return replace(placement, layers=layers or tuple(range(len(rows))))


def _spread(placement: Placement) -> bool:
    each, rest = divmod(placement.n_slots, placement.n_ranks)
    return not rest and np.array_equal(placement.slot_rank, np.repeat(np.arange(placement.n_ranks), each))


def _document(path: Path) -> Mapping[Any, Any]:
    with reading(path, "is it UTF-8 text?"):
        text = content(path, MAX_BYTES)
        is_json = text.lstrip()[:1] == b"{"
        data = read_json(text.decode(), str(path)) if is_json else load_yaml(path, MANY_VALUES).data
    if not isinstance(data, Mapping):
        raise InputError("no placement: a block of keys is needed", str(path))
    return data


def _rows(value: Any, name: str, where: str) -> NDArray[np.int64]:
    """A list of equally long lists of whole numbers."""
    try:
        rows = np.array(value)
    except ValueError:
        raise InputError(f"{name} has rows of different length", where) from None
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or not 0 < rows.shape[1] <= MAX_SLOTS:
        raise InputError(f"{name} has shape {rows.shape} of {rows.dtype}", where, "whole numbers [layers][slots]")
    if rows.min() < 0 or rows.max() >= MAX_SLOTS:
        raise InputError(f"{name} holds {rows.min() if rows.min() < 0 else rows.max()}", where, "numbers start at 0")
    return rows.astype(np.int64)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

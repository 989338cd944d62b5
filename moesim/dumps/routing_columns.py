"""Routing as a table of columns, whether they came from CSV, Parquet, npz or safetensors.

A row is a count of (layer, expert); or one selection (layer, token, expert), or without a token one of many that are
only counted; or a token of a layer with its experts or logits as a list, or spread over numbered columns. Columns are
known by the names that engines and recorders give them; steps, iterations and ranks are summed where rows are counts.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.names import COUNTS, GATES, IDS, LOGITS, named
from moesim.dumps.routing_trace import (
    MAX_EXPERTS,
    MAX_LAYERS,
    RoutingTrace,
    Source,
    Told,
    trace_of_counts,
    trace_of_ids,
    trace_of_logits,
)  # fmt: skip
from moesim.errors import InputError

Columns = Mapping[str, NDArray[Any]]
Where = Callable[[int], str]
LAYER = ("layer", "layer_id", "layer_idx", "layer_index", "moe_layer", "moe_layer_id")
EXPERT = ("expert", "expert_id", "expert_idx", "expert_index", "logical_expert", "logical_expert_id")
SLOT = ("physical_expert", "physical_expert_id", "physical_id", "slot", "slot_id")
TOKEN = ("token", "token_idx", "token_index", "tok", "position", "pos")
STEP = ("step", "iteration", "iter", "forward_pass_id", "pass")
RANK = ("rank", "ep_rank", "dp_rank", "rank_id")
SEQUENCE = ("sequence", "sequence_id", "prompt_idx", "request", "request_id", "sample", "micro_batch", "batch")
_NUMBERED = re.compile(r"(expert|expert_id|e|id|top|topk|topk_id|topk_idx|logit|logits|count|load)[_.]?(\d+)")
_EXAMPLE = "columns such as layer,expert,count are needed"


def is_known(name: str) -> bool:
    """Return whether a column of this name holds numbers that are read."""
    names = (*LAYER, *EXPERT, *SLOT, *TOKEN, *STEP, *RANK, *COUNTS, *IDS, *LOGITS, *GATES)
    name = name.strip().lower()
    return name in names or _NUMBERED.fullmatch(name) is not None


def read_columns(columns: Columns, told: Told, source: Source, where: str, row: Where, layer: int = 0) -> RoutingTrace:
    """Return the trace of a table.

    Args:
        columns: arrays of equal length by name; a list column is two-dimensional.
        told: what the table does not say.
        source: who wrote it.
        where: the file.
        row: where a row is, for mistakes.
        layer: of all rows, where no column says it.

    Raises:
        InputError: columns that say nothing known, or values out of range.
    """
    columns = _gathered({name.strip().lower(): values for name, values in columns.items()})
    found = {key: named(columns, names) for key, names in (
        ("layer", LAYER), ("expert", EXPERT), ("slot", SLOT), ("token", TOKEN), ("count", COUNTS), ("ids", IDS),
        ("logits", LOGITS), ("gates", GATES), ("step", STEP), ("rank", RANK), ("sequence", SEQUENCE))}  # fmt: skip
    lists = {key: columns[name] for key, name in found.items() if name is not None and columns[name].ndim == 2}
    if found["slot"] is not None and told.slot_expert is None:
        raise InputError(f"{found['slot']} holds slots", where, "give the map of slots to experts (--map)")
    if "count" in lists:  # a layer's counts in a row
        lists.setdefault("counts", lists.pop("count"))
    layers = _whole(columns, found["layer"] or "", MAX_LAYERS, row)
    if lists.keys() & {"ids", "logits", "counts"}:
        layers = layers if layers is not None else np.full(len(next(iter(lists.values()))), layer)
        return _rows_of_lists(lists, layers, columns, found, told, source, where)
    entry = found["expert"] or found["slot"]
    if entry is None or layers is None:
        raise InputError(f"the columns are {_short(columns)}", where, _EXAMPLE)
    limit = MAX_EXPERTS if told.n_experts is None or found["slot"] else told.n_experts
    experts = _whole(columns, entry, limit, row)
    assert experts is not None  # noqa: S101 - it is there
    if found["count"] is not None:
        count = _numbers(columns, found["count"], row)
        return _counted(layers, experts, count, columns, found, told, source, where, row)
    if found["token"] is not None:
        return _selections(layers, experts, columns, found, told, source, where)
    note = "rows are single selections whose tokens are not marked: counted"
    return _counted(layers, experts, np.ones(len(experts)), columns, found, told, source, where, None, note)


def _gathered(columns: Columns) -> dict[str, NDArray[Any]]:
    """Numbered columns (expert_0, expert_1, ...) as one list column."""
    groups: dict[str, dict[int, str]] = {}
    for name in columns:
        found = _NUMBERED.fullmatch(name)
        if found:
            groups.setdefault(found[1], {})[int(found[2])] = name
    result = dict(columns)
    for stem, members in groups.items():
        order = sorted(members)
        if order != list(range(order[0], order[0] + len(order))) or len(order) < 2:
            continue
        key = "logits" if stem.startswith("logit") else "counts" if stem in ("count", "load") else "expert_ids"
        if key not in result:
            result[key] = np.stack([np.asarray(result.pop(members[i])) for i in order], axis=1)
    return result


def _rows_of_lists(
    lists: Mapping[str, NDArray[Any]], layers: NDArray[np.int64], columns: Columns, found: Mapping[str, str | None],
    told: Told, source: Source, where: str,
) -> RoutingTrace:  # fmt: skip
    """Rows of (layer, token) with a list each; the rows of every layer in the same order of tokens."""
    numbers, times = np.unique(layers, return_counts=True)
    if len(set(times.tolist())) > 1:
        raise InputError(f"layers have {times.min()} to {times.max()} rows", where, "every layer needs every token")
    order = np.argsort(layers, kind="stable")
    if found["token"] is not None:
        keys = [columns[name] for name in (found["token"], found["sequence"], found["step"], found["rank"]) if name]
        order = np.lexsort((*keys, layers))
    stacked = {key: rows[order].reshape(len(numbers), times[0], -1) for key, rows in lists.items()}
    place = {
        key: np.asarray(columns[name])[order].reshape(len(numbers), -1)[0].astype(np.int32)
        for key in ("step", "rank", "sequence")
        if (name := found[key]) is not None and columns[name].dtype.kind in "iu"
    }
    seen = numbers.tolist()
    if "counts" in stacked or (told.unit == "counts" and "ids" in stacked):
        return trace_of_counts(stacked.get("counts", stacked.get("ids")).transpose(1, 0, 2), seen, told, source, where)  # type: ignore[union-attr]
    if "ids" in stacked and told.unit is None and found["token"] is None and times[0] == 1 and "expert_ids" in columns:
        raise InputError("one row of numbers for each layer", where, "say whether they are counts or ids (--unit)")
    if "ids" not in stacked:
        return trace_of_logits(stacked["logits"], seen, told, source, where, **place)
    gates = stacked.get("gates")
    if "logits" in stacked and stacked["logits"].shape[2] == (told.n_experts or stacked["logits"].shape[2]):
        width = stacked["logits"].shape[2]
        if width > int(stacked["ids"].max(initial=0)):  # a list of the best few logits is not one of all experts
            chosen = trace_of_ids(stacked["ids"], seen, told, source, where, n_experts=width)
            if len(chosen.layers) == len(seen):
                return trace_of_logits(
                    stacked["logits"], seen, told, source, where, ids=chosen.ids, top_k=chosen.top_k, **place
                )
    if gates is not None and gates.shape == stacked["ids"].shape:
        place["gates"] = gates.astype(np.float32)
    return trace_of_ids(stacked["ids"], seen, told, source, where, **place)


def _selections(
    layers: NDArray[np.int64], experts: NDArray[np.int64], columns: Columns, found: Mapping[str, str | None],
    told: Told, source: Source, where: str,
) -> RoutingTrace:  # fmt: skip
    """One selection a row; the tokens of a layer have as many rows as they select experts."""
    keys = [np.asarray(columns[name]) for key in ("step", "rank", "sequence", "token") if (name := found[key])]
    _, token = np.unique(np.stack(keys), axis=1, return_inverse=True)
    token = token.reshape(-1)
    numbers, layer_at = np.unique(layers, return_inverse=True)
    cell = layer_at * (1 + token.max(initial=0)) + token
    times = np.bincount(cell, minlength=len(numbers) * (1 + int(token.max(initial=0))))
    top_k = int(times.max(initial=0))
    ids = np.full((len(times), top_k), -1, np.int64)
    order = np.argsort(cell, kind="stable")
    place = np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
    ids[cell[order], place] = experts[order]
    return trace_of_ids(ids.reshape(len(numbers), -1, top_k), numbers.tolist(), told, source, where)


def _counted(
    layers: NDArray[np.int64], experts: NDArray[np.int64], count: NDArray[np.float64], columns: Columns,
    found: Mapping[str, str | None], told: Told, source: Source, where: str, row: Where | None, note: str = "",
) -> RoutingTrace:  # fmt: skip
    if not len(layers):
        raise InputError("no counts", where, "at least one row of layer, expert and count is needed")
    numbers, layer_at = np.unique(layers, return_inverse=True)
    steps = np.asarray(columns[found["step"]]) if found["step"] else np.zeros(len(layers), np.int64)
    _, step_at = np.unique(steps, return_inverse=True)
    width = 1 + int(experts.max()) if told.n_experts is None or found["slot"] else told.n_experts
    if told.slot_expert is not None:
        width = told.slot_expert.shape[-1]
    shape = (1 + int(step_at.max()), len(numbers), width)
    cell = np.ravel_multi_index((step_at, layer_at, experts), shape, mode="clip")
    notes = [note] if note else []
    if row is not None and not any(found[key] for key in ("rank", "sequence", "token")):
        # What no name says may tell rows apart, such as a task: such rows are summed, and it is said.
        others = [name for name in columns if name not in found.values()]
        kinds = [np.unique(columns[name], return_inverse=True)[1].reshape(-1) for name in others]
        _, first = np.unique(np.stack([cell, *kinds]), axis=1, return_index=True)
        if len(np.unique(cell)) < len(first):
            notes.append(f"rows are summed over {', '.join(others)}"[:200])
        if len(first) < len(cell):
            again = int(np.setdiff1d(np.arange(len(cell)), first)[0])
            raise InputError(f"layer {layers[again]}, expert {experts[again]} appears twice", row(again))
    counts = np.bincount(cell, weights=count, minlength=int(np.prod(shape))).reshape(shape)
    return trace_of_counts(counts, numbers.tolist(), told, source, where, notes=notes)


def _whole(columns: Columns, name: str, limit: int, row: Where) -> NDArray[np.int64] | None:
    """A column of whole numbers from 0 below the limit; None where there is none of that name."""
    if name not in columns:
        return None
    values = np.asarray(columns[name])
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(f"{name} is of type {values.dtype}", row(0), "whole numbers are needed")
    bad = ~np.isfinite(values) | (values < 0) | (values >= limit) | (values != np.floor(values))
    if bad.any():
        at = int(bad.argmax())
        raise InputError(f"{name} is {_said(values[at])}", row(at), f"a whole number from 0 to {limit - 1} is needed")
    return values.astype(np.int64)


def _numbers(columns: Columns, name: str, row: Where) -> NDArray[np.float64]:
    values = np.asarray(columns[name])
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(f"{name} is of type {values.dtype}", row(0), "numbers are needed")
    values = values.astype(np.float64)
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        at = int(bad.argmax())
        raise InputError(f"{name} is {_said(values[at])}", row(at), "a number, 0 or more, is needed")
    return values


def _said(value: Any) -> str:
    return f"{value:g}" if abs(value) < 1e9 or not np.isfinite(value) else str(value)


def _short(columns: Columns) -> str:
    return ", ".join(columns)[:200]

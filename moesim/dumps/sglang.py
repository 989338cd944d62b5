"""Dumps of SGLang's expert distribution recorder (``srt/eplb/expert_distribution.py``), in all of its modes.

``stat`` and ``stat_approx`` write counts [steps, layers, experts] once, already summed over ranks; ``per_pass`` and
``per_token`` write a file per rank: counts per slot of each forward pass, to be summed over the ranks, and with
``per_token`` also the ids of the tokens, in slots, eight wide whatever the model selects. The steps of ``stat`` lie in
a ring buffer: their order is no time. KTransformers writes the same files.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.routing_trace import RoutingTrace, Source, Told, trace_of_counts, trace_of_ids
from moesim.errors import InputError

_RANK = re.compile(r"_(\d+)\.pt$")
TOOL = "SGLang"


def is_dump(data: Any) -> bool:
    """Return whether the data of a ``.pt`` or JSON file are of this recorder."""
    return isinstance(data, Mapping) and ("logical_count" in data or "records" in data)


def rank_of(path: Path) -> int | None:
    """Return the rank in a file's name; None where it has none (``stat`` is written once)."""
    found = _RANK.search(path.name)
    return int(found[1]) if found else None


def read_dump(dumps: Mapping[Path, Any], told: Told) -> RoutingTrace:
    """Return the trace of one dump: one file of ``stat``, or the file of each rank.

    Raises:
        InputError: files of several dumps, or of some of the ranks only.
    """
    where = str(next(iter(dumps)))
    if any("logical_count" in data for data in dumps.values()):
        if len(dumps) > 1:
            raise InputError(f"{len(dumps)} dumps of statistics", str(Path(where).parent), "name one file")
        return _statistics(next(iter(dumps.values())), told, where)
    ranks = _by_rank(dumps)
    records = [record for rank in sorted(ranks) for record in ranks[rank]["records"]]
    if not records:
        raise InputError("no forward pass was recorded", where)
    _refuse_missing(ranks, records, dumps, where)
    last_map = _last_map(ranks, where)
    if any(record.get("topk_ids_of_layer") is not None for record in records):
        return _per_token(records, last_map, told, where)
    return _per_pass(records, last_map, told, where)


def _statistics(data: Mapping[str, Any], told: Told, where: str) -> RoutingTrace:
    counts = np.asarray(data["logical_count"])
    if counts.dtype.kind not in "iuf" or counts.ndim not in (2, 3) or 0 in counts.shape:
        raise InputError(f"logical_count has shape {counts.shape}", where, "[steps, layers, experts] is needed")
    counts = counts if counts.ndim == 3 else counts[None]
    note = "steps lie in a ring buffer: their order is no time"
    return trace_of_counts(counts, range(counts.shape[1]), told, Source(TOOL, "stat"), where, notes=(note,))


def _by_rank(dumps: Mapping[Path, Any]) -> dict[int, Mapping[str, Any]]:
    ranks: dict[int, Mapping[str, Any]] = {}
    for path, data in dumps.items():
        of_records = {record.get("rank") for record in data["records"]} - {None}
        if len(of_records) > 1:
            raise InputError(f"records of the ranks {sorted(of_records)}", str(path), "a file is of one rank")
        rank = int(next(iter(of_records))) if of_records else rank_of(path) or 0
        if rank in ranks:
            raise InputError(f"rank {rank} twice", str(path), "a folder has to hold the files of one dump")
        ranks[rank] = data
    return ranks


def _refuse_missing(
    ranks: Mapping[int, Any], records: Sequence[Mapping[str, Any]], dumps: Mapping[Path, Any], where: str
) -> None:
    """Counts are of one rank's slots or tokens: without the others the load would be plainly wrong."""
    size = max(ranks) + 1
    for record in records:
        for misc in record.get("misc_objects") or ():
            per_rank = misc.get("num_tokens_per_rank") if isinstance(misc, Mapping) else None
            if per_rank is not None:
                size = max(size, len(per_rank))
    missing = sorted(set(range(size)) - set(ranks))
    if missing:
        what = f"no file of rank {', '.join(map(str, missing[:8]))}" + (" ..." if missing[8:] else "")
        raise InputError(what, where if len(dumps) == 1 else str(Path(where).parent), "give the folder with all ranks")


def _last_map(ranks: Mapping[int, Mapping[str, Any]], where: str) -> NDArray[np.int64] | None:
    maps = [data["last_physical_to_logical_map"] for data in ranks.values() if "last_physical_to_logical_map" in data]
    maps = [np.asarray(found, np.int64) for found in maps if found is not None]
    if not maps:
        return None
    if maps[0].ndim != 2 or maps[0].size == 0 or maps[0].min() < 0:
        raise InputError(f"last_physical_to_logical_map has shape {maps[0].shape}", where, "[layers, slots] is needed")
    if any(not np.array_equal(maps[0], other) for other in maps[1:]):
        raise InputError("the ranks do not agree on last_physical_to_logical_map", where)
    first: NDArray[np.int64] = maps[0]
    return first


def _mapped(told: Told, last_map: NDArray[np.int64] | None) -> tuple[Told, tuple[str, ...]]:
    """What is told, with the file's own map; and what has to be said of it."""
    if told.slot_expert is not None or last_map is None:
        return told, ()
    told = Told(told.n_experts, told.top_k, told.unit, told.axes, told.layers, last_map)
    if last_map.shape[1] == 1 + last_map.max():
        return told, ()
    note = "slots are mapped by the last map of the recording: passes before a rebalancing would be mapped wrongly"
    return told, (note,)


def _per_pass(
    records: Sequence[Mapping[str, Any]], last_map: NDArray[np.int64] | None, told: Told, where: str
) -> RoutingTrace:
    passes: dict[Any, NDArray[np.int64]] = {}
    for record in records:
        counts = np.asarray(record["global_physical_count"]).astype(np.int64)
        number = record.get("forward_pass_id")
        if counts.ndim != 2 or (passes and counts.shape != next(iter(passes.values())).shape):
            raise InputError(f"pass {number}: global_physical_count has shape {counts.shape}", where)
        passes[number] = passes[number] + counts if number in passes else counts
    stacked = np.stack([passes[number] for number in sorted(passes)])
    told, notes = _mapped(told, last_map)
    source = Source(TOOL, "per_pass")
    return trace_of_counts(stacked, range(stacked.shape[1]), told, source, where, notes=notes)


def _per_token(
    records: Sequence[Mapping[str, Any]], last_map: NDArray[np.int64] | None, told: Told, where: str
) -> RoutingTrace:
    notes: list[str] = []
    taken, seen = [], set()
    for record in records:
        ids = np.asarray(record["topk_ids_of_layer"])
        if ids.ndim != 3:
            raise InputError(f"topk_ids_of_layer has shape {ids.shape}", where, "[layers, tokens, k] is needed")
        # Ranks that split tensors and not tokens all see every token.
        same = (record.get("forward_pass_id"), ids.shape, ids.tobytes())
        if same not in seen:
            seen.add(same)
            taken.append((record, ids))
    if len(taken) < len(records):
        notes.append(f"{len(records) - len(taken)} of {len(records)} records repeat another rank's tokens: taken once")
    shape = taken[0][1].shape
    if any((ids.shape[0], ids.shape[2]) != (shape[0], shape[2]) for _, ids in taken):
        raise InputError("records of different numbers of layers or of experts per token", where)
    told, of_map = _mapped(told, last_map)
    notes.extend(of_map)
    tokens = [ids.shape[1] for _, ids in taken]
    return trace_of_ids(
        np.concatenate([ids for _, ids in taken], axis=1),
        range(shape[0]),
        told,
        Source(TOOL, "per_token"),
        where,
        notes=notes,
        step=np.repeat([int(record.get("forward_pass_id") or 0) for record, _ in taken], tokens).astype(np.int32),
        rank=np.repeat([int(record.get("rank") or 0) for record, _ in taken], tokens).astype(np.int32),
    )

"""Dumps of SGLang's expert distribution recorder (``srt/eplb/expert_distribution.py``), in all of its modes.

``stat`` and ``stat_approx`` write counts [steps, layers, experts] once, already summed over ranks; ``per_pass`` and
``per_token`` write a file per rank: counts per slot of each forward pass, to be summed over the ranks, and with
``per_token`` also the ids of the tokens, in slots, eight wide whatever the model selects. The steps of ``stat`` lie in
a ring buffer: their order is no time. KTransformers writes the same files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.routing_trace import RoutingTrace, Source, Told, trace_of_counts, trace_of_ids
from moesim.errors import InputError

_RANK = re.compile(r"_([0-9]+)\.pt$")
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
    told, notes = _mapped(told, ranks, where)
    per_token = any(record.get("topk_ids_of_layer") is not None for record in records)
    return (_per_token if per_token else _per_pass)(records, told, notes, where)


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


def _mapped(told: Told, ranks: Mapping[int, Mapping[str, Any]], where: str) -> tuple[Told, list[str]]:
    """What is told, with the files' own map; and what has to be said of it."""
    found = [data.get("last_physical_to_logical_map") for data in ranks.values()]
    maps = [np.asarray(one, np.int64) for one in found if one is not None]
    if told.slot_expert is not None or not maps:
        return told, []
    if maps[0].ndim != 2 or maps[0].size == 0 or maps[0].min() < 0:
        raise InputError(f"last_physical_to_logical_map has shape {maps[0].shape}", where, "[layers, slots] is needed")
    if any(not np.array_equal(maps[0], other) for other in maps[1:]):
        raise InputError("the ranks do not agree on last_physical_to_logical_map", where)
    note = "slots are mapped by the last map of the recording: passes before a rebalancing would be mapped wrongly"
    return replace(told, slot_expert=maps[0]), [note] if maps[0].shape[1] > 1 + maps[0].max() else []


def _per_pass(records: Sequence[Mapping[str, Any]], told: Told, notes: list[str], where: str) -> RoutingTrace:
    passes: dict[Any, NDArray[np.int64]] = {}
    for record in records:
        counts, number = np.asarray(record["global_physical_count"]).astype(np.int64), record.get("forward_pass_id")
        if counts.ndim != 2 or (passes and counts.shape != next(iter(passes.values())).shape):
            raise InputError(f"pass {number}: global_physical_count has shape {counts.shape}", where)
        passes[number] = passes.get(number, 0) + counts
    stacked = np.stack([passes[number] for number in sorted(passes)])
    return trace_of_counts(stacked, range(stacked.shape[1]), told, Source(TOOL, "per_pass"), where, notes=notes)


def _per_token(records: Sequence[Mapping[str, Any]], told: Told, notes: list[str], where: str) -> RoutingTrace:
    taken: dict[Any, tuple[Mapping[str, Any], NDArray[Any]]] = {}
    for record in records:
        ids = np.asarray(record["topk_ids_of_layer"])
        if ids.ndim != 3:
            raise InputError(f"topk_ids_of_layer has shape {ids.shape}", where, "[layers, tokens, k] is needed")
        # Ranks that split tensors and not tokens all see every token.
        taken.setdefault((record.get("forward_pass_id"), ids.shape, ids.tobytes()), (record, ids))
    parts = [ids for _, ids in taken.values()]
    if len({(ids.shape[0], ids.shape[2]) for ids in parts}) > 1:
        raise InputError("records of different numbers of layers or of experts per token", where)
    if again := len(records) - len(taken):
        notes.insert(0, f"{again} of {len(records)} records repeat another rank's tokens: taken once")
    tokens = [ids.shape[1] for ids in parts]
    place = {
        key: np.repeat([int(record.get(name) or 0) for record, _ in taken.values()], tokens).astype(np.int32)
        for key, name in (("step", "forward_pass_id"), ("rank", "rank"))
    }
    joined, source = np.concatenate(parts, axis=1), Source(TOOL, "per_token")
    return trace_of_ids(joined, range(len(joined)), told, source, where, notes=notes, **place)

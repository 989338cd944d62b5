"""Routing as a table of columns, whether they came from CSV, Parquet, npz or safetensors.

A row is a count of (layer, expert); or one selection (layer, token, expert), or without a token one of many that are
only counted; or a token of a layer with its experts or logits as a list, or spread over numbered columns. Columns are
known by the names that engines and recorders give them; steps, iterations and ranks are summed where rows are counts.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.names import COLUMNS, COUNTS, GATES, IDS, LOGITS, named
from moesim.dumps.routing_trace import (
    MAX_EXPERTS,
    MAX_LAYERS,
    MOST_SELECTIONS,
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
_NUMBERED = re.compile(r"(expert|expert_id|e|id|top|topk|topk_id|topk_idx|logit|logits|count|load)[_.]?([0-9]+)")
_KINDS = COLUMNS | {"count": COUNTS, "ids": IDS, "logits": LOGITS, "gates": GATES}
_FEW_ROWS = 128  # without layer and token, so many rows of numbered columns may be tokens, or layers
_EXAMPLE = "columns such as layer,expert,count are needed"


def is_known(name: str) -> bool:
    """Return whether a column of this name holds numbers that are read."""
    name = name.strip().lower()
    return (
        any(name in names for kind, names in _KINDS.items() if kind != "sequence")
        or _NUMBERED.fullmatch(name) is not None
    )


def counts_something(name: str) -> bool:
    """Return whether a table without this column would say something else."""
    counts = _KINDS.keys() - {"token", "step", "rank", "sequence"}
    return any(name.strip().lower() in _KINDS[kind] for kind in counts)


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
    plain = [name.strip().lower() for name in columns]
    if len(set(plain)) < len(plain):
        raise InputError(f"columns of one name: {', '.join(columns)}"[:200], where, "keep one of them")
    columns = _gathered(dict(zip(plain, columns.values(), strict=True)))
    found = {key: name for key, names in _KINDS.items() if (name := named(columns, names)) is not None}
    return _Table(columns, found, told, source, where, row).read(layer)


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


@dataclass(frozen=True)
class _Table:
    """Columns, and which of them is what; the tokens of every layer in one order."""

    columns: Columns
    found: Mapping[str, str]
    told: Told
    source: Source
    where: str
    row: Where

    def read(self, layer: int) -> RoutingTrace:
        found, told = self.found, self.told
        lists = {key: self.columns[name] for key, name in found.items() if self.columns[name].ndim == 2}
        if "slot" in found and told.slot_expert is None:
            raise InputError(f"{found['slot']} holds slots", self.where, "give the map of slots to experts (--map)")
        if "count" in lists and "expert" in found:
            raise InputError(f"{found['count']} is a list in each row, with one expert", self.where, "give a number")
        if "count" in lists:  # a layer's counts in a row
            lists.setdefault("counts", lists.pop("count"))
        layers = self._whole("layer", MAX_LAYERS)
        if lists.keys() & {"ids", "logits", "counts"}:
            return self._lists(lists, np.full(len(next(iter(lists.values()))), layer) if layers is None else layers)
        entry = "expert" if "expert" in found else "slot"
        experts = self._whole(entry, MAX_EXPERTS if told.n_experts is None or "slot" in found else told.n_experts)
        if experts is None or layers is None:
            raise InputError(f"the columns are {', '.join(self.columns)[:200]}", self.where, _EXAMPLE)
        if "count" not in found and "token" in found:
            return self._selections(layers, experts)
        return self._counted(layers, experts)

    def _lists(self, lists: Mapping[str, NDArray[Any]], layers: NDArray[np.int64]) -> RoutingTrace:
        """Rows of (layer, token) with a list each."""
        columns, found, told = self.columns, self.found, self.told
        numbers, times = np.unique(layers, return_counts=True)
        if len(set(times.tolist())) > 1:
            what = f"layers have {times.min()} to {times.max()} rows"
            raise InputError(what, self.where, "every layer needs every token")
        order = np.argsort(layers, kind="stable")
        if "token" in found:
            keys = [columns[found[key]] for key in ("token", "sequence", "step", "rank") if key in found]
            order = np.lexsort((*keys, layers))
        stacked = {key: rows[order].reshape(len(numbers), times[0], -1) for key, rows in lists.items()}
        place: dict[str, Any] = {
            key: columns[found[key]][order].reshape(len(numbers), -1)[0].astype(np.int32)
            for key in ("step", "rank", "sequence")
            if key in found and columns[found[key]].dtype.kind in "iu"
        }
        seen, rest = numbers.tolist(), (told, self.source, self.where)
        ids, logits, counts = (stacked.get(key) for key in ("ids", "logits", "counts"))
        if counts is not None or (told.unit == "counts" and ids is not None):
            rows = ids if counts is None else counts
            assert rows is not None  # noqa: S101 - one of them is there
            return trace_of_counts(rows.transpose(1, 0, 2), seen, *rest)
        if ids is None:
            return trace_of_logits(stacked["logits"], seen, *rest, **place)
        few = times[0] == 1 or ("layer" not in found and times[0] <= _FEW_ROWS)
        if told.unit is None and "token" not in found and few and "expert_ids" in columns:
            what = "one row of numbers for each layer"
            raise InputError(what, self.where, "say whether they are counts or ids (--unit)")
        # A list of the best few logits is not one of all experts.
        whole = logits is not None and logits.shape[2] == (told.n_experts or logits.shape[2]) > int(ids.max(initial=0))
        if whole and logits is not None:
            chosen = trace_of_ids(ids, seen, *rest, n_experts=logits.shape[2])
            if len(chosen.layers) == len(seen):
                return trace_of_logits(logits, seen, *rest, ids=chosen.ids, top_k=chosen.top_k, **place)
        if "gates" in stacked and stacked["gates"].shape == ids.shape:
            place["gates"] = stacked["gates"].astype(np.float32)
        return trace_of_ids(ids, seen, *rest, **place)

    def _selections(self, layers: NDArray[np.int64], experts: NDArray[np.int64]) -> RoutingTrace:
        """One selection a row; the tokens of a layer have as many rows as they select experts."""
        keys = [self.columns[self.found[key]] for key in ("step", "rank", "sequence", "token") if key in self.found]
        token = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)
        numbers, layer_at = np.unique(layers, return_inverse=True)
        tokens = 1 + int(token.max(initial=0))
        cell = layer_at * tokens + token
        times = np.bincount(cell, minlength=len(numbers) * tokens)
        ids = np.full((len(times), times.max(initial=0)), -1, np.int64)
        order = np.argsort(cell, kind="stable")
        place = np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
        ids[cell[order], place] = experts[order]
        ids = ids.reshape(len(numbers), tokens, -1)
        return trace_of_ids(ids, numbers.tolist(), self.told, self.source, self.where)

    def _counted(self, layers: NDArray[np.int64], experts: NDArray[np.int64]) -> RoutingTrace:
        """A count a row, or one selection a row whose token nothing says."""
        columns, found, told = self.columns, self.found, self.told
        if not len(layers):
            fix = "at least one row of layer, expert and count is needed"
            raise InputError("no counts", self.where, fix)
        counted = "count" in found
        count = self._numbers(found["count"]) if counted else np.ones(len(experts))
        numbers, layer_at = np.unique(layers, return_inverse=True)
        given = self._whole("step", MOST_SELECTIONS)
        steps = np.zeros(len(layers), np.int64) if given is None else given
        step_at = np.unique(steps, return_inverse=True)[1]
        width = 1 + int(experts.max()) if told.n_experts is None or "slot" in found else told.n_experts
        if told.slot_expert is not None:
            width = told.slot_expert.shape[-1]
        shape = (1 + int(step_at.max()), len(numbers), width)
        cell = np.ravel_multi_index((step_at, layer_at, experts), shape, mode="clip")
        notes = [] if counted else ["rows are single selections whose tokens are not marked: counted"]
        if not counted:
            self._refuse_unnamed_counts()
        notes += [f"{found['count']} is read, {name} is not" for name in COUNTS if counted and name in columns][1:2]
        if counted and not found.keys() & {"rank", "sequence", "token"}:
            # What no name says may tell rows apart, such as a task: such rows are summed, and it is said.
            others = [name for name in columns if name not in found.values()]
            kinds = [np.unique(columns[name], return_inverse=True)[1].reshape(-1) for name in others]
            _, first = np.unique(np.stack([cell, *kinds]), axis=1, return_index=True)
            if len(np.unique(cell)) < len(first):
                notes.append(f"rows are summed over {', '.join(others)}"[:200])
            if len(first) < len(cell):
                again = int(np.setdiff1d(np.arange(len(cell)), first)[0])
                raise InputError(f"layer {layers[again]}, expert {experts[again]} appears twice", self.row(again))
        counts = np.bincount(cell, weights=count, minlength=int(np.prod(shape))).reshape(shape)
        return trace_of_counts(counts, numbers.tolist(), told, self.source, self.where, notes=notes)

    def _refuse_unnamed_counts(self) -> None:
        """A column that the others tell the rows of holds a value for each row: of selections it would not be so."""
        codes = {name: np.unique(values, return_inverse=True)[1] for name, values in self.columns.items()
                 if values.ndim == 1}  # fmt: skip
        for name in (name for name in codes if name not in self.found.values()):
            row = np.zeros(len(codes[name]), np.int64)
            for other in (other for other in codes if other != name):
                row = np.unique(row * (1 + codes[other].max()) + codes[other], return_inverse=True)[1]
            if self.columns[name].dtype.kind in "iuf" and row.max() + 1 == len(row):
                fix = "name it count; for single selections name their tokens token"
                raise InputError(f"no column is named as counts are; is it {name!r:.60}?", self.where, fix)

    def _whole(self, key: str, limit: int) -> NDArray[np.int64] | None:
        """A column of whole numbers from 0 below the limit; None where there is none of that kind."""
        if key not in self.found:
            return None
        fix = f"a whole number from 0 to {limit - 1} is needed"
        values = self._numbers(self.found[key], fix)
        bad = (values >= limit) | (values != np.floor(values))
        self._refuse(bad, self.found[key], fix)
        return values.astype(np.int64)

    def _numbers(self, name: str, fix: str = "a number, 0 or more, is needed") -> NDArray[np.float64]:
        values = self.columns[name]
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise InputError(f"{name} is of type {values.dtype}", self.row(0), "numbers are needed")
        values = values.astype(np.float64)
        self._refuse(~((values >= 0) & (values < np.inf)), name, fix)
        return values

    def _refuse(self, bad: NDArray[np.bool_], name: str, fix: str) -> None:
        if bad.any():
            at = int(bad.argmax())
            value = self.columns[name][at]
            said = f"{value:g}" if abs(value) < 1e9 or not np.isfinite(value) else str(value)
            raise InputError(f"{name} is {said}", self.row(at), fix)

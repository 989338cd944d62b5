"""Chrome / Perfetto trace of a run: a process per node, the lanes of a layer's program per rank, counters of links.

Times are microseconds, as the format wants them. Slices of one lane never overlap, but for a wait, which lies within
its phase: at the beginning where the phase could not start without somebody, at the end where all leave together. One
set of arrows leads from who was late to who waited, another follows the largest transfers of each layer from dispatch
to the expert's rank and back with combine; up to 256 ranks, since larger runs keep transfers per pair of nodes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.results.tables import Columns, Tables
from moesim.stages import BESIDE, LANES, MIGRATION, PHASES, STAGES, STEP

_EVENT_LIMIT = 1_000_000
# Arrows that follow transfers: of each layer, and of all.
_PER_LAYER, _IN_ALL = 32, 4_000
_RANK_PAIR_LIMIT = 256

_LANE_OF = {stage.label: "shared" if stage.beside else stage.lane for stage in (*STAGES, *STEP)}
_LANES = (*LANES, *(lane for lane in dict.fromkeys(_LANE_OF.values()) if lane not in LANES))
_EXPERTS = next(stage.label for stage in STAGES if stage.name == "experts")
_KEY = ("step", "layer", "micro_batch")
# Least distance from the end of a slice at which an arrow still belongs to it.
_INSIDE = 1e-3

Event = dict[str, Any]


def chrome_trace(tables: Tables, summary: dict[str, Any]) -> Event:
    """Build the trace as a JSON-able value.

    Args:
        tables: of the run.
        summary: of the run; goes into ``otherData``.

    Returns:
        ``traceEvents`` and ``otherData``; past a million slices the rest is left out and ``otherData`` says so.
    """
    spans = tables.columns("spans")
    lasting = np.flatnonzero(_microseconds(spans, spans, "end_s") > _microseconds(spans, spans, "start_s"))
    slices = _Slices(spans, lasting[:_EVENT_LIMIT])
    numbers = _Numbers(tables, large=len(np.unique(spans["rank"])) > _RANK_PAIR_LIMIT)
    events = [
        *_names(slices),
        *slices.events(numbers),
        *_waits(slices),
        *_counters(spans, tables.columns("link_series")),
        *(_pipeline(spans, tables.columns("pipeline")) if "pipeline" in tables else ()),
    ]
    followed = [] if numbers.large else list(_followed(slices, spans, tables.columns("transfers")))
    other = {
        "scenario": summary["name"],
        "layer_time_s": summary["layer_time_s"],
        "slices_left_out": len(lasting) - len(slices.row),
        "transfers_followed": len(followed),
    }
    return {
        "traceEvents": [*events, *(event for arrow in followed for event in arrow)],
        "displayTimeUnit": "ns",
        "otherData": other,
    }


class _Slices:
    """The spans that last, as columns: where each is, when, and what it waited for."""

    def __init__(self, spans: Columns, row: NDArray[np.int64]) -> None:
        self.row = row
        self.begin, self.end = (_microseconds(spans, spans, column)[row].tolist() for column in ("start_s", "end_s"))
        self.node, self.rank = (np.asarray(spans[column])[row].tolist() for column in ("node", "rank"))
        self.phase = [str(name) for name in np.asarray(spans["phase"])[row]]
        # Weights have a lane only where some move, so that other traces stay as they are.
        self.lanes = _LANES if BESIDE.label not in self.phase else (*_LANES, BESIDE.lane)
        lane_of = {**_LANE_OF, MIGRATION.label: MIGRATION.lane, BESIDE.label: BESIDE.lane}
        self.tid = [rank * len(self.lanes) + self.lanes.index(lane_of[phase])
                    for rank, phase in zip(self.rank, self.phase, strict=True)]  # fmt: skip
        self.key = list(zip(*(np.asarray(spans[column])[row].tolist() for column in _KEY), strict=True))
        self.wait = np.round(np.asarray(spans["wait_s"])[row] * 1e6, 4).tolist()
        self.waited_on = np.ma.filled(spans["waited_on"], -1)[row].tolist()
        self.at = {place: i for i, place in enumerate(zip(self.key, self.rank, self.phase, strict=True))}

    def events(self, numbers: "_Numbers") -> Iterator[Event]:
        for i, (key, phase) in enumerate(zip(self.key, self.phase, strict=True)):
            arguments = dict(zip(_KEY, key, strict=True)) | numbers.of(key, self.rank[i], phase)
            yield self._slice(i, phase, self.begin[i], self.end[i], arguments)
            if self.wait[i] > 0 and self.waited_on[i] >= 0:
                begin, end = self.waits(i)
                late = {"waited_on": self.waited_on[i], "wait_us": self.wait[i]}
                yield self._slice(i, f"wait for rank {self.waited_on[i]}", begin, end, arguments | late)

    def _slice(self, i: int, name: str, begin: float, end: float, arguments: Event) -> Event:
        place = {"pid": self.node[i], "tid": self.tid[i], "ts": begin, "dur": round(end - begin, 4)}
        return {"ph": "X", "name": name, "cat": "moe", **place, "args": arguments}

    def waits(self, i: int) -> tuple[float, float]:
        """Begin and end of the wait within its phase."""
        late = self.at.get((self.key[i], self.waited_on[i], self.phase[i]))
        if late is not None and self.begin[late] <= self.begin[i]:
            return max(round(self.end[i] - self.wait[i], 4), self.begin[i]), self.end[i]
        return self.begin[i], min(round(self.begin[i] + self.wait[i], 4), self.end[i])

    def point(self, i: int, time: float) -> Event:
        """A time within a slice: where an arrow can begin or end."""
        inside = max(self.begin[i], min(time, round(self.end[i] - _INSIDE, 4)))
        return {"pid": self.node[i], "tid": self.tid[i], "ts": inside}


class _Numbers:
    """Tokens and bytes of a slice: bytes of each phase, above 256 ranks those of both together."""

    def __init__(self, tables: Tables, large: bool) -> None:
        self.large = large
        ranks, transfers = tables.columns("ranks"), tables.columns("transfers")
        columns = ("tokens", "computed_selections", "sent_bytes", "received_bytes")
        where = zip(*(np.asarray(ranks[column]).tolist() for column in (*_KEY, "rank")), strict=True)
        values = zip(*(np.asarray(ranks[column]).tolist() for column in columns), strict=True)
        self._of_rank = dict(zip(where, values, strict=True))
        self._moved: dict[tuple[Any, ...], float] = {}
        if large:
            return
        for end, name in (("source_rank", "sent"), ("target_rank", "received")):
            keys = [np.asarray(transfers[column]) for column in (*_KEY, end)]
            keys.append(np.array([PHASES.index(phase) for phase in transfers["phase"]], np.int64))
            unique, index = np.unique(np.stack(keys), axis=1, return_inverse=True)
            sums = np.bincount(index.ravel(), weights=transfers["wire_bytes"], minlength=unique.shape[1])
            for (*place, phase), moved in zip(unique.T.tolist(), sums.tolist(), strict=True):
                self._moved[*place, PHASES[phase], name] = moved

    def of(self, key: tuple[int, ...], rank: int, phase: str) -> Event:
        tokens, selections, sent, received = self._of_rank[*key, rank]
        if phase == _EXPERTS:
            return {"tokens": tokens, "selections": selections}
        if phase not in PHASES:
            return {"tokens": tokens}
        if self.large:
            return {"tokens": tokens, "layer_sent_bytes": sent, "layer_received_bytes": received}
        moved = {f"{name}_bytes": self._moved.get((*key, rank, phase, name), 0.0) for name in ("sent", "received")}
        return {"tokens": tokens, **moved}


def _names(slices: _Slices) -> Iterator[Event]:
    lanes = sorted(set(zip(slices.node, slices.tid, strict=True)))
    for node in sorted({node for node, _ in lanes}):
        yield _metadata("process_name", node, 0, {"name": f"node {node}"})
        yield _metadata("process_sort_index", node, 0, {"sort_index": node})
    for node, tid in lanes:
        rank, lane = divmod(tid, len(slices.lanes))
        yield _metadata("thread_name", node, tid, {"name": f"rank {rank} {slices.lanes[lane]}"})
        yield _metadata("thread_sort_index", node, tid, {"sort_index": tid})


def _waits(slices: _Slices) -> Iterator[Event]:
    """Arrows from who was late to who waited."""
    for i, (wait, late_rank) in enumerate(zip(slices.wait, slices.waited_on, strict=True)):
        late = slices.at.get((slices.key[i], late_rank, slices.phase[i]))
        if wait <= 0 or late is None:
            continue
        start = slices.point(late, slices.begin[late])
        begin, end = slices.waits(i)
        finish = slices.point(i, max(begin if begin > slices.begin[i] else end, start["ts"]))
        if finish["ts"] >= start["ts"]:
            yield from _arrow("late", f"w{i}", [start, finish], {"wait_us": wait, "waited_on": late_rank})


def _followed(slices: _Slices, spans: Columns, transfers: Columns) -> Iterator[list[Event]]:
    """Arrows along the largest transfers: dispatch, the expert's rank, combine."""
    columns = [np.asarray(transfers[column]) for column in (*_KEY, "source_rank", "target_rank")]
    size, outward = np.asarray(transfers["wire_bytes"]), np.asarray(transfers["phase"]) == "dispatch"
    start, finish = (_microseconds(spans, transfers, column) for column in ("start_s", "finish_s"))
    back = {tuple(column[i] for column in columns): finish[i] for i in np.flatnonzero(~outward).tolist()}
    order = np.lexsort((-size, *columns[2::-1], ~outward))[: int(outward.sum())]
    layer = np.unique(np.stack(columns[:3])[:, order], axis=1, return_inverse=True)[1].ravel()
    place = np.arange(len(order)) - np.searchsorted(layer, layer)
    for i in order[place < _PER_LAYER][:_IN_ALL].tolist():
        *key, source, target = (int(column[i]) for column in columns)
        stops = [slices.at.get((tuple(key), rank, phase))
                 for rank, phase in ((source, "dispatch"), (target, _EXPERTS), (source, "combine"))]  # fmt: skip
        if None in stops:
            continue
        out, expert, home = stops
        arrived = back.get((*key, target, source), slices.end[home])
        points = [slices.point(out, start[i]), slices.point(expert, 0.0), slices.point(home, arrived)]  # type: ignore[arg-type]
        if points[0]["ts"] <= points[1]["ts"] <= points[2]["ts"]:
            numbers = {"layer": key[1], "bytes": float(size[i]), "tokens": int(transfers["copies"][i])}
            yield _arrow("tokens", f"t{i}", points, numbers | {"source": source, "target": target})


def _arrow(name: str, number: str, points: list[Event], arguments: Event) -> list[Event]:
    kinds = ["s", *["t"] * (len(points) - 2), "f"]
    ends = [{"bp": "e"} if kind == "f" else {} for kind in kinds]
    return [{"ph": kind, "name": name, "cat": name, "id": number, **point, **end, "args": arguments}
            for kind, point, end in zip(kinds, points, ends, strict=True)]  # fmt: skip


def _counters(spans: Columns, series: Columns) -> Iterator[Event]:
    """Use of each link class over time, in a process of its own; 0 between the phases."""
    if not len(series["time_s"]):
        return
    pid = int(np.asarray(spans["node"]).max()) + 1
    yield _metadata("process_name", pid, 0, {"name": "links"})
    yield _metadata("process_sort_index", pid, 0, {"sort_index": -1})
    classes, times = np.asarray(series["link_class"]), _microseconds(spans, series, "time_s")
    for name in dict.fromkeys(classes.tolist()):
        rows = np.flatnonzero(classes == name)
        time, first = np.unique(times[rows], return_index=True)
        mean, most = (np.asarray(series[f"utilisation_{column}"])[rows][first] for column in ("mean", "max"))
        width = float(np.diff(time).min()) if len(time) > 1 else 1.0
        last = np.flatnonzero(np.diff(time, append=np.inf) > 1.5 * width)
        time = np.insert(time, last + 1, time[last] + width)
        mean, most = (np.insert(values, last + 1, 0.0) for values in (mean, most))
        for at, low, high in zip(time.tolist(), mean.tolist(), most.tolist(), strict=True):
            share = {"mean": round(low, 5), "max": round(high, 5)}
            yield {"ph": "C", "name": f"{name} utilisation", "pid": pid, "tid": 0, "ts": round(at, 4), "args": share}


def _pipeline(spans: Columns, passes: Columns) -> Iterator[Event]:
    """The ranks of a training pipeline over the first step, a process of its own whose time begins at 0."""
    pid = int(np.asarray(spans["node"]).max()) + 2
    yield _metadata("process_name", pid, 0, {"name": "pipeline"})
    yield _metadata("process_sort_index", pid, 0, {"sort_index": pid})
    names = ("rank", "kind", "stage", "micro_batch", "overlapped", "start_s", "end_s")
    first = np.asarray(passes["step"]) == np.asarray(passes["step"]).min()
    rows = list(zip(*(np.asarray(passes[name])[first].tolist() for name in names), strict=True))
    for rank in sorted({row[0] for row in rows}):
        yield _metadata("thread_name", pid, rank, {"name": f"pipeline rank {rank}"})
        yield _metadata("thread_sort_index", pid, rank, {"sort_index": rank})
    for rank, kind, stage, micro_batch, overlapped, start, end in rows:
        if overlapped and kind == "backward":
            continue  # one slice for both
        begin, finish = (round(at * 1e6, 4) for at in (start, end))
        if finish > begin:
            place = {"pid": pid, "tid": rank, "ts": begin, "dur": round(finish - begin, 4)}
            name = "forward beside backward" if overlapped else kind
            yield {
                "ph": "X",
                "name": name,
                "cat": "pipeline",
                **place,
                "args": {"stage": stage, "micro_batch": micro_batch},
            }


def _microseconds(spans: Columns, table: Columns, column: str) -> NDArray[np.float64]:
    """Times of a table's column, rounded so that slices which touch still do; each step begins where the last ended."""
    steps, index = np.unique(spans["step"], return_inverse=True)
    ends = np.zeros(len(steps))
    np.maximum.at(ends, index, spans["end_s"])
    begins = np.cumsum(ends) - ends
    offset = begins[np.searchsorted(steps, np.asarray(table["step"]))]
    times: NDArray[np.float64] = np.round((np.asarray(table[column]) + offset) * 1e6, 4)
    return times


def _metadata(name: str, pid: int, tid: int, args: Event) -> Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}

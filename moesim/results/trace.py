"""Chrome / Perfetto trace of a run: one process per node, two lanes per rank, counters of link utilisation.

Times are microseconds, as the format wants them. Slices of one lane never overlap: what a rank computes beside a phase
is on its other lane.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.stages import LANES

_EVENT_LIMIT = 1_000_000


def chrome_trace(spans: dict[str, Any], series: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """Build the trace as a JSON-able value.

    Args:
        spans: columns of the ``spans`` table.
        series: columns of the ``link_series`` table.
        summary: of the run; goes into ``otherData``.

    Returns:
        ``traceEvents`` and ``otherData``; past a million events the rest is left out and ``otherData`` says so.
    """
    events: list[dict[str, Any]] = []
    seen = sorted({(int(n), int(r)) for n, r in zip(spans["node"], spans["rank"], strict=True)})
    for node in sorted({node for node, _ in seen}):
        events.append(_metadata("process_name", node, 0, {"name": f"node {node}"}))
        events.append(_metadata("process_sort_index", node, 0, {"sort_index": node}))
    for node, rank in seen:
        for lane, name in enumerate(LANES):
            tid = rank * len(LANES) + lane
            events.append(_metadata("thread_name", node, tid, {"name": f"rank {rank} {name}"}))
            events.append(_metadata("thread_sort_index", node, tid, {"sort_index": tid}))
    begin, end = _microseconds(spans, "start_s"), _microseconds(spans, "end_s")
    shown = np.flatnonzero(end > begin)
    waited_on = np.ma.filled(spans["waited_on"], -1)
    for i in shown[:_EVENT_LIMIT]:
        arguments = {"step": int(spans["step"][i]), "layer": int(spans["layer"][i])}
        if waited_on[i] >= 0:
            arguments["waited_on"] = int(waited_on[i])
        events.append(
            {
                "ph": "X",
                "name": str(spans["phase"][i]),
                "cat": "moe",
                "pid": int(spans["node"][i]),
                "tid": int(spans["rank"][i]) * len(LANES) + LANES.index(spans["lane"][i]),
                "ts": float(begin[i]),
                "dur": round(float(end[i] - begin[i]), 4),
                "args": arguments,
            }
        )
    for i in range(len(series["time_s"])):
        events.append(
            {
                "ph": "C",
                "name": f"{series['link_class'][i]} utilisation",
                "pid": 0,
                "tid": 0,
                "ts": round(float(series["time_s"][i]) * 1e6, 4),
                "args": {
                    "mean": round(float(series["utilisation_mean"][i]), 5),
                    "max": round(float(series["utilisation_max"][i]), 5),
                },
            }
        )
    left_out = max(len(shown) - _EVENT_LIMIT, 0)
    other = {"scenario": summary["name"], "layer_time_s": summary["layer_time_s"], "slices_left_out": left_out}
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}


def _microseconds(spans: dict[str, Any], column: str) -> NDArray[np.float64]:
    """Times of a column, rounded so that slices which touch still do; each step begins where the last one ended."""
    steps, index = np.unique(spans["step"], return_inverse=True)
    ends = np.zeros(len(steps))
    np.maximum.at(ends, index, spans["end_s"])
    begins = np.cumsum(ends) - ends
    times: NDArray[np.float64] = np.round((spans[column] + begins[index]) * 1e6, 4)
    return times


def _metadata(name: str, pid: int, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}

"""What a viewer takes for granted of a trace and never says when it is not so."""

from collections import defaultdict
from typing import Any

Event = dict[str, Any]
_NEEDED = {"M": {"name", "args"}, "X": {"name", "ts", "dur", "args"}, "C": {"name", "ts", "args"},
           "s": {"id", "ts"}, "t": {"id", "ts"}, "f": {"id", "ts", "bp"}}  # fmt: skip


def faults(trace: Event, most_bytes_per_event: int = 400, size: int = 0) -> list[str]:
    """Everything that is wrong with a trace.

    Metadata: every lane and process has one name, and none is named that holds nothing. Nesting: two slices of a lane
    lie one within the other, or apart. Monotone: counters in order of time, arrows never backwards, and both their ends
    within a slice. Size: bytes of the file for each event.
    """
    events = trace["traceEvents"]
    found = [f"{event} lacks a field" for event in events if not _NEEDED[event["ph"]] | {"pid", "tid"} <= set(event)]
    lanes, arrows, counters, names = defaultdict(list), defaultdict(list), defaultdict(list), defaultdict(list)
    for event in events:
        place = (event["pid"], event["tid"])
        if event["ph"] == "X":
            lanes[place].append((event["ts"], event["ts"] + event["dur"], event["name"]))
            if event["dur"] <= 0 or event["ts"] < 0:
                found.append(f"{event['name']} lasts {event['dur']} from {event['ts']}")
        elif event["ph"] == "C":
            counters[event["pid"], event["name"]].append(event["ts"])
        elif event["ph"] == "M":
            names[event["name"], event["pid"], event["tid"] if event["name"].startswith("thread") else 0].append(event)
        else:
            arrows[event["cat"], event["id"]].append((event["ph"], place, event["ts"]))
    return [
        *found,
        *_naming(names, lanes, {pid for pid, _ in counters}),
        *(fault for place, slices in lanes.items() for fault in _nesting(place, slices)),
        *(f"counter {name} goes back" for name, times in counters.items() if times != sorted(set(times))),
        *(fault for name, ends in arrows.items() for fault in _arrow(name, ends, lanes)),
        *([f"{size / len(events):.0f} bytes for each event"] if size > most_bytes_per_event * len(events) else []),
    ]


def _naming(names: Any, lanes: Any, counting: set[int]) -> list[str]:
    found = [f"{key} is said {len(said)} times" for key, said in names.items() if len(said) > 1]
    threads = {(pid, tid) for kind, pid, tid in names if kind == "thread_name"}
    processes = {pid for kind, pid, _ in names if kind == "process_name"}
    found += [f"lane {place} has no name" for place in set(lanes) - threads]
    found += [f"lane {place} holds nothing" for place in threads - set(lanes)]
    found += [f"process {pid} has no name" for pid in {pid for pid, _ in lanes} | counting if pid not in processes]
    return found + [f"process {pid} holds nothing" for pid in processes - {pid for pid, _ in lanes} - counting]


def _nesting(place: tuple[int, int], slices: list[tuple[float, float, str]]) -> list[str]:
    found, around = [], []
    for begin, end, name in sorted(slices, key=lambda one: (one[0], -one[1])):
        while around and around[-1][1] <= begin + 1e-6:
            around.pop()
        if around and end > around[-1][1] + 1e-6:
            found.append(f"{name} begins within {around[-1][2]} and outlasts it, on lane {place}")
        around.append((begin, end, name))
    return found


def _arrow(name: Any, ends: list[tuple[str, tuple[int, int], float]], lanes: Any) -> list[str]:
    kinds, times = "".join(kind for kind, _, _ in ends), [time for _, _, time in ends]
    found = [] if kinds in ("sf", "stf") else [f"arrow {name} is made of {kinds}"]
    found += [f"arrow {name} goes back in time"] if times != sorted(times) else []
    loose = [place for _, place, time in ends if not any(begin <= time < end for begin, end, _ in lanes[place])]
    return found + [f"arrow {name} touches no slice on lane {place}" for place in loose]

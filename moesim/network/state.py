"""What a flow network remembers: record arrays, one for each kind of thing.

Flows, their route entries and waiters live in numbered slots that are handed out in intervals (one per
batch) and reused after the batch is released, so that memory follows the flows in progress and not the
length of the simulation. A finite rate cap becomes a private link of that capacity, so that nothing below
knows about caps: link ids below the network's own number of links are the caller's, those above are caps.

The arrays are one ``NamedTuple`` because the jitted kernels (``max_min``, ``progress``) take it as one
argument; scalars that change in place sit in ``clock`` and ``tally``.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Pointers = NDArray[np.int64]

NO_LINK = -1
"""Bottleneck of a flow whose rate is still to be found."""

WAITING, LIVE, FINISHED, CANCELLED = 0, 1, 2, 3
"""Values of a flow's ``phase``."""

NOW, WANTED, BUCKET_ORIGIN, BUCKET, BUCKET_END = range(5)
"""Places in ``clock``: the time, the time that buckets are lacking for, their origin, width and end."""

(
    N_LIVE,  # flows in progress
    N_PENDING,  # flows that start later
    N_DONE,  # waiters to be reported
    N_TOUCHED,  # links that changed since the last solve
    N_MOVED,  # flows whose bottleneck was set in this solve
    N_LOG,  # log lines
    LOGGING,  # whether bottlenecks are logged
    PATIENCE,  # levels that a solve sets before it releases all flows
    N_EVENTS,  # instants at which something started or finished
    N_COMMITS,  # levels set
    N_FULL,  # times that all flows were released
) = range(11)
"""Places in ``tally``."""

FLOW = np.dtype(
    [
        ("start", "f8"),
        ("finish", "f8"),  # nan until it is known
        ("remaining", "f8"),  # bytes left at `since`
        ("since", "f8"),
        ("rate", "f8"),  # bytes/s from `since` on
        ("entry_ptr", "i8"),
        ("wait_ptr", "i8"),
        ("bottleneck", "i4"),  # link at whose level the flow runs
        ("entry_len", "i4"),
        ("wait_len", "i4"),
        ("logged", "i4"),  # last bottleneck written to the log
        ("phase", "u1"),
        ("moved", "u1"),  # is in moved_flow
    ],
    align=True,
)
ENTRY = np.dtype([("place", "i8"), ("weight", "f8"), ("link", "i4")], align=True)
"""A link of a flow's route with a positive weight; each link of a route once."""

PLACE = np.dtype([("entry", "i8"), ("weight", "f8"), ("flow", "i4")], align=True)
"""A flow in progress on a link; the link's list is place[list_ptr : list_ptr + list_len]."""

LINK = np.dtype(
    [
        ("capacity", "f8"),
        ("level", "f8"),  # rate of the flows that the link bottlenecks; inf when there is none
        ("foreign", "f8"),  # about sum(weight * rate) over flows with another bottleneck
        ("own_weight", "f8"),  # about sum(weight) over its own flows and those without a bottleneck yet
        ("rate", "f8"),  # sum(weight * rate) from `since` on
        ("since", "f8"),
        ("served", "f8"),  # integral of rate until `since`
        ("busy", "f8"),  # seconds with rate > 0 until `since`
        ("list_ptr", "i8"),
        ("list_len", "i4"),
        ("list_room", "i4"),
        ("reserved", "i4"),  # flows waiting or in progress on the link
        ("n_own", "i4"),
        ("column", "i4"),  # column in bucket_served, -1 when not recorded
        ("touched", "u1"),  # is in touched_link
    ],
    align=True,
)
WAITER = np.dtype([("outstanding", "i4"), ("done", "i4")])
LOG = np.dtype([("time", "f8"), ("flow", "i4"), ("link", "i4")])


class FlowState(NamedTuple):
    """Arrays of a flow network."""

    clock: Floats
    tally: Pointers
    flow: Any  # recarray of FLOW
    entry: Any  # of ENTRY
    place: Any  # of PLACE
    link: Any  # of LINK
    waiter: Any  # of WAITER
    log: Any  # of LOG
    wait_list: Ints  # waiters of the flows
    done_waiter: Ints
    pending_flow: Ints  # binary heap by (start, slot)
    moved_flow: Ints
    touched_link: Ints
    finish_tree: Floats  # tournament tree over links: first completion among the link's own flows
    dirty_tree: Floats  # tournament tree over links: level at which a link must be looked at again
    bucket_served: NDArray[np.float64]  # [bucket, column] bytes times weight


def records(dtype: np.dtype[Any], n: int) -> Any:
    """Return ``n`` zeroed records."""
    return np.zeros(n, dtype).view(np.recarray)


def empty_state(capacity: Floats, now: float, *, logging: bool, patience: int) -> FlowState:
    """Return the state of a network without flows on ``capacity[links]`` at time ``now``."""
    tally = np.zeros(11, np.int64)
    tally[LOGGING], tally[PATIENCE] = logging, patience
    ints = np.zeros(0, np.int32)
    state = FlowState(
        clock=np.array([now, 0.0, 0.0, 0.0, np.inf]),
        tally=tally,
        flow=records(FLOW, 0),
        entry=records(ENTRY, 0),
        place=records(PLACE, 0),
        link=records(LINK, 0),
        waiter=records(WAITER, 0),
        log=records(LOG, 0),
        wait_list=ints,
        done_waiter=ints,
        pending_flow=ints,
        moved_flow=ints,
        touched_link=ints,
        finish_tree=np.full(2, np.inf),
        dirty_tree=np.full(2, np.inf),
        bucket_served=np.zeros((0, 0)),
    )
    state = with_links(state, max(1, len(capacity)))
    state.link.capacity[: len(capacity)] = capacity
    return state


def with_links(state: FlowState, n: int) -> FlowState:
    """Return the state with room for at least ``n`` links, new ones idle since now."""
    old = len(state.link)
    if n <= old:
        return state
    link = longer(state.link, n)
    link.level[old:] = np.inf
    link.column[old:] = -1
    link.since[old:] = state.clock[NOW]
    return state._replace(
        link=link,
        touched_link=longer(state.touched_link, len(link)),
        finish_tree=_tree(state.finish_tree, len(link)),
        dirty_tree=_tree(state.dirty_tree, len(link)),
    )


def with_flows(state: FlowState, n_flows: int, n_entries: int, n_waits: int) -> FlowState:
    """Return the state with at least that many slots for flows, route entries and entries of waiters."""
    if n_flows <= len(state.flow) and n_entries <= len(state.entry) and n_waits <= len(state.wait_list):
        return state
    flow = longer(state.flow, n_flows)
    return state._replace(
        flow=flow,
        pending_flow=longer(state.pending_flow, len(flow)),
        moved_flow=longer(state.moved_flow, len(flow)),
        entry=longer(state.entry, n_entries),
        wait_list=longer(state.wait_list, n_waits),
    )


def with_waiters(state: FlowState, n: int) -> FlowState:
    """Return the state with at least ``n`` slots for waiters."""
    waiter = longer(state.waiter, n)
    return state._replace(waiter=waiter, done_waiter=longer(state.done_waiter, len(waiter)))


def with_log_room(state: FlowState) -> FlowState:
    """Return the state with room for a line for each flow, and more."""
    room = 1024 + 4 * int(state.tally[N_LIVE] + state.tally[N_PENDING])
    return state._replace(log=longer(state.log, room))


def with_buckets(state: FlowState) -> FlowState:
    """Return the state with time buckets until the wanted time at least."""
    origin, width, old = state.clock[BUCKET_ORIGIN], state.clock[BUCKET], state.bucket_served
    n = max(2 * len(old), int((state.clock[WANTED] - origin) / width) + 16)
    buckets = np.zeros((n, old.shape[1]))
    buckets[: len(old)] = old
    state.clock[BUCKET_END] = origin + n * width
    return state._replace(bucket_served=buckets)


def _tree(old: Floats, n: int) -> Floats:
    leaves = 1
    while leaves < n:
        leaves *= 2
    tree = np.full(2 * leaves, np.inf)
    tree[leaves : leaves + len(old) // 2] = old[len(old) // 2 :]
    for i in range(leaves - 1, 0, -1):
        tree[i] = min(tree[2 * i], tree[2 * i + 1])
    return tree


def longer(array: Any, n: int) -> Any:
    """Return an array at least ``n`` long that begins with ``array``; it doubles, so this is rare."""
    if n <= len(array):
        return array
    grown = np.zeros(max(n, 2 * len(array)), array.dtype).view(type(array))
    grown[: len(array)] = array
    return grown


class Slots:
    """Hands out intervals of slot numbers from ``first`` on and takes them back (first fit)."""

    def __init__(self, first: int = 0) -> None:
        self.end = first
        self._free: list[tuple[int, int]] = []  # (first, count), sorted, never adjacent

    def take(self, count: int) -> int:
        """Return the first of ``count`` adjacent free slots."""
        for i, (first, room) in enumerate(self._free):
            if room >= count:
                self._free[i : i + 1] = [(first + count, room - count)] if room > count else []
                return first
        first = self.end
        self.end += count
        return first

    def give_back(self, first: int, count: int) -> None:
        """Make ``count`` slots from ``first`` on free again."""
        if count == 0:
            return
        i = bisect_left(self._free, (first, count))
        if i < len(self._free) and first + count == self._free[i][0]:
            count += self._free.pop(i)[1]
        if i > 0 and sum(self._free[i - 1]) == first:
            i -= 1
            before, room = self._free.pop(i)
            first, count = before, room + count
        if first + count == self.end:
            self.end = first
        else:
            self._free.insert(i, (first, count))

"""What a flow network remembers: a table of columns for each kind of thing.

Flows, their route entries and waiters live in numbered slots that are handed out in intervals (one per
batch) and reused after the batch is released, so that memory follows the flows in progress and not the
length of the simulation. A finite rate cap becomes a private link of that capacity, so that nothing below
knows about caps: link ids below the network's own number of links are the caller's, those above are caps.

Columns are arrays of their own, so that a loop over links or places reads only what it needs. The tables are one
``NamedTuple`` because the jitted kernels (``max_min``, ``progress``) take it as one argument; scalars that change in
place sit in ``clock`` and ``tally``.
"""

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import interpreted

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Pointers = NDArray[np.int64]

BLOCK = 16
"""Links whose least value is kept beside the values, so that the least of all is found without looking at all."""

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
    N_STIRRED,  # links whose turn must be estimated again
    N_TOUCHED,  # links that changed since the last solve
    N_MOVED,  # flows whose bottleneck was set in this solve
    N_LOG,  # log lines
    LOGGING,  # whether bottlenecks are logged
    PATIENCE,  # levels that a solve sets before it releases all flows
    N_EVENTS,  # instants at which something started or finished
    N_COMMITS,  # levels set
    N_FULL,  # times that all flows were released
    N_HOMELESS,  # flows in progress without a bottleneck
    N_AT_ONCE,  # events since the clock moved
    N_IDLE,  # events since a flow started or ended
    MOST_AT_ONCE,  # such events at most
    MOST_IDLE,
    UNTIL_PROOF,  # events until rates are proven again
) = range(18)
"""Places in ``tally``."""


FLOW = np.dtype(
    [
        ("start", "f8"),
        ("finish", "f8"),  # nan until it is known
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

LINK = np.dtype(
    [
        ("capacity", "f8"),
        ("own_weight", "f8"),  # about sum(weight) over its own flows and those without a bottleneck yet
        ("list_ptr", "i8"),
        ("list_len", "i4"),
        ("n_own", "i4"),  # flows that it bottlenecks, and those without a bottleneck yet
        ("virtual", "f8"),  # virtual clock: integral of the level until `set_at`, bytes
        ("set_at", "f8"),  # when the level was last set
        ("first_due", "f8"),  # least `due` of its own flows; nan when it must be looked up
        ("rate", "f8"),  # sum(weight * rate) from `since` on
        ("since", "f8"),
        ("served", "f8"),  # integral of rate until `since`
        ("busy", "f8"),  # seconds with rate > 0 until `since`
        ("list_room", "i4"),
        ("reserved", "i4"),  # flows waiting or in progress on the link
        ("column", "i4"),  # column in bucket_served, -1 when not recorded
    ],
    align=True,
)
REACHED = np.dtype([("weight", "f8"), ("link", "i4"), ("flows", "i4")], align=True)
WAITER = np.dtype([("outstanding", "i4"), ("done", "i4")])
LOG = np.dtype([("time", "f8"), ("flow", "i4"), ("link", "i4")])


class Entries(NamedTuple):
    """The links of the flows' routes that have a positive weight; each link of a route once."""

    place: Pointers
    weight: Floats
    link: Ints


class Places(NamedTuple):
    """Flows in progress on links; a link's list is [list_ptr : list_ptr + list_len], its own flows first."""

    entry: Pointers
    weight: Floats
    flow: Ints
    bottleneck: Ints  # of the flow, as are the next: a link's list is walked without looking at flows
    route: Pointers  # entry_ptr
    length: Ints  # entry_len


class Reach(NamedTuple):
    """For each link, the others that its own flows load; without rows where such a table is not worth its memory."""

    length: Ints  # [link] how many others
    row: Any  # recarray of REACHED, [link, at]: the first `length` count
    column: NDArray[np.int16]  # [link, other] place in the row plus 1; 0 when it is not reached


class FlowState(NamedTuple):
    """Arrays of a flow network."""

    clock: Floats
    tally: Pointers
    flow: Any  # recarray of FLOW
    due: Floats  # [flow] reading of its bottleneck's virtual clock at which it ends; without a bottleneck: bytes left
    entry: Entries
    place: Places
    link: Any  # recarray of LINK
    level: Floats  # [link] rate of the flows that the link bottlenecks; inf when there is none
    foreign: Floats  # [link] about sum(weight * rate) over flows with another bottleneck
    reach: Reach
    full: Floats  # [link] its capacity, a little less without own flows: what others may take before it has a turn
    ease: Floats  # [link] 1 over the weight of its own flows; 0 when there are none
    stirred: NDArray[np.uint8]  # [link] is in stirred_link
    touched: NDArray[np.uint8]  # [link] is in touched_link
    waiter: Any  # recarray of WAITER
    log: Any  # recarray of LOG
    wait_list: Ints  # waiters of the flows
    done_waiter: Ints
    pending_flow: Ints  # binary heap by (start, slot)
    moved_flow: Ints
    stirred_link: Ints  # its turn must be estimated again
    touched_link: Ints  # its flows or rates changed since the last solve; one place more than links
    completion: Floats  # [link] first completion among the link's own flows; then the least of each block
    turn: Floats  # [link] level at which a link must be looked at again; then the least of each block
    bucket_served: NDArray[np.float64]  # [bucket, column] bytes times weight


class Fields:
    """Records for interpreted kernels: a recarray looks up each field anew, which takes longer than its use."""

    def __init__(self, whole: NDArray[Any]) -> None:
        self.whole = whole
        for name in whole.dtype.names or ():
            setattr(self, name, whole[name])

    def __len__(self) -> int:
        return len(self.whole)

    def copy(self) -> "Fields":
        """Return records of the same content."""
        return Fields(self.whole.copy())


def records(dtype: np.dtype[Any], *shape: int) -> Any:
    """Return zeroed records, whose fields are attributes."""
    zeros = np.zeros(shape, dtype)
    return Fields(zeros) if interpreted() else zeros.view(np.recarray)


def no_entries() -> Entries:
    """Return a table without rows."""
    return Entries(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int32))


def places(n: int) -> Places:
    """Return ``n`` zeroed rows."""
    ints, pointers = np.zeros((3, n), np.int32), np.zeros((2, n), np.int64)
    return Places(pointers[0], np.zeros(n), ints[0], ints[1], pointers[1], ints[2])


def pays_reach(n_links: int, n_flows: int, n_entries: int) -> bool:
    """Return whether a table of what links reach is worth its memory, 18 bytes a pair of links, with so many flows.

    Up to 1,024 links it takes 19 MB at most and wants few. Beyond, it wants flows on routes of a few links: with many
    links each the rows are about as long as the routes together, and walking them gains nothing.
    """
    if n_links <= 1024:
        return n_links * n_links <= 50 * n_entries
    return n_links <= np.iinfo(np.int16).max and n_links * n_links <= 20 * n_entries <= 120 * n_flows


def no_reach(n: int) -> Reach:
    """Return a table for ``n`` links that reach nothing; memory is taken where it is written to."""
    return Reach(np.zeros(n, np.int32), records(REACHED, n, n), np.zeros((n, n), np.int16))


def empty_state(capacity: Floats, now: float, *, logging: bool, patience: int) -> FlowState:
    """Return the state of a network without flows on ``capacity[links]`` at time ``now``."""
    tally = np.zeros(18, np.int64)
    tally[LOGGING], tally[PATIENCE] = logging, patience
    tally[MOST_AT_ONCE], tally[MOST_IDLE] = 1_000_000, 100_000
    ints = np.zeros(0, np.int32)
    state = FlowState(
        clock=np.array([now, 0.0, 0.0, 0.0, np.inf]),
        tally=tally,
        flow=records(FLOW, 0),
        due=np.zeros(0),
        entry=no_entries(),
        place=places(0),
        link=records(LINK, 0),
        level=np.zeros(0),
        foreign=np.zeros(0),
        reach=no_reach(0),
        full=np.zeros(0),
        ease=np.zeros(0),
        stirred=np.zeros(0, np.uint8),
        touched=np.zeros(0, np.uint8),
        waiter=records(WAITER, 0),
        log=records(LOG, 0),
        wait_list=ints,
        done_waiter=ints,
        pending_flow=ints,
        moved_flow=ints,
        stirred_link=ints,
        touched_link=ints,
        completion=np.zeros(0),
        turn=np.zeros(0),
        bucket_served=np.zeros((0, 0)),
    )
    state = with_links(state, max(1, len(capacity)))
    state.link.capacity[: len(capacity)] = capacity
    return state


def with_links(state: FlowState, n: int) -> FlowState:
    """Return the state with room for at least ``n`` links, new ones idle since now."""
    old = len(state.level)
    if n <= old:
        return state
    link, level = longer(state.link, n), longer(state.level, n)
    level[old:] = link.first_due[old:] = np.inf
    link.column[old:] = -1
    link.since[old:] = state.clock[NOW]
    return state._replace(
        link=link,
        level=level,
        foreign=longer(state.foreign, n),
        full=longer(state.full, n),
        ease=longer(state.ease, n),
        stirred=longer(state.stirred, n),
        touched=longer(state.touched, n),
        stirred_link=longer(state.stirred_link, n),
        touched_link=longer(state.touched_link, n + 1),
        completion=_blocked(state.completion, old, len(link)),
        turn=_blocked(state.turn, old, len(link)),
    )


def with_flows(state: FlowState, n_flows: int, n_entries: int, n_waits: int) -> FlowState:
    """Return the state with at least that many slots for flows, route entries and entries of waiters."""
    flow = longer(state.flow, n_flows)
    return state._replace(
        flow=flow,
        due=longer(state.due, len(flow)),
        pending_flow=longer(state.pending_flow, len(flow)),
        moved_flow=longer(state.moved_flow, len(flow)),
        entry=Entries(*(longer(column, n_entries) for column in state.entry)),
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


def _blocked(old: Floats, n_old: int, n: int) -> Floats:
    """Values of ``n`` links, infinite for new ones, rounded up to whole blocks, then the least value of each block."""
    n_blocks = -(-n // BLOCK)
    values = np.full((BLOCK + 1) * n_blocks, np.inf)
    values[:n_old] = old[:n_old]
    values[BLOCK * n_blocks :] = values[: BLOCK * n_blocks].reshape(n_blocks, BLOCK).min(1)
    return values


def longer(array: Any, n: int) -> Any:
    """Return an array at least ``n`` long that begins with ``array``; it doubles, so this is rare."""
    if n <= len(array):
        return array
    if isinstance(array, Fields):
        return Fields(longer(array.whole, n))
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

"""Flows in progress that get new rates once per step instead of once per event.

In a step a flow may carry no more than it has left: its average rate is capped by ``left / step``, so bytes are
conserved, no link carries more than it can, and what a finished flow leaves is used by the others in the same step.
Where in the step a flow ends follows from the level of its links, but not before its links can have carried what they
had. Just merging near-simultaneous completions does neither and is too fast: it falls below the bound of the
busiest link.

Few flows run event by event, exactly. Steps are short where many flows end, and never longer than ``tolerance`` times
what the busiest link had to carry at most since the network was last empty. What starts in the middle of a step joins
with the next and makes up for the time that it missed: on its links it counts up to twice until it has.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.network import certificate
from moesim.network.exact.state import Floats, Ints, Pointers
from moesim.network.stepped.filling import fill, held_by, lift, list_flows

Flags = NDArray[np.bool_]
Carried = Callable[[float, float, Floats], None]
"""Takes the begin and end of a stretch of time and the load of each link in it, bytes/s times weight."""

SHARE_PER_STEP = 0.05
"""Flows that end in a step, of those in progress, if the step may be so long."""

PACK = 0.7
"""Share of the flows still in progress below which the others are dropped from the tables."""

FEW = 1000
"""Flows up to which every event is followed."""

STEPS_OFF = 3.0
"""Estimated error of an end, in longest steps: what earlier steps did comes on top of the step that it lies in."""

NO_HOLD = -2
"""No bottleneck has been noted yet; a flow's own cap is -1."""


@dataclass(frozen=True)
class Ended:
    """Flows that have ended, when, and by how much that may be off: an estimate, the same for all."""

    flow: Pointers
    finish: Floats
    off: float = 0.0


@dataclass(frozen=True)
class Table:
    """Some flows: their numbers, sizes, caps, starts and routes (CSR)."""

    flow: Pointers
    size: Floats
    cap: Floats
    start: Floats
    ptr: Pointers
    links: Ints
    weight: Floats

    def rows(self, first: int, end: int) -> "Table":
        """Return adjacent rows."""
        ptr = self.ptr[first : end + 1]
        entries = slice(int(ptr[0]), int(ptr[-1]))
        row = slice(first, end)
        return Table(
            self.flow[row], self.size[row], self.cap[row], self.start[row], ptr - ptr[0],
            self.links[entries], self.weight[entries],
        )  # fmt: skip

    def only(self, rows: Pointers) -> "Table":
        """Return some rows, in the order given."""
        ptr, entries = csr.rows_of(self.ptr, rows)
        return Table(
            self.flow[rows], self.size[rows], self.cap[rows], self.start[rows], ptr,
            self.links[entries], self.weight[entries],
        )  # fmt: skip

    def load(self, n_links: int) -> Floats:
        """Return the bytes times weight that each link has to carry, [links]."""
        carried = self.weight * csr.spread(self.size, self.ptr)
        return np.bincount(self.links, weights=carried, minlength=n_links).astype(np.float64)


def loaded(table: Table) -> tuple[Table, Flags]:
    """Return the flows that have bytes for a link to carry, without routes' weights of 0, and which they are."""
    owner = csr.owners(table.ptr)
    used = table.weight > 0
    length = np.bincount(owner[used], minlength=len(table.flow))
    moves = (length > 0) & (table.size > 0)
    if used.all() and moves.all():
        return table, moves
    used &= moves[owner]
    ptr = csr.from_lengths(length[moves])
    flow, size, cap, start = table.flow[moves], table.size[moves], table.cap[moves], table.start[moves]
    return Table(flow, size, cap, start, ptr, table.links[used], table.weight[used]), moves


def joined(tables: list[Table]) -> Table:
    """Return all rows of some tables, one table after the other."""
    lengths = np.concatenate([np.diff(table.ptr) for table in tables])
    columns = zip(*((t.flow, t.size, t.cap, t.start, t.links, t.weight) for t in tables), strict=True)
    flow, size, cap, start, links, weight = (np.concatenate(column) for column in columns)
    return Table(flow, size, cap, start, csr.from_lengths(lengths), links, weight)


_NONE = np.zeros(0)
NO_FLOWS = Table(
    np.zeros(0, np.int64), _NONE, _NONE, _NONE, np.zeros(1, np.int64), np.zeros(0, np.int32), _NONE
)  # fmt: skip
NOTHING = Ended(np.zeros(0, np.int64), _NONE)


class Steps:
    """Flows in progress on ``capacity[links]`` (bytes/s, above 0), from one step to the next.

    ``plan`` a step, wait until ``end``, ``finish`` it. ``carried`` hears what the links carry, ``log`` takes each
    change of a flow's bottleneck as (time, flows, links). What is proven of a sample of steps are the mean rates in it:
    max-min fair where no flow may carry more than it has left.
    """

    def __init__(
        self,
        capacity: Floats,
        tolerance: float,
        carried: Carried | None = None,
        log: list[tuple[float, Pointers, Ints]] | None = None,
    ) -> None:
        self._capacity, self._tolerance = capacity, tolerance
        self._carried, self._log = carried, log
        self.now = self.end = -np.inf
        self._waiting: list[Table] = []
        self._level = np.full(len(capacity), np.inf)
        self._active: Flags
        self._ends: Flags  # in the present step
        self._take_in(NO_FLOWS)
        self._scale, self._off, self._solved = 0.0, 0.0, 0  # the last: times that rates were found since it was empty
        self._exact = False
        self._ending = NOTHING

    @property
    def busy(self) -> bool:
        """Whether flows are in progress or wait for their start."""
        return bool(self._waiting) or bool(self._active.any())

    def add(self, table: Table, now: float) -> None:
        """Add flows, each with bytes and a link to load; their numbers are the caller's."""
        if (np.diff(table.start) < 0).any():
            table = table.only(np.argsort(table.start, kind="stable"))
        if not self.busy:
            self._scale, self._off, self._solved = 0.0, 0.0, 0
        if not self.busy or self._exact:  # nothing of the present stretch is settled yet: it ends here
            self._pass(now)
            self._ends[:], self._ending = False, NOTHING
        self._waiting.append(table)

    def plan(self) -> Ended:
        """Begin a step at ``now``; return the flows whose end in it is settled."""
        first = self._first_start()
        if not self._active.any() and first > self.now:
            self.end, self._exact = first, True
            self._rate, self._ending = np.zeros(len(self._active)), NOTHING
            return NOTHING
        if first <= self.now or self._active.sum() < PACK * len(self._active):
            self._pack()
            first = self._first_start()
        waiting = sum(len(table.flow) for table in self._waiting)
        self._exact = int(self._active.sum()) + waiting <= FEW
        if self._exact:
            self._plan_to_next_end(first)
            return NOTHING
        self._plan_step(first)
        return self._ending

    def finish(self) -> Ended:
        """End the step at ``end``; return the flows that end then and have not been reported."""
        reported = not self._exact
        self._pass(self.end)
        ended, self._ending = self._ending, NOTHING
        self._active &= ~self._ends
        self._left[self._ends] = 0.0
        self._ends = np.zeros(len(self._active), np.bool_)
        return NOTHING if reported else ended

    def _first_start(self) -> float:
        return min((float(table.start[0]) for table in self._waiting), default=np.inf)

    def _take_in(self, table: Table) -> None:
        self._table, n = table, len(table.flow)
        self._left, self._cap = table.size.copy(), table.cap
        self._active = np.ones(n, np.bool_)
        self._ends = np.zeros(n, np.bool_)
        self._rate, self._held = np.full(n, np.nan), np.full(n, NO_HOLD, np.int32)
        self._missed = np.zeros(n)
        n_links = len(self._capacity)
        self._lists = np.zeros(n_links + 1, np.int64), np.empty(len(table.links), np.int32), np.empty(len(table.links))
        list_flows(np.arange(n), table.ptr, table.links, table.weight, *self._lists)

    def _pack(self) -> None:
        """Drop flows that have ended and take in those that start."""
        stay = np.flatnonzero(self._active)
        left, rate, held, missed = (column[stay] for column in (self._left, self._rate, self._held, self._missed))
        new, waiting = [], []
        for table in self._waiting:
            taken = int(np.searchsorted(table.start, self.now, side="right"))
            new.append(table.rows(0, taken))
            if taken < len(table.flow):
                waiting.append(table.rows(taken, len(table.flow)))
        self._waiting = waiting
        self._take_in(joined([self._table.only(stay), *new]))
        n = len(stay)
        self._left[:n], self._rate[:n], self._held[:n], self._missed[:n] = left, rate, held, missed
        self._missed[n:] = self.now - self._table.start[n:]
        if new:
            n_links = len(self._capacity)
            weight = self._table.weight * csr.spread(self._left, self._table.ptr)
            load = sum((table.load(n_links) for table in waiting), np.zeros(n_links))
            load += np.bincount(self._table.links, weights=weight, minlength=n_links)
            self._scale = max(self._scale, float((load / self._capacity).max(initial=0.0)))

    def _rates(self, cap: Floats, times: Floats | None = None) -> tuple[Floats, Floats]:
        """Return the max-min fair rate of each active flow, and the level of each link.

        A flow that counts several times has the rate of one of these flows, and so is its cap.
        """
        weight = self._table.weight
        if times is not None:
            weight = weight * csr.spread(times, self._table.ptr)
        table, n_links = self._table, len(self._capacity)
        rate = np.where(self._active, -1.0, 0.0)
        level, room, load = np.empty((3, n_links))
        waiting, heap = np.empty((2, n_links), np.int32)
        list_ptr, flows, _ = self._lists
        fill(
            self._capacity, table.ptr, table.links, weight, list_ptr, flows, cap,
            rate, level, room, load, waiting, heap,
        )  # fmt: skip
        self._solved += 1
        if self._solved & (self._solved - 1) == 0 or self._solved % certificate.EVERY == 0:
            row = np.flatnonzero(self._active)
            routes = table.ptr[row], np.diff(table.ptr)[row], table.links, weight
            certificate.prove(self.now, self._capacity, *routes, rate[row], cap[row])
        return rate, level

    def _plan_to_next_end(self, first_start: float) -> None:
        active = self._active
        self._rate, self._level = self._rates(self._cap)
        self._note_bottlenecks(self._levels(self._level)[1])
        lasts = np.full(len(active), np.inf)
        np.divide(self._left, self._rate, out=lasts, where=active)
        step = min(float(lasts.min()), first_start - self.now)
        self.end = self.now + step
        self._ends = lasts <= step * (1.0 + 1e-12)
        flow = self._table.flow[self._ends]
        self._ending = Ended(flow, np.full(len(flow), self.end), self._off)

    def _plan_step(self, first_start: float) -> None:
        active, left, cap = self._active, self._left, self._cap
        before = self._rate
        new = np.isnan(before)
        if new.all():
            before, _ = self._rates(cap)
        elif new.any():  # what they would get at the levels of the last step: it only says how long this may be
            joins = np.minimum(self._levels(self._level)[0], cap)
            before = np.where(new, np.minimum(joins, before[active & ~new].max()), before)
        longest = self._tolerance * self._scale
        soon = np.quantile(left[active] / before[active], SHARE_PER_STEP)
        step = min(longest, float(soon))
        if self._waiting:  # whoever starts later joins after this step
            step = min(step, max(first_start - self.now, 0.1 * longest))
        step = max(step, 1e-12 * longest)  # of some nothing but a rounding may be left
        made_up = np.minimum(self._missed, step)
        times = 1.0 + made_up / step
        self._missed = self._missed - made_up
        rate, self._level = self._rates(np.minimum(cap, left / (times * step)), times if made_up.any() else None)
        self._rate = rate = rate * times
        lowest, held = self._levels(self._level)
        self._note_bottlenecks(held)
        self._ends = ends = active & (rate * step >= left * (1.0 - 1e-12))
        # Until its end a flow runs at the level of its links; where none is full, at least as fast as before.
        alone = np.minimum(lowest, cap) * times
        alone = np.maximum(np.where(np.isfinite(alone), alone, before), rate)
        lasts = np.zeros(len(active))
        np.divide(left, alone, out=lasts, where=ends)
        lasts = np.minimum(lasts, step)
        lift(self._capacity, *self._lists, active, ends, left, step, lasts)
        begin, self.end, self._off = self.now, self.now + step, STEPS_OFF * longest
        finish = np.minimum(begin + lasts[ends], self.end)
        self._ending = Ended(self._table.flow[ends], finish, self._off)

    def _levels(self, level: Floats) -> tuple[Floats, Ints]:
        """Return the lowest level among the links of each flow, and what holds the flow back."""
        table, n = self._table, len(self._active)
        lowest, held = np.empty(n), np.empty(n, np.int32)
        held_by(self._capacity, table.ptr, table.links, table.weight, level, self._cap, lowest, held)
        return lowest, held

    def _note_bottlenecks(self, held: Ints) -> None:
        """Log whose bottleneck has changed."""
        if self._log is not None:
            changed = np.flatnonzero(self._active & (held != self._held))
            self._log.append((self.now, self._table.flow[changed], held[changed]))
            self._held = held

    def _pass(self, time: float) -> None:
        """Let the flows carry at their rates until ``time``."""
        passed = time - self.now
        if self._active.any() and passed > 0:
            rate = np.where(self._active, self._rate, 0.0)
            self._left = np.maximum(self._left - rate * passed, 0.0)
            if self._carried is not None:
                weight = self._table.weight * csr.spread(rate, self._table.ptr)
                load = np.bincount(self._table.links, weights=weight, minlength=len(self._capacity))
                self._carried(self.now, time, load.astype(np.float64))
        self.now = self.end = time

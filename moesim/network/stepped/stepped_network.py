"""A network on a clock whose flows on wires take steps within a tolerance; kernels of single ranks stay exact.

Has the part of ``FlowNetwork``'s interface that a timeline uses. Inside, a ``FlowNetwork`` runs the flows that stay
on the exact links; a flow in steps comes to it as an end without bytes, as soon as its end is settled, for those who
wait. A flow started in the middle of a step joins with the next.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim import csr
from moesim.errors import InputError
from moesim.network import checks
from moesim.network.exact.flow_network import FlowNetwork
from moesim.network.exact.state import Floats, Ints, Pointers, longer
from moesim.network.flow_batch import FlowBatch
from moesim.network.stepped.bounds import links_done, longest_time, shortest_time
from moesim.network.stepped.solve_within import check_tolerance, checked_capacity, refuse_no_rate
from moesim.network.stepped.stepping import Ended, Steps, Table, joined, loaded

_NO_LINKS = np.zeros(0, np.int32)


@dataclass(frozen=True)
class _Batch:
    """Flows of one ``start``: their first number, how many, and what of them moves."""

    first: int
    count: int
    table: Table


class SteppedNetwork:
    """Flows in progress; see ``FlowNetwork`` for what methods of the same name do.

    Args:
        capacity: bytes/s, above 0 but for exact links, [links].
        tolerance: longest step as a share of the busiest link's time, 0.0001 to 0.1.
        exact_links: links of flows that never share one with flows in steps; their capacity may change.
    """

    def __init__(self, capacity: ArrayLike, tolerance: float, exact_links: range) -> None:
        check_tolerance(tolerance)
        self._exact = FlowNetwork(capacity, log_bottlenecks=True)
        self._exact_links = exact_links
        self._capacity = checked_capacity(capacity)
        self._n_links = len(self._capacity)
        self._log: list[tuple[float, Pointers, Ints]] = []
        self._steps = Steps(self._capacity, tolerance, self._carry, self._log)
        self._sorted = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._batches: dict[int, _Batch] = {}
        self._base = self._next = 0  # numbers of the first flow that is kept and of the next to come
        self._finish, self._off = np.zeros((2, 0))
        self._wait_ptr, self._wait_ids = np.zeros(1, np.int64), np.zeros(0, np.int32)
        self._ends: list[tuple[int, float]] = []
        self._gone: list[tuple[Table, Floats]] = []  # released batches that may have run beside others, their ends
        self._bucket, self._origin = math.inf, 0.0
        self._columns = np.zeros(0, np.int32)
        self._served = np.zeros((0, 0))

    @property
    def now(self) -> float:
        """The network's clock, seconds."""
        return self._exact.now

    @property
    def idle(self) -> bool:
        """Whether no flow is in progress or waits for its start, and no completion is left to report."""
        return self._exact.idle and not self._steps.busy

    def start(self, flows: FlowBatch) -> int:
        """Add a batch of flows and return its handle: exact if it loads exact links alone, else in steps."""
        links = checks.ids(flows.route_links, "route_links", self._n_links)
        exact = (links >= self._exact_links.start) & (links < self._exact_links.stop)
        if exact.all():
            return self._exact.start(flows)
        if exact.any():
            raise InputError("some of them are exact, others not", "route_links", "start them apart")
        ptr, links, sizes, starts, weights, caps, wait_ptr, wait_ids = flows.checked(
            self._n_links, self.now, self._exact.n_waiters
        )
        refuse_no_rate(caps)
        n = len(sizes)
        first, row = self._next, self._next - self._base
        self._next += n
        self._finish, self._off = longer(self._finish, row + n), longer(self._off, row + n)
        self._finish[row : row + n] = np.nan
        entry = int(self._wait_ptr[row])
        self._wait_ptr = longer(self._wait_ptr, row + n + 1)
        self._wait_ptr[row : row + n + 1] = wait_ptr + entry
        self._wait_ids = longer(self._wait_ids, entry + len(wait_ids))
        self._wait_ids[entry : entry + len(wait_ids)] = wait_ids
        self._exact.expect(wait_ids, 1)
        table, moves = loaded(Table(np.arange(first, first + n), sizes, caps, starts, ptr, links, weights))
        if not moves.all():
            at_once = np.flatnonzero(~moves)
            self._settle(Ended(first + at_once, starts[at_once]))
        if len(table.flow):
            if self._steps.busy and self._steps.end <= self.now:
                self._settle(self._steps.finish())
            self._steps.add(table, self.now)
        handle = -1 - first  # the exact network's are not negative
        self._batches[handle] = _Batch(first, n, table)
        return handle

    def new_waiters(self, n: int) -> int:
        """Return the first of ``n`` adjacent ids of fresh waiters."""
        return self._exact.new_waiters(n)

    def release_waiters(self, first: int, n: int) -> None:
        """Forget ``n`` waiters from id ``first`` on."""
        self._exact.release_waiters(first, n)

    def outstanding(self, waiter: int) -> int:
        """Return the number of flows that a waiter still waits for."""
        return self._exact.outstanding(waiter)

    def release(self, handle: int) -> None:
        """Forget a batch whose flows have all finished."""
        if handle >= 0:
            self._exact.release(handle)
            return
        if np.isnan(self.finish(handle)).any():
            raise InputError("some of its flows are still in progress", "handle", "run on")
        batch = self._batches.pop(handle)
        self._gone.append((batch.table, self._finish[batch.table.flow - self._base]))
        oldest = min((batch.first for batch in self._batches.values()), default=self._next)
        gone = oldest - self._base
        if 2 * gone > self._next - self._base:
            self._base = oldest
            self._finish, self._off = self._finish[gone:].copy(), self._off[gone:].copy()
            entry = int(self._wait_ptr[gone])
            self._wait_ptr, self._wait_ids = self._wait_ptr[gone:] - entry, self._wait_ids[entry:].copy()

    def cancel(self, handle: int, flow: int) -> None:
        """Take a flow out; only one on exact links can be."""
        self._only_exact(handle, "cannot be cancelled")
        self._exact.cancel(handle, flow)

    def reroute(self, handle: int, flow: int, route_links: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Send a flow over other links; only one on exact links can be."""
        self._only_exact(handle, "cannot be sent another way")
        self._exact.reroute(handle, flow, route_links, weight)

    def capacity(self, link: int) -> float:
        """Return the present capacity of a link, bytes/s."""
        return self._exact.capacity(link)

    def set_capacity(self, link: int, value: float) -> None:
        """Give an exact link another capacity."""
        if link not in self._exact_links:
            what = f"the capacity of link {link} cannot change while flows take steps"
            raise InputError(what, "network.tolerance", "it must be 0 where capacities of wires change")
        self._exact.set_capacity(link, value)

    def run(self, until: float) -> tuple[float, Ints]:
        """Run to the first instant at which a waiter is done, at most to ``until`` (seconds, may be inf)."""
        while True:
            while self._steps.busy and self._steps.end <= self.now:
                self._settle(self._steps.finish())
                self._settle(self._steps.plan())
            limit = min(until, self._steps.end) if self._steps.busy else until
            time, done = self._exact.run(limit)
            if len(done) or limit == until:
                return time, done

    def finish(self, handle: int) -> Floats:
        """Return the finish time of each flow of a batch, seconds; NaN while in progress."""
        if handle >= 0:
            return self._exact.finish(handle)
        finish = self._finish[self._rows(handle)]
        return np.where(finish <= self.now, finish, np.nan)

    def off(self, handle: int) -> Floats:
        """Return by how much the finish time of each flow of a batch in steps may be off, an estimate, seconds."""
        return np.array(self._off[self._rows(handle)])

    def last_proven(self, handles: list[int]) -> tuple[float, float]:
        """Return instants between which exact sharing ends the last flow of some finished batches for certain.

        Given are the starts of all flows, and that no others run beside these batches than did: flows of other batches
        count that started before the last of these ended, and ended after the first of these started.
        """
        own = joined([self._batch(handle).table for handle in handles])
        if not len(own.flow):
            return -math.inf, math.inf
        finish = self._finish[own.flow - self._base]
        begin, end = float(own.start.min()), float(finish.max())
        others = [
            (b.table, self._finish[b.table.flow - self._base]) for h, b in self._batches.items() if h not in handles
        ]
        beside = [
            table.only(np.flatnonzero((table.start < end) & ~(last <= begin))) for table, last in [*others, *self._gone]
        ]
        capacity, everybody = self._capacity, joined([own, *beside])
        routes = (everybody.ptr, everybody.links, everybody.weight, everybody.size, everybody.cap)
        latest = own.start + longest_time(capacity, *routes)[: len(own.flow)]
        earliest = own.start + shortest_time(capacity, own.ptr, own.links, own.weight, own.size, own.cap)
        done = links_done(capacity, own.ptr, own.links, own.weight, own.size, own.start)
        oldest = min(
            (float(b.table.start.min()) for b in self._batches.values() if len(b.table.flow)), default=math.inf
        )
        self._gone = [(table, last) for table, last in self._gone if last.max(initial=-math.inf) > oldest]
        return max(float(earliest.max()), float(done.max())), float(latest.max())

    def bottleneck_log(self, handle: int) -> tuple[Floats, Ints, Ints]:
        """Return each change of a bottleneck: time[], flow[] (index in the batch), link[] (-1: its cap)."""
        if handle >= 0:
            return self._exact.bottleneck_log(handle)
        if self._log:
            self._sort_log()
        times, flows, links = self._sorted
        batch = self._batch(handle)
        begin, end = np.searchsorted(flows, [batch.first, batch.first + batch.count])
        flow = (flows[begin:end] - batch.first).astype(np.int32)
        order = np.lexsort((flow, times[begin:end]))
        return times[begin:end][order], flow[order], links[begin:end][order]

    def record_utilisation(self, bucket_s: float, links: ArrayLike) -> None:
        """From now on, keep what ``links``, none of them exact, carry in each time bucket of ``bucket_s`` seconds."""
        self._bucket, self._origin = bucket_s, self.now
        self._columns = checks.ids(links, "links", self._n_links)
        self._served = np.zeros((0, len(self._columns)))

    def utilisation(self) -> tuple[Floats, NDArray[np.float64]]:
        """Return the recorded buckets: start times [buckets] and bytes times weight [buckets, links]."""
        n = math.ceil((self.now - self._origin) / self._bucket)
        starts: Floats = self._origin + self._bucket * np.arange(n, dtype=np.float64)
        return starts, _with_rows(self._served, n)[:n].copy()

    def _batch(self, handle: int) -> _Batch:
        try:
            return self._batches[handle]
        except KeyError:
            raise InputError(f"unknown batch {handle}", "handle", "it was released or never started") from None

    def _rows(self, handle: int) -> slice:
        batch = self._batch(handle)
        return slice(batch.first - self._base, batch.first - self._base + batch.count)

    def _only_exact(self, handle: int, what: str) -> None:
        if handle < 0:
            raise InputError(f"a flow in steps {what}", "tolerance", "use tolerance 0")

    def _settle(self, ended: Ended) -> None:
        """Note flows whose end is settled, and wake their waiters at that time."""
        if not len(ended.flow):
            return
        rows = ended.flow - self._base
        self._finish[rows], self._off[rows] = ended.finish, ended.off
        ptr, entries = csr.rows_of(self._wait_ptr, rows)
        ids = self._wait_ids[entries]
        finish = np.maximum(ended.finish, self.now)
        none = np.zeros(len(rows) + 1, np.int64)
        while self._ends and self._ends[0][1] < self.now:
            self._exact.release(self._ends.pop(0)[0])
        handle = self._exact.start(FlowBatch(none, _NO_LINKS, none[1:], finish, waiter_ptr=ptr, waiter_ids=ids))
        self._exact.expect(ids, -1)
        self._ends.append((handle, float(finish.max())))

    def _carry(self, begin: float, end: float, load: Floats) -> None:
        """Add what the links carry from ``begin`` to ``end`` to the buckets."""
        load = load[self._columns]
        while len(load) and begin < end:
            bucket = int((begin - self._origin) // self._bucket)
            self._served = _with_rows(self._served, bucket + 1)
            upto = min(end, self._origin + (bucket + 1) * self._bucket)
            if upto <= begin:  # rounding: the bucket ends here
                upto = min(end, math.nextafter(begin, math.inf))
            self._served[bucket] += load * (upto - begin)
            begin = upto

    def _sort_log(self) -> None:
        """Merge what was logged since into the entries in order of flow, those of forgotten flows left out."""
        lengths = [len(flows) for _, flows, _ in self._log]
        times = np.concatenate([self._sorted[0], np.repeat([time for time, _, _ in self._log], lengths)])
        flows = np.concatenate([self._sorted[1], *(flows for _, flows, _ in self._log)])
        links = np.concatenate([self._sorted[2], *(links for _, _, links in self._log)])
        self._log.clear()
        kept = np.flatnonzero(flows >= self._base)
        order = kept[np.argsort(flows[kept], kind="stable")]
        self._sorted = times[order], flows[order], links[order]


def _with_rows(array: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return an array of at least ``n`` rows that begins with ``array``; it doubles, so this is rare."""
    if n <= len(array):
        return array
    more = max(n, 2 * len(array)) - len(array)
    return np.concatenate([array, np.zeros((more, array.shape[1]))])

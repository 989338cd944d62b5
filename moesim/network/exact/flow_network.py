"""Flows in progress on links, in max-min fair sharing, with a clock of their own.

A flow has a size in bytes and a route; it loads link l with ``weight * rate``. Rates are max-min fair over
flows (the sorted rates are lexicographically largest subject to the capacities), and change in the instant
something starts, ends or changes: a fluid model, without packets, queues or start-up. Somebody who waits for
several flows is a *waiter*: a counter that is done when it falls to 0.

The network does not know SimPy (see ``clock``) and runs alone as well: ``start`` flows, ``run`` to the first
instant at which a waiter is done, act, ``run`` on.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compiling import announce
from moesim.errors import InputError, InvariantError
from moesim.network import certificate, checks
from moesim.network.exact.membership import admit, cancel_flow, change_capacity, change_route, move_lists, start_flow
from moesim.network.exact.progress import (
    BUCKETS_FULL,
    LOG_FULL,
    NEVER,
    REACHED,
    SOMEBODY_DONE,
    STALLED,
    TO_PROVE,
    account_all,
    advance,
    settle_rates,
)
from moesim.network.exact.reach import fill_reach
from moesim.network.exact.state import (
    BUCKET,
    BUCKET_END,
    BUCKET_ORIGIN,
    LIVE,
    N_DONE,
    N_LIVE,
    N_LOG,
    N_PENDING,
    NOW,
    UNTIL_PROOF,
    WAITING,
    Floats,
    FlowState,
    Ints,
    Slots,
    empty_state,
    longer,
    no_reach,
    pays_reach,
    places,
    with_buckets,
    with_flows,
    with_links,
    with_log_room,
    with_waiters,
)
from moesim.network.flow_batch import FlowBatch

_NOBODY = np.zeros(0, np.int32)


@dataclass
class _Batch:
    """Where the flows of one ``start`` live."""

    first: int
    count: int
    rate_cap_link: Ints  # [flow]; -1 without a cap
    intervals: list[tuple[Slots, int, int]]  # to be given back
    log: list[tuple[Floats, Ints, Ints]] = field(default_factory=list)


class FlowNetwork:
    """State with a life: flows in progress on links whose capacity may change.

    ``capacity[links]`` in bytes/s, finite and at least 0; ``now`` is the clock's first reading in seconds.
    ``log_bottlenecks`` keeps every change of a flow's bottleneck. ``patience`` is the number of link levels
    set at one event after which all rates are found from scratch instead (default: twice the links; 0: at
    every event, slow, for cross-checks). Raises InputError for other capacities.
    """

    def __init__(
        self,
        capacity: ArrayLike,
        *,
        now: float = 0.0,
        log_bottlenecks: bool = False,
        patience: int | None = None,
    ) -> None:
        size = np.size(capacity)
        start = checks.numbers([now], "now", 1, least=-np.inf)[0]
        self._n_links = size
        self._log_bottlenecks = log_bottlenecks
        self._s: FlowState = empty_state(
            checks.numbers(capacity, "capacity", size, "link"),
            float(start),
            logging=log_bottlenecks,
            patience=2 * size + 16 if patience is None else patience,
        )
        self._flows, self._entries, self._waits, self._waiters = Slots(), Slots(), Slots(), Slots()
        self._caps = Slots(size)
        self._owner = np.zeros(1, np.int64)  # [flow slot]: handle of its batch
        self._batches: dict[int, _Batch] = {}
        self._next_handle = self._proof_gap = 0

    @property
    def now(self) -> float:
        """The network's clock, seconds."""
        return float(self._s.clock[NOW])

    @property
    def idle(self) -> bool:
        """Whether no flow is in progress or waits for its start, and no completion is left to report."""
        count = self._s.tally
        return not (count[N_LIVE] or count[N_PENDING] or count[N_DONE])

    # -- flows and waiters come and go ------------------------------------------------------------------

    def start(self, flows: FlowBatch) -> int:
        """Add a batch of flows and return its handle.

        Raises:
            InputError: see ``FlowBatch.checked``.
        """
        ptr, links, sizes, starts, weights, caps, wait_ptr, wait_ids = flows.checked(
            self._n_links, self.now, self.n_waiters
        )
        n = len(sizes)
        capped = caps < np.inf
        n_caps = int(capped.sum())
        n_entries = len(links) + n_caps
        first, entry = self._flows.take(n), self._entries.take(n_entries)
        wait, cap = self._waits.take(len(wait_ids)), self._caps.take(n_caps)
        cap_link = np.full(n, -1, np.int32)
        cap_link[capped] = np.arange(cap, cap + n_caps)
        handle = self._next_handle
        self._next_handle += 1
        self._batches[handle] = _Batch(
            first,
            n,
            cap_link,
            [
                (self._flows, first, n),
                (self._entries, entry, n_entries),
                (self._waits, wait, len(wait_ids)),
                (self._caps, cap, n_caps),
            ],
        )
        self._s = with_flows(self._s, self._flows.end, self._entries.end, self._waits.end)
        self._s = with_links(self._s, self._caps.end)
        self._owner = longer(self._owner, self._flows.end)
        self._owner[first : first + n] = handle
        admit(self._s, first, entry, wait, cap, ptr, links, weights, sizes, starts, caps, wait_ptr, wait_ids)
        self._make_room_on_links(links, cap, n_caps)
        self._keep_reach()
        if n > 1 and 8 * n >= self._s.tally[N_LIVE] + self._s.tally[N_PENDING]:  # a phase, not a kernel beside it
            self._s.tally[UNTIL_PROOF] = self._proof_gap = 0
        return handle

    @property
    def n_waiters(self) -> int:
        """What no waiter's id reaches."""
        return self._waiters.end

    def new_waiters(self, n: int) -> int:
        """Return the first of ``n`` adjacent ids of fresh waiters, each with no flow outstanding."""
        first = self._waiters.take(n)
        self._s = with_waiters(self._s, self._waiters.end)
        self._s.waiter.outstanding[first : first + n] = 0
        return first

    def release_waiters(self, first: int, n: int) -> None:
        """Forget ``n`` waiters from id ``first`` on; their ids are given out again."""
        if self._s.waiter.outstanding[first : first + n].any():
            raise InputError("some of these waiters still wait for flows", "waiters")
        self._waiters.give_back(first, n)

    def expect(self, waiter_ids: Ints, flows: int) -> None:
        """Let waiters wait for so many flows more (or fewer) that are not in this network, once per time named."""
        np.add.at(self._s.waiter.outstanding, waiter_ids, flows)

    def outstanding(self, waiter: int) -> int:
        """Return the number of flows that a waiter still waits for."""
        return int(self._s.waiter.outstanding[waiter])

    def release(self, handle: int) -> None:
        """Forget a batch whose flows have all finished or been cancelled; its storage is reused."""
        batch = self._batch(handle)
        if (self._s.flow.phase[batch.first : batch.first + batch.count] <= LIVE).any():
            raise InputError("some of its flows are still in progress", "handle", "cancel them or run on")
        self._flush_log()
        del self._batches[handle]
        for slots, first, count in batch.intervals:
            slots.give_back(first, count)

    def cancel(self, handle: int, flow: int) -> None:
        """Take flow ``flow`` of a batch out of the network now; it counts as gone for its waiters.

        Its finish time stays NaN. A flow that has finished stays finished.
        """
        slot = self._slot(handle, flow)
        if self._s.flow.phase[slot] <= LIVE:
            cancel_flow(self._s, slot)

    def reroute(self, handle: int, flow: int, route_links: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Send what is left of flow ``flow`` of a batch over other links from now on."""
        slot = self._slot(handle, flow)
        if self._s.flow.phase[slot] > LIVE:
            return
        links = checks.ids(route_links, "route_links", self._n_links)
        weights = checks.numbers(weight, "weight", len(links), "route entry", default=1.0)
        batch = self._batches[handle]
        entry = self._entries.take(len(links) + 1)
        batch.intervals.append((self._entries, entry, len(links) + 1))
        self._s = with_flows(self._s, 0, self._entries.end, 0)
        live = self._s.flow.phase[slot] == LIVE
        change_route(self._s, slot, entry, links, weights, batch.rate_cap_link[flow])
        self._make_room_on_links(links)
        if live:
            self._s.tally[N_LIVE] -= 1
            self._s.flow.phase[slot] = WAITING
            start_flow(self._s, slot)

    def capacity(self, link: int) -> float:
        """Return the present capacity of a link, bytes/s."""
        return float(self._s.link.capacity[checks.ids([link], "link", self._n_links)[0]])

    def set_capacity(self, link: int, value: float) -> None:
        """Give a link another capacity (bytes/s, finite, 0 allowed: its flows stall) from now on."""
        index = checks.ids([link], "link", self._n_links)[0]
        change_capacity(self._s, index, checks.numbers([value], "capacity", 1, "link")[0])
        if self._s.link.list_len[index] > 1:
            self._s.tally[UNTIL_PROOF] = self._proof_gap = 0

    # -- time -------------------------------------------------------------------------------------------

    def run(self, until: float) -> tuple[float, Ints]:
        """Run to the first instant at which a waiter is done, at most to ``until`` (seconds, may be inf).

        Returns that instant and the ids of all waiters done at it. Without any: ``until`` and no ids; with
        ``until`` infinite (inf, no ids) once no flow in progress can finish, the clock then standing at the
        last event. Raises InputError for a time in the past, InvariantError where rates are not max-min fair.
        """
        if not until >= self.now:
            raise InputError(f"cannot run to {until}", "until", f"the clock already shows {self.now}")
        announce(advance, "the flow engine", 15)
        while True:
            why = advance(self._s, until)
            if why == SOMEBODY_DONE:
                done = self._take_done()
                if len(done):
                    return self.now, done
            elif why == REACHED:
                return float(until), _NOBODY
            elif why == NEVER:
                return np.inf, _NOBODY
            elif why == TO_PROVE:
                self._prove()
            elif why == LOG_FULL:
                self._make_room_in_log()
            elif why == BUCKETS_FULL:
                self._s = with_buckets(self._s)
            elif why == STALLED:
                raise InvariantError(f"the flows get nowhere at {self.now} s: {self._in_progress()}")
            else:
                raise InvariantError(f"max-min rates do not settle at {self.now} s: {self._in_progress()}")

    # -- what an observer sees --------------------------------------------------------------------------

    def finish(self, handle: int) -> Floats:
        """Return the finish time of each flow of a batch, seconds; NaN while in progress or cancelled."""
        batch = self._batch(handle)
        return np.array(self._s.flow.finish[batch.first : batch.first + batch.count])

    def rates(self, handle: int) -> Floats:
        """Return the present rate of each flow of a batch, bytes/s; 0 when it is not in progress."""
        self._solve_now()
        batch = self._batch(handle)
        span = slice(batch.first, batch.first + batch.count)
        live = self._s.flow.phase[span] == LIVE
        return np.where(live, self._s.level[self._s.flow.bottleneck[span]], 0.0)

    def bottlenecks(self, handle: int) -> Ints:
        """Return the present bottleneck link of each flow; -1: its rate cap, -2: not in progress."""
        self._solve_now()
        batch = self._batch(handle)
        span = slice(batch.first, batch.first + batch.count)
        live = self._s.flow.phase[span] == LIVE
        return np.where(live, self._link_or_cap(self._s.flow.bottleneck[span]), -2).astype(np.int32)

    def link_rate(self) -> Floats:
        """Return the present load of each link: the sum of weight * rate, bytes/s."""
        self._solve_now()
        return np.array(self._s.link.rate[: self._n_links])

    def served(self) -> Floats:
        """Return what each link has carried until now: the integral of ``link_rate``, bytes times weight."""
        self._solve_now()
        account_all(self._s)
        return np.array(self._s.link.served[: self._n_links])

    def busy(self) -> Floats:
        """Return for how long each link has carried anything until now, seconds."""
        self._solve_now()
        account_all(self._s)
        return np.array(self._s.link.busy[: self._n_links])

    def record_utilisation(self, bucket_s: float, links: ArrayLike | None = None) -> None:
        """From now on, keep what ``links`` (default all) carry in each time bucket of ``bucket_s`` seconds.

        Earlier buckets are dropped. Memory: 8 bytes times buckets until the last event times links.
        """
        width = checks.numbers([bucket_s], "bucket_s", 1)[0]
        if width == 0.0:
            raise InputError("is 0", "bucket_s", "give a positive width in seconds")
        chosen = np.arange(self._n_links) if links is None else checks.ids(links, "links", self._n_links)
        self._solve_now()
        account_all(self._s)
        self._s.link.column[:] = -1
        self._s.link.column[chosen] = np.arange(len(chosen))
        self._s.clock[BUCKET_ORIGIN], self._s.clock[BUCKET] = self.now, width
        self._s.clock[BUCKET_END] = self.now
        self._s = self._s._replace(bucket_served=np.zeros((0, len(chosen))))

    def utilisation(self) -> tuple[Floats, NDArray[np.float64]]:
        """Return the recorded buckets: start times [buckets] and bytes times weight [buckets, links]."""
        self._solve_now()
        account_all(self._s)
        origin, width = self._s.clock[BUCKET_ORIGIN], self._s.clock[BUCKET]
        n = min(len(self._s.bucket_served), int(np.ceil((self.now - origin) / width))) if width else 0
        return origin + width * np.arange(n), self._s.bucket_served[:n].copy()

    def bottleneck_log(self, handle: int) -> tuple[Floats, Ints, Ints]:
        """Return each change of a bottleneck: time[], flow[] (index in the batch), link[] (-1: its cap).

        In order of time and flow. The first entry of a flow is at its start. Empty unless the network logs bottlenecks.
        """
        self._solve_now()
        batch = self._batch(handle)
        self._flush_log()
        if not batch.log:
            return np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int32)
        times, flows, links = (np.concatenate(column) for column in zip(*batch.log, strict=True))
        order = np.lexsort((flows, times))
        return times[order], flows[order], links[order]

    # -- storage ----------------------------------------------------------------------------------------

    def _batch(self, handle: int) -> _Batch:
        try:
            return self._batches[handle]
        except KeyError:
            raise InputError(f"unknown batch {handle}", "handle", "it was released or never started") from None

    def _slot(self, handle: int, flow: int) -> int:
        batch = self._batch(handle)
        if not 0 <= flow < batch.count:
            raise InputError(f"no flow {flow} in batch {handle}", "flow")
        return batch.first + flow

    def _link_or_cap(self, links: Ints) -> Ints:
        return np.where(links < self._n_links, links, np.int32(-1))

    def _solve_now(self) -> None:
        if self._log_bottlenecks:
            self._make_room_in_log()
        if not settle_rates(self._s):
            raise InvariantError(f"max-min rates do not settle at {self.now} s: {self._in_progress()}")

    def _prove(self) -> None:
        s, n = self._s, self._flows.end
        s.tally[UNTIL_PROOF] = self._proof_gap = certificate.gap(self._proof_gap, n)
        flow = np.flatnonzero(s.flow.phase[:n] == LIVE)
        begin, length = s.flow.entry_ptr[flow], s.flow.entry_len[flow].astype(np.int64)
        routes, rate = (begin, length, s.entry.link, s.entry.weight), s.level[s.flow.bottleneck[flow]]
        certificate.prove(self.now, np.array(s.link.capacity), *routes, rate)

    def _in_progress(self) -> str:
        """Name the first few flows in progress, by batch and place in it, and the links that hold them."""
        live = [
            (handle, flow, int(self._s.flow.bottleneck[batch.first + flow]))
            for handle, batch in self._batches.items()
            for flow in np.flatnonzero(self._s.flow.phase[batch.first : batch.first + batch.count] == LIVE).tolist()
        ]
        named = ", ".join(f"flow {flow} of batch {handle} on link {link}" for handle, flow, link in live[:5])
        return f"{len(live)} flows in progress, {named}" + (", ..." if len(live) > 5 else "")

    def _take_done(self) -> Ints:
        n = int(self._s.tally[N_DONE])
        done = self._s.done_waiter[:n].copy()
        self._s.waiter.done[done] = 0
        self._s.tally[N_DONE] = 0
        return np.array(done[self._s.waiter.outstanding[done] == 0])

    def _make_room_on_links(self, links: Ints, first_cap: int = 0, n_caps: int = 0) -> None:
        """Lay the lists anew if one of ``links`` or of the caps is too short, with room to double for every link."""
        s = self._s
        reserved, room = s.link.reserved, s.link.list_room
        touched = links if len(links) < len(room) else slice(None)
        caps = slice(first_cap, first_cap + n_caps)
        if (reserved[touched] <= room[touched]).all() and (reserved[caps] <= room[caps]).all():
            return
        room = np.maximum(room, 2 * reserved + 4)
        self._s = s._replace(place=places(int(room.sum())), link=s.link.copy())
        self._s.link.list_room[:] = room
        self._s.link.list_ptr[:] = np.cumsum(room) - room
        move_lists(self._s, s)

    def _keep_reach(self) -> None:
        """Keep a table of what each link reaches once there are flows enough for it."""
        s = self._s
        n = len(s.level)
        if len(s.reach.length) == n:
            return
        self._s = s._replace(reach=no_reach(0))
        n_flows = int(s.tally[N_LIVE] + s.tally[N_PENDING])
        if pays_reach(n, n_flows, int(s.link.reserved.sum())):
            self._s = s._replace(reach=no_reach(n))
            fill_reach(self._s)

    def _make_room_in_log(self) -> None:
        self._flush_log()
        self._s = with_log_room(self._s)

    def _flush_log(self) -> None:
        n = int(self._s.tally[N_LOG])
        if n == 0:
            return
        self._s.tally[N_LOG] = 0
        flows, links = self._s.log.flow[:n], self._link_or_cap(self._s.log.link[:n])
        owner = self._owner[flows]
        order = np.argsort(owner, kind="stable")
        cuts = np.flatnonzero(np.diff(owner[order])) + 1
        for part in np.split(order, cuts):
            batch = self._batches[int(owner[part[0]])]
            batch.log.append((self._s.log.time[part], flows[part] - batch.first, links[part].astype(np.int32)))

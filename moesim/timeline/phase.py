"""One all-to-all phase as it happens: ranks enter at their own time, flows start when their gates are open.

A rank's time inside a phase is transfer while one of its own flows is in progress (set-up included) or it does its own
set-up, and wait otherwise: nothing of its own is moving because another rank has not entered yet. What a rank posts and
does not wait for goes on sharing bandwidth after it has left; the phase is over when the last rank has.

Two resources of a rank stand behind the wires in the network: its ``sm`` link, on which compute kernels run, and the
communication kernel's own link, whose capacity is one second of that kernel per second.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim import csr
from moesim.cluster import Fabric
from moesim.network import CapacityEvents, FlowBatch, NetworkClock, SteppedNetwork
from moesim.timeline.intervals import gaps
from moesim.traffic import Floats, Ints, PhaseFlows


def network_capacity(fabric: Fabric, n_ranks: int | None = None) -> Floats:
    """Capacities of everything that contends: wires, then each rank's ``sm``, then each rank's communication kernel.

    ``n_ranks``: of all groups of ranks on these wires; by default the fabric's own.
    """
    return np.concatenate([fabric.capacity, np.ones(2 * (n_ranks or fabric.n_ranks))])


@dataclass(frozen=True)
class PhaseLimits:
    """How far a phase whose flows took steps may be from exact sharing.

    Attributes:
        estimated_s: by how many seconds any flow's end may be off, an estimate.
        earliest_s, latest_s: instants between which exact sharing ends the last flow: proven, given when all flows
            start and which flows of other phases run beside them.
    """

    estimated_s: float
    earliest_s: float
    latest_s: float


@dataclass(frozen=True)
class PhaseTrace:
    """What became of a phase. Times in absolute seconds.

    Attributes:
        flows: the flows, one row each in what follows.
        launch_s: when the flow's gate opened, [flows].
        opener: the rank whose entry opened it, [flows].
        start_s, finish_s: first byte and end, [flows].
        enter_s, leave_s: when each rank came and went, [ranks].
        wait_s: part of that time in which none of the rank's flows was in progress, [ranks].
        waited_on: the rank that ended the longest wait, -1 where there was none, [ranks].
        tail_s: part in which the kernel goes on after the rank's last flow, for its floor or its epilogue, [ranks].
        bottleneck_time_s, bottleneck_flow, bottleneck_link: each change of the link that holds a flow back.
        capacity_events: changes of the capacity of wires and communication kernels since the clock began; none of the
            ``sm`` links, which no flow of a phase crosses.
        limits: how far from exact this may be; None where every event was followed.
    """

    flows: PhaseFlows
    launch_s: Floats
    opener: Ints
    start_s: Floats
    finish_s: Floats
    enter_s: Floats
    leave_s: Floats
    wait_s: Floats
    waited_on: Ints
    tail_s: Floats
    bottleneck_time_s: Floats
    bottleneck_flow: Ints
    bottleneck_link: Ints
    capacity_events: CapacityEvents
    limits: PhaseLimits | None = None

    @property
    def kernel_s(self) -> Floats:
        """Each rank's time in the phase without wait, layout, notify and CPU synchronisation, [ranks]."""
        setup = self.flows.entry_setup_s + self.flows.group_setup_s
        return np.maximum(self.leave_s - self.enter_s - self.wait_s - setup, 0.0)


class PhaseRun:
    """A phase in progress: who has entered, which flows have started, who may leave."""

    def __init__(self, clock: NetworkClock, flows: PhaseFlows, sm_link: Ints, all_sms: range | None = None) -> None:
        # Where several groups are on the network, theirs are not all its ``sm`` links, behind which kernels stand.
        self._all_sms = all_sms or range(int(sm_link[0]), int(sm_link[-1]) + 1)
        self._clock = clock
        self._env: simpy.Environment = clock.env
        self._flows = flows
        self._sm_link = sm_link
        n_ranks, n_flows = len(sm_link), flows.n_flows
        self._arrived = 0
        self._closed_gates = np.diff(flows.gate_ptr)
        self._gated_ptr, self._gated_flows = csr.grouped(flows.gate_ranks, csr.owners(flows.gate_ptr), n_ranks)
        self._resource_ptr, self._resource_links, self._resource_weight = flows.resources(
            self._all_sms.stop + int(sm_link[0]) - self._all_sms.start
        )
        self._first_waiter = clock.network.new_waiters(n_ranks)
        # A rank's counter of outstanding flows says nothing until all of its flows have started.
        self._unstarted = np.bincount(flows.member_ranks, minlength=n_ranks)
        self._all_started = [self._env.event() for _ in range(n_ranks)]
        self._opened: list[tuple[int, NDArray[np.int64]]] = []
        self._batches: list[tuple[NDArray[np.int64], int]] = []
        self._least_leave_s = np.zeros(n_ranks)
        self._done = self._left = 0
        self._all_done = self._env.event()
        self.enter_s = np.full(n_ranks, np.nan)
        self.leave_s = np.full(n_ranks, np.nan)
        self.done_s = np.full(n_ranks, np.nan)
        self._last_done = -1
        self.launch_s = np.full(n_flows, np.nan)
        self.start_s = np.full(n_flows, np.nan)
        self.opener = np.full(n_flows, -1, np.int32)

    def enter(self, rank: int) -> Generator[simpy.Event, object, None]:
        """Take ``rank`` through the phase; returns when every flow that it has to wait for is done."""
        env, flows = self._env, self._flows
        self.enter_s[rank] = env.now
        if flows.entry_setup_s:
            yield env.timeout(flows.entry_setup_s)
        self._arrived += 1
        if flows.all_ranks_gate:
            if self._arrived == len(self.enter_s):
                self._open(rank, np.arange(flows.n_flows))
                if not flows.n_flows:  # a rank by itself has nothing to send, its kernel runs all the same
                    self._hold_sms(rank)
        else:
            gated = self._gated_flows[self._gated_ptr[rank] : self._gated_ptr[rank + 1]]
            self._closed_gates[gated] -= 1
            self._open(rank, gated[self._closed_gates[gated] == 0])
            self._hold_sms(rank)
        if self._unstarted[rank]:
            yield self._all_started[rank]
        yield self._clock.wait(self._first_waiter + rank)
        if self._least_leave_s[rank] > env.now:
            yield env.timeout(self._least_leave_s[rank] - env.now)
        self.done_s[rank] = env.now
        if flows.all_ranks_leave:
            yield self._everybody_done(rank)
        if flows.exit_s is not None and flows.exit_s[rank] > 0:
            yield env.timeout(flows.exit_s[rank])
        self.leave_s[rank] = env.now
        self._left += 1
        if flows.sms:
            self._clock.scale(int(self._sm_link[rank]), self, 1.0)

    def _everybody_done(self, rank: int) -> simpy.Event:
        self._done += 1
        if self._done == len(self.done_s):
            self._last_done = rank
            self._all_done.succeed()
        return self._all_done

    @property
    def finished(self) -> bool:
        """Whether every rank has left."""
        return self._left == len(self.leave_s)

    def trace(self) -> PhaseTrace:
        """Collect the finished phase and hand its flows' storage back to the network."""
        network, flows = self._clock.network, self._flows
        finish = np.full(flows.n_flows, np.nan)
        limits = self._limits()
        times, changed, links = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for which, handle in self._batches:
            finish[which] = network.finish(handle)
            time, flow, link = network.bottleneck_log(handle)
            times.append(time)
            changed.append(which[flow])
            links.append(link)
            network.release(handle)
        network.release_waiters(self._first_waiter, len(self.enter_s))
        gates = self.launch_s, self.opener, self.start_s
        wait, blamed, tail = waits(flows, *gates, finish, self.enter_s, self.done_s, self.leave_s, self._last_done)
        events = self._clock.capacity_events()
        return PhaseTrace(
            flows=flows,
            launch_s=self.launch_s,
            opener=self.opener,
            start_s=self.start_s,
            finish_s=finish,
            enter_s=self.enter_s,
            leave_s=self.leave_s,
            wait_s=wait,
            waited_on=blamed,
            tail_s=tail,
            bottleneck_time_s=np.concatenate(times),
            bottleneck_flow=np.concatenate(changed).astype(np.int32),
            bottleneck_link=np.concatenate(links),
            capacity_events=events.only((events.link < self._all_sms.start) | (events.link >= self._all_sms.stop)),
            limits=limits,
        )

    def _limits(self) -> PhaseLimits | None:
        network, handles = self._clock.network, [handle for _, handle in self._batches]
        if not isinstance(network, SteppedNetwork) or not handles:
            return None
        off = max(float(network.off(handle).max(initial=0.0)) for handle in handles)
        return PhaseLimits(off, *network.last_proven(handles))

    def unfinished(self) -> list[tuple[int, int, list[int]]]:
        """Flows that have been started and have not ended: source and target rank, and links."""
        flows = self._flows
        open_flows = [which[np.isnan(self._clock.network.finish(handle))] for which, handle in self._batches]
        return [
            (
                int(flows.source[f]),
                int(flows.target[f]),
                flows.route_links[flows.route_ptr[f] : flows.route_ptr[f + 1]].tolist(),
            )
            for f in np.concatenate([np.zeros(0, np.int64), *open_flows]).tolist()
        ]

    def _open(self, rank: int, which: NDArray[np.int64]) -> None:
        """Let flows start; those opened at one instant start as one batch."""
        if not len(which):
            return
        if not self._opened:
            # Ranks that enter at this very instant come first: their flows and these start as one batch.
            callbacks = self._env.timeout(0).callbacks
            callbacks.append(self._start_opened)
        self._opened.append((rank, which))

    def _start_opened(self, _: simpy.Event) -> None:
        flows, now = self._flows, self._env.now
        which = np.concatenate([flow for _, flow in self._opened])
        self.opener[which] = np.repeat([rank for rank, _ in self._opened], [len(flow) for _, flow in self._opened])
        self._opened.clear()
        self.launch_s[which] = now
        self.start_s[which] = now + flows.group_setup_s + flows.delay_s[which]
        if flows.all_ranks_gate:
            for rank in range(len(self.enter_s)):
                self._hold_sms(rank)
        ptr, entries = csr.rows_of(self._resource_ptr, which)
        waiting_ptr, waiting = flows.waiting
        waiter_ptr, waiting_entries = csr.rows_of(waiting_ptr, which)
        member_ptr, member_entries = csr.rows_of(flows.member_ptr, which)
        members = flows.member_ranks[member_entries]
        batch = FlowBatch(
            ptr,
            self._resource_links[entries],
            flows.size[which],
            self.start_s[which],
            self._resource_weight[entries],
            rate_cap=None if flows.rate_cap is None else flows.rate_cap[which],
            waiter_ptr=waiter_ptr,
            waiter_ids=waiting[waiting_entries] + self._first_waiter,
        )
        handle = self._clock.transfer(batch)
        self._batches.append((which, handle))
        if flows.least_s is not None:
            least = now + flows.group_setup_s + flows.least_s[which]
            np.maximum.at(self._least_leave_s, members, np.repeat(least, np.diff(member_ptr)))
        if flows.leave_ptr is not None:
            np.maximum.at(self._least_leave_s, members, np.repeat(self.start_s[which], np.diff(member_ptr)))
        before = self._unstarted.copy()
        self._unstarted -= np.bincount(members, minlength=len(before))
        for complete in np.flatnonzero((self._unstarted == 0) & (before > 0)):
            self._all_started[complete].succeed()

    def _hold_sms(self, rank: int) -> None:
        # A rank without flows may have left before the gate of all ranks opened.
        if self._flows.sms and np.isnan(self.leave_s[rank]):
            self._clock.scale(int(self._sm_link[rank]), self, 1.0 - self._flows.sms / self._flows.total_sms)


def waits(
    flows: PhaseFlows,
    launch_s: Floats,
    opener: Ints,
    start_s: Floats,
    finish_s: Floats,
    enter_s: Floats,
    done_s: Floats,
    leave_s: Floats,
    last_done: int,
) -> tuple[Floats, Ints, Floats]:
    """Return ``wait_s``, ``waited_on``, ``tail_s`` of ``PhaseTrace``; ``done_s``: its own part is done, [ranks]."""
    ready, n_ranks = enter_s + flows.entry_setup_s, len(enter_s)
    flow = csr.owners(flows.member_ptr)
    owner, begin, end, opened_by = flows.member_ranks, launch_s[flow], finish_s[flow], opener[flow]
    last = last_flow_s(flows, start_s, finish_s, enter_s)
    tail = leave_s - last
    if flows.all_ranks_leave:
        # The barrier at the end: a rank's own part lasts until it is done, then it waits for the last one.
        ranks, nobody = np.arange(n_ranks, dtype=np.int32), np.full(n_ranks, -1, np.int32)
        opened = np.full(n_ranks, done_s.max())
        owner = np.concatenate([owner, ranks, ranks])
        begin, end = np.concatenate([begin, last, opened]), np.concatenate([end, done_s, opened])
        opened_by = np.concatenate([opened_by, nobody, np.full(n_ranks, last_done, np.int32)])
        tail = tail - (opened - done_s)
    order = np.lexsort((begin, owner))
    ptr = np.searchsorted(owner[order], np.arange(n_ranks + 1))
    wait, blamed = gaps(ptr, begin[order], end[order], opened_by[order], ready)
    return wait, blamed, np.maximum(tail, 0.0)


def last_flow_s(flows: PhaseFlows, start_s: Floats, finish_s: Floats, enter_s: Floats) -> Floats:
    """When the last flow that each rank waits for ends; not before the first byte of what it posts, [ranks]."""
    last = enter_s + flows.entry_setup_s
    waiting_ptr, waiting = flows.waiting
    np.maximum.at(last, waiting, np.repeat(finish_s, np.diff(waiting_ptr)))
    if flows.leave_ptr is not None:
        np.maximum.at(last, flows.member_ranks, np.repeat(start_s, np.diff(flows.member_ptr)))
    return last

"""A FlowNetwork on SimPy's clock, with a single event pending for all its flows.

While flows are in progress, the network runs ahead to the next completion that has a waiter, at most
to the next event of the environment: until then nothing can start or change anything. The one pending wake
is scheduled behind everything else of its instant (a priority below SimPy's normal one), so that processes
that act at the same time act on the same state, in whatever order they come, and rates are solved once.

A link's capacity has owners: a kernel that holds SMs, a fault. Each knows only its own factor; the link has its
nominal capacity times the product of all, so that who comes or goes leaves the others' share as it is.
"""

import math
from array import array
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np
import simpy
from numpy.typing import ArrayLike, NDArray
from simpy.events import EventPriority

from moesim.errors import InputError, InvariantError
from moesim.network.exact.flow_network import FlowNetwork
from moesim.network.exact.state import Floats, Ints
from moesim.network.flow_batch import FlowBatch
from moesim.network.stepped.stepped_network import SteppedNetwork

BEHIND_ALL = EventPriority(9)
"""SimPy's own priorities are 0 (urgent) and 1 (normal)."""


class CapacityEvents(NamedTuple):
    """Changes of capacity in the order in which they happened, as ``solve_flows(capacity_events=...)`` takes them.

    ``time`` seconds, ``link`` id, ``capacity`` bytes/s from then on.
    """

    time: Floats
    link: Ints
    capacity: Floats

    def only(self, which: NDArray[np.bool_]) -> "CapacityEvents":
        """Return some of the events, bool[events]."""
        return CapacityEvents(self.time[which], self.link[which], self.capacity[which])

    @classmethod
    def none(cls) -> "CapacityEvents":
        """Return no events."""
        return cls(np.zeros(0), np.zeros(0, np.int32), np.zeros(0))


class _Wake(simpy.Event):
    """An event that has succeeded already and only needs its place in the queue."""

    def __init__(self, env: simpy.Environment, act: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self.callbacks = [act]
        self._ok, self._value = True, None


class NetworkClock:
    """Drives ``network`` from ``env``; whoever starts flows during a simulation does it through this."""

    def __init__(self, env: simpy.Environment, network: FlowNetwork | SteppedNetwork) -> None:
        self.env, self.network = env, network
        # Of links that somebody has held: nominal and present capacity.
        self._nominal: dict[int, float] = {}
        self._present: dict[int, float] = {}
        self._factors: dict[int, dict[Hashable, float]] = {}
        self._changed_at, self._changed, self._changed_to = array("d"), array("i"), array("d")
        self._waiting: dict[int, simpy.Event] = {}
        self._due: list[int] = []
        self._due_at = -math.inf
        self._pending = False

    def transfer(self, flows: FlowBatch) -> int:
        """Start a batch of flows now, or at their ``start`` (absolute seconds); see ``FlowNetwork.start``."""
        self._catch_up()
        handle = self.network.start(flows)
        self._wake_at(self.env.now)
        return handle

    def wait(self, waiter: int) -> simpy.Event:
        """Return an event that succeeds when a waiter has no flow outstanding, at once if it has none now."""
        event = self._waiting.get(waiter)
        if event is None:
            event = self.env.event()
            if self.network.outstanding(waiter) == 0:
                event.succeed()
            else:
                self._waiting[waiter] = event
        return event

    def scale(self, link: int, owner: Hashable, factor: float) -> None:
        """Let ``owner`` hold a link at ``factor`` of its nominal capacity from now on; 1 lets go of it.

        The nominal capacity is what the network was made with. Factors of several owners multiply; one owner's new
        factor takes the place of its old one.

        Raises:
            InputError: a factor that is negative or not finite, or a link whose flows take steps (network.tolerance).
        """
        if not 0.0 <= factor < math.inf:
            raise InputError(f"a link cannot have {factor} of its capacity", "factor", "give 0 or more, finite")
        self._catch_up()
        before = self._present[link] if link in self._present else self.network.capacity(link)
        nominal, factors = self._nominal.get(link, before), {**self._factors.get(link, {}), owner: factor}
        if factor == 1.0:
            del factors[owner]
        after = nominal * math.prod(factors.values())
        if after != before:
            self.network.set_capacity(link, after)
            self._changed_at.append(self.env.now)
            self._changed.append(link)
            self._changed_to.append(after)
            self._wake_at(self.env.now)
        self._nominal[link], self._present[link], self._factors[link] = nominal, after, factors

    def capacity_events(self) -> CapacityEvents:
        """Return every change of a link's capacity until now, wires and ``sm`` links alike."""
        return CapacityEvents(np.array(self._changed_at), np.array(self._changed), np.array(self._changed_to))

    def cancel(self, handle: int, flow: int) -> None:
        """Take a flow out of the network now; see ``FlowNetwork.cancel``."""
        self._catch_up()
        self.network.cancel(handle, flow)
        self._wake_at(self.env.now)

    def reroute(self, handle: int, flow: int, route_links: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Send what is left of a flow over other links; see ``FlowNetwork.reroute``."""
        self._catch_up()
        self.network.reroute(handle, flow, route_links, weight)
        self._wake_at(self.env.now)

    def _catch_up(self) -> None:
        """Bring an idle network to the present; a busy one is there already."""
        now = self.env.now
        if self.network.now > now:
            raise InvariantError(f"the network shows {self.network.now} s, the environment {now} s")
        if self.network.now < now:
            self.network.run(until=now)

    def _wake_at(self, time: float) -> None:
        """Schedule the one pending wake, at ``time`` or, when rounding forbids that, just before it."""
        if self._pending:
            return
        now = self.env.now
        delay = max(0.0, time - now)
        while now + delay > time:
            delay = math.nextafter(delay, 0.0)
        self.env.schedule(_Wake(self.env, self._wake), priority=BEHIND_ALL, delay=delay)
        self._pending = True

    def _wake(self, _: simpy.Event) -> None:
        self._pending = False
        if self._due:
            if self.env.now < self._due_at:  # the delay had to be rounded down: one more hop, now exact
                self._wake_at(self._due_at)
                return
            due, self._due = self._due, []
            for waiter in due:
                self._waiting.pop(waiter).succeed()
            self._wake_at(self.env.now)  # behind those who were woken
            return
        self._run_ahead()

    def _run_ahead(self) -> None:
        horizon = self.env.peek()
        while not self.network.idle:
            time, done = self.network.run(until=horizon)
            awaited = [waiter for waiter in done.tolist() if waiter in self._waiting]
            if awaited:
                self._due, self._due_at = awaited, time
                self._wake_at(time)
                return
            if len(done) == 0:
                if time < math.inf:
                    self._wake_at(time)
                return

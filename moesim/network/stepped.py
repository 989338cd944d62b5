"""Finish times of very many flows within a tolerance: rates are found once per step instead of once per event.

In a step a flow may carry no more than it has left: its average rate is capped by ``left / step``, so bytes are
conserved, no link carries more than it can, and what a finished flow leaves is used by the others in the same step.
Where in the step a flow ends follows from the level of its links. Merely ending together what ends almost together
would do neither and is too fast: it falls below the bound of the busiest link.

The few flows that are left at the end run event by event. Steps are short where many flows end, and never longer than
``tolerance`` times the bound of the busiest link.

The step in which a flow ends bounds the error that this step makes. What earlier steps did to the flow comes on top,
and no bound of it could be proved, since max-min times can jump when one flow changes. So the limits given here, one
more step on either side, are an estimate; the tests measure how often it holds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.network import checks
from moesim.network.filling import fill, lowest_level
from moesim.network.flow_network import FlowNetwork
from moesim.network.state import Floats, Ints, Pointers

Flags = NDArray[np.bool_]

SHARE_PER_STEP = 0.03
"""Flows that end in a step, of those in progress, if the step may be so long."""

PACK = 0.7
"""Share of the flows still in progress below which the others are dropped from the tables."""

FEW = 3000
"""Flows that are run event by event at the end."""


@dataclass(frozen=True)
class WithinTolerance:
    """Finish times and estimated limits of them, seconds.

    Attributes:
        finish: of each flow, [flows].
        earliest, latest: the step in which the flow ended and one more on either side, [flows].
        bound: of the busiest link: bytes over capacity, from the first start that concerns it.
        steps: steps taken.
        span: from the first start to the last finish.
    """

    finish: Floats
    earliest: Floats
    latest: Floats
    bound: float
    steps: int
    span: float

    @property
    def largest_error(self) -> float:
        """Farthest limit from a finish time, over the time from the first start to the last finish; an estimate."""
        farthest = np.maximum(self.latest - self.finish, self.finish - self.earliest).max(initial=0.0)
        return float(farthest / self.span) if self.span > 0 else 0.0


def solve_within(
    capacity: ArrayLike,
    route_ptr: ArrayLike,
    route_links: ArrayLike,
    size: ArrayLike,
    start: ArrayLike,
    tolerance: float,
    weight: ArrayLike | None = None,
    rate_cap: ArrayLike | None = None,
) -> WithinTolerance:
    """Return finish times within a tolerance; arguments as those of ``solve_flows``, without latencies.

    Args:
        capacity: bytes/s, above 0, [links].
        route_ptr, route_links, weight: links of each flow and what it loads them with (CSR).
        size: bytes, [flows].
        start: seconds, [flows]; a flow joins with the first step that begins at or after it.
        tolerance: longest step as a share of the busiest link's bound, above 0 and at most 0.1.
        rate_cap: bytes/s, [flows].

    Raises:
        InputError: for another tolerance, a link without capacity, and whatever ``solve_flows`` refuses.
    """
    if not 0.0 < tolerance <= 0.1:
        raise InputError(f"is {tolerance}", "tolerance", "give a share above 0 and at most 0.1; 0 is exact")
    room = checks.numbers(capacity, "capacity", np.size(capacity), "link")
    if room.size and room.min() == 0.0:
        raise InputError(f"link {int(np.argmin(room))} has none", "capacity", "use tolerance 0 where links are down")
    links = checks.ids(route_links, "route_links", len(room))
    ptr = checks.pointers(route_ptr, "route_ptr", len(links))
    n = len(ptr) - 1
    sizes = checks.numbers(size, "size", n)
    starts = checks.numbers(start, "start", n, least=-np.inf)
    weights = checks.numbers(weight, "weight", len(links), "route entry", default=1.0)
    caps = checks.numbers(rate_cap, "rate_cap", n, infinite=True, default=np.inf)
    if (caps == 0.0).any():
        raise InputError(f"flow {int(np.argmin(caps))} can never finish: its rate cap is 0", "rate_cap")
    return _Steps(_Net(room, ptr, links, weights), sizes, starts, caps, tolerance).run()


@dataclass(frozen=True)
class _Net:
    """Links and the routes of some flows, and which flows are on each link."""

    capacity: Floats
    ptr: Pointers
    links: Ints
    weight: Floats

    @property
    def n_flows(self) -> int:
        return len(self.ptr) - 1

    @functools.cached_property
    def flow_of_entry(self) -> Pointers:
        return np.repeat(np.arange(self.n_flows), np.diff(self.ptr))

    @functools.cached_property
    def lists(self) -> tuple[Pointers, Ints]:
        used = np.flatnonzero(self.weight > 0)
        order = used[np.argsort(self.links[used], kind="stable")]
        ptr = np.searchsorted(self.links[order], np.arange(len(self.capacity) + 1))
        return ptr.astype(np.int64), self.flow_of_entry[order].astype(np.int32)

    def only(self, flows: Pointers) -> _Net:
        """Return the network with some of its flows."""
        length = np.diff(self.ptr)[flows]
        ptr = np.concatenate([[0], np.cumsum(length)])
        entries = np.arange(ptr[-1]) + np.repeat(self.ptr[flows] - ptr[:-1], length)
        return _Net(self.capacity, ptr, self.links[entries], self.weight[entries])

    def rates(self, cap: Floats, active: Flags) -> tuple[Floats, Floats]:
        """Return the max-min fair rate of each active flow, and the lowest level among its links."""
        rate = np.where(active, -1.0, 0.0)
        level, room, load = np.empty((3, len(self.capacity)))
        waiting, heap = np.empty((2, len(self.capacity)), np.int32)
        net = (self.capacity, self.ptr, self.links, self.weight)
        fill(*net, *self.lists, cap, rate, level, room, load, waiting, heap)
        lowest = np.empty(self.n_flows)
        lowest_level(self.ptr, self.links, level, lowest)
        return rate, lowest


class _Steps:
    """Flows in progress, time, and what is known about those that have ended."""

    def __init__(self, net: _Net, size: Floats, start: Floats, cap: Floats, tolerance: float) -> None:
        self._net, self._size, self._start, self._cap = net, size, start, cap
        flow = net.flow_of_entry
        carried = net.weight * size[flow]
        at_once = np.bincount(flow, weights=carried, minlength=net.n_flows) == 0
        self._finish = np.where(at_once, start, np.nan)
        self._earliest, self._latest = self._finish.copy(), self._finish.copy()
        self._left = size.copy()
        waiting = np.flatnonzero(~at_once)
        self._waiting = waiting[np.argsort(start[waiting], kind="stable")]
        # When each link can have carried everything at the earliest.
        first = np.full(len(net.capacity), np.inf)
        np.minimum.at(first, net.links[carried > 0], start[flow[carried > 0]])
        total = np.bincount(net.links, weights=carried, minlength=len(net.capacity))
        self._bound = np.where(total > 0, first + total / net.capacity, -np.inf)
        begin = start[self._waiting].min(initial=np.inf)
        self._longest = tolerance * (self._bound.max(initial=-np.inf) - begin) if len(waiting) else 0.0

    def run(self) -> WithinTolerance:
        """Take steps until few flows are left, and run those event by event."""
        steps, step = 0, 0.0
        now = float(self._start[self._waiting[0]]) if len(self._waiting) else 0.0
        live = np.zeros(0, np.int64)
        net, active, before = self._net.only(live), np.zeros(0, np.bool_), np.zeros(0)
        while active.any() or len(self._waiting):
            if not active.any():
                now = max(now, float(self._start[self._waiting[0]]))
            joining = int(np.searchsorted(self._start[self._waiting], now, side="right"))
            if joining or active.sum() < PACK * len(active):
                live, before = live[active], before[active]
                live = np.concatenate([live, self._waiting[:joining]])
                before = np.concatenate([before, np.full(joining, np.nan)])
                self._waiting = self._waiting[joining:]
                net, active = self._net.only(live), np.ones(len(live), np.bool_)
            if active.sum() + len(self._waiting) <= FEW:
                self._run_exactly(np.concatenate([live[active], self._waiting]), now, step)
                break
            step, active, before = self._step(now, net, live, active, before)
            now += step
            steps += 1
        self._lift_to_bounds()
        bound = float(self._bound.max(initial=0.0))
        begin, end = self._start.min(initial=np.inf), self._finish.max(initial=-np.inf)
        span = float(end - begin) if len(self._size) else 0.0
        return WithinTolerance(self._finish, self._earliest, self._latest, bound, steps, span)

    def _step(
        self, now: float, net: _Net, live: Pointers, active: Flags, before: Floats
    ) -> tuple[float, Flags, Floats]:
        """Take a step; return its length, which flows are left and the rates that they had."""
        left, cap = self._left[live], self._cap[live]
        if np.isnan(before[active]).any():
            before, _ = net.rates(cap, active)
        soon = np.quantile(left[active] / before[active], SHARE_PER_STEP)
        step = min(self._longest, float(soon))
        if len(self._waiting):  # whoever starts later joins after this step
            step = min(step, max(float(self._start[self._waiting[0]]) - now, 0.1 * self._longest))
        rate, lowest = net.rates(np.minimum(cap, left / step), active)
        ends = active & (rate * step >= left * (1.0 - 1e-12))
        # Until its end a flow runs at the level of its links; where none is full, at least as fast as before.
        alone = np.minimum(lowest, cap)
        alone = np.maximum(np.where(np.isfinite(alone), alone, before), rate)
        done = live[ends]
        self._finish[done] = now + np.minimum(left[ends] / alone[ends], step)
        self._earliest[done], self._latest[done] = now - step, now + 2 * step
        self._left[live] = np.where(ends, 0.0, np.maximum(left - rate * step, 0.0))
        return step, active & ~ends, rate

    def _run_exactly(self, flows: Pointers, now: float, last_step: float) -> None:
        net = self._net.only(flows)
        network = FlowNetwork(net.capacity, now=min(now, float(self._start[flows].min(initial=now))))
        begin = np.maximum(self._start[flows], np.where(self._left[flows] < self._size[flows], now, -np.inf))
        handle = network.start(
            net.ptr, net.links, net.weight, self._left[flows], np.maximum(begin, network.now), self._cap[flows]
        )
        network.run(np.inf)
        self._finish[flows] = network.finish(handle)
        self._earliest[flows], self._latest[flows] = self._finish[flows] - last_step, self._finish[flows] + last_step

    def _lift_to_bounds(self) -> None:
        """Let no link's last flow end before the link can have carried everything."""
        net = self._net
        used = np.flatnonzero(net.weight * self._size[net.flow_of_entry] > 0)
        flow, link = net.flow_of_entry[used], net.links[used]
        order = np.lexsort((self._finish[flow], link))
        last = order[np.append(link[order][1:] != link[order][:-1], True)] if len(order) else order
        np.maximum.at(self._finish, flow[last], np.minimum(self._bound[link[last]], self._latest[flow[last]]))

"""Finish times of very many flows within a tolerance, with limits of them: some proven, some estimated.

Rates are found once per step instead of once per event, see ``stepping``. The step in which a flow ends bounds the
error that this step makes. What earlier steps did to the flow comes on top, and in which direction is unknown:
max-min times follow a change of one flow up or down. So the narrow limits, three of the longest steps on either side,
are an estimate, and tests measure how often it holds. The wide ones are proven, see ``bounds``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from moesim.errors import InputError
from moesim.network import checks
from moesim.network.exact.state import Floats
from moesim.network.flow_batch import FlowBatch
from moesim.network.stepped.bounds import links_done, longest_time, shortest_time
from moesim.network.stepped.stepping import Steps, Table, loaded

LEAST, MOST = 1e-4, 0.1
"""Tolerances that there are, besides 0."""


@dataclass(frozen=True)
class WithinTolerance:
    """Finish times and limits of them, seconds.

    Attributes:
        finish: of each flow, [flows].
        off: by how much a finish time may be off, an estimate: three of the longest steps, [flows].
        not_before, not_after: proven limits of the exact finish time, [flows].
        bound: of the busiest link: bytes over capacity, from the first start that concerns it. Proven: the last flow
            does not end earlier.
        steps: steps taken, single events among them.
    """

    finish: Floats
    off: Floats
    not_before: Floats
    not_after: Floats
    bound: float
    steps: int

    @property
    def last_proven(self) -> tuple[float, float]:
        """Instants between which the exact last finish lies for certain."""
        at_least = max(self.bound, float(self.not_before.max(initial=-np.inf)))
        return at_least, float(self.not_after.max(initial=-np.inf))


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
        tolerance: longest step as a share of the busiest link's time, 0.0001 to 0.1.
        rate_cap: bytes/s, [flows].

    Raises:
        InputError: for another tolerance, a link without capacity, and whatever ``solve_flows`` refuses.
    """
    check_tolerance(tolerance)
    room = checked_capacity(capacity)
    flows = FlowBatch(route_ptr, route_links, size, start, weight, rate_cap).checked(len(room))
    refuse_no_rate(flows.rate_cap)
    starts, n = flows.start, len(flows.size)
    routes = (flows.route_ptr, flows.route_links, flows.weight)
    table, moves = loaded(Table(np.arange(n), flows.size, flows.rate_cap, starts, *routes))
    finish, off, not_before, not_after = starts.copy(), np.zeros(n), starts.copy(), starts.copy()
    count, steps = 0, Steps(room, tolerance)
    if len(table.flow):
        steps.add(table, float(table.start.min()))
    while steps.busy:
        for ended in (steps.plan(), steps.finish()):
            finish[ended.flow], off[ended.flow] = ended.finish, ended.off
        count += 1
    moving = (room, table.ptr, table.links, table.weight, table.size, table.cap)
    not_before[moves] = table.start + shortest_time(*moving)
    not_after[moves] = table.start + longest_time(*moving)
    bound = links_done(room, table.ptr, table.links, table.weight, table.size, table.start).max(initial=-np.inf)
    return WithinTolerance(finish, off, not_before, not_after, float(bound), count)


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that steps cannot be taken with."""
    if not LEAST <= tolerance <= MOST:
        raise InputError(f"is {tolerance}", "tolerance", f"give at least {LEAST:g} and at most {MOST:g}; 0 is exact")


def checked_capacity(capacity: ArrayLike) -> Floats:
    """Return the capacities; refuse a link that has none."""
    room = checks.numbers(capacity, "capacity", np.size(capacity), "link")
    if room.size and room.min() == 0.0:
        raise InputError(f"link {int(np.argmin(room))} has none", "capacity", "use tolerance 0 where links are down")
    return room


def refuse_no_rate(rate_cap: Floats) -> None:
    """Refuse a flow that can never finish."""
    if (rate_cap == 0.0).any():
        raise InputError(f"flow {int(np.argmin(rate_cap))} can never finish: its rate cap is 0", "rate_cap")

"""The certificate of max-min fair rates, from routes and rates alone: nothing of how they were found goes into it.

Rates are max-min fair exactly when no link carries more than its capacity and each flow runs at its cap or crosses a
full link on which nobody is faster (Bertsekas and Gallager, Data Networks, 6.5.2). It takes two walks over all routes,
so in a run a sample of the instants is proven: the 1st, 2nd, 4th, ... 64th after a phase has begun or a link of several
flows has changed, then every hundredth; of n > 6,400 flows one instant in n / 64.
"""

# mypy: allow-untyped-decorators

from collections.abc import Callable

import numpy as np

from moesim.errors import InvariantError
from moesim.network.exact.lists import INF
from moesim.network.exact.state import Floats, Ints, Pointers
from moesim.network.kernel_options import kernel

CLOSE = 1e-9
EVERY = 100
"""Instants from one that is proven to the next, once a phase is on its way."""

FAIR, OVERLOADED, UNHELD = 0, 1, 2


def gap(before: int, flows: int) -> int:
    """Return how many instants after one that is proven the next is, given the gap before, among so many flows."""
    return min(2 * before, max(EVERY, flows // 64))


@kernel
def breach(
    capacity: Floats,
    begin: Pointers,
    length: Pointers,
    links: Ints,
    weight: Floats,
    rate: Floats,
    cap: Floats,
    load: Floats,
    fastest: Floats,
) -> tuple[int, int]:
    """Return the law that is broken and the first link or flow that breaks it.

    ``load``, ``fastest``: zeros, [links]; they take what each link carries and the rate of its fastest flow.
    """
    for flow in range(len(rate)):
        for entry in range(begin[flow], begin[flow] + length[flow]):
            link = links[entry]
            load[link] += weight[entry] * rate[flow]
            fastest[link] = max(fastest[link], rate[flow])
    for link in range(len(capacity)):
        if not load[link] <= capacity[link] * (1.0 + CLOSE):
            return OVERLOADED, link
        if load[link] < capacity[link] * (1.0 - CLOSE):
            fastest[link] = INF  # not full: it holds nobody
    for flow in range(len(rate)):
        least = cap[flow]
        for entry in range(begin[flow], begin[flow] + length[flow]):
            least = min(least, fastest[links[entry]])
        if not rate[flow] >= least * (1.0 - CLOSE):
            return UNHELD, flow
    return FAIR, -1


def prove(
    now: float,
    name_of: Callable[[int], str],
    capacity: Floats,
    begin: Pointers,
    length: Pointers,
    links: Ints,
    weight: Floats,
    rate: Floats,
    cap: Floats | None = None,
) -> None:
    """Check the rates of all flows in progress.

    Args:
        now: seconds, for the message.
        name_of: name of a link, for the message.
        capacity: bytes/s, [links].
        begin, length: where the links of each flow stand in ``links`` and ``weight`` (above 0), [flows].
        rate, cap: bytes/s, [flows].

    Raises:
        InvariantError: a link carries more than its capacity, or nothing holds a flow back.
    """
    load, fastest = np.zeros((2, len(capacity)))
    caps = np.full(len(rate), np.inf) if cap is None else cap
    law, where = breach(capacity, begin, length, links, weight, rate, caps, load, fastest)
    if law == OVERLOADED:
        carries = f"carries {load[where]:.12g} bytes/s, its capacity is {capacity[where]:.12g}"
        raise InvariantError(f"at {now} s link {name_of(where)} {carries}")
    if law == UNHELD:
        over = ", ".join(map(name_of, links[begin[where] : begin[where] + length[where]].tolist()))
        slow = "no link of its is full with nobody faster"
        raise InvariantError(f"at {now} s the flow over links {over} runs at {rate[where]:.12g} bytes/s: {slow}")

"""The certificate of max-min fair rates, from routes and rates alone: nothing of how they were found goes into it.

Rates are max-min fair exactly when no link carries more than its capacity and each flow runs at its cap or crosses a
full link on which nobody is faster (Bertsekas and Gallager, Data Networks, 6.5.2). It takes two walks over all routes,
so in a run a sample of the instants is proven: the 1st, 2nd, 4th, ... 128th since a phase has begun or a link of
several flows has changed, then every hundredth; of n > 6,400 flows one instant in n / 64.
"""

# mypy: allow-untyped-decorators

import numpy as np

from moesim.errors import InvariantError
from moesim.network.exact.lists import INF
from moesim.network.exact.state import Floats, Ints, Pointers
from moesim.network.kernel_options import kernel

CLOSE = 1e-9
EVERY = 100
FAIR, OVERLOADED, UNHELD = 0, 1, 2


class Unfair(InvariantError):
    """Rates that are not max-min fair; ``text`` has ``{}`` where the names of the ``links`` go."""

    def __init__(self, text: str, links: list[int]) -> None:
        super().__init__(text.format(", ".join(map(str, links))))
        self.text, self.links = text, links


def gap(before: int, flows: int) -> int:
    """Return how many instants after one that is proven the next is, given the gap before, among so many flows."""
    return min(max(1, 2 * before), max(EVERY, flows // 64))


@kernel
def breach(
    capacity: Floats, begin: Pointers, length: Pointers, links: Ints, weight: Floats, rate: Floats, cap: Floats,
    load: Floats, fastest: Floats,
) -> tuple[int, int]:  # fmt: skip
    """Return the law that is broken and the first link or flow that breaks it; the last two come as zeros, [links]."""
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
    now: float, capacity: Floats, begin: Pointers, length: Pointers, links: Ints, weight: Floats, rate: Floats,
    cap: Floats | None = None,
) -> None:  # fmt: skip
    """Check the rates of all flows in progress at ``now``, seconds.

    ``capacity`` bytes/s, [links]; ``begin``, ``length``: where the links of each flow stand in ``links`` and ``weight``
    (above 0); ``rate``, ``cap`` bytes/s, [flows]. Raises Unfair.
    """
    load, fastest = np.zeros((2, len(capacity)))
    caps = np.full(len(rate), INF) if cap is None else cap
    law, at = breach(capacity, begin, length, links, weight, rate, caps, load, fastest)
    if law == OVERLOADED:
        raise Unfair(f"at {now} s link {{}} carries {load[at]:.12g} bytes/s of {capacity[at]:.12g}", [at])
    if law == UNHELD:
        over = links[begin[at] : begin[at] + length[at]].tolist()
        slow = "none of them is full with nobody faster"
        raise Unfair(f"at {now} s the flow over links {{}} runs at {rate[at]:.12g} bytes/s: {slow}", over)

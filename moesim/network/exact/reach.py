"""Which links feel it when the level of a link changes (numba kernels).

For each link, the other links on the routes of its own flows, and what these weigh there together. A change of the
level then takes a step for each link that feels it, not one for each flow on each of its links: three times fewer where
64 ranks send to each other, more where there are more. Sums of weights serve estimates alone, so they may round; which
links are reached is counted.
"""

# mypy: allow-untyped-decorators

from moesim.network.exact.state import FlowState
from moesim.network.kernel_options import inlined, kernel


@inlined
def reach_more(s: FlowState, link: int, other: int, weight: float) -> None:
    """Count a flow of ``link``'s own that also loads ``other``."""
    row, column = s.reach.row, s.reach.column
    at = column[link, other] - 1
    if at >= 0:
        row.weight[link, at] += weight
        row.flows[link, at] += 1
        return
    at = s.reach.length[link]
    s.reach.length[link] += 1
    column[link, other] = at + 1
    row.link[link, at] = other
    row.weight[link, at] = weight
    row.flows[link, at] = 1


@inlined
def reach_less(s: FlowState, link: int, other: int, weight: float) -> None:
    """Count off a flow of ``link``'s own that also loads ``other``."""
    row, column = s.reach.row, s.reach.column
    at = column[link, other] - 1
    if row.flows[link, at] > 1:
        row.weight[link, at] -= weight
        row.flows[link, at] -= 1
        return
    s.reach.length[link] -= 1
    last = s.reach.length[link]
    moved = row.link[link, last]
    row.link[link, at] = moved
    row.weight[link, at] = row.weight[link, last]
    row.flows[link, at] = row.flows[link, last]
    column[link, moved] = at + 1
    column[link, other] = 0


@inlined
def reach_nothing(s: FlowState, link: int) -> None:
    """Forget all that a link reaches."""
    for at in range(s.reach.length[link]):
        s.reach.column[link, s.reach.row.link[link, at]] = 0
    s.reach.length[link] = 0


@kernel
def fill_reach(s: FlowState) -> None:
    """Fill an empty table from the lists of the links."""
    for link in range(len(s.level)):
        begin = s.link.list_ptr[link]
        for place in range(begin + s.link.n_own[link], begin + s.link.list_len[link]):
            reach_more(s, s.place.bottleneck[place], link, s.place.weight[place])

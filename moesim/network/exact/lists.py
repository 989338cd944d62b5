"""Two small structures of the flow network: the least of many values, and who is on a link (numba kernels).

Values of links stand in blocks with the least of each block behind them. A link's list of flows has its own flows in
front, those that it bottlenecks or that have no bottleneck yet; a flow changes sides by changing places.
"""

# mypy: allow-untyped-decorators

from moesim.network.exact.state import BLOCK, Floats, FlowState
from moesim.network.kernel_options import inlined

INF = float("inf")


@inlined
def put(values: Floats, link: int, value: float) -> None:
    """Set a link's value and keep the least value of its block beside it."""
    n_blocks = len(values) // (BLOCK + 1)
    block = link // BLOCK
    least = n_blocks * BLOCK + block
    before = values[link]
    values[link] = value
    if value <= values[least]:
        values[least] = value
    elif before == values[least]:
        for other in range(block * BLOCK, (block + 1) * BLOCK):
            value = min(value, values[other])
        values[least] = value


@inlined
def lower(values: Floats, link: int, value: float) -> None:
    """Set a link's value if that is less than what it has."""
    least = len(values) // (BLOCK + 1) * BLOCK + link // BLOCK
    values[link] = min(values[link], value)
    values[least] = min(values[least], value)


@inlined
def least(values: Floats) -> tuple[float, int]:
    """Return the smallest value and its link, the first of equals; (inf, -1) when all are infinite."""
    n_blocks = len(values) // (BLOCK + 1)
    value, block = INF, -1
    for i in range(n_blocks):
        if values[n_blocks * BLOCK + i] < value:
            value, block = values[n_blocks * BLOCK + i], i
    if block < 0:
        return INF, -1
    link = block * BLOCK
    while values[link] != value:
        link += 1
    return value, link


@inlined
def swap_places(s: FlowState, one: int, other: int) -> None:
    """Let two flows on the list of a link change places."""
    if one == other:
        return
    at = s.place
    at.entry[one], at.entry[other] = at.entry[other], at.entry[one]
    at.weight[one], at.weight[other] = at.weight[other], at.weight[one]
    at.flow[one], at.flow[other] = at.flow[other], at.flow[one]
    at.bottleneck[one], at.bottleneck[other] = at.bottleneck[other], at.bottleneck[one]
    at.route[one], at.route[other] = at.route[other], at.route[one]
    at.length[one], at.length[other] = at.length[other], at.length[one]
    s.entry.place[at.entry[one]] = one
    s.entry.place[at.entry[other]] = other


@inlined
def make_own(s: FlowState, link: int, place: int) -> None:
    """Put a flow among the link's own."""
    swap_places(s, place, s.link.list_ptr[link] + s.link.n_own[link])
    s.link.n_own[link] += 1


@inlined
def make_foreign(s: FlowState, link: int, place: int) -> None:
    """Take a flow from the link's own."""
    s.link.n_own[link] -= 1
    swap_places(s, place, s.link.list_ptr[link] + s.link.n_own[link])

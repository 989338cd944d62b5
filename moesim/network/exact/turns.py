"""Whose turn it is: when each link whose flows, rates or capacity changed must be looked at (numba kernels).

A link's turn is about ``min(old level, new level)``, estimated from sums that additions keep up to date. An estimate
that falls counts at once, since the link must not come too late; one that rises counts when the present turn has come.
"""

# mypy: allow-untyped-decorators

from moesim.network.exact.lists import INF, lower, put
from moesim.network.exact.state import N_STIRRED, N_TOUCHED, FlowState
from moesim.network.kernel_options import inlined

NEARLY_FULL = 1.0 - 1e-9
"""Share of its capacity from which on a link without own flows is summed exactly; rounding is far smaller."""


@inlined
def touch(s: FlowState, link: int) -> None:
    """Note that the flows, rates or capacity of a link changed: its turn must be estimated again."""
    if not s.stirred[link]:
        s.stirred[link] = 1
        s.stirred_link[s.tally[N_STIRRED]] = link
        s.tally[N_STIRRED] += 1


@inlined
def note_change(s: FlowState, link: int) -> None:
    """Note that a link's rate may change at this instant."""
    if not s.touched[link]:
        s.touched[link] = 1
        s.touched_link[s.tally[N_TOUCHED]] = link
        s.tally[N_TOUCHED] += 1


@inlined
def ease_link(s: FlowState, link: int) -> None:
    """Note how the level of a link follows from the load of flows from elsewhere, for ``estimate``."""
    capacity, own = s.link.capacity[link], s.link.own_weight[link]
    if s.link.n_own[link] == 0:
        s.full[link], s.ease[link] = capacity * NEARLY_FULL, 0.0
    elif own > 0.0:
        s.full[link], s.ease[link] = capacity, 1.0 / own
    else:  # rounding has eaten the weight: it is the link's turn at once
        s.full[link], s.ease[link] = -INF, 1.0


@inlined
def estimate(s: FlowState, link: int) -> float:
    """Return about when it is the turn of a link, inf if it bottlenecks no flow and has room."""
    gap = s.full[link] - s.foreign[link]
    level = gap * s.ease[link]
    turn = min(s.level[link], level if level > 0.0 else 0.0)
    return INF if s.ease[link] == 0.0 and gap >= 0.0 else turn


@inlined
def estimate_turns(s: FlowState) -> None:
    """Estimate when it is the turn of every link that was touched."""
    for i in range(s.tally[N_STIRRED]):
        link = s.stirred_link[i]
        s.stirred[link] = 0
        note_change(s, link)
        ease_link(s, link)
        if s.link.n_own[link] == 0 and s.level[link] < INF:
            s.level[link] = s.link.first_due[link] = INF
            s.link.virtual[link] = 0.0
            put(s.completion, link, INF)
        lower(s.turn, link, estimate(s, link))
    s.tally[N_STIRRED] = 0

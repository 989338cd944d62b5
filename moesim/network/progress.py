"""What happens in the course of time: flows start and finish, links carry (numba kernels).

``advance`` runs from one event to the next (a start, a completion) without coming back to Python until a
waiter is done, the given time is reached or a buffer is full. Completions that rounding alone holds apart
are one event. What a link carries is integrated whenever its rate changes.

numba's cache looks at the file of a kernel alone: after an edit of ``max_min`` or ``membership`` delete the
``.nbi`` files in ``__pycache__``.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from numba import njit

from moesim.network.max_min import INF, least_leaf, set_leaf, solve
from moesim.network.membership import finish_flow, pop_start, start_flow
from moesim.network.state import (
    BUCKET,
    BUCKET_END,
    BUCKET_ORIGIN,
    LIVE,
    LOGGING,
    N_DONE,
    N_EVENTS,
    N_LIVE,
    N_LOG,
    N_MOVED,
    N_PENDING,
    N_TOUCHED,
    NOW,
    WANTED,
    FlowState,
)

TOGETHER = 4e-15
"""Completions within this share of the clock's reading are simultaneous: some twenty roundings."""

SOMEBODY_DONE, REACHED, NEVER, LOG_FULL, BUCKETS_FULL, UNSOLVED = 0, 1, 2, 3, 4, 5
"""Why ``advance`` came back."""


@njit(cache=True)
def account(s: FlowState, link: int) -> None:
    """Integrate what a link carried until now."""
    now, since, rate = s.clock[NOW], s.link.since[link], s.link.rate[link]
    s.link.since[link] = now
    if rate <= 0.0 or now <= since:
        return
    s.link.served[link] += rate * (now - since)
    s.link.busy[link] += now - since
    column = s.link.column[link]
    if column < 0:
        return
    origin, width, last = s.clock[BUCKET_ORIGIN], s.clock[BUCKET], len(s.bucket_served) - 1
    bucket = min(int((since - origin) // width), last)
    while since < now:
        end = now if bucket == last else min(now, origin + (bucket + 1) * width)
        if end > since:
            s.bucket_served[bucket, column] += rate * (end - since)
            since = end
        bucket += 1


@njit(cache=True)
def account_all(s: FlowState) -> None:
    """Integrate what every link carried until now."""
    for link in range(len(s.link)):
        account(s, link)


@njit(cache=True)
def settle_rates(s: FlowState) -> bool:
    """Solve for the rates of this instant and note what changed: link rates, bottlenecks."""
    if not solve(s):
        return False
    for i in range(s.tally[N_TOUCHED]):
        link = s.touched_link[i]
        s.link.touched[link] = 0
        account(s, link)
        if s.link.n_own[link] > 0:
            s.link.rate[link] = s.link.foreign[link] + s.link.own_weight[link] * s.link.level[link]
        else:
            s.link.rate[link] = s.link.foreign[link] if s.link.list_len[link] > 0 else 0.0
    s.tally[N_TOUCHED] = 0
    for i in range(s.tally[N_MOVED]):
        flow = s.moved_flow[i]
        s.flow.moved[flow] = 0
        if s.flow.phase[flow] == LIVE and s.flow.logged[flow] != s.flow.bottleneck[flow]:
            n = s.tally[N_LOG]
            s.flow.logged[flow] = s.flow.bottleneck[flow]
            s.log.time[n], s.log.flow[n], s.log.link[n] = s.clock[NOW], flow, s.flow.bottleneck[flow]
            s.tally[N_LOG] += 1
    s.tally[N_MOVED] = 0
    return True


@njit(cache=True)
def finish_due(s: FlowState) -> None:
    """End all flows whose completion is now."""
    due = s.clock[NOW] + TOGETHER * abs(s.clock[NOW])
    while s.finish_tree[1] <= due:
        link = least_leaf(s.finish_tree)
        place = s.link.list_ptr[link] + s.link.list_len[link] - 1
        while place >= s.link.list_ptr[link]:  # backwards: the last of the list fills the gap
            flow = s.place.flow[place]
            if (
                s.flow.bottleneck[flow] == link
                and s.flow.since[flow] + s.flow.remaining[flow] / s.flow.rate[flow] <= due
            ):
                finish_flow(s, flow)
            place -= 1
        set_leaf(s.finish_tree, link, INF)  # the link is dirty: solving it finds its next completion


@njit(cache=True)
def advance(s: FlowState, until: float) -> int:
    """Run to the first instant at which a waiter is done, at most to ``until``; return why it stopped."""
    while True:
        now = s.clock[NOW]
        while s.tally[N_PENDING] > 0 and s.flow.start[s.pending_flow[0]] <= now:
            start_flow(s, pop_start(s))
        if s.tally[N_DONE] > 0:
            return SOMEBODY_DONE
        if s.tally[LOGGING] and s.tally[N_LOG] + s.tally[N_LIVE] > len(s.log):
            return LOG_FULL
        if not settle_rates(s):
            return UNSOLVED
        event = s.finish_tree[1]
        if s.tally[N_PENDING] > 0:
            event = min(event, s.flow.start[s.pending_flow[0]])
        if event == INF and until == INF:
            return NEVER
        if s.tally[N_LIVE] > 0 and event < INF and min(event, until) > s.clock[BUCKET_END]:
            s.clock[WANTED] = min(event, until)
            return BUCKETS_FULL
        if event > until:
            s.clock[NOW] = until
            return REACHED
        s.clock[NOW] = event
        s.tally[N_EVENTS] += 1
        finish_due(s)

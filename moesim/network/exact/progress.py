"""What happens in the course of time: flows start and finish, links carry (numba kernels).

``advance`` runs from one event to the next (a start, a completion) without coming back to Python until a
waiter is done, the given time is reached or a buffer is full. Completions that rounding alone holds apart
are one event. What a link carries is integrated whenever its rate changes.
"""

# mypy: allow-untyped-decorators

from moesim.network.exact.lists import INF, least, put
from moesim.network.exact.max_min import solve
from moesim.network.exact.membership import finish_flow, start_due
from moesim.network.exact.state import (
    BUCKET,
    BUCKET_END,
    BUCKET_ORIGIN,
    LIVE,
    LOGGING,
    MOST_AT_ONCE,
    MOST_IDLE,
    N_AT_ONCE,
    N_DONE,
    N_EVENTS,
    N_IDLE,
    N_LIVE,
    N_LOG,
    N_MOVED,
    N_PENDING,
    N_TOUCHED,
    NOW,
    UNTIL_PROOF,
    WANTED,
    FlowState,
)
from moesim.network.kernel_options import inlined, kernel

TOGETHER = 4e-15
"""Completions within this share of the clock's reading are simultaneous: some twenty roundings."""

SOMEBODY_DONE, REACHED, NEVER, LOG_FULL, BUCKETS_FULL, UNSOLVED, STALLED, TO_PROVE = range(8)
"""Why ``advance`` came back."""


@inlined
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


@kernel
def account_all(s: FlowState) -> None:
    """Integrate what every link carried until now."""
    for link in range(len(s.level)):
        account(s, link)


@inlined
def settle(s: FlowState) -> bool:
    """Solve for the rates of this instant and note what changed: link rates, bottlenecks."""
    if not solve(s):
        return False
    for i in range(s.tally[N_TOUCHED]):
        link = s.touched_link[i]
        s.touched[link] = 0
        rate = s.link.capacity[link] if s.link.n_own[link] > 0 else s.foreign[link]
        if rate != s.link.rate[link]:
            account(s, link)
            s.link.rate[link] = rate
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


@kernel
def settle_rates(s: FlowState) -> bool:
    """Solve for the rates of this instant: ``settle`` for those who only look."""
    return bool(settle(s))


@inlined
def finish_due(s: FlowState) -> None:
    """End all flows whose completion is now."""
    now = s.clock[NOW] + TOGETHER * abs(s.clock[NOW])
    while True:
        first, link = least(s.completion)
        if first > now:
            return
        set_at, virtual, level = s.link.set_at[link], s.link.virtual[link], s.level[link]
        begin = s.link.list_ptr[link]
        place = begin + s.link.n_own[link] - 1
        while place >= begin:  # backwards: the last of the link's own fills the gap
            flow = s.place.flow[place]
            if set_at + max(0.0, s.due[flow] - virtual) / level <= now:
                finish_flow(s, flow)
            place -= 1
        put(s.completion, link, INF)  # the link is dirty: solving it finds its next completion


@kernel
def advance(s: FlowState, until: float) -> int:
    """Run to the first instant at which a waiter is done, at most to ``until``; return why it stopped."""
    while True:
        now = s.clock[NOW]
        start_due(s)
        if s.tally[N_DONE] > 0:
            return SOMEBODY_DONE
        if s.tally[LOGGING] and s.tally[N_LOG] + s.tally[N_LIVE] > len(s.log):
            return LOG_FULL
        if not settle(s):
            return UNSOLVED
        if s.tally[UNTIL_PROOF] <= 0 and s.tally[N_LIVE] > 0:
            return TO_PROVE
        event, _ = least(s.completion)
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
        s.clock[NOW] = max(now, event)
        s.tally[N_EVENTS] += 1
        s.tally[UNTIL_PROOF] -= 1
        waiting = s.tally[N_PENDING]
        left = s.tally[N_LIVE] + waiting
        finish_due(s)
        begins = waiting > 0 and s.flow.start[s.pending_flow[0]] <= s.clock[NOW]
        s.tally[N_AT_ONCE] = 0 if event > now else s.tally[N_AT_ONCE] + 1
        s.tally[N_IDLE] = 0 if begins or s.tally[N_LIVE] + s.tally[N_PENDING] < left else s.tally[N_IDLE] + 1
        if s.tally[N_AT_ONCE] > s.tally[MOST_AT_ONCE] or s.tally[N_IDLE] > s.tally[MOST_IDLE]:
            return STALLED

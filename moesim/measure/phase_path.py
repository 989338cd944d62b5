"""One rank's time in an all-to-all phase, wait left out, as the pieces that it passed through one after the other.

Read from the end: the last flow that the rank waited for had been launched, waited for its set-up and its first byte,
and was then held back by one link after the other. Where another of the rank's flows was in progress before that
launch, its pieces come first, and so on back to the entry. Every piece is cut from its own times: constants for
set-up, the engine's log of bottlenecks for the bytes. Together they last as long as the rank was in the phase.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.timeline import LinkUse, PhaseTrace, union_length
from moesim.traffic import Floats, Ints, Ptrs


@dataclass(frozen=True)
class Piece:
    """A stretch of a rank's time in a phase.

    Attributes:
        name: what the rank waited for: a part of the set-up by its name, ``link``, ``down`` (the same while it carries
            nothing), ``floor`` or a part of the exit.
        seconds: how long.
        link: the resource that held the flow back, as the network numbers it, -1 for the flow's own cap; None where
            no link did.
        bytes_per_s: what that link could carry of this all-to-all meanwhile, nan where it is no wire.
        overtaken: of a flow that was in progress until another one, which made the rank stay, was launched.
    """

    name: str
    seconds: float
    link: int | None = None
    bytes_per_s: float = np.nan
    overtaken: bool = False


def path_of_rank(phase: PhaseTrace, rank: int, capacity: Floats) -> list[Piece]:
    """Return the pieces of a rank's time in the phase, the first first.

    Args:
        phase: what became of the phase.
        rank: whose time.
        capacity: of the wires, [links], bytes/s.
    """
    flows = phase.flows
    pieces = [Piece("layout", flows.entry_setup_s)]
    ready = float(phase.enter_s[rank] + flows.entry_setup_s)
    own, waited = flows_of(rank, flows.member_ptr, flows.member_ranks), flows_of(rank, *flows.waiting)
    last = max(ready, phase.finish_s[waited].max(initial=-np.inf))
    if flows.leave_ptr is not None:
        last = max(last, phase.start_s[own].max(initial=-np.inf))
    begin, end = np.maximum(phase.launch_s[own], ready), phase.finish_s[own]
    back: list[list[Piece]] = []
    at = last
    while at > ready:
        running = np.flatnonzero((begin < at) & (end >= at))
        if len(running):
            # The flow that made the rank stay; before its launch, whichever takes the path back furthest.
            ends_here = running[np.isin(own[running], waited) & (end[running] == at)] if at == last else running[:0]
            chosen = running if not len(ends_here) else ends_here
            one = chosen[np.argmin(begin[chosen])]
            pieces_of_flow = _cut(phase, int(own[one]), float(begin[one]), at, capacity)
            back.append([replace(piece, overtaken=at != last) for piece in pieces_of_flow])
            at = float(begin[one])
        else:  # none of its flows was in progress: that is wait
            at = float(end[end < at].max(initial=ready))
    pieces += (piece for flow in reversed(back) for piece in flow)
    if flows.least_s is not None and len(own):
        least = float((phase.launch_s[own] + flows.group_setup_s + flows.least_s[own]).max())
        pieces.append(Piece("floor", max(least - last, 0.0)))
    pieces += (Piece(name, float(seconds[rank])) for name, seconds in flows.exits.items())
    return [piece for piece in pieces if piece.seconds > 0]


def _cut(phase: PhaseTrace, flow: int, begin: float, end: float, capacity: Floats) -> Iterator[Piece]:
    """The pieces of a flow's life between two instants."""
    flows = phase.flows
    at = float(phase.launch_s[flow])
    setup = [*flows.group_setup.items(), *((name, float(each[flow])) for name, each in flows.delays.items())]
    for name, seconds in setup:
        yield Piece(name, min(at + seconds, end) - max(at, begin))
        at += seconds
    changes, use = np.flatnonzero(phase.bottleneck_flow == flow), LinkUse(capacity, phase.capacity_events)
    times = np.append(phase.bottleneck_time_s[changes], phase.finish_s[flow])
    times[0] = phase.start_s[flow]  # flows that take steps are logged at the first step's end
    route = slice(flows.route_ptr[flow], flows.route_ptr[flow + 1])
    for link, since, until in zip(phase.bottleneck_link[changes].tolist(), times[:-1], times[1:], strict=True):
        here = np.flatnonzero(flows.route_links[route] == link)
        since, until = max(float(since), begin), min(float(until), end)
        if not len(here):
            yield Piece("link", until - since, link)
            continue
        down_s = use.down_s(link, since, until)
        seconds = until - since - down_s
        carried = use.mean(link, since, until) * (until - since) * float(flows.efficiency[route][here[0]])
        yield Piece("down", down_s, link)
        yield Piece("link", seconds, link, carried / seconds if seconds > 0 else np.nan)


@dataclass(frozen=True)
class PhaseShares:
    """Every rank's time in a phase, wait left out, [ranks] each: they sum to it."""

    layout_s: Floats
    in_progress_s: Floats
    floor_s: Floats
    exit_s: Floats


def shares_of_ranks(phase: PhaseTrace) -> PhaseShares:
    """Return what all ranks' times in a phase are made of."""
    flows, n_ranks = phase.flows, len(phase.enter_s)
    ready = phase.enter_s + flows.entry_setup_s
    last = ready.copy()
    waiting_ptr, waiting = flows.waiting
    np.maximum.at(last, waiting, np.repeat(phase.finish_s, np.diff(waiting_ptr)))
    flow = np.repeat(np.arange(flows.n_flows), np.diff(flows.member_ptr))
    if flows.leave_ptr is not None:
        np.maximum.at(last, flows.member_ranks, phase.start_s[flow])
    owner = flows.member_ranks
    begin, end = np.maximum(phase.launch_s[flow], ready[owner]), np.minimum(phase.finish_s[flow], last[owner])
    order = np.lexsort((begin, owner))
    ptr = np.searchsorted(owner[order], np.arange(n_ranks + 1))
    least = np.full(n_ranks, -np.inf)
    if flows.least_s is not None:
        np.maximum.at(least, owner, (phase.launch_s + flows.group_setup_s + flows.least_s)[flow])
    return PhaseShares(
        layout_s=np.full(n_ranks, flows.entry_setup_s),
        in_progress_s=union_length(ptr, begin[order], end[order]),
        floor_s=np.maximum(least - last, 0.0),
        exit_s=np.zeros(n_ranks) if flows.exit_s is None else flows.exit_s,
    )


def flows_of(rank: int, ptr: Ptrs, ranks: Ints) -> NDArray[np.int64]:
    """Flows in whose row (CSR) the rank stands."""
    return np.searchsorted(ptr, np.flatnonzero(ranks == rank), side="right") - 1

"""The timeline a second time: guess when flows end, walk the ranks, solve all flows at once, until the guess stands.

No clock, no events: a pass takes every rank through all layers with the flows' ends of the pass before, which says
when flows start; ``solve_flows`` says when those end. What happens up to some instant depends on earlier instants
only, so the passes settle from the front.
"""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np

from moesim.network import solve_flows


def walk(fabric, works, offsets, permutes_first, passes=300):
    """Return one record per layer: ``start`` and ``end`` of each lane, entry, and a record for each phase."""
    ends = None
    for _ in range(passes):
        layers = _one_pass(fabric, works, offsets, permutes_first, ends)
        solved = _solve(fabric, [phase for layer in layers for phase in (layer.dispatch, layer.combine)])
        if ends is not None and all(np.allclose(a, b, rtol=1e-13, atol=0) for a, b in zip(ends, solved, strict=True)):
            return layers
        ends = solved
    raise AssertionError("the passes do not settle")


def _one_pass(fabric, works, offsets, permutes_first, ends):
    now = np.array(offsets, float)
    layers = []
    for index, work in enumerate(works):
        guess = [None, None] if ends is None else ends[2 * index : 2 * index + 2]
        layer = SimpleNamespace(entry=now.copy(), start={}, end={})

        def kernel(name, seconds, layer=layer):
            nonlocal now
            layer.start[name] = now.copy()
            now = now + seconds
            layer.end[name] = now.copy()

        def phase(name, flows, finish, layer=layer):
            nonlocal now
            layer.start[name] = now.copy()
            record = _phase(fabric, flows, now, finish)
            now = record.leave.copy()
            layer.end[name] = now.copy()
            return record

        kernel("gate", work.seconds["gate"])
        if permutes_first:
            kernel("permute", work.seconds["permute"])
        layer.dispatch = phase("dispatch", work.flows["dispatch"], guess[0])
        layer.start["shared_expert"] = layer.start["dispatch"]
        layer.end["shared_expert"] = np.array([_shared(layer, work, rank) for rank in range(fabric.n_ranks)])
        now = np.maximum(now, layer.end["shared_expert"])
        if not permutes_first:
            kernel("permute", work.seconds["permute"])
        kernel("experts", work.seconds["experts"])
        if not permutes_first:
            kernel("unpermute", work.seconds["unpermute"])
        layer.combine = phase("combine", work.flows["combine"], guess[1])
        if permutes_first:
            kernel("unpermute", work.seconds["unpermute"])
        layer.leave = now.copy()
        layers.append(layer)
        now = now + work.seconds["other"]
    return layers


def _phase(fabric, flows, enter, finish):
    """When the flows start, given when ranks enter; when ranks leave, given when the flows end."""
    ready = enter + flows.entry_setup_s
    launch = np.empty(flows.n_flows)
    for flow in range(flows.n_flows):
        gates = flows.gate_ranks[flows.gate_ptr[flow] : flows.gate_ptr[flow + 1]]
        if flows.all_ranks_gate:
            gates = np.arange(fabric.n_ranks)
        launch[flow] = ready[gates].max()
    start = launch + flows.group_setup_s + flows.delay_s
    finish = start if finish is None else np.maximum(finish, start)
    own = _by_rank(fabric, flows.member_ptr, flows.member_ranks)
    awaited = own if flows.leave_ptr is None else _by_rank(fabric, flows.leave_ptr, flows.leave_ranks)
    last = np.array([max([ready[rank], *finish[awaited[rank]], *start[own[rank]]]) for rank in range(fabric.n_ranks)])
    gaps = [
        uncovered([(launch[flow], finish[flow]) for flow in own[rank]], ready[rank], last[rank])
        for rank in range(fabric.n_ranks)
    ]
    least = np.zeros(flows.n_flows) if flows.least_s is None else flows.least_s
    earliest = launch + flows.group_setup_s + least
    done = np.array([max([last[rank], *earliest[own[rank]]]) for rank in range(fabric.n_ranks)])
    leave = np.full(fabric.n_ranks, done.max()) if flows.all_ranks_leave else done.copy()
    for rank in np.flatnonzero(leave > done):
        gaps[rank].append((done[rank], leave[rank]))
    leave = leave if flows.exit_s is None else leave + flows.exit_s
    wait = np.array([sum(end - begin for begin, end in of_rank) for of_rank in gaps])
    record = {"enter": enter.copy(), "ready": ready, "launch": launch, "start": start, "finish": finish}
    record |= {"leave": leave, "done": done}
    return SimpleNamespace(flows=flows, gaps=gaps, wait=wait, **record)


def _by_rank(fabric, ptr, ranks):
    """Flows of each rank."""
    flows = [[] for _ in range(fabric.n_ranks)]
    for flow in range(len(ptr) - 1):
        for rank in ranks[ptr[flow] : ptr[flow + 1]]:
            flows[rank].append(flow)
    return flows


def uncovered(intervals, begin, end):
    """The gaps that the intervals leave in [begin, end], as (from, to); an interval without length parts two gaps."""
    edges = sorted({begin, end, *(edge for interval in intervals for edge in interval if begin < edge < end)})
    gaps = []
    for left, right in pairwise(edges):
        middle = (left + right) / 2
        if not any(low <= middle <= high for low, high in intervals):
            if gaps and gaps[-1][1] == left and not any(low <= left <= high for low, high in intervals):
                gaps[-1] = (gaps[-1][0], right)
            else:
                gaps.append((left, right))
    return gaps


def _shared(layer, work, rank):
    """End of the shared expert: at full speed but for the time in which the dispatch kernel holds SMs."""
    start, seconds, phase = layer.start["dispatch"][rank], work.seconds["shared_expert"][rank], layer.dispatch
    hold = phase.ready.max() if phase.flows.all_ranks_gate else phase.ready[rank]
    release = phase.leave[rank]
    speed = 1 - phase.flows.sms / phase.flows.total_sms
    if start + seconds <= hold:
        return start + seconds
    left = seconds - (hold - start)
    if left <= (release - hold) * speed:
        return hold + left / speed
    return release + left - (release - hold) * speed


def _solve(fabric, phases):
    """Ends of the flows of all phases together, phase by phase."""
    loads = [_resources(fabric, phase.flows) for phase in phases]
    finish = solve_flows(
        np.concatenate([fabric.capacity, np.ones(fabric.n_ranks)]),
        np.zeros(fabric.n_links + fabric.n_ranks),
        np.cumsum([0, *(len(row) for rows in loads for row in rows)]),
        np.array([link for rows in loads for row in rows for link, _ in row], np.int32),
        np.concatenate([phase.flows.size for phase in phases]),
        np.concatenate([phase.start for phase in phases]),
        weight=np.array([weight for rows in loads for row in rows for _, weight in row]),
        rate_cap=np.concatenate(
            [np.full(f.n_flows, np.inf) if f.rate_cap is None else f.rate_cap for f in (p.flows for p in phases)]
        ),
    )
    return np.split(finish, np.cumsum([phase.flows.n_flows for phase in phases])[:-1])


def _resources(fabric, flows):
    """Of each flow: (link, weight) of its wires and, numbered behind them, of the ranks' kernels."""
    rows = []
    for flow in range(flows.n_flows):
        wires = slice(*flows.route_ptr[flow : flow + 2])
        row = list(zip(flows.route_links[wires], flows.share[wires] / flows.efficiency[wires], strict=True))
        if flows.kernel is not None:
            work = slice(*flows.kernel.ptr[flow : flow + 2])
            ranks, seconds = flows.kernel.ranks[work], flows.kernel.s_per_byte[work]
            row += [(fabric.n_links + rank, each) for rank, each in zip(ranks, seconds, strict=True)]
        rows.append(row)
    return rows

"""The lower bound of a layer in plain loops: every rank, every link, every flow by itself."""

from itertools import pairwise


def rows(ptr, ranks, everybody, n_ranks):
    """For each flow the set of its ranks."""
    every = set(range(n_ranks))
    return [every if everybody else set(ranks[a:b].tolist()) for a, b in pairwise(ptr)]


def loads(flows):
    """For each link what each flow puts on it: ``{link: {flow: bytes}}``, without what carries nothing."""
    on = {}
    for flow in range(flows.n_flows):
        for entry in range(flows.route_ptr[flow], flows.route_ptr[flow + 1]):
            wire = flows.size[flow] * flows.share[entry]
            if wire > 0:
                its = on.setdefault(int(flows.route_links[entry]), {})
                its[flow] = its.get(flow, 0.0) + wire
    return on


def bounds(trace, fabric, floor_s):
    """Every chain that takes a layer so long at least: ``{"rank": [...], "dispatch": [...], "combine": [...]}``."""
    out, back, n = trace.dispatch.flows, trace.combine.flows, fabric.n_ranks
    waits = rows(*out.waiting, out.all_ranks_leave, n)
    gates = rows(back.gate_ptr, back.gate_ranks, back.all_ranks_gate, n)
    there, home = loads(out), loads(back)
    number = {name: rank for rank, name in enumerate(fabric.rank_names)}
    ends = [[number.get(end) for end in pair] for pair in zip(fabric.link_source, fabric.link_target, strict=True)]

    def seconds(link, flows):
        return sum(flows.values()) / fabric.capacity[link]

    def is_shared(link):
        return ends[link] == [None, None]

    def of_rank(on, of_flow, rank, its_ends, barrier):
        """Busiest port of a rank with what is its own there."""
        found = [0.0]
        for link, flows in on.items():
            if any(ends[link][end] == rank for end in its_ends) or (barrier and is_shared(link)):
                found.append(seconds(link, {flow: wire for flow, wire in flows.items() if rank in of_flow[flow]}))
        return max(found)

    got = [of_rank(there, waits, rank, (0, 1), out.all_ranks_leave) for rank in range(n)]
    sent = [of_rank(home, gates, rank, (0,), back.all_ranks_gate) for rank in range(n)]
    posted = out.leave_ptr is not None
    return {
        "rank": [got[rank] + floor_s[rank] + sent[rank] for rank in range(n)],
        "dispatch": [
            seconds(link, flows) + min(max(floor_s[rank] + sent[rank] for rank in waits[flow]) for flow in flows)
            for link, flows in there.items()
            if is_shared(link) or posted
        ],
        "combine": [
            seconds(link, flows) + min(max(got[rank] + floor_s[rank] for rank in gates[flow]) for flow in flows)
            for link, flows in home.items()
            if is_shared(link)
        ],
    }

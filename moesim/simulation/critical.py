"""The critical rank of a layer: the last to end. Its time taken apart, and what held it back.

Every instant of the critical rank counts once, in the phase that its main lane is in. For the bottleneck, transfer
time belongs to the link class that holds back the rank's last-finishing flow, wait to the rank waited for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.stages import COMPONENTS, KERNELS, STAGES
from moesim.timeline import LayerTrace, PhaseTrace
from moesim.traffic.flows import Floats, Ints, PhaseFlows, Ptrs

# Ends that differ by no more than rounding are one instant.
_TOGETHER_ULPS = 8


@dataclass(frozen=True)
class CriticalRank:
    """The last rank to end a layer.

    Attributes:
        rank: its number.
        components: the parts of ``layer_time_s`` by name; they sum to it.
        kernel_s: dispatch and combine without wait, layout, notify and CPU synchronisation, by phase.
        held_by: seconds by what held the rank back: ``("link", class)``, ``("rank", number)``, ``("compute", "")``,
            ``("setup", "")``, ``("schedule", "")`` or ``("arrival", number)``.
    """

    rank: int
    components: dict[str, float]
    kernel_s: dict[str, float]
    held_by: dict[tuple[str, str], float]


def critical_rank(trace: LayerTrace, fabric: Fabric) -> CriticalRank:
    """Find the last rank to end and take its time apart.

    The flags of an all-to-all often let every rank leave at one instant. Among those that end together, the critical
    one is the rank that waited least: the others waited for it. Then ties go to the lowest rank.
    """
    last = trace.end_s_of_layer.max()
    together = trace.end_s_of_layer >= last - _TOGETHER_ULPS * np.spacing(last)
    rank = int(np.argmin(np.where(together, trace.wait_s, np.inf)))
    took = {name: float(trace.end_s[name][rank] - trace.start_s[name][rank]) for name in trace.phases}
    waits = {name: float(phase.wait_s[rank]) for name, phase in trace.phases.items()}
    exposed = {stage.name: float(trace.exposed_s(stage.name)[rank]) for stage in KERNELS}
    components = dict.fromkeys(COMPONENTS, 0.0)
    components["arrival"] = float(trace.entry_s[rank] - trace.entry_s.min())
    # Between stages of the layer the rank is busy with another micro-batch: zero where there is only one.
    idle = float(trace.idle_s[rank])
    components["wait"] = float(trace.wait_s[rank]) + idle
    for stage in STAGES:
        spent = took[stage.name] - waits[stage.name] if stage.kind == "phase" else exposed[stage.name]
        components[stage.component] += spent
    held_by: dict[tuple[str, str], float] = {}

    def add(kind: str, what: str, seconds: float) -> None:
        if seconds > 0:
            held_by[kind, what] = held_by.get((kind, what), 0.0) + seconds

    add("arrival", str(rank), components["arrival"])
    add("compute", "", sum(exposed.values()))
    add("schedule", "", idle)
    for name, phase in trace.phases.items():
        add("rank", str(phase.waited_on[rank]), waits[name])
        kernel = float(phase.kernel_s[rank])
        tail = min(float(phase.tail_s[rank]), kernel)
        add("setup", "", took[name] - waits[name] - kernel)
        add("link", "kernel", tail)
        shares, delay = _held_back_by(phase, rank, fabric)
        delay = min(delay, kernel - tail)
        add("link", "latency", delay)
        for link_class, share in shares.items():
            add("link", link_class, (kernel - tail - delay) * share)
    return CriticalRank(
        rank=rank,
        components={f"{name}_time_s": seconds for name, seconds in components.items()},
        kernel_s={name: float(phase.kernel_s[rank]) for name, phase in trace.phases.items()},
        held_by=held_by,
    )


def _held_back_by(phase: PhaseTrace, rank: int, fabric: Fabric) -> tuple[dict[str, float], float]:
    """Of the flows that the rank waited for, the last: share of its time in which a link of each class held it back.

    Also the seconds before its first byte, which no link is to blame for. A flow without bytes has no bottleneck at
    all: what it takes is latency. So is what a rank takes to post, where everything for it had come before.
    """
    flows = phase.flows
    waited, own = _flows_of(rank, *flows.waiting), _flows_of(rank, flows.member_ptr, flows.member_ranks)
    if not len(own):
        return {}, 0.0
    posted_s = phase.start_s[own].max()
    if not len(waited) or posted_s > phase.finish_s[waited].max():
        return {"latency": 1.0}, 0.0
    flow = int(waited[np.argmax(phase.finish_s[waited])])
    changes = np.flatnonzero(phase.bottleneck_flow == flow)
    times = np.append(phase.bottleneck_time_s[changes], phase.finish_s[flow])
    links = phase.bottleneck_link[changes]
    shares: dict[str, float] = {}
    for link, seconds in zip(links, np.diff(times), strict=True):
        name = fabric.link_class[link] if 0 <= link < fabric.n_links else "kernel" if link >= 0 else "rate cap"
        shares[name] = shares.get(name, 0.0) + float(seconds)
    total = sum(shares.values())
    if total <= 0:
        return {"latency": 1.0}, 0.0
    return {name: seconds / total for name, seconds in shares.items()}, float(flows.delay_s[flow])


def _flows_of(rank: int, ptr: Ptrs, ranks: Ints) -> NDArray[np.int64]:
    """Flows in whose row the rank stands."""
    return np.searchsorted(ptr, np.flatnonzero(ranks == rank), side="right") - 1


def describe_bottleneck(held_by: dict[tuple[str, str], float], total_s: float) -> tuple[str, str, str]:
    """Put the largest of what held the critical ranks back in words.

    Returns:
        The sentence, the kind and what: ``("NVLink holds the critical rank for 61 % ...", "link", "nvlink")``.
    """
    if not held_by or total_s <= 0:
        return "nothing: the layer takes no time", "none", ""
    (kind, what), seconds = max(held_by.items(), key=lambda item: (item[1], item[0]))
    share = f"{100 * seconds / total_s:.0f} % of the layer time"
    words = {
        "link": f"{_LINK_WORDS.get(what, what)}: {share}",
        "compute": f"compute on the critical rank: {share}",
        "rank": f"waiting for rank {what}: {share}",
        "setup": f"set-up of the all-to-all (layout, notify, CPU synchronisation): {share}",
        "arrival": f"late arrival of rank {what}: {share}",
        "schedule": f"another micro-batch on the critical rank: {share}",
    }
    return words[kind], kind, what


_LINK_WORDS = {
    "nvlink": "NVLink",
    "nic": "the NICs",
    "leaf-spine": "the leaf-spine links",
    "latency": "latency and set-up of the flows",
    "rate cap": "what one pair of GPUs reaches",
    "kernel": "the communication kernel",
}


def lower_bound_s(trace: LayerTrace, fabric: Fabric, experts_floor_s: Floats) -> float:
    """Return what no schedule of these flows can beat, in seconds.

    Largest over ranks of: busiest own dispatch port's bytes over its peak, the floor time of the rank's routed
    experts, busiest own combine port's bytes sent over its peak. A port is a link that ends at the rank's GPU; its own
    bytes are those that it waits for in dispatch, and those that wait for it in combine. Where ranks post bytes, all
    bytes of a link bound the quickest of those who wait for them.
    """
    into, out = _rank_ports(fabric.link_target, fabric), _rank_ports(fabric.link_source, fabric)
    flows, back = trace.dispatch.flows, trace.combine.flows
    waiting_ptr, waiting = flows.waiting
    busiest, sent = np.zeros(fabric.n_ranks), np.zeros(fabric.n_ranks)
    for rank_of_link in (into, out):
        at_rank = rank_of_link >= 0
        own = _bytes_at(flows, rank_of_link, waiting_ptr, waiting, flows.all_ranks_leave) / fabric.capacity
        np.maximum.at(busiest, rank_of_link[at_rank], own[at_rank])
    at_rank = out >= 0
    own = _bytes_at(back, out, back.gate_ptr, back.gate_ranks, back.all_ranks_gate) / fabric.capacity
    np.maximum.at(sent, out[at_rank], own[at_rank])
    bound = float((experts_floor_s + busiest + sent).max())
    if flows.leave_ptr is None:
        return bound
    quickest = np.full(fabric.n_links, np.inf)
    flow = np.repeat(np.arange(flows.n_flows), np.diff(flows.route_ptr))
    carries = flows.size[flow] > 0
    least = np.minimum.reduceat(np.append((experts_floor_s + sent)[waiting], np.inf), waiting_ptr[:-1])
    np.minimum.at(quickest, flows.route_links[carries], least[flow[carries]])
    posted = flows.link_wire_bytes(fabric.n_links) / fabric.capacity + quickest
    return max(bound, float(posted.max(initial=0.0, where=np.isfinite(posted))))


def _bytes_at(flows: PhaseFlows, rank_of_link: NDArray[np.int64], ptr: Ptrs, ranks: Ints, everybody: bool) -> Floats:
    """Bytes on each link of the flows in whose row of ranks (CSR) the one at the link stands, [links]."""
    if everybody:
        return flows.link_wire_bytes(len(rank_of_link))
    flow = np.repeat(np.arange(flows.n_flows), np.diff(flows.route_ptr))
    here, found = rank_of_link[flows.route_links], np.zeros(len(flow), np.bool_)
    # One place of the rows after the other: few flows have long ones.
    place, left = 0, np.flatnonzero(here >= 0)
    while len(left := left[~found[left] & (ptr[flow[left]] + place < ptr[flow[left] + 1])]):
        found[left] = ranks[ptr[flow[left]] + place] == here[left]
        place += 1
    on_link = np.where(found, flows.size[flow] * flows.share, 0.0)
    return np.bincount(flows.route_links, weights=on_link, minlength=len(rank_of_link)).astype(np.float64)


def _rank_ports(ends: tuple[str, ...], fabric: Fabric) -> NDArray[np.int64]:
    """Rank whose GPU stands at this end of each link, -1 where it is a switch, [links]."""
    rank_of = {name: rank for rank, name in enumerate(fabric.rank_names)}
    return np.array([rank_of.get(end, -1) for end in ends], np.int64)

"""The ranks' time in a layer taken apart, and what held back the critical rank: the last to end.

Every instant of a rank counts once, in the phase that its main lane is in. For the bottleneck, transfer time belongs to
the link class that holds back the rank's last-finishing flow, wait to the rank waited for.
"""

from dataclasses import dataclass

import numpy as np

from moesim.cluster import Fabric
from moesim.measure.phase_path import flows_of
from moesim.stages import COMPONENTS, KERNEL_COMPONENTS, STAGES
from moesim.timeline import LayerTrace, PhaseTrace
from moesim.traffic import QUEUES, Floats, Ints

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
        of_ranks: the same parts of every rank's time, [ranks] each.
    """

    rank: int
    components: dict[str, float]
    kernel_s: dict[str, float]
    held_by: dict[tuple[str, str], float]
    of_ranks: dict[str, Floats]


def rank_components(trace: LayerTrace) -> dict[str, Floats]:
    """Take the time of every rank in a layer apart: seconds by the names of ``COMPONENTS``, [ranks] each.

    Dispatch and combine are time in the phase less the wait there; expert compute is the routed experts and what of the
    shared expert outlasts dispatch. A rank's row sums to its end less the first rank's entry.
    """
    spent: dict[str, Floats] = dict.fromkeys(COMPONENTS, np.zeros(len(trace.entry_s)))
    for stage in STAGES:
        own = trace.exposed_s(stage.name)
        if stage.kind == "phase":
            own = trace.end_s[stage.name] - trace.start_s[stage.name] - trace.phases[stage.name].wait_s
        spent[stage.component] = spent[stage.component] + own
    spent |= {"arrival": trace.entry_s - trace.entry_s.min(), "wait": trace.wait_s + trace.idle_s}
    return {f"{name}_time_s": seconds for name, seconds in spent.items()}


def critical_rank(trace: LayerTrace, fabric: Fabric) -> CriticalRank:
    """Find the last rank to end and take its time apart.

    The flags of an all-to-all often let every rank leave at one instant. Among those that end together, the critical
    one is the rank that waited least: the others waited for it. Then ties go to the lowest rank.
    """
    last = trace.end_s_of_layer.max()
    together = trace.end_s_of_layer >= last - _TOGETHER_ULPS * np.spacing(last)
    parts = rank_components(trace)
    rank = int(np.argmin(np.where(together, parts["wait_time_s"], np.inf)))
    components = {name: float(seconds[rank]) for name, seconds in parts.items()}
    held_by: dict[tuple[str, str], float] = {}

    def add(kind: str, what: str, seconds: float) -> None:
        if seconds > 0:
            held_by[kind, what] = held_by.get((kind, what), 0.0) + seconds

    add("arrival", str(rank), components["arrival_time_s"])
    add("compute", "", sum(components[f"{name}_time_s"] for name in KERNEL_COMPONENTS))
    add("schedule", "", float(trace.idle_s[rank]))
    for name, phase in trace.phases.items():
        add("rank", str(phase.waited_on[rank]), float(phase.wait_s[rank]))
        kernel = float(phase.kernel_s[rank])
        tail = min(float(phase.tail_s[rank]), kernel)
        add("setup", "", components[f"{name}_time_s"] - kernel)
        queued = min(float(phase.flows.exits[QUEUES][rank]), tail) if QUEUES in phase.flows.exits else 0.0
        add("link", "kernel", tail - queued)
        shares, delay = _held_back_by(phase, rank, fabric)
        delay = min(delay, kernel - tail)
        add("link", "latency", delay + queued)
        for link_class, share in shares.items():
            add("link", link_class, (kernel - tail - delay) * share)
    return CriticalRank(
        rank=rank,
        components=components,
        kernel_s={name: float(phase.kernel_s[rank]) for name, phase in trace.phases.items()},
        held_by=held_by,
        of_ranks=parts,
    )


def _held_back_by(phase: PhaseTrace, rank: int, fabric: Fabric) -> tuple[dict[str, float], float]:
    """Of the flows that the rank waited for, the last: share of its time in which a link of each class held it back.

    Also the seconds before its first byte, which no link is to blame for. A flow without bytes has no bottleneck at
    all: what it takes is latency. So is what a rank takes to post, where everything for it had come before.
    """
    flows = phase.flows
    waited, own = flows_of(rank, *flows.waiting), flows_of(rank, flows.member_ptr, flows.member_ranks)
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


def longest_held(phase: PhaseTrace, links: Ints) -> tuple[int, float]:
    """Return which of some links holds a flow back for longest without a break, -1 for none, and the seconds."""
    flows = np.unique(phase.bottleneck_flow[np.isin(phase.bottleneck_link, links)])
    if not len(flows):
        return -1, 0.0
    own = np.flatnonzero(np.isin(phase.bottleneck_flow, flows))
    own = own[np.lexsort((phase.bottleneck_time_s[own], phase.bottleneck_flow[own]))]
    flow, since = phase.bottleneck_flow[own], phase.bottleneck_time_s[own]
    until = np.where(np.append(flow[1:] != flow[:-1], True), phase.finish_s[flow], np.append(since[1:], 0.0))
    seconds = np.where(np.isin(phase.bottleneck_link[own], links), until - since, 0.0)
    longest = int(np.argmax(seconds))
    return int(phase.bottleneck_link[own][longest]), float(seconds[longest])


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
        "schedule": f"waiting for weights, or for another micro-batch, on the critical rank: {share}",
    }
    return words[kind], kind, what


_LINK_WORDS = {
    "nvlink": "NVLink",
    "nic": "the NICs",
    "leaf-spine": "the leaf-spine links",
    "latency": "latency and set-up of the flows",
    "rate cap": "the rate limit of one pair of GPUs",
    "kernel": "the communication kernel",
}

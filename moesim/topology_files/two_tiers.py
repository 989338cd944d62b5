"""Leaves under spines as a file lists them: is it a rail, a leaf-spine, planes or none of the regular kinds?"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from moesim.topology_files.imported import Facts
from moesim.topology_files.listing import network_gbps, time_of

Place = tuple[int, int]


@dataclass
class TwoTiers:
    """NICs, leaves and spines of a fabric.

    Attributes:
        leaf: (node, index in the node) to the leaf of this NIC.
        nic: (node, index) to bytes/s.
        up: (leaf, spine) to bytes/s of all parallel links.
    """

    leaf: dict[Place, str]
    nic: dict[Place, float]
    up: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def spines(self) -> int:
        """Number of spines."""
        return len({spine for _, spine in self.up})

    def shape(self) -> tuple[str, int]:
        """Kind and nodes per leaf; kind "" where no regular one holds it."""
        per_node = Counter(node for node, _ in self.leaf)
        nodes, index = len(per_node), {i for _, i in self.leaf}
        on: dict[str, list[Place]] = defaultdict(list)
        for place, leaf in self.leaf.items():
            on[leaf].append(place)
        joined = len(self.up) == self.spines * len(on) and all(leaf in on for leaf, _ in self.up)
        if len(set(per_node.values())) != 1 or not joined or len(set(self.up.values())) > 1:
            return "", 0
        if len(on) == len(index) and all(len({i for _, i in places}) == 1 for places in on.values()):
            if len(on) > 1 and not self.up:  # what no spine joins goes over NVLink to the GPU of the right rail
                return "multi-plane", max(nodes, 32)
            return ("rail", 0) if len(on) > 1 or len(index) == 1 else ("leaf-spine", nodes)
        groups = [sorted({node for node, _ in places}) for places in on.values()]
        whole = all(len(places) == len(group) * len(index) for places, group in zip(on.values(), groups, strict=True))
        width = len(groups[0])
        in_order = [node for group in groups for node in group] == list(range(nodes))
        even = all(len(group) == width for group in groups[:-1]) and len(groups[-1]) <= width
        return ("leaf-spine", width) if whole and in_order and even and (self.up or len(on) == 1) else ("", 0)

    def spec(self, gpu: str, inside: Facts, nic_latency: float | None = None, up_latency: float = 0.0) -> Facts | None:
        """The regular topology of nodes like ``inside`` with the rate that most NICs have; None where none holds it."""
        kind, per_leaf = self.shape()
        if not kind:
            return None
        usual = Counter(self.nic.values()).most_common(1)[0][0]
        index = {i for _, i in self.leaf}
        spec: Facts = {"kind": kind, "gpu": gpu, "nodes": len(self.leaf) // len(index), "gpus_per_node": len(index)}
        latencies = [{} if nic_latency is None else {"latency": time_of(s)} for s in (nic_latency or 0, up_latency)]
        spec |= inside | {"nic": {"bandwidth": network_gbps(usual)} | latencies[0]}
        spec |= {"nodes_per_leaf": per_leaf} if per_leaf else {}
        spec["leaf_spine"] = {"spines": self.spines or 1}
        if self.up:
            spec["leaf_spine"] |= {"uplink_bandwidth": network_gbps(next(iter(self.up.values())))} | latencies[1]
        return spec | {"routing": "spray" if kind == "multi-plane" else "hash"}

    def oversubscription(self) -> dict[str, float]:
        """Of each leaf the NICs' capacity over that towards the spines."""
        below, above = Counter[str](), Counter[str]()
        for place, leaf in self.leaf.items():
            below[leaf] += self.nic[place]  # type: ignore[assignment]
        for (leaf, _), rate in self.up.items():
            above[leaf] += rate  # type: ignore[assignment]
        return {leaf: below[leaf] / above[leaf] for leaf in below if above[leaf]}

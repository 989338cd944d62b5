"""Leaves under spines as a file lists them: is it a rail, a leaf-spine or none of the regular kinds?

``port`` [(node, index)] is the leaf of each NIC. Links are summed over parallel ones, bytes/s.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

Rates = dict[tuple[str, str], float]


@dataclass
class TwoTiers:
    """NICs, leaves and spines of a fabric.

    Attributes:
        leaf: (node, index in the node) to the leaf of this NIC.
        nic: (node, index) to bytes/s.
        up: (leaf, spine) to bytes/s of all parallel links.
    """

    leaf: dict[tuple[int, int], str]
    nic: dict[tuple[int, int], float]
    up: Rates = field(default_factory=dict)

    def shape(self) -> tuple[str, int]:
        """Kind and nodes per leaf; kind "" where no regular one holds it."""
        per_node = Counter(node for node, _ in self.leaf)
        nodes, index = len(per_node), {i for _, i in self.leaf}
        spines, leaves = {spine for _, spine in self.up}, dict.fromkeys(self.leaf.values())
        joined = len(self.up) == len(spines) * len(leaves)
        if len(set(per_node.values())) != 1 or not joined or any(leaf not in leaves for leaf, _ in self.up):
            return "", 0
        if (len(leaves) > 1 and not spines) or len(set(self.up.values())) > 1:
            return "", 0
        on: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, leaf in self.leaf.items():
            on[leaf].append(place)
        if len(leaves) == len(index) and all(len({i for _, i in places}) == 1 for places in on.values()):
            return ("rail", 0) if len(leaves) > 1 or len(index) == 1 else ("leaf-spine", nodes)
        groups = [sorted({node for node, _ in places}) for places in on.values()]
        whole = all(len(places) == len(group) * len(index) for places, group in zip(on.values(), groups, strict=True))
        width = len(groups[0])
        in_order = [node for group in groups for node in group] == list(range(nodes))
        if whole and in_order and all(len(group) == width for group in groups[:-1]) and len(groups[-1]) <= width:
            return "leaf-spine", width
        return "", 0

    def oversubscription(self) -> dict[str, float]:
        """Of each leaf the NICs' capacity over that towards the spines."""
        below: dict[str, float] = defaultdict(float)
        above: dict[str, float] = defaultdict(float)
        for place, leaf in self.leaf.items():
            below[leaf] += self.nic[place]
        for (leaf, _), rate in self.up.items():
            above[leaf] += rate
        return {leaf: below[leaf] / above[leaf] for leaf in below if above[leaf]}

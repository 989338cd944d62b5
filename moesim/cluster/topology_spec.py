"""What a topology file may say: one pydantic model for each kind of cluster.

Four regular kinds are described by a few numbers (``hgx``: one node; ``rail``: NIC i of every node on leaf i;
``leaf-spine``: all NICs of a node on the node's leaf; ``multi-plane``: NIC i of every node in a fat tree of its own);
``explicit`` lists every device and link.
Bandwidths are peak payload rates of one direction and need a unit (``50GB/s``, ``400Gb/s``), so do
latencies (``2.8us``). An unknown key is an error.

Default latencies are the one-way 64-byte figures of DeepSeek-AI, "Insights into DeepSeek-V3" (ISCA 2025),
table 5: InfiniBand 2.8 us under one leaf and 3.7 us across leaves (so 0.9 us for the way over a spine),
NVLink 3.33 us. They are end to end, from CPU to CPU, hence include the end points' own cost.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from moesim.cluster.devices import Device, Latency, Link, PositiveBandwidth, Section
from moesim.cluster.explicit_checks import explicit_mistakes
from moesim.cluster.packets import FabricKind
from moesim.mistakes import Mistakes
from moesim.units import Count, NicBandwidth, Number

# Larger files are taken for typos: tables per rank, and routes per pair of leaf and spine, must fit memory.
MAX_RANKS = 65_536
MAX_LEAF_SPINE_PAIRS = 100_000
# Ways of nodes without NVLink are found in the graph itself, which takes memory with the square of the ranks.
MAX_GRAPH_RANKS = 1_024

GpuName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{0,31}$",
        description="Name of the GPU in lower case, e.g. h800: it picks kernel timings and calibrated rates.",
    ),
]


class Nvlink(Section):
    """The NVLink ports of one GPU towards the NVSwitches of its node."""

    bandwidth: PositiveBandwidth = Field(description="Peak of one GPU and direction, all its NVLinks together.")
    latency: Latency = Field(default=3.33e-6, description="Latency one way from GPU to GPU, whole route.")


class Pcie(Section):
    """PCIe between the GPUs of a node without NVLink: a link of each GPU and of each card to its host bridge (CPU).

    PCIe links have no latency of their own.
    """

    bandwidth: PositiveBandwidth = Field(description="Peak of one PCIe link and direction.")
    hosts: Count = Field(
        default=1, ge=1, le=64, description="Host bridges (CPUs) of a node; cards are shared out evenly, in order."
    )
    between_hosts: PositiveBandwidth | None = Field(
        default=None, description="Peak between two host bridges and direction, where there are several."
    )

    @model_validator(mode="after")
    def _joined(self) -> Self:
        if (self.hosts > 1) != (self.between_hosts is not None):
            what = f"{self.hosts} host bridges, and between_hosts is {'not ' * (self.hosts > 1)}given"
            raise Mistakes((("hosts",), what, "give hosts above 1 and between_hosts together"))
        return self


class Nic(Section):
    """The network cards of one GPU, or of a node where GPUs share them."""

    bandwidth: NicBandwidth = Field(description="Peak of one port of a card and direction.")
    latency: Latency = Field(default=2.8e-6, description="Latency one way from GPU to GPU under one leaf, whole route.")
    per_gpu: Count = Field(
        default=1, ge=1, le=16, description="Cards of each GPU; traffic is striped over them: one port of the sum."
    )
    per_node: Count | None = Field(
        default=None, ge=1, le=1024, description="Cards of a node, instead of per_gpu: fewer than GPUs are shared."
    )
    gpus: tuple[tuple[Count, ...], ...] | None = Field(
        default=None,
        max_length=1024,
        description="The GPUs of a node that hang on each card, such as [[0, 1], [2, 3]]; consecutive by default.",
    )
    ports: Count = Field(default=1, ge=1, le=4, description="Ports of each card; traffic is striped over them.")
    pcie: PositiveBandwidth | None = Field(
        default=None,
        description="Peak of one PCIe link and direction: a card's ports reach no more together, a GPU on a shared "
        "card no more alone. Default: no limit of its own.",
    )
    card: Literal["connectx", "efa"] = Field(
        default="connectx", description="Kind of card, which decides who posts to it (alltoall.transport: auto)."
    )

    @property
    def card_bandwidth(self) -> float:
        """Bytes/s of one card and direction, all its ports."""
        return min(self.bandwidth * self.ports, self.pcie or float("inf"))

    def cards(self, gpus_per_node: int) -> tuple[tuple[int, ...], ...] | None:
        """The GPUs of a node that hang on each card; None where every GPU has cards of its own.

        Raises:
            Mistakes: cards that GPUs cannot be divided among, or GPUs listed twice or not at all.
        """
        count = len(self.gpus) if self.gpus is not None else self.per_node
        if count is None or (self.gpus is None and count % gpus_per_node == 0):
            return None
        every = range(gpus_per_node)
        if "per_gpu" in self.model_fields_set:
            raise Mistakes((("nic", "per_gpu"), "cards are of a GPU and of a node", "keep per_gpu or per_node"))
        if self.gpus is not None:
            if self.per_node not in (None, count) or sorted(gpu for own in self.gpus for gpu in own) != list(every):
                what = f"{count} cards do not hold GPUs 0 to {gpus_per_node - 1} once each"
                raise Mistakes((("nic", "gpus"), what, "list every GPU of the node on one card"))
            return self.gpus
        if gpus_per_node % count:
            what = f"{gpus_per_node} GPUs cannot be divided evenly among {count} cards"
            raise Mistakes((("nic", "per_node"), what, "say which GPUs hang on each card with gpus"))
        each = gpus_per_node // count
        return tuple(tuple(every[first : first + each]) for first in every[::each])

    def per_gpu_bandwidth(self, gpus_per_node: int) -> float:
        """Bytes/s of a GPU's own cards together, where it has some."""
        return self.card_bandwidth * (self.per_gpu if self.per_node is None else self.per_node // gpus_per_node)


class LeafSpine(Section):
    """The links between leaf and spine switches; every leaf is joined to every spine."""

    spines: Count = Field(ge=1, le=1024, description="Spine switches, each joined to each leaf by one link.")
    oversubscription: Number = Field(
        default=1.0,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="A leaf's capacity towards its GPUs over that towards the spines; 1 is full bisection.",
    )
    uplink_bandwidth: PositiveBandwidth | None = Field(
        default=None, description="Peak of one leaf-spine link and direction, instead of oversubscription."
    )
    latency: Latency = Field(default=0.9e-6, description="Latency that the way over a spine adds, one way.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.uplink_bandwidth is not None and "oversubscription" in self.model_fields_set:
            what = "uplink_bandwidth and oversubscription are both given"
            raise Mistakes((("uplink_bandwidth",), what, "keep one: each determines the other"))
        return self


Spreading = Literal["hash", "static", "spray"]
SPREADING = (
    "How traffic between leaves spreads over the spines. hash: ECMP, one spine for each pair of ranks "
    "by a seeded hash; static: by the target's place on its leaf; spray: ideal packet spraying or adaptive "
    "routing, all uplinks of a leaf act as one."
)

FABRIC = (
    "What carries packets between switches: roce, infiniband or ultra-ethernet; it says what packets do over spines "
    "that flows do not show. Default: roce where routing is hash, else infiniband."
)


class Topology(Section):
    """What every kind of topology says."""

    description: str = Field(default="", max_length=400, description="One sentence that describes it.")
    gpu: GpuName


class RegularTopology(Topology):
    """What nodes alike say: GPUs behind NVSwitches, or joined by PCIe alone."""

    gpus_per_node: Count = Field(default=8, ge=1, le=1024, description="GPUs of a node.")
    nvlink: Nvlink | None = Field(default=None, description="The NVLink ports of each GPU; this or pcie.")
    pcie: Pcie | None = Field(default=None, description="PCIe between the GPUs of a node that has no NVLink.")
    nic: Nic | None = Field(default=None, description="The network cards of each GPU.")

    @model_validator(mode="after")
    def _joined_one_way(self) -> Self:
        if (self.nvlink is None) == (self.pcie is None):
            what = "nvlink or pcie is required" if self.nvlink is None else "nvlink and pcie are both given"
            raise Mistakes((("nvlink",), what, "give nvlink; of GPUs that PCIe alone joins, pcie: {bandwidth: ...}"))
        if self.nic is not None:
            self.nic.cards(self.gpus_per_node)
        return self


class HgxTopology(RegularTopology):
    """One node; NICs, if given, all on one leaf and idle."""

    kind: Literal["hgx"]


class TwoTierTopology(RegularTopology):
    """Nodes under leaves under spines."""

    nodes: Count = Field(ge=1, le=8192, description="Nodes, each one NVLink domain (or one host without NVLink).")
    nic: Nic = Field(description="The network cards of each GPU.")
    leaf_spine: LeafSpine = Field(description="The links between leaves and spines.")
    routing: Spreading = Field(default="hash", description=SPREADING)
    fabric: FabricKind | None = Field(default=None, description=FABRIC)

    @model_validator(mode="after")
    def _of_a_sane_size(self) -> Self:
        if isinstance(self, MultiPlaneTopology) and self.nic.cards(self.gpus_per_node) is not None:
            what = "GPUs that share a card are not in planes of their own"
            raise Mistakes((("nic", "per_node"), what, "use kind rail or leaf-spine"))
        if self.pcie is not None and isinstance(self, MultiPlaneTopology):
            raise Mistakes((("pcie",), "planes are joined over NVLink alone", "use kind rail or leaf-spine"))
        if self.pcie is not None and self.nodes * self.gpus_per_node > MAX_GRAPH_RANKS:
            what = (
                f"{self.nodes} nodes of {self.gpus_per_node} GPUs without NVLink are more than {MAX_GRAPH_RANKS} ranks"
            )
            raise Mistakes((("nodes",), what, "use fewer nodes"))
        if self.pcie is not None and self.routing == "static":
            raise Mistakes((("routing",), "static routing is not for nodes without NVLink", "use hash or spray"))
        if self.nodes * self.gpus_per_node > MAX_RANKS:
            what = f"{self.nodes} nodes of {self.gpus_per_node} GPUs are more than {MAX_RANKS} ranks"
            raise Mistakes((("nodes",), what, "use fewer nodes"))
        leaves = _n_leaves(self)
        if leaves * self.leaf_spine.spines > MAX_LEAF_SPINE_PAIRS:
            what = f"{self.leaf_spine.spines} spines on {leaves} leaves are too many links"
            raise Mistakes((("leaf_spine", "spines"), what, "use fewer spines of more bandwidth"))
        return self


class RailTopology(TwoTierTopology):
    """Rail-optimised: the NIC of GPU i of every node is on leaf i; spines join the rails."""

    kind: Literal["rail"]


class LeafSpineTopology(TwoTierTopology):
    """All NICs of a node on one leaf; spines join the leaves."""

    kind: Literal["leaf-spine"]
    nodes_per_leaf: Count = Field(default=1, ge=1, le=8192, description="Nodes that share a leaf.")


class MultiPlaneTopology(TwoTierTopology):
    """Multi-plane fat tree: NIC i of every node is in plane i, leaves and spines of its own; no link joins planes.

    Traffic for another plane first goes over NVLink to the GPU of that plane in the source's node.
    """

    kind: Literal["multi-plane"]
    nodes_per_leaf: Count = Field(default=32, ge=1, le=8192, description="Nodes that share a leaf in each plane.")


def _n_leaves(spec: TwoTierTopology) -> int:
    if isinstance(spec, MultiPlaneTopology):
        return -(-spec.nodes // spec.nodes_per_leaf) * spec.gpus_per_node
    if isinstance(spec, LeafSpineTopology):
        return -(-spec.nodes // spec.nodes_per_leaf)
    return spec.gpus_per_node


class ExplicitTopology(Topology):
    """Every device and link by name; ranks are the GPUs, ordered by node and then as listed."""

    kind: Literal["explicit"]
    nodes: tuple[Device, ...] = Field(min_length=1, max_length=20_000, description="Devices.")
    links: tuple[Link, ...] = Field(max_length=200_000, description="Links.")
    fabric: FabricKind | None = Field(default=None, description=FABRIC)

    @model_validator(mode="after")
    def _is_a_graph(self) -> Self:
        mistakes = explicit_mistakes(self.nodes, self.links)
        if mistakes:
            raise Mistakes(*mistakes)
        return self


AnyTopology = HgxTopology | RailTopology | LeafSpineTopology | MultiPlaneTopology | ExplicitTopology
KINDS: dict[str, type[AnyTopology]] = {
    "hgx": HgxTopology,
    "rail": RailTopology,
    "leaf-spine": LeafSpineTopology,
    "multi-plane": MultiPlaneTopology,
    "explicit": ExplicitTopology,
}

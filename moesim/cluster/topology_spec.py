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
from moesim.units import Count, Number

# Larger files are taken for typos: tables per rank, and routes per pair of leaf and spine, must fit memory.
MAX_RANKS = 65_536
MAX_LEAF_SPINE_PAIRS = 100_000

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


class Nic(Section):
    """The network cards of one GPU."""

    bandwidth: PositiveBandwidth = Field(description="Peak of one card and direction.")
    latency: Latency = Field(default=2.8e-6, description="Latency one way from GPU to GPU under one leaf, whole route.")
    per_gpu: Count = Field(
        default=1,
        ge=1,
        le=16,
        description="Cards of each GPU; traffic is striped over them: one port of the sum.",
    )
    card: Literal["connectx", "efa"] = Field(
        default="connectx", description="Kind of card, which decides who posts to it (alltoall.transport: auto)."
    )


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


class HgxTopology(Topology):
    """One node: GPUs behind NVSwitches; NICs, if given, all on one leaf and idle."""

    kind: Literal["hgx"]
    gpus_per_node: Count = Field(default=8, ge=1, le=1024, description="GPUs of the node.")
    nvlink: Nvlink = Field(description="The NVLink ports of each GPU.")
    nic: Nic | None = Field(default=None, description="The network cards of each GPU.")


class TwoTierTopology(Topology):
    """Nodes under leaves under spines."""

    nodes: Count = Field(ge=1, le=8192, description="Nodes, each one NVLink domain.")
    gpus_per_node: Count = Field(default=8, ge=1, le=1024, description="GPUs of a node.")
    nvlink: Nvlink = Field(description="The NVLink ports of each GPU.")
    nic: Nic = Field(description="The network cards of each GPU.")
    leaf_spine: LeafSpine = Field(description="The links between leaves and spines.")
    routing: Spreading = Field(default="hash", description=SPREADING)
    fabric: FabricKind | None = Field(default=None, description=FABRIC)

    @model_validator(mode="after")
    def _of_a_sane_size(self) -> Self:
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

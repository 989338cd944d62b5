"""The blocks that say where a scenario runs: the cluster, and how the model is spread over it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from moesim.errors import InputError
from moesim.mistakes import Loc, Mistakes, did_you_mean
from moesim.placement_policies import GROUP_PLACEMENTS
from moesim.regular_clusters import EXAMPLES, FabricKind, RegularCluster
from moesim.scenario.named_files import is_path
from moesim.scenario.sections import Block, Name, Place
from moesim.units import Bandwidth, Count, NicBandwidth, Number

_REGULAR = ("gpu", "nodes", "gpus_per_node", "fabric", "oversubscription", "nics_per_node")


class LinkOverride(Block):
    """Links that are not as the topology has them."""

    where: Place | Annotated[tuple[Place, ...], Field(min_length=1)] = Field(
        description="A place or a list of places, such as n3.gpu2.nic, rail2, spine0 or n3.gpu2->leaf2."
    )
    bandwidth: Bandwidth = Field(description="Peak rate of each of these links per direction (bytes/s).")


class Cluster(Block):
    """The machine."""

    topology: Name | None = Field(
        None,
        description="A topology by bare name (`moesim topo list` lists them), the name of a regular cluster "
        "(h200-4x8-rail, b200-16x8-leaf-spine-2to1), or a path; without it gpu and nodes say what the cluster is.",
    )
    gpu: Name | None = Field(None, description="GPU of a regular cluster, lower case (default: the topology's).")
    nodes: Count | None = Field(
        None, ge=1, le=8192, description="Nodes of a regular cluster (default: the topology's, else 1)."
    )
    gpus_per_node: Count | None = Field(
        None, ge=1, le=1024, description="GPUs of each of its nodes (default: the topology's, else 8)."
    )
    fabric: FabricKind | None = Field(
        None, description="What joins the nodes of a regular cluster (default: the topology's, else rail)."
    )
    oversubscription: Number | None = Field(
        None,
        gt=0,
        le=1000,
        description="A leaf's capacity towards its GPUs over that towards the spines, in a regular cluster "
        "(default: the topology's, else 2 for leaf-spine and 1 for the others).",
    )
    nics_per_node: Count | None = Field(
        None, ge=1, le=1024, description="NICs of each node; fewer than its GPUs are shared (default: one per GPU)."
    )
    nic_bandwidth: NicBandwidth | None = Field(
        None, description="Peak rate of every NIC per direction, instead of the topology's (bytes/s)."
    )
    overrides: tuple[LinkOverride, ...] = Field(
        (), description="Links with another bandwidth than the topology's; where two name one link, the later holds."
    )
    ecmp_seed: Count = Field(
        0, ge=0, lt=2**63, description="Seed of the hash that spreads flows over equal-cost paths."
    )
    flows: Literal["auto", "pairs", "ports"] = Field(
        "auto",
        description="pairs: every flow by itself, exact. ports: one flow per port of a rank, for very many ranks; "
        "a phase then takes as long as its busiest port. auto: ports above 4,096 ranks.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> "Cluster":
        _ = self.name
        return self

    @property
    def name(self) -> str:
        """Name or path of the topology, the keys of a regular cluster taken in."""
        given = {key: value for key in _REGULAR if (value := getattr(self, key)) is not None}
        if self.topology is None and self.gpu is None:
            what = "the key gpu is required beside these" if given else "the key topology is required, or gpu and nodes"
            raise Mistakes(((), what, f"name a topology (`moesim topo list`) or a regular cluster, such as {EXAMPLES}"))
        if self.topology is not None and not given:
            return self.topology
        at: Loc = ("topology",)
        try:
            base = None if self.topology is None else RegularCluster.read(self.topology)
            at = ("fabric",) if self.gpu is None else ("gpu",)
            if base is not None or self.topology is None:
                return (RegularCluster(**given) if base is None else base.changed(**given)).name
        except InputError as error:
            raise Mistakes((at, error.what, error.fix)) from None
        key = next(iter(given))
        what = f"{key} changes a regular cluster, and {self.topology!r:.60} is not the name of one"
        raise Mistakes(((key,), what, f"leave it out, or name one, such as {EXAMPLES}"))


def _known_group_placement(name: str) -> str:
    """Refuse what is neither a placement of groups by name nor a path."""
    if name not in GROUP_PLACEMENTS and not is_path(name):
        raise InputError(f"no placement of groups {name!r:.60}", fix=did_you_mean(name, GROUP_PLACEMENTS, "placements"))
    return name


class Parallel(Block):
    """How the model is spread over the GPUs."""

    ep: Count | None = Field(
        None, ge=1, le=10**6, description="Expert-parallel ranks; null: every GPU of the topology."
    )
    dp: Count | None = Field(
        None,
        ge=1,
        le=10**6,
        description="Data-parallel copies of what is not an expert; null: one group of ep ranks. A stage of a pipeline "
        "has dp x tp GPUs, which are dp x tp / ep expert-parallel groups.",
    )
    tp: Count = Field(1, ge=1, le=1024, description="Tensor-parallel ranks of attention.")
    pp: Count = Field(1, ge=1, le=1024, description="Ranks of a pipeline.")
    group_placement: Annotated[Name, AfterValidator(_known_group_placement)] = Field(
        "packed",
        description="Which GPUs each expert-parallel group has: packed (the next ones), striped (nodes dealt in turn), "
        "rails (a share of every node's GPUs), random (drawn from all), or a text file with a line of nodes and GPUs "
        "for each group.",
    )
    gradient_dtype: Literal["bf16", "fp32"] | None = Field(
        None,
        description="Number format of the experts' gradients that the groups reduce beside each layer; null: none.",
    )

    @property
    def groups(self) -> int:
        """Expert-parallel groups of one stage; 1 where ep is not given."""
        return 1 if self.ep is None or self.dp is None else self.dp * self.tp // self.ep

    @model_validator(mode="after")
    def _whole_groups(self) -> "Parallel":
        given = [name for name in ("dp", "tp", "pp") if getattr(self, name) not in (None, 1)]
        if self.ep is None and given:
            raise Mistakes(((given[0],), f"{given[0]} without ep", "give ep beside it"))
        if self.ep is not None and self.dp is not None and self.dp * self.tp % self.ep:
            what = f"dp x tp = {self.dp * self.tp} GPUs of a stage are no whole groups of ep = {self.ep}"
            raise Mistakes((("dp",), what, f"use a multiple of {self.ep}"))
        return self

"""The keys of a scenario file, section by section; what must hold between them is in ``checks``."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from moesim.scenario.arrivals import Schedule, Workload
from moesim.scenario.cluster_section import Cluster, Parallel
from moesim.scenario.fault_section import Fault
from moesim.scenario.sections import (
    AllToAll,
    Block,
    Compute,
    Losses,
    Model,
    Network,
    PlacementBlock,
    Routing,
)
from moesim.scenario.sweep_section import Sweep
from moesim.units import Count

VARIANT_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,62}"


class ScenarioFields(Block):
    """The keys of a scenario file, with every default that does not depend on another key."""

    name: str = Field(
        "scenario",
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,+=:() /-]*$",
        description="Name of the run, shown in the report (default: the file's name).",
    )
    seed: Count = Field(0, ge=0, lt=2**63, description="Root of every random draw.")
    cluster: Cluster = Field(description="The machine.")
    parallel: Parallel = Field(Parallel(), description="How the model is spread over the GPUs.")
    model: Model = Field(default_factory=Model, description="Sizes of the model.")
    routing: Routing = Field(default_factory=Routing, description="The router.")
    workload: Workload = Field(default_factory=Workload, description="Which tokens arrive.")
    placement: PlacementBlock = Field(PlacementBlock(), description="Which rank holds which experts.")
    alltoall: AllToAll = Field(AllToAll(), description="How tokens travel to their experts and back.")
    network: Network = Field(Network(), description="How exactly the flows on the wires are followed.")
    compute: Compute = Field(Compute(), description="Where kernel times come from.")
    schedule: Schedule = Field(Schedule(), description="When each rank arrives, and what else it does per layer.")
    losses: Losses = Field(Losses(), description="Form and weights of the balance losses.")
    faults: tuple[Fault, ...] = Field(
        (), max_length=256, description="Parts of the cluster that are slow, broken or late."
    )
    thresholds: tuple[str, ...] = Field(
        (), description='Limits that the result must keep, such as "layer_time_s < 2ms"; a miss is exit 4.'
    )
    variants: dict[Annotated[str, StringConstraints(pattern=f"^{VARIANT_NAME}$")], dict[str, Any]] = Field(
        default_factory=dict,
        description="One run per entry, compared in one report: a dotted key sets one value, "
        "a block replaces the whole block.",
    )
    sweep: Sweep | None = Field(None, description="Axes for `moesim sweep`.")

    @property
    def groups_at_once(self) -> int:
        """Expert-parallel groups that are simulated together; a training step is simulated on one, for all."""
        return 1 if self.schedule.phase == "training" else self.parallel.groups

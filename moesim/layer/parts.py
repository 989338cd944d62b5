"""What a scenario is made of: each section turned into the values that one stage works with.

This is the only place that reads the scenario; the stages take arrays and small dataclasses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.alltoall_library import Algorithm, algorithm_named, transport_by_card
from moesim.balance import LossFactors
from moesim.cluster import Fabric
from moesim.compute import KernelTable, load_gpu
from moesim.errors import InputError
from moesim.layer.faults import Gone, Late, gone, on_the_clock
from moesim.layer.inference import Inference, inference_of, requests_of
from moesim.layer.scenario_cluster import build_fabric, effects_on, whole_cluster
from moesim.model import PublishedRouter, RankMemory, rank_memory
from moesim.network import Throttle
from moesim.placement import Placement, contiguous, read_map, round_robin, with_lp_shares
from moesim.placement import place as place_experts
from moesim.placement_policies import FIXED_POLICIES
from moesim.routing import RouterSpec
from moesim.scenario import Losses, Model, PlacementBlock, Scenario, Schedule, Workload
from moesim.stages import PHASES
from moesim.traffic import KINDS, Calibration, PhaseFlows, calibration, published_bytes, slower, wire_bytes


@dataclass(frozen=True)
class Parts:
    """The fixed parts of a simulation.

    A section of the scenario stands here as it is where a stage is about all of it.

    Attributes:
        workload: its files by their absolute paths.
        groups_are: what a routing group stands for: ``rank``, ``node``, or ``count`` for plain contiguous groups.
        loss_device: device of each expert in the balance losses: the routing group where there is one, else the
            rank, [experts].
        algorithm: what sets the all-to-all apart; ``constants`` its terms for this GPU and number of nodes, by phase.
        calibration: where the constants come from, as the scenario names it; ``transport``: who posts to the NIC.
        message_dtype, wire_bytes, published_bytes: of one token copy, by phase.
        cached_handle: dispatch reuses the layout of one before.
        flows: simulated by ``pairs`` of ranks or at their ``ports``; ``auto`` chooses by their number.
        ecmp_seed: of the hash that spreads flows over equal paths.
        tolerance: longest step of the flows as a share of the busiest link's time; 0 follows every event.
        group: number of the expert-parallel group that these are of, whose view ``fabric`` is.
        gradients: what it sends to the next group beside each layer, where the groups reduce the experts' gradients.
        published_router: the model's own, for given experts, whose counts know no groups; None where the router runs.
        model_notes: what the model's config.json does not say and moesim assumed.
        memory: what a GPU holds, with its requests where the step is a whole one; None where the model's file is gone.
        inference: the whole step; None where only MoE layers are simulated.
        bias: of the V3 router: ``recorded``, ``zero``, or the absolute path of a file.
        update_bias: move it after every step.
        placement_map: where the experts of each layer are, if a file says it.
        throttles: of wires and GPUs, on the run's clock; what is slow or dead from the first step to the last is so in
            ``fabric`` already, but for GPUs.
        late: ranks that begin their steps late.
        gone: ranks that are dead; None where all live.
    """

    name: str
    seed: int
    fabric: Fabric
    model: Model
    workload: Workload
    placement: PlacementBlock
    schedule: Schedule
    losses: Losses
    router: RouterSpec
    published_router: PublishedRouter | None
    model_notes: tuple[str, ...]
    memory: RankMemory | None
    inference: Inference | None
    bias: str
    update_bias: bool
    placement_map: Placement | None
    groups_are: str
    loss_device: NDArray[np.int32]
    kernels: KernelTable
    algorithm: Algorithm
    constants: dict[str, Calibration]
    calibration: str
    transport: str
    message_dtype: Mapping[str, str]
    wire_bytes: dict[str, int]
    published_bytes: dict[str, int]
    cached_handle: bool
    flows: str
    ecmp_seed: int
    tolerance: float
    throttles: tuple[Throttle, ...]
    late: tuple[Late, ...]
    gone: Gone | None
    group: int = 0
    gradients: PhaseFlows | None = None

    @property
    def loss_factors(self) -> LossFactors:
        """Alpha of each balance loss, and their form."""
        its = self.losses
        return LossFactors(its.expert, its.device, its.communication, its.sequence, its.z, form=its.form)

    @property
    def n_slots(self) -> int:
        """Experts of a layer with their replicas."""
        if self.placement_map is not None:
            return self.placement_map.n_slots
        return self.model.n_experts + self.placement.redundant_experts

    def rng(self, stage: int) -> np.random.Generator:
        """Random numbers of one stage: a function of the scenario's seed and the stage, not of what ran before."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stage,)))

    def own_rng(self, *stage: int) -> np.random.Generator:
        """The same where every expert-parallel group draws its own: tokens, when ranks arrive."""
        key = (*stage, self.group) if self.group else stage
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def build_parts(scenario: Scenario, fabric: Fabric | None = None) -> Parts:
    """Resolve a scenario into its parts.

    Args:
        scenario: the scenario.
        fabric: its ``build_fabric``, where that is at hand already.

    Raises:
        InputError: a section that does not fit the cluster or another section.
    """
    fabric = fabric or build_fabric(scenario)
    experts = scenario.model.n_experts
    home = np.asarray(_first_placement(scenario.placement.policy, experts, fabric.n_ranks).home_rank())
    router, groups_are, group = _router(scenario, fabric, home)
    dtype = {"dispatch": scenario.alltoall.dispatch_dtype, "combine": scenario.alltoall.combine_dtype}
    algorithm, hidden, top_k = scenario.alltoall.algorithm, scenario.model.sent, scenario.routing.top_k
    wire = {phase: wire_bytes(algorithm, phase, hidden, dtype[phase], top_k) for phase in PHASES}
    published = {phase: published_bytes(algorithm, phase, hidden, dtype[phase], top_k) for phase in PHASES}
    ratio = {phase: wire[phase] / published[phase] for phase in PHASES}
    transport = scenario.alltoall.transport
    if transport == "auto":
        transport = transport_by_card(algorithm, fabric.nic_card)
    constants = {phase: _constants(scenario, fabric, phase, ratio[phase], transport) for phase in PHASES}
    inference = inference_of(scenario, algorithm_named(algorithm).receive_hook)
    if inference is not None and inference.constants.in_situ != 1.0:
        constants = {phase: _in_situ(one, inference.constants.in_situ) for phase, one in constants.items()}
    parts = Parts(
        name=scenario.name,
        seed=scenario.seed,
        fabric=fabric,
        model=scenario.model,
        workload=_with_paths(scenario),
        placement=_learning_by_path(scenario),
        schedule=scenario.schedule,
        losses=scenario.losses,
        router=router,
        published_router=scenario.model_spec().router if scenario.workload.gives_experts else None,
        model_notes=scenario.model_notes(),
        memory=_memory(scenario, fabric, inference),
        inference=inference,
        bias=scenario.source(scenario.routing.bias),
        update_bias=scenario.routing.update_bias,
        placement_map=_placement_map(scenario, fabric),
        groups_are=groups_are,
        loss_device=group if router.n_groups > 1 else home[:experts],
        kernels=KernelTable.load(scenario.source(scenario.compute.table), gpu=fabric.gpu),
        algorithm=algorithm_named(algorithm),
        constants=constants,
        calibration=scenario.alltoall.calibration,
        transport=transport,
        message_dtype=dtype,
        wire_bytes=wire,
        published_bytes=published,
        cached_handle=scenario.alltoall.cached_handle,
        flows=scenario.cluster.flows,
        ecmp_seed=scenario.cluster.ecmp_seed,
        tolerance=scenario.network.tolerance,
        throttles=(),
        late=(),
        gone=None,
    )
    return with_effects(parts, scenario) if scenario.faults else parts


def with_effects(parts: Parts, scenario: Scenario, cluster: Fabric | None = None) -> Parts:
    """Return the parts with what a scenario's faults do on the clock and to ranks; wires are the fabric's.

    ``cluster``: the whole, where the fabric is a group's view of it and that is at hand already.

    Raises:
        InputError: dead ranks that the all-to-all sends over.
    """
    fabric, algorithm = parts.fabric, parts.algorithm
    if fabric.cluster_rank is None:
        found = effects_on(scenario, fabric)
    else:
        cluster = cluster or whole_cluster(scenario)
        found = tuple(effect.of_group(cluster, fabric) for effect in effects_on(scenario, cluster))
    dead = gone(found)
    if dead is not None and algorithm.copies == "node" and fabric.n_nodes > 1:
        what = f"{algorithm.name} sends over the GPUs of the same index in every node, the dead one's among them"
        raise scenario.error(("faults",), what, "use alltoall.algorithm: deepep-low-latency, or mode: abort")
    throttles = on_the_clock(found, fabric)
    if parts.tolerance and any(int(one.links.min()) < fabric.n_links for one in throttles):
        raise scenario.error(("network", "tolerance"), "wires that change on the way need every event", "give 0")
    return replace(
        parts,
        throttles=throttles,
        late=tuple(effect.late for effect in found if effect.late is not None),
        gone=dead,
    )


def _memory(scenario: Scenario, fabric: Fabric, step: Inference | None) -> RankMemory | None:
    """What a rank holds; None where the file of the model is gone, without which a resolved scenario runs."""
    try:
        spec = scenario.model_spec() if step is None else step.spec
    except InputError:
        return None
    load = None if step is None else requests_of(step, scenario.workload)
    hooks = algorithm_named(scenario.alltoall.algorithm).receive_hook
    return rank_memory(
        spec, ep=fabric.n_ranks, total_bytes=load_gpu(fabric.gpu).memory_bytes,
        redundant_experts=scenario.placement.redundant_experts,
        requests=load.requests if load else 0, context=load.context if load else 0,
        message_tokens=load.requests * load.new if load and hooks else 0,
        weight_bytes=1 if scenario.alltoall.dispatch_dtype == "fp8" else 2,
        cache_bytes=1 if scenario.compute.attention_dtype == "fp8" else 2,
    )  # fmt: skip


def _with_paths(scenario: Scenario) -> Workload:
    """The workload section with its files by their absolute paths."""
    section = scenario.workload
    changes: dict[str, Any] = {
        name: scenario.source(value)
        for name, value in (("expert_ids", section.expert_ids), ("counts", section.counts))
        if value is not None
    }
    if section.routing is not None:
        path = scenario.routing_path()
        changes["routing"] = section.routing.model_copy(update={"file": path})
    if section.recording is not None:
        path = scenario.source(section.recording.name)
        changes["recording"] = section.recording.model_copy(update={"name": path})
    return section.model_copy(update=changes)


def _learning_by_path(scenario: Scenario) -> PlacementBlock:
    """The placement section, the file that it learns from by its absolute path."""
    section = scenario.placement
    learnt = None if section.learn_from is None else scenario.source(section.learn_from)
    return section.model_copy(update={"learn_from": learnt})


def _constants(
    scenario: Scenario, fabric: Fabric, phase: str, wire_over_published: float, transport: str
) -> Calibration:
    """The terms of the scenario's all-to-all on this GPU and number of nodes."""
    alltoall, sms = scenario.alltoall, scenario.alltoall.sms
    source = scenario.source(alltoall.calibration)
    made = calibration(
        alltoall.algorithm, fabric.gpu, wire_over_published, sms, phase=phase, source=source, transport=transport
    )
    made = made.spanning(fabric.n_nodes)
    if sms is None and not alltoall.receive_hook:
        # Without the hook the kernel stays: one block for as many experts as it takes to fit them all on the GPU.
        experts = scenario.model.n_experts + scenario.placement.redundant_experts
        made = replace(made, sms=math.ceil(experts / math.ceil(experts / made.total_sms)))
    if made.sms > made.total_sms:
        raise InputError(
            f"the communication kernel holds {made.sms} SMs but {fabric.gpu} has {made.total_sms}",
            where="alltoall.sms",
            fix=f"use at most {made.total_sms}",
        )
    return made


def _in_situ(constants: Calibration, factor: float) -> Calibration:
    """Constants of an all-to-all that takes ``factor`` times as long inside a step as in its benchmark."""
    for kind in KINDS:
        constants = slower(constants, kind, math.log(factor))
    return constants


def _placement_map(scenario: Scenario, fabric: Fabric) -> Placement | None:
    """The placement that a file gives, checked against model and cluster."""
    if scenario.placement.file is None:
        return None
    placed = read_map(scenario.source(scenario.placement.file), fabric.n_ranks)
    experts = scenario.model.n_experts
    if placed.n_experts != experts:
        raise InputError(f"a map of {placed.n_experts} experts, the model has {experts}", "placement.file")
    return placed


def _first_placement(policy: str, n_experts: int, n_ranks: int) -> Placement:
    """The placement before any load is known: contiguous groups, which hierarchical EPLB keeps on their nodes."""
    return (round_robin if policy == "round_robin" else contiguous)(n_experts, n_ranks)


def check_slots(parts: Parts) -> None:
    """Raise InputError where a layer's slots do not spread evenly over the ranks."""
    slots, ranks = parts.n_slots, parts.fabric.n_ranks
    if slots % ranks:
        raise InputError(
            f"{slots} slots do not spread evenly over {ranks} ranks",
            where="placement.redundant_experts",
            fix=f"use {-parts.model.n_experts % ranks} redundant experts, or that plus a multiple of {ranks}",
        )


def place(
    parts: Parts,
    load: NDArray[Any],
    selected: Callable[[], NDArray[np.int32]] | None = None,
    base: Placement | None = None,
) -> Placement:
    """Place the experts by the scenario's policy, given a load [experts].

    ``selected``: gives the selections [tokens, top_k] to a policy that looks at them.
    ``base``: where they are already, for the policies that look at every batch once more.
    """
    fabric, section = parts.fabric, parts.placement
    if section.policy == "lp" and base is not None:
        return with_lp_shares(base, np.asarray(load, dtype=np.float64))
    if section.policy not in FIXED_POLICIES:
        check_slots(parts)
    return place_experts(
        section.policy,
        load=load,
        expert_ids=selected() if selected is not None and section.policy == "affinity" else None,
        n_experts=parts.model.n_experts,
        n_slots=parts.n_slots,
        n_ranks=fabric.n_ranks,
        n_nodes=fabric.n_nodes,
        n_groups=max(parts.router.n_groups, 1),
        node_load_limit=section.node_load_limit,
        moves=None if section.policy in FIXED_POLICIES else section.moves,
        start=base,
        seed=parts.seed,
    )


def _router(scenario: Scenario, fabric: Fabric, home: NDArray[np.int32]) -> tuple[RouterSpec, str, NDArray[np.int32]]:
    """The router, what its groups stand for, and the group of each expert: groups follow the placement."""
    routing, experts = scenario.routing, scenario.model.n_experts
    if routing.groups in ("rank", "node"):
        place_of = home if routing.groups == "rank" else fabric.rank_node[home]
        names, numbers = np.unique(place_of, return_inverse=True)
        n_groups, groups_are = len(names), str(routing.groups)
    else:
        n_groups, groups_are = int(routing.groups), "count"
        sizes = [len(part) for part in np.array_split(np.arange(experts), n_groups)]
        numbers = np.repeat(np.arange(n_groups), sizes)
    group = numbers.astype(np.int32)
    where = "routing.top_groups"
    knobs = {knob.name: getattr(routing, knob.name) for knob in fields(RouterSpec) if hasattr(routing, knob.name)}
    if routing.top_groups > n_groups:
        raise InputError(
            f"top_groups is {routing.top_groups} but there are {n_groups} groups ({routing.groups})",
            where=where,
            fix=f"use 1 to {n_groups}",
        )
    try:
        spec = RouterSpec(**knobs, n_experts=experts, n_groups=n_groups, group_of_expert=group)
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from error
    return spec, groups_are, group

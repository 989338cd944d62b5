"""What can be chosen about a model on a cluster, as the axes of a sweep: a plan looks for the best of them.

EP from what divides the GPUs, each group of EP GPUs a replica of the others (attention is data parallel inside it);
placement with redundant experts as many as spread evenly over the ranks; the all-to-alls of the phase with the overlaps
that they allow; and the batch of a GPU. What the user gives for one of these keys takes the place of what is listed
here; any other key, such as ``cluster.nic_bandwidth``, is one more axis.

Not among them: tensor and pipeline parallelism, and what replicas do to each other on links that they share.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from moesim.alltoall_library import algorithm_named
from moesim.cluster import Fabric
from moesim.errors import InputError
from moesim.layer import build_fabric
from moesim.placement_policies import SINGLE_SLOT_POLICIES
from moesim.scenario import Scenario
from moesim.sweeps.space import Space, space_of

EP, ALGORITHM, OVERLAP, POLICY, REDUNDANT = (
    "parallel.ep", "alltoall.algorithm", "schedule.overlap", "placement.policy", "placement.redundant_experts",
)  # fmt: skip
BATCH = {"decode": "workload.requests", "prefill": "workload.tokens_per_rank"}
"""The load of a GPU by phase."""
LATENCY = {"decode": "tpot_s", "prefill": "step_time_s"}
"""What a plan trades tokens per second and GPU for."""
RATE = "tokens_per_second_per_gpu"

_ALGORITHMS = {
    "decode": ("deepep-low-latency", "nccl-direct"),
    "prefill": ("deepep-normal", "deepep-v2-hybrid", "nccl-direct"),
}
# Of the scenario's own load; a decode has room on both sides.
_BATCHES = {"decode": (0.125, 0.25, 0.5, 0.75, 0.875, 1, 1.25, 1.5, 2), "prefill": (0.25, 0.5, 1, 2)}


def deployments(scenario: Scenario, gpus: int | None, given: Mapping[str, Sequence[Any]]) -> Space:
    """Return all deployments of a scenario's model and load on ``gpus`` of its cluster; None: all.

    Raises:
        InputError: no whole step, a phase without plan, more GPUs than there are, a wrong axis.
    """
    phase, workload = scenario.schedule.phase, scenario.workload
    if not workload.of_step or phase not in BATCH:
        raise InputError(
            "a plan needs whole steps of inference",
            "workload",
            "give requests and context with schedule.phase: decode, or tokens_per_rank and sequence_length",
        )
    whole = scenario.parallel.model_copy(update={"ep": None})
    fabric = build_fabric(scenario.model_copy(update={"parallel": whole}))
    gpus = fabric.n_ranks if gpus is None else gpus
    if not 1 <= gpus <= fabric.n_ranks:
        raise InputError(
            f"{gpus} GPUs of {fabric.n_ranks}", "--gpus", "name a larger cluster, such as -o cluster.nodes=8"
        )
    given = dict(given)
    axes: dict[str, Sequence[Any]] = {BATCH[phase]: given.pop(BATCH[phase], ()) or _batches(scenario)}
    together = [_layouts(scenario, gpus, given), _exchanges(scenario, fabric, given)]
    return space_of(None, {**given, **axes}, together)


def kind_of(values: Mapping[str, Any], phase: str) -> tuple[tuple[str, Any], ...]:
    """Return what two deployments of one kind have in common: all but the batch and where experts are."""
    return tuple((key, value) for key, value in values.items() if key not in (BATCH[phase], POLICY, REDUNDANT))


def _layouts(scenario: Scenario, gpus: int, given: dict[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """EP with a placement for it: redundant experts are as few as spread evenly, then one more on each rank."""
    experts, own = scenario.model.n_experts, scenario.placement
    sizes = given.pop(EP, ()) or [ep for ep in range(1, gpus + 1) if gpus % ep == 0]
    wrong = [ep for ep in sizes if not isinstance(ep, int) or ep < 1 or gpus % ep]
    if wrong:
        raise InputError(f"{gpus} GPUs are no groups of {wrong[0]!r:.20}", EP, "give divisors of the GPUs, or --gpus")
    if own.file is not None:
        return {EP: list(sizes)}
    policies = given.pop(POLICY, ()) or dict.fromkeys((own.policy, "contiguous", "eplb"))
    asked = given.pop(REDUNDANT, ())
    rows = []
    for ep, policy in product(sizes, policies):
        alone = policy in SINGLE_SLOT_POLICIES
        redundant = asked or ([0] if alone else [-experts % ep, -experts % ep + ep])
        rows += [(ep, policy, slots) for slots in redundant]
    return {key: [row[k] for row in rows] for k, key in enumerate((EP, POLICY, REDUNDANT))}


def _exchanges(scenario: Scenario, fabric: Fabric, given: dict[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The all-to-alls of the phase, each with the overlaps that it allows."""
    phase, own = scenario.schedule.phase, scenario.alltoall.algorithm
    inside = ("nvl-one-sided",) if fabric.n_nodes == 1 else ()
    algorithms = given.pop(ALGORITHM, ()) or dict.fromkeys((own, *_ALGORITHMS[phase], *inside))
    asked = given.pop(OVERLAP, ())
    rows = []
    for algorithm in algorithms:
        overlaps: Sequence[Any] = ("none", "two-batch") if phase == "prefill" else ("none",)
        if phase == "decode" and algorithm_named(algorithm).receive_hook:
            overlaps = ("none", "hooks", "single-batch", "two-batch")
        rows += [(algorithm, overlap) for overlap in asked or overlaps]
    return {ALGORITHM: [row[0] for row in rows], OVERLAP: [row[1] for row in rows]}


def _batches(scenario: Scenario) -> list[int]:
    """Loads of a GPU around the scenario's own; whole prompts in a prefill, two where micro-batches overlap."""
    phase, workload = scenario.schedule.phase, scenario.workload
    own = workload.requests if phase == "decode" else workload.tokens_per_rank
    if not isinstance(own, int):
        raise InputError("a plan needs the load of a GPU", BATCH[phase], "give one number, or -p with several")
    prompt = 1 if phase == "decode" else max(workload.lengths)
    wanted = {max(1, round(own * part / prompt)) * prompt for part in _BATCHES[phase]}
    return sorted(wanted | {own})

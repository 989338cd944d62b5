"""Placements of one scenario's experts compared without a network: learnt from the past, judged on what follows."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import imbalance
from moesim.compiling import n_threads
from moesim.errors import InputError
from moesim.layer import (
    Parts,
    Seen,
    Workload,
    build_parts,
    open_workload,
    opened,
    replica_seed,
    see,
    what_follows,
    window,
)
from moesim.placement import (
    BATCH_TOKENS,
    Placement,
    Worth,
    contiguous,
    in_turn,
    moved_experts,
    place,
    with_lp_shares,
    worth,
)
from moesim.placement_policies import BATCH_POLICIES, FIXED_POLICIES, POLICIES, SINGLE_SLOT_POLICIES
from moesim.run.routed_steps import initial_state, route_step
from moesim.scenario import Scenario

NEED_ROOM = ("replicate_top", *BATCH_POLICIES)
"""Without slots beyond the experts' own these do what another policy does, or nothing."""
_MOST_BATCHES = 8
"""Batches of a layer on which the policies that look at every batch are judged: each is a linear program."""


def study(
    scenario: Scenario,
    policies: Sequence[str] | None = None,
    slots: Sequence[int] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Let every policy learn from the past and judge it on what follows, layer by layer, without a network.

    Args:
        scenario: ``placement.learn_from``, ``moves``, ``node_load_limit`` and ``replica_choice`` hold for all policies.
        policies: by name; all by default.
        slots: numbers of slots for the policies that place replicas; by default those without redundant experts, where
            the ranks divide them, and with one more on every rank. Policies without replicas have the experts' number;
            those of ``NEED_ROOM`` are left out there.
        say: called with a line for every layer.

    Returns:
        A row per policy and number of slots: ``policy``, ``slots``, ``moves`` (experts of a layer that are not where
        engines start, the mean of the layers), ``on_b``, ``on_a`` and ``on_b_itself``, each with the figures of
        ``Worth``, means of the layers: learnt from A, the past, and judged on B, what follows; judged on A again;
        learnt from B and judged on B. ``layers``: the figures on B by layer. ``placement``: a row per layer; None for
        per_batch. Policies that look at every batch (lp, per_batch) are judged on batches spread evenly over B,
        ``batches`` of them, and have no ``on_a``.

    Raises:
        InputError: what is learnt from cannot be read or has other layers; slots that do not fit.
    """
    parts = build_parts(scenario)
    learn_from = parts.placement.learn_from or "first_half"
    parts = replace(parts, placement=parts.placement.model_copy(update={"learn_from": learn_from}))
    workload = open_workload(parts)
    future = what_follows(workload, learn_from)
    past = future if learn_from == "batch" else window(workload, learn_from)
    layers = _layers(parts, future)
    chosen = _chosen(parts, policies, slots)
    of_past, of_future = see(past), see(future)

    def one_layer(layer: int) -> list[dict[str, Any]]:
        seen, follows = of_past(layer), of_future(layer)
        say(f"layer {layer}: {len(chosen)} placements")
        return [_judged(parts, policy, n_slots, seen, follows) for policy, n_slots in chosen]

    with ThreadPoolExecutor(n_threads()) as pool:
        by_layer = list(pool.map(one_layer, layers))
    return [
        _of_layers(policy, n_slots, layers, [rows[i] for rows in by_layer], parts.fabric.n_ranks)
        for i, (policy, n_slots) in enumerate(chosen)
    ]


def _chosen(parts: Parts, policies: Sequence[str] | None, slots: Sequence[int] | None) -> list[tuple[str, int]]:
    """The placements to make: policy and slots."""
    experts, ranks = parts.model.n_experts, parts.fabric.n_ranks
    full = experts + (-experts % ranks)
    found = []
    for policy in policies or POLICIES:
        numbers = (experts,) if policy in SINGLE_SLOT_POLICIES else (full, full + ranks) if slots is None else slots
        found += [(policy, number) for number in numbers if number > experts or policy not in NEED_ROOM]
    return found


def _judged(parts: Parts, policy: str, n_slots: int, seen: Seen, follows: Seen) -> dict[str, Any]:
    """One layer of one row."""
    fabric, section = parts.fabric, parts.placement
    free = policy in FIXED_POLICIES or policy == "per_batch"
    start = in_turn(parts.model.n_experts, n_slots, fabric.n_ranks)

    def made(by: Seen, base: Placement | None = None) -> Placement:
        return place(
            policy, load=by.load, expert_ids=by.expert_ids, n_experts=parts.model.n_experts, n_slots=n_slots,
            n_ranks=fabric.n_ranks, n_nodes=fabric.n_nodes, n_groups=max(parts.router.n_groups, 1),
            node_load_limit=section.node_load_limit, moves=None if free else section.moves, start=base, seed=parts.seed,
        )  # fmt: skip

    def on(placement: Placement, of: Seen) -> Worth:
        return worth(placement, of.expert_ids, fabric.rank_node, section.replica_choice, replica_seed(parts))

    if policy in BATCH_POLICIES:
        alone = contiguous(parts.model.n_experts, fabric.n_ranks)

        def batchwise(base: Placement) -> tuple[Worth, float, int]:
            found, moves, by_rank = [], [], np.zeros(fabric.n_ranks)
            for ids in _batches(follows.expert_ids):
                load = np.bincount(ids[ids >= 0], minlength=parts.model.n_experts).astype(np.float64)
                its = Seen(load, lambda ids=ids: ids)  # type: ignore[misc]
                placed = made(its, base) if policy == "per_batch" else with_lp_shares(base, load)
                found.append(vars(on(placed, its)))
                moves.append(len(moved_experts(alone if policy == "per_batch" else start, placed)))
                by_rank += placed.planned_rank_load(load)
            mean = Worth(**{name: _mean(found, name) for name in found[0]})
            by_node = np.bincount(fabric.rank_node, by_rank)
            over_all = {"rank": imbalance(by_rank).max_over_mean, "node": imbalance(by_node).max_over_mean}
            return replace(mean, **over_all), float(np.mean(moves)), len(found)

        base = alone if policy == "per_batch" else made(seen)
        on_b, moved, batches = batchwise(base)
        itself = on_b if policy == "per_batch" or seen is follows else batchwise(made(follows))[0]
        placement = None if policy == "per_batch" else replace(base, share=None)
        return {"on_b": on_b, "on_a": None, "on_b_itself": itself, "moves": moved, "placement": placement,
                "batches": batches}  # fmt: skip
    placement = made(seen)
    on_b = on(placement, follows)
    itself = on_b if policy in FIXED_POLICIES or seen is follows else on(made(follows), follows)
    on_a = on_b if seen is follows else on(placement, seen)
    moved = len(moved_experts(start, placement))
    return {"on_b": on_b, "on_a": on_a, "on_b_itself": itself, "moves": moved, "placement": placement}


def _batches(expert_ids: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Batches of tokens that follow one another, spread evenly over all."""
    number = max(1, len(expert_ids) // BATCH_TOKENS)
    which = np.unique(np.linspace(0, number - 1, min(number, _MOST_BATCHES)).astype(int))
    return [expert_ids[i * BATCH_TOKENS : (i + 1) * BATCH_TOKENS] for i in which]


def _of_layers(
    policy: str, n_slots: int, layers: Sequence[int], found: Sequence[Mapping[str, Any]], n_ranks: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"policy": policy, "slots": n_slots, "moves": _mean(found, "moves")}
    for window_name in ("on_b", "on_a", "on_b_itself"):
        worths = [vars(one[window_name]) for one in found if one[window_name] is not None]
        row[window_name] = {name: _mean(worths, name) for name in worths[0]} if worths else None
    row["layers"] = [{"layer": layer, **vars(one["on_b"])} for layer, one in zip(layers, found, strict=True)]
    row["batches"] = found[0].get("batches")
    placed = [one["placement"] for one in found]
    row["placement"] = None
    if placed[0] is not None:
        rows = np.stack([one.slot_expert for one in placed])
        row["placement"] = Placement(rows, placed[0].slot_rank, n_ranks, tuple(layers))
    return row


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _layers(parts: Parts, future: Workload) -> tuple[int, ...]:
    """The recorded layers that a run would simulate."""
    if future.trace is not None:
        layers = future.trace_layers or future.trace.layers
    elif future.recording is not None and parts.workload.recording is not None:
        layers = tuple(parts.workload.recording.layers or future.recording.layers)
    else:
        layers = tuple(range(parts.workload.layers_simulated or 1))
    return layers[: parts.workload.layers_simulated]


def map_of(scenario: Scenario) -> Placement:
    """Return where the experts of each layer are when the scenario runs: by its policy and the first batch's load."""
    parts = build_parts(scenario)
    if parts.placement.policy == "per_batch":
        raise InputError("per_batch places every batch anew and has no map", "placement.policy", "use another policy")
    parts, workload = opened(parts)
    batch = workload.batch(0)
    step, _ = route_step(parts, initial_state(parts, batch), batch)
    placed = [step.layers[layer].placement for layer in step.layers]
    rows = np.stack([one.slot_expert for one in placed])
    return Placement(rows, placed[0].slot_rank, parts.fabric.n_ranks, tuple(step.layers))

"""Placements on the clock: the time of each on the same tokens, and what the move to it costs and when that has paid.

Costs are simulated too: the weights that have to move from the present placement, layer by layer with nothing else on
the wires (``blocking``), and for the fastest placement beside a step's tokens (``async``). Layers are those of the
workload; what all the model's MoE layers take is their mean times their number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.layer import Parts
from moesim.measure import slot_bytes
from moesim.placement import Moves, Placement, break_even_steps, moves_between
from moesim.placement_policies import FETCHING_POLICIES
from moesim.results import PlacementOption, Value, ratio_spread
from moesim.run.rebalance import LayerMove
from moesim.run.routed_steps import RoutedStep, initial_state, route_step
from moesim.run.steps import summed_up
from moesim.scenario import Rebalance
from moesim.timeline import run_phase
from moesim.traffic import weight_flows, weight_transfer
from moesim.workload import Batch

DRIFT_STEPS = 1000.0
"""Steps after which a gain has fallen to 1/e where nothing was measured: an assumption, said wherever it is used."""


# Shares of a time below this are rounding, whatever the clusters.
_LEAST = 1e-4
_JUDGED = {
    "rank": "rank_load_max_over_mean",
    "node": "node_load_max_over_mean",
    "nodes_per_token": "node_copies_per_token",
}


@dataclass(frozen=True)
class Candidate:
    """A placement to judge, by recorded layer; ``parts`` say how many slots it has, ``loads`` what it did elsewhere."""

    policy: str
    redundant: int
    parts: Parts
    placement: Mapping[int, Placement]
    loads: Mapping[str, float | None]


@dataclass(frozen=True)
class _Timed:
    step: RoutedStep
    summary: dict[str, Any]
    band: dict[str, Any]


def judge(
    batch: Batch, candidates: Sequence[Candidate], moe_layers: int, say: Callable[[str], None]
) -> tuple[PlacementOption, ...]:
    """Put every placement on the clock and price the move to it.

    Args:
        batch: the tokens to judge on.
        candidates: the present placement first.
        moe_layers: of the model.
        say: called with a line for each placement.
    """
    timed = []
    for one in candidates:
        say(f"{one.policy}, {one.redundant} redundant: timeline")
        timed.append(_on_the_clock(one, batch))
    moved = [
        [
            moves_between(candidates[0].placement[layer], one.placement[layer], one.parts.fabric.rank_node)
            for layer in run.step.layers
        ]
        for one, run in zip(candidates, timed, strict=True)
    ]
    move = [i for i, moves in enumerate(moved) if len(moves[0])]
    fastest = min(move, key=lambda i: timed[i].summary["layer_time_s"], default=-1)
    options = []
    for i, (one, run, moves) in enumerate(zip(candidates, timed, moved, strict=True)):
        cost: dict[str, float] = {}
        if any(map(len, moves)):
            cost["blocking"] = moe_layers * float(np.mean([blocking_s(one.parts, each) for each in moves]))
            if i == fastest:
                say(f"{one.policy}, {one.redundant} redundant: weights beside the tokens")
                cost["async"] = moe_layers * _beside_s(one, batch, moves[0], run.summary["layer_time_s"], moe_layers)
        options.append(_option(one, run, timed[0], moves, cost, moe_layers))
    return tuple(options)


def blocking_s(parts: Parts, moves: Moves, fixed_s: float | None = None) -> float:
    """Return what one layer's move takes with nothing else on the wires: simulated, and the fixed time."""
    if not len(moves):
        return 0.0
    transfer = weight_transfer("blocking", fixed_s)
    flows = weight_flows(parts.fabric, moves.source, moves.target, slot_bytes(parts), transfer, parts.ecmp_seed)
    return transfer.fixed_s + float(run_phase(parts.fabric, flows).leave_s.max())


def _option(
    one: Candidate, run: _Timed, present: _Timed, moves: Sequence[Moves], cost: Mapping[str, float], moe_layers: int
) -> PlacementOption:
    layer_s, before_s = run.summary["layer_time_s"], present.summary["layer_time_s"]
    off = ratio_spread(run.band, present.band, "layer_time_s") if run is not present else 0.0
    ratio, saved_s = layer_s / before_s, moe_layers * (before_s - layer_s)
    apart = run is not present and abs(math.log(ratio)) > max(off, _LEAST)
    # What is fetched for one layer's tokens makes room for the next layer's.
    kept = 1 if one.policy in FETCHING_POLICIES else moe_layers
    hbm = (one.parts.n_slots - one.parts.model.n_experts) * slot_bytes(one.parts) * kept
    return PlacementOption(
        policy=one.policy,
        redundant=one.redundant,
        loads={**{name: run.summary[key] for name, key in _JUDGED.items()}, **one.loads},
        layer_time_s=layer_s,
        layers_time_s=moe_layers * layer_s,
        saved=Value(1 - ratio, 1 - ratio * math.exp(off), 1 - ratio * math.exp(-off)),
        apart=apart,
        moves=float(np.mean([len(each) for each in moves])),
        moved_bytes=moe_layers * float(np.mean([len(each) for each in moves])) * slot_bytes(one.parts),
        migration_s=cost,
        break_even_steps={mode: break_even_steps(seconds, saved_s) for mode, seconds in cost.items()},
        break_even_drifting_steps=drifting(cost.get("blocking", 0.0), saved_s, DRIFT_STEPS) if cost else None,
        hbm_bytes=float(hbm),
        hbm_bytes_per_rank=hbm / one.parts.fabric.n_ranks,
    )


def drifting(cost_s: float, saved_s: float, drift_steps: float) -> float | None:
    """Return after how many steps a cost is paid where what is saved falls as exp(-steps / drift); None for never."""
    if saved_s <= 0 or cost_s >= saved_s * drift_steps:
        return None
    return -drift_steps * math.log1p(-cost_s / (saved_s * drift_steps))


def _on_the_clock(one: Candidate, batch: Batch, layers: int | None = None, moves: tuple[LayerMove, ...] = ()) -> _Timed:
    """Route the batch by a placement and time it, on so many layers, with weights on the way."""
    section = {"layers_simulated": layers} if layers else {}
    parts = replace(one.parts, workload=one.parts.workload.model_copy(update=section))
    if moves:
        beside = Rebalance(every=1, mode="async")
        parts = replace(parts, placement=parts.placement.model_copy(update={"rebalance": beside}))
    state = replace(initial_state(one.parts, batch), placement=one.placement)
    step, _ = route_step(replace(one.parts, update_bias=False), state, batch)
    builder, ledger = summed_up(parts, [replace(step, moves=(*step.moves, *moves))])
    summary = builder.build(ledger.shares(), False)
    return _Timed(step, summary, builder.moved.band(summary))


def _beside_s(one: Candidate, batch: Batch, moves: Moves, layer_s: float, most: int) -> float:
    """Seconds by which a step gets longer that has one layer's weights beside its tokens, the stop for it included."""
    transfer = weight_transfer("async")
    flows = weight_flows(one.parts.fabric, moves.source, moves.target, slot_bytes(one.parts), transfer)
    alone_s = float(run_phase(one.parts.fabric, flows).leave_s.max())
    # So many layers that the weights have time to travel beside them, as in the whole model.
    layers = min(most, 2 + math.ceil(2 * alone_s / layer_s))
    move = LayerMove(0, moves, beside=True)
    stop = replace(move.taken_over(), layer=layers - 1)
    with_weights, without = (
        _on_the_clock(one, batch, layers, moved).summary["step_time_s"] for moved in ((move, stop), ())
    )
    return float(with_weights - without)

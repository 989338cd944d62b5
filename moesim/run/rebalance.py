"""Rebalancing in a run: when experts are placed anew, from which load, and whose weights move before or during a step.

Every so many batches the policy sees the load of the batches since it last did and places the experts of all layers.
``blocking`` and ``layerwise`` move all weights in the step that first uses them. ``async`` moves one layer a step, as
engines do: a layer keeps its old placement until the weights of every simulated layer that it stands for are there;
what falls due before that is left out. None of this depends on the clock, so steps that differ only in their wires
share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moesim.layer import Parts, RoutedLayer, check_slots, place
from moesim.placement import Moves, Placement, contiguous, moves_between


@dataclass(frozen=True)
class LayerMove:
    """Weights of a simulated layer that change place in a step; its ranks stop for them unless they go ``beside``.

    Where they went beside the step before, the ranks stop to take them over and nothing moves.
    """

    layer: int
    moves: Moves
    beside: bool

    def taken_over(self) -> "LayerMove":
        """Return the stop that follows a move beside the tokens."""
        none = self.moves.expert[:0]
        return LayerMove(self.layer, Moves(none, none, none), beside=False)


@dataclass(frozen=True)
class Rebalancing:
    """What the rebalancer remembers from step to step.

    Attributes:
        batches: since it last placed the experts; ``seen`` their load by recorded layer, [experts].
        to_come: placements whose weights have not all moved, by recorded layer.
        waiting: simulated layers whose weights have not moved, with the moves, in order.
    """

    batches: int = 0
    seen: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    to_come: Mapping[int, Placement] = field(default_factory=dict)
    waiting: tuple[LayerMove, ...] = ()

    def after(self, layers: Mapping[int, RoutedLayer]) -> "Rebalancing":
        """Take in the load of a step."""
        seen = {layer: self.seen.get(layer, 0) + routed.expert_tokens for layer, routed in layers.items()}
        return replace(self, batches=self.batches + 1, seen=seen)


def rebalanced(
    parts: Parts, placement: Mapping[int, Placement], memory: Rebalancing, layers: Sequence[int]
) -> tuple[Mapping[int, Placement], Rebalancing, tuple[LayerMove, ...]]:
    """Return where the experts are in the step that begins, what is remembered, and the weights that move in it.

    Args:
        parts: with ``placement.rebalance``.
        placement: of the recorded layers until now; empty before the first step.
        memory: of the steps before.
        layers: recorded ones.
    """
    asked = parts.placement.rebalance
    assert asked is not None  # noqa: S101 - whoever asks has looked
    check_slots(parts)
    stops: tuple[LayerMove, ...] = ()
    if memory.batches >= asked.every and not memory.waiting:
        section = parts.placement.model_copy(update={"policy": asked.policy, "moves": None})
        anew = replace(parts, placement=section)
        new = {layer: place(anew, memory.seen[layer], base=placement[layer]) for layer in layers}
        moves = {layer: moves_between(placement[layer], new[layer], parts.fabric.rank_node) for layer in layers}
        beside = asked.mode == "async"
        simulated = parts.workload.layers_simulated or len(layers)
        due = [LayerMove(layer, moves[layers[layer % len(layers)]], beside) for layer in range(simulated)]
        due = [move for move in due if len(move.moves)]
        if not beside:
            return new, Rebalancing(), tuple(due)
        due.sort(key=lambda move: move.layer % len(layers))
        memory = Rebalancing(to_come=new, waiting=tuple(due))
    elif memory.waiting:
        moved, waiting = memory.waiting[0], memory.waiting[1:]
        memory, stops = replace(memory, waiting=waiting), (moved.taken_over(),)
        layer = layers[moved.layer % len(layers)]
        if all(layers[move.layer % len(layers)] != layer for move in waiting):
            placement = {**placement, layer: memory.to_come[layer]}
    return placement, memory, (*stops, *memory.waiting[:1])


def fetched(parts: Parts, home: Mapping[int, Placement], layers: Mapping[int, RoutedLayer]) -> tuple[LayerMove, ...]:
    """Return the weights that ranks fetch for a step's own tokens, from their home; by default contiguous."""
    fabric, simulated = parts.fabric, parts.workload.layers_simulated or len(layers)
    default, order = contiguous(parts.model.n_experts, fabric.n_ranks), list(layers)
    moves = {
        layer: moves_between(home.get(layer, default), one.placement, fabric.rank_node) for layer, one in layers.items()
    }
    due = (LayerMove(layer, moves[order[layer % len(order)]], beside=True) for layer in range(simulated))
    return tuple(move for move in due if len(move.moves))

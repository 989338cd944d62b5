"""The steps of a run before the clock: each batch routed, what lasts from one to the next handed on.

State (the routers' biases, placements that stay) goes round from step to step.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moesim.balance import update_bias
from moesim.errors import InputError
from moesim.layer import Parts, RoutedLayer, first_bias, route_layer
from moesim.placement import Placement
from moesim.placement_policies import FETCHING_POLICIES, FIXED_POLICIES
from moesim.run.rebalance import LayerMove, Rebalancing, fetched, rebalanced
from moesim.workload import Batch, micro_batches, without_ranks


@dataclass(frozen=True)
class State:
    """What one step hands to the next.

    Attributes:
        bias: of each recorded layer's router, [experts]; None where there is none.
        placement: of the recorded layers whose experts stay where they are; the others' are placed by the step's load.
        rebalancing: what the rebalancer has seen, and what it has not moved yet.
    """

    bias: Mapping[int, NDArray[np.float32] | None]
    placement: Mapping[int, Placement] = field(default_factory=dict)
    rebalancing: Rebalancing = field(default_factory=Rebalancing)


@dataclass(frozen=True)
class RoutedStep:
    """One batch after routing: of each recorded layer, where its tokens go.

    Attributes:
        given: the experts came with the workload, no router ran; some tokens may have fewer than top-k.
        moves: weights that change place in this step.
        later: the same of the micro-batches after the first, whose are ``layers``.
    """

    layers: dict[int, RoutedLayer]
    tokens: int
    distinct_tokens: int
    given: bool
    moves: tuple[LayerMove, ...] = ()
    later: tuple[dict[int, RoutedLayer], ...] = ()


def initial_state(parts: Parts, batch: Batch) -> State:
    """The biases that the scenario asks for, as recorded, none, or from a file; the placement, if a file gives it."""
    placed = parts.placement_map
    placement = {} if placed is None else {layer: placed.for_layer(layer) for layer in batch.layers}
    return State(first_bias(parts, batch), placement)


def route_steps(parts: Parts, batches: Iterable[Batch]) -> Iterator[RoutedStep]:
    """Route one batch after the other, the state of each step coming from the one before."""
    state: State | None = None
    for batch in batches:
        step, state = route_step(parts, state or initial_state(parts, batch), batch)
        yield step


def route_step(parts: Parts, state: State, batch: Batch) -> tuple[RoutedStep, State]:
    """Route one batch through the layers that are simulated.

    Returns:
        Its routing, and the state for the next step: the biases moved by this step's loads where the scenario asks for
        it (arXiv:2408.15664, Alg. 1), else as they were; placements and their rebalancer where it asks for one.
    """
    if parts.gone is not None:
        batch = without_ranks(batch, parts.gone.ranks)
        if not batch.tokens:
            raise InputError("no living rank has a token", "faults", "give other ranks tokens")
    layers = batch.layers[: parts.workload.layers_simulated]
    moves: tuple[LayerMove, ...] = ()
    if parts.placement.rebalance:
        where, memory, moves = rebalanced(parts, state.placement, state.rebalancing, layers)
        state = replace(state, placement=where, rebalancing=memory)
    placed, cut = dict(state.placement), 1 if parts.inference is None else parts.inference.micro_batches
    if cut > 1 and parts.placement.policy not in FIXED_POLICIES:  # both follow one load
        whole = {layer: route_layer(parts, batch, layer, state.bias[layer], placed.get(layer)) for layer in layers}
        placed = {layer: of.placement for layer, of in whole.items()}
    routed, *later = (
        {layer: route_layer(parts, part, layer, state.bias[layer], placed.get(layer)) for layer in layers}
        for part in micro_batches(batch, cut)
    )
    if parts.placement.policy in FETCHING_POLICIES:
        moves = fetched(parts, state.placement, routed)
    step = RoutedStep(routed, batch.tokens, batch.distinct_tokens, batch.logits is None, moves, tuple(later))
    if parts.placement.rebalance:  # where experts are placed by a load, that is the first step's
        stays = {layer: one.placement for layer, one in routed.items()}
        state = replace(state, placement=stays, rebalancing=state.rebalancing.after(routed))
    if not parts.update_bias:
        return step, state
    rate, none = parts.losses.bias_rate, np.zeros(parts.router.n_experts)
    moved: dict[int, NDArray[np.float32] | None] = {}
    for layer in layers:
        bias = state.bias[layer]
        before = none if bias is None else bias
        load = sum((of[layer].expert_tokens for of in later), routed[layer].expert_tokens)
        moved[layer] = update_bias(before, load, rate).astype(np.float32)
    return step, replace(state, bias={**state.bias, **moved})

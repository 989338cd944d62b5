"""What a rank is to do: operations on two lanes, in order, and what each waits for. Plain data, one for all ranks.

Every lane is serial and takes its operations in the order given; an operation starts when its lane is free and what it
names is done on the same rank. What ties ranks together are the flows of the all-to-alls alone. What an operation costs
stands elsewhere (``LayerWork``): a program is the order only, so a schedule is a function that returns one.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from moesim.stages import BESIDE, MIGRATION, OTHER, PHASES, STAGE, STAGES, Stage

Key = tuple[str, int, int]
"""An operation: name of its stage, layer, micro-batch."""


class Operation(NamedTuple):
    """A stage of one layer and micro-batch.

    Attributes:
        after: operations that must be done first, beside those before it on its lane.
    """

    stage: Stage
    layer: int
    micro_batch: int = 0
    after: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """What others name it by."""
        return self.stage.name, self.layer, self.micro_batch


Program = tuple[Operation, ...]


def moe_layers(n_layers: int, permutes_first: bool, other: bool = False) -> Program:
    """One micro-batch through MoE layers, one after the other.

    Every stage follows the one before it, but those that run ``beside`` a phase: they start with it.

    Args:
        n_layers: layers.
        permutes_first: tokens are sorted before dispatch and put back after combine (NCCL), else sorted after dispatch
            and put back before combine (DeepEP).
        other: compute something else between two layers.
    """
    program: list[Operation] = []
    before: tuple[Key, ...] = ()
    order = layer_order(permutes_first)
    for layer in range(n_layers):
        for stage in (OTHER, *order) if other and layer else order:
            program.append(Operation(stage, layer, after=() if stage.beside else before))
            if not stage.beside:
                before = (program[-1].key,)
    return tuple(program)


def layer_order(permutes_first: bool) -> tuple[Stage, ...]:
    """The stages of one layer in the order in which they start."""
    if permutes_first:
        return STAGES
    moved = {"experts": "permute", "combine": "unpermute"}
    order: list[Stage] = []
    for stage in STAGES:
        if stage.name in moved:
            order.append(STAGE[moved[stage.name]])
        if stage.name not in moved.values():
            order.append(stage)
    return tuple(order)


class LayerPieces(NamedTuple):
    """The stages of a layer as schedules move them: before dispatch, the experts, and after combine."""

    before: tuple[Stage, ...]
    experts: tuple[Stage, ...]
    after: tuple[Stage, ...]


def layer_pieces(permutes_first: bool) -> LayerPieces:
    """Cut a layer at its all-to-alls; the shared expert is in none of the pieces."""
    order = [stage for stage in layer_order(permutes_first) if not stage.beside]
    dispatch, combine = (order.index(STAGE[name]) for name in PHASES)
    return LayerPieces(tuple(order[:dispatch]), tuple(order[dispatch + 1 : combine]), tuple(order[combine + 1 :]))


def on_compute(
    stages: tuple[Stage, ...], layer: int, micro_batch: int, first_after: tuple[Key, ...] = ()
) -> Iterator[Operation]:
    """Yield stages of one lane in turn: only the first has to wait for another lane."""
    for stage in stages:
        yield Operation(stage, layer, micro_batch, first_after)
        first_after = ()


def with_migrations(
    program: Program, stops: Collection[int], beside: Collection[int], first: bool = False, awaited: bool = False
) -> Program:
    """Put moves of weights into a program.

    Args:
        program: of the layers.
        stops: layers of which all ranks stop to move weights.
        beside: layers whose weights travel while the program runs, one after the other, on a lane of their own.
        first: stop for all layers before the program begins; else for each before it begins.
        awaited: weights beside are for the very tokens: they leave when the router has run, and the experts wait for
            them.
    """
    made: list[Operation] = []
    before: tuple[Key, ...] = ()

    def stop(layer: int, after: tuple[Key, ...]) -> tuple[Key, ...]:
        made.append(Operation(MIGRATION, layer, after=after))
        return (made[-1].key,)

    if first:
        for layer in stops:
            before = stop(layer, before)
    begun = set[int]()
    for operation in program:
        if operation.layer not in begun:
            begun.add(operation.layer)
            after = operation.after + (before if len(begun) == 1 else ())
            if not first and operation.layer in stops:
                after = stop(operation.layer, after)
            operation = operation._replace(after=after)
        if awaited and operation.stage.name == "experts" and operation.layer in beside:
            operation = operation._replace(after=(*operation.after, (BESIDE.name, operation.layer, 0)))
        made.append(operation)
    return (*made, *(Operation(BESIDE, layer, after=(("gate", layer, 0),) * awaited) for layer in beside))

"""No overlap: one micro-batch, one thing after the other; the shared expert alone runs beside dispatch.

A layer takes A + max(D, S) + M + C: attention with the gate, dispatch or shared expert, experts, combine.
"""

from collections.abc import Iterator

from moesim.stages import ATTENTION, DENSE, HEAD, HOST, PROJECTIONS, STAGE, Stage
from moesim.timeline.program import Operation, layer_pieces, on_compute

Stages = tuple[Stage, ...]


def in_turn(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers."""
    return one_batch(n_layers, *layer_pieces(permutes_first))


def one_batch(n_layers: int, before: Stages, experts: Stages, after: Stages) -> Iterator[Operation]:
    """Yield the program of layers that compute this before dispatch, between it and combine, and after."""
    dispatch, shared, combine = STAGE["dispatch"], STAGE["shared_expert"], STAGE["combine"]
    attention, last = (PROJECTIONS, ATTENTION, *before), n_layers - 1
    yield from on_compute((HOST, DENSE), 0, 0)
    for layer in range(n_layers):
        back = ((combine.name, layer - 1, 0),) if layer and not after else ()
        yield from on_compute(attention, layer, 0, back)
        yield Operation(dispatch, layer, 0, ((attention[-1].name, layer, 0),))
        yield Operation(shared, layer, 0)
        yield from on_compute(experts, layer, 0, ((dispatch.name, layer, 0),))
        yield Operation(combine, layer, 0, ((experts[-1].name, layer, 0),))
        yield from on_compute(after, layer, 0, ((combine.name, layer, 0),))
    yield Operation(HEAD, last, 0, ((combine.name, last, 0),))

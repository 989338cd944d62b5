"""Single-batch overlap: one micro-batch; combine runs beside the down GEMM, the shared expert beside dispatch.

The down GEMM signals each finished block of tokens and combine sends it, so both begin together and the layer goes on
when both have ended: that the last block has yet to travel is left out. A layer takes
A + max(D, S) + M' + max(C, M'') + 4 h, with M' the up GEMM, M'' the down GEMM and h a send or receive kernel.
"""

from collections.abc import Iterator

from moesim.stages import (
    ATTENTION,
    DENSE,
    DOWN,
    HEAD,
    HOST,
    PROJECTIONS,
    RECEIVE_COMBINE,
    RECEIVE_DISPATCH,
    SEND_COMBINE,
    SEND_DISPATCH,
    STAGE,
)
from moesim.timeline.program import Operation, Program, layer_pieces, on_compute


def single_batch(n_layers: int, permutes_first: bool) -> Program:
    """Return the program of ``n_layers`` MoE layers."""
    return tuple(_operations(n_layers, permutes_first))


def _operations(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    dispatch, shared, combine = STAGE["dispatch"], STAGE["shared_expert"], STAGE["combine"]
    before, experts, after = layer_pieces(permutes_first)
    yield from on_compute((HOST, DENSE), 0, 0)
    for layer in range(n_layers):
        yield from on_compute((PROJECTIONS, ATTENTION, *before, SEND_DISPATCH), layer, 0)
        yield Operation(dispatch, layer, 0, ((SEND_DISPATCH.name, layer, 0),))
        yield Operation(shared, layer, 0)
        yield from on_compute((RECEIVE_DISPATCH, *experts, SEND_COMBINE), layer, 0, ((dispatch.name, layer, 0),))
        yield Operation(combine, layer, 0, ((SEND_COMBINE.name, layer, 0),))
        yield Operation(DOWN, layer, 0)
        yield from on_compute((RECEIVE_COMBINE, *after), layer, 0, ((combine.name, layer, 0),))
    yield Operation(HEAD, n_layers - 1, 0)

"""Low-latency hooks: one micro-batch whose sends and receives are short kernels of their own.

A send posts the messages and returns, the transfer holds wires alone, a receive waits for it. The shared expert runs
while dispatch is on the wires. A layer takes A + max(D, S) + M + C + 4 h, with h the length of such a kernel.

Single-batch overlap: combine runs beside the down GEMM, too, as the shared expert beside dispatch. That signals each
finished block of tokens and combine sends it, so both begin together and the layer goes on when both have ended: that
the last block has yet to travel is left out. A layer takes A + max(D, S) + M' + max(C, M'') + 4 h, with M' the up
GEMM and M'' the down GEMM.
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
from moesim.timeline.program import Operation, layer_pieces, on_compute


def hooks(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers."""
    dispatch, shared, combine = STAGE["dispatch"], STAGE["shared_expert"], STAGE["combine"]
    before, experts, after = layer_pieces(permutes_first)
    yield from on_compute((HOST, DENSE), 0, 0)
    for layer in range(n_layers):
        yield from on_compute((PROJECTIONS, ATTENTION, *before, SEND_DISPATCH), layer, 0)
        yield Operation(dispatch, layer, 0, ((SEND_DISPATCH.name, layer, 0),))
        yield Operation(shared, layer, 0)
        yield from on_compute((RECEIVE_DISPATCH, *experts, SEND_COMBINE), layer, 0, ((dispatch.name, layer, 0),))
        yield Operation(combine, layer, 0, ((SEND_COMBINE.name, layer, 0),))
        yield from on_compute((RECEIVE_COMBINE, *after), layer, 0, ((combine.name, layer, 0),))
    yield Operation(HEAD, n_layers - 1, 0)


def single_batch(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers, combine beside the down GEMM."""
    for operation in hooks(n_layers, permutes_first):
        yield operation
        if operation.stage.name == "combine":
            yield Operation(DOWN, operation.layer)

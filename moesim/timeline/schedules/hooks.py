"""Low-latency hooks: one micro-batch whose sends and receives are short kernels of their own.

A send posts the messages and returns, the transfer holds wires alone, a receive waits for it. The shared expert runs
while dispatch is on the wires. A layer takes A + max(D, S) + M + C + 4 h, with h the length of such a kernel.

Single-batch overlap: combine runs beside the down GEMM, too, as the shared expert beside dispatch. That signals each
finished block of tokens and combine sends it, so both begin together and the layer goes on when both have ended: that
the last block has yet to travel is left out. A layer takes A + max(D, S) + M' + max(C, M'') + 4 h, with M' the up
GEMM and M'' the down GEMM.
"""

from collections.abc import Iterator

from moesim.stages import DOWN, RECEIVE_COMBINE, RECEIVE_DISPATCH, SEND_COMBINE, SEND_DISPATCH
from moesim.timeline.program import Operation, layer_pieces
from moesim.timeline.schedules.in_turn import one_batch


def hooks(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers."""
    before, experts, after = layer_pieces(permutes_first)
    received = (RECEIVE_DISPATCH, *experts, SEND_COMBINE)
    return one_batch(n_layers, (*before, SEND_DISPATCH), received, (RECEIVE_COMBINE, *after))


def single_batch(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers, combine beside the down GEMM."""
    for operation in hooks(n_layers, permutes_first):
        yield operation
        if operation.stage.name == "combine":
            yield Operation(DOWN, operation.layer)

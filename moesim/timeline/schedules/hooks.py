"""Low-latency hooks: one micro-batch whose sends and receives are short kernels of their own.

A send posts the messages and returns, the transfer holds wires alone, a receive waits for it. The shared expert runs
while dispatch is on the wires. A layer takes A + max(D, S) + M + C + 4 h, with h the length of such a kernel.
"""

from collections.abc import Iterator

from moesim.stages import (
    ATTENTION,
    DENSE,
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

"""Two micro-batches of a decode, attention in two parts, sends and receives with hooks.

A send posts the messages and returns, the transfer holds wires alone, a receive waits for it. The micro-batches stand
half a layer apart. While x is dispatched, its shared expert and y's projections run; while x is combined, y's core
attention and gate. Half a layer takes max(D, S + A0) + M + max(C, A1) + 4 h.
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


def two_batch_decode(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers."""
    dispatch, shared, combine = STAGE["dispatch"], STAGE["shared_expert"], STAGE["combine"]
    before, experts, after = layer_pieces(permutes_first)
    yield from on_compute((HOST, DENSE), 0, 0)
    yield Operation(DENSE, 0, 1)
    yield from on_compute((PROJECTIONS, ATTENTION, *before), 0, 0)
    for half in range(2 * n_layers):
        x, layer = half % 2, half // 2
        # The other one enters the layer that x is in, where x is the first, else the next one.
        y, ahead = 1 - x, layer + x
        yield Operation(SEND_DISPATCH, layer, x)
        yield Operation(dispatch, layer, x, ((SEND_DISPATCH.name, layer, x),))
        yield Operation(shared, layer, x)
        if ahead < n_layers:
            yield Operation(PROJECTIONS, ahead, y)
        yield from on_compute((RECEIVE_DISPATCH, *experts, SEND_COMBINE), layer, x, ((dispatch.name, layer, x),))
        yield Operation(combine, layer, x, ((SEND_COMBINE.name, layer, x),))
        if ahead < n_layers:
            yield from on_compute((ATTENTION, *before), ahead, y)
        yield from on_compute((RECEIVE_COMBINE, *after), layer, x, ((combine.name, layer, x),))
    yield Operation(HEAD, n_layers - 1, 1)

"""Two micro-batches of a prefill: communication of one beside compute of the other.

The communication kernels hold some SMs for good: grids are made for the rest, whether the wires are busy or not, so the
kernels' times have that in them. Compute: attention(a), shared(b) of the layer before, attention(b), experts(a),
experts(b), shared(a). Network: combine(b) of the layer before, dispatch(a), dispatch(b), combine(a).
"""

from collections.abc import Iterator

from moesim.stages import ATTENTION, DENSE, HEAD, HOST, PROJECTIONS, STAGE
from moesim.timeline.program import Operation, layer_pieces, on_compute


def two_batch_prefill(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers."""
    dispatch, shared, combine = STAGE["dispatch"], STAGE["shared_expert"], STAGE["combine"]
    before, experts, after = layer_pieces(permutes_first)
    last = n_layers - 1

    def attention(layer: int, z: int) -> Iterator[Operation]:
        back = ((combine.name, layer - 1, z),) if layer else ()
        if layer:
            yield from on_compute(after, layer - 1, z, back)
        yield from on_compute((PROJECTIONS, ATTENTION, *before), layer, z, back)

    def send(layer: int, z: int) -> Operation:
        return Operation(dispatch, layer, z, ((before[-1].name, layer, z),))

    def compute(layer: int, z: int) -> Iterator[Operation]:
        yield from on_compute(experts, layer, z, ((dispatch.name, layer, z),))

    def back(layer: int, z: int) -> Operation:
        return Operation(combine, layer, z, ((experts[-1].name, layer, z),))

    yield from on_compute((HOST, DENSE), 0, 0)
    yield Operation(DENSE, 0, 1)
    for layer in range(n_layers):
        yield from attention(layer, 0)
        if layer:
            yield Operation(shared, layer - 1, 1)
            yield back(layer - 1, 1)
        yield send(layer, 0)
        yield from attention(layer, 1)
        yield send(layer, 1)
        yield from compute(layer, 0)
        yield back(layer, 0)
        yield from compute(layer, 1)
        yield Operation(shared, layer, 0)
    yield Operation(shared, last, 1)
    yield back(last, 1)
    for z in (0, 1):
        yield from on_compute(after, last, z, ((combine.name, last, z),))
    yield Operation(HEAD, last, 1, ((combine.name, last, 0), (combine.name, last, 1)))

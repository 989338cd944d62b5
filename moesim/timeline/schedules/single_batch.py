"""Single-batch overlap: hooks, and combine runs beside the down GEMM as the shared expert beside dispatch.

The down GEMM signals each finished block of tokens and combine sends it, so both begin together and the layer goes on
when both have ended: that the last block has yet to travel is left out. A layer takes
A + max(D, S) + M' + max(C, M'') + 4 h, with M' the up GEMM, M'' the down GEMM and h a send or receive kernel.
"""

from collections.abc import Iterator

from moesim.stages import DOWN
from moesim.timeline.program import Operation
from moesim.timeline.schedules.hooks import hooks


def single_batch(n_layers: int, permutes_first: bool) -> Iterator[Operation]:
    """Yield the program of ``n_layers`` MoE layers."""
    for operation in hooks(n_layers, permutes_first):
        yield operation
        if operation.stage.name == "combine":
            yield Operation(DOWN, operation.layer)

"""Orders in which the ranks of a pipeline take micro-batches.

An order is plain data: for each rank what it does, one task after the other. A stage is a part of the model's layers.
"""

from collections.abc import Callable

from moesim.timeline.pipelines.dualpipe import dualpipe, dualpipev
from moesim.timeline.pipelines.one_f_one_b import one_f_one_b, zb1p
from moesim.timeline.pipelines.passes import Order

PIPELINES: dict[str, Callable[[int, int], Order]] = {
    "none": one_f_one_b,  # of one rank: forward and backward in turn
    "1f1b": one_f_one_b,
    "zb1p": zb1p,
    "dualpipe": dualpipe,
    "dualpipev": dualpipev,
}
"""By name: the order of so many ranks (first) and micro-batches."""

__all__ = ["PIPELINES"]

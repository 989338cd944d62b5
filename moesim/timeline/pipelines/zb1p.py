"""ZB1P: 1F1B whose weight gradients wait until a rank would stand still (zero bubble, arXiv:2401.10241).

Stage s keeps s of them in hand and computes one after each further input gradient. With F, input part and weight part W
alike, W no longer than either, the bubble is (p - 1)(F + B - 2W).
"""

from collections.abc import Iterator

from moesim.timeline.pipelines.one_f_one_b import in_turn
from moesim.timeline.pipelines.passes import Order, Pass, Task


def zb1p(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank s holds stage s."""
    return tuple(tuple(_tasks(stage, ranks, micro_batches)) for stage in range(ranks))


def _tasks(stage: int, ranks: int, micro_batches: int) -> Iterator[Task]:
    done = 0
    for task in in_turn(stage, ranks, micro_batches, "input"):
        yield task
        if task[0].kind == "input" and task[0].micro_batch - done >= stage:
            yield (Pass("weights", stage, done),)
            done += 1
    for left in range(done, micro_batches):
        yield (Pass("weights", stage, left),)

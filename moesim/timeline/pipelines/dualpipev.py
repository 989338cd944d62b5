"""DualPipeV: DualPipe cut in half. Micro-batches pass the ranks down and back, so that each holds its stages once.

The tasks of a rank are those of a DualPipe of twice as many ranks, and so is the time that the last one stands still.
"""

from moesim.timeline.pipelines.dualpipe import tasks
from moesim.timeline.pipelines.passes import Order


def dualpipev(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank r holds stages r and 2 ``ranks`` - 1 - r.

    Args:
        ranks: GPUs of the pipeline.
        micro_batches: at least twice the ranks.
    """
    return tuple(tuple(tasks(rank, 2 * ranks, micro_batches, (0, 0))) for rank in range(ranks))

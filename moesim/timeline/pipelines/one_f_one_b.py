"""1F1B: a rank takes forwards until the first gradient is back, then one backward and one forward in turn.

With F and B alike on p ranks, m micro-batches end after (m + p - 1)(F + B): a bubble of (p - 1)(F + B)
(PipeDream-Flush, arXiv:2006.09503).
"""

from collections.abc import Iterator

from moesim.timeline.pipelines.passes import Kind, Order, Pass, Task


def one_f_one_b(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank s holds stage s."""
    return tuple(tuple(in_turn(stage, ranks, micro_batches, "backward")) for stage in range(ranks))


def in_turn(stage: int, ranks: int, micro_batches: int, back: Kind) -> Iterator[Task]:
    """Yield a rank's forwards and its passes ``back``."""
    ahead = min(ranks - stage, micro_batches)
    for i in range(ahead):
        yield (Pass("forward", stage, i),)
    for i in range(micro_batches):
        yield (Pass(back, stage, i),)
        if ahead + i < micro_batches:
            yield (Pass("forward", stage, ahead + i),)

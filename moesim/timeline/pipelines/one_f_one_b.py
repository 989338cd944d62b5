"""1F1B: a rank takes forwards until the first gradient is back, then one backward and one forward in turn.

With F and B alike on p ranks, m micro-batches end after (m + p - 1)(F + B): a bubble of (p - 1)(F + B)
(PipeDream-Flush, arXiv:2006.09503).

ZB1P: 1F1B whose weight gradients wait until a rank would stand still (zero bubble, arXiv:2401.10241). Stage s keeps s
of them in hand and computes one after each further input gradient. With F, input part and weight part W alike, W no
longer than either, the bubble is (p - 1)(F + B - 2W).
"""

from collections.abc import Iterator

from moesim.timeline.pipelines.passes import Kind, Order, Pass, Task


def one_f_one_b(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank s holds stage s."""
    return tuple(tuple(_in_turn(stage, ranks, micro_batches, "backward")) for stage in range(ranks))


def _in_turn(stage: int, ranks: int, micro_batches: int, back: Kind) -> Iterator[Task]:
    """Yield a rank's forwards and its passes ``back``."""
    ahead = min(ranks - stage, micro_batches)
    for i in range(ahead):
        yield (Pass("forward", stage, i),)
    for i in range(micro_batches):
        yield (Pass(back, stage, i),)
        if ahead + i < micro_batches:
            yield (Pass("forward", stage, ahead + i),)


def zb1p(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank s holds stage s."""
    return tuple(tuple(_late_weights(stage, ranks, micro_batches)) for stage in range(ranks))


def _late_weights(stage: int, ranks: int, micro_batches: int) -> Iterator[Task]:
    done = 0
    for task in _in_turn(stage, ranks, micro_batches, "input"):
        yield task
        if task[0].kind == "input" and task[0].micro_batch - done >= stage:
            yield (Pass("weights", stage, done),)
            done += 1
    for left in range(done, micro_batches):
        yield (Pass("weights", stage, left),)

"""DualPipe: micro-batches enter at both ends, and a forward pass overlaps with a backward one of the other direction.

Every rank holds two stages, one of each direction. The eight steps are those of DeepSeek's DualPipe. The two middle
ranks stand still for (p/2 - 1)(FB + F - 2W) where W <= min(F, Bi) and F >= Bi, with FB an overlapped pair, Bi and W the
parts of a backward pass. That is the published (p/2 - 1)(FB + B - 3W) where F = Bi (DeepSeek-V3 report, table 2).

DualPipeV is DualPipe cut in half: micro-batches pass the ranks down and back, so that each holds its stages once. The
tasks of a rank are those of a DualPipe of twice as many ranks, and so is the time that the last one stands still.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from moesim.timeline.pipelines.passes import Kind, Order, Pass, Task


class _Step(NamedTuple):
    """A task before its micro-batches are counted: what is done, and in which of the rank's two phases.

    ``pair``: a forward pass of ``phase`` with a backward one of the other; ``weights``: the oldest left.
    """

    what: Kind | Literal["pair"]
    phase: int = 0


def dualpipe(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank r holds stages r and ``ranks`` - 1 - r, half of the micro-batches enters at either end.

    Args:
        ranks: an even number.
        micro_batches: an even number, at least twice the ranks.
    """
    half, order = micro_batches // 2, []
    for rank in range(ranks):
        near = min(rank, ranks - 1 - rank)
        # Phase 0 is the direction that enters at the rank's own half.
        first = (0, half) if rank < ranks // 2 else (half, 0)
        order.append(tuple(_tasks(near, ranks, half, first)))
    return tuple(order)


def dualpipev(ranks: int, micro_batches: int) -> Order:
    """Return the order; rank r holds stages r and 2 ``ranks`` - 1 - r, ``micro_batches`` are at least twice as many."""
    return tuple(tuple(_tasks(rank, 2 * ranks, micro_batches, (0, 0))) for rank in range(ranks))


def _tasks(near: int, stages: int, micro_batches: int, first: tuple[int, int]) -> Iterator[Task]:
    """Yield the tasks of a rank that holds stages ``near`` and ``stages`` - 1 - ``near``.

    Args:
        near: its stage of phase 0.
        stages: of the model.
        micro_batches: of each phase.
        first: number of the first micro-batch of each phase.
    """
    stage, taken = (near, stages - 1 - near), {("forward", 0): 0, ("forward", 1): 0, ("back", 0): 0, ("back", 1): 0}
    late: list[Pass] = []

    def taking(kind: Kind, phase: int) -> Pass:
        way = "forward" if kind == "forward" else "back"
        taken[way, phase] += 1
        return Pass(kind, stage[phase], first[phase] + taken[way, phase] - 1)

    for what, phase in _steps(near, stages // 2, micro_batches):
        if what == "pair":
            yield taking("forward", phase), taking("backward", 1 - phase)
        elif what == "weights":
            yield (late.pop(0),)
        else:
            yield (taking(what, phase),)
            if what == "input":
                one = Pass("weights", stage[phase], first[phase] + taken["back", phase] - 1)
                late.append(one)


def _steps(near: int, half: int, micro_batches: int) -> Iterator[_Step]:
    outside = half - 1 - near
    yield from [_Step("forward")] * (2 * outside)
    yield from [_Step("forward", 0), _Step("forward", 1)] * (near + 1)
    yield from [_Step("input", 1), _Step("weights"), _Step("forward", 1)] * outside
    pairs = [_Step("pair", 0), _Step("pair", 1)] * (micro_batches - 2 * half + near + 1)
    # In the middle the first gradient comes straight from the forward pass before it.
    yield from pairs if outside else [_Step("forward", 0), _Step("backward", 1), *pairs[1:]]
    yield from [_Step("backward", 1), _Step("pair", 1)] * outside
    ends = [1, 0] * (near + 1)
    yield from (_Step("backward", phase) for phase in ends[: near + 1])
    yield from (_Step("input", phase) for phase in ends[near + 1 :])
    yield from [_Step("weights"), _Step("input", 0)] * outside
    yield from [_Step("weights")] * (near + 1)

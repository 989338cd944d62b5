"""The ranks of a pipeline on one clock, each at its tasks in their order.

A task starts when its rank is free and what its passes wait for has come: a forward pass for the stage before, a
backward one for the stage behind, in the last stage for its own forward. What comes from another rank takes the time of
a send, which holds nobody up but the one that waits.
"""

from collections.abc import Callable, Generator
from typing import NamedTuple

import simpy

from moesim.errors import InvariantError
from moesim.timeline.pipelines.passes import Order, Pass, Task


class Ran(NamedTuple):
    """A task after the clock, in seconds."""

    rank: int
    task: Task
    start_s: float
    end_s: float


_Key = tuple[bool, int, int]


def run_pipeline(order: Order, seconds_of: Callable[[Task], float], send_s: float = 0.0) -> list[Ran]:
    """Run every rank's tasks; returns them by the time of their end.

    Args:
        order: from ``moesim.timeline.pipelines``.
        seconds_of: what a task takes.
        send_s: from the end of a pass on one rank until another can start on it.

    Raises:
        InvariantError: a task waits for what never comes.
    """
    env, ran = simpy.Environment(), list[Ran]()
    last = max(one.stage for tasks in order for task in tasks for one in task)
    done: dict[_Key, tuple[int, float]] = {}
    awaited: dict[_Key, simpy.Event] = {}

    def rank_at_work(rank: int) -> Generator[simpy.Event, object, None]:
        for task in order[rank]:
            for key in filter(None, (_awaits(one, last) for one in task)):
                if key not in done:
                    yield awaited.setdefault(key, env.event())
                source, at = done[key]
                if source != rank and (left := at + send_s - env.now) > 0:
                    yield env.timeout(left)
            start = env.now
            yield env.timeout(seconds_of(task))
            ran.append(Ran(rank, task, start, env.now))
            for one in task:
                if one.kind != "weights":
                    key = one.kind == "forward", one.stage, one.micro_batch
                    done[key] = rank, env.now
                    if key in awaited:
                        awaited.pop(key).succeed()

    for rank in range(len(order)):
        env.process(rank_at_work(rank))
    env.run()
    if len(ran) < sum(map(len, order)):
        raise InvariantError(f"nobody ever does {next(iter(awaited))}, which a rank of the pipeline waits for")
    return ran


def _awaits(one: Pass, last: int) -> _Key | None:
    """What a pass waits for from elsewhere: whether that is a forward pass, of which stage and micro-batch."""
    if one.kind == "weights":
        return None  # its rank has had the input part
    if one.kind == "forward":
        return (True, one.stage - 1, one.micro_batch) if one.stage else None
    return (False, one.stage + 1, one.micro_batch) if one.stage < last else (True, last, one.micro_batch)

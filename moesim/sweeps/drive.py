"""The drive loop: routing first, then the points that share it, on whatever workers there are.

Never more tasks are out than there are workers, and each point is written to the journal as it comes in: a kill loses
the points that were being computed and no other. A point is one task. What makes points cheap is not bundling them but
the routing that they share; it travels with the task, so that any worker can take any point.

When a worker dies, the tasks that were out are run again one at a time, so that the one which kills its worker is found
out; after ``tries`` deaths its points are failed and the sweep continues.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from typing import Any

from moesim.errors import ResourceError
from moesim.sweeps.evaluate_points import Routed, one_line, route_point, time_point
from moesim.sweeps.journal import Outcome
from moesim.sweeps.point_plan import Plan
from moesim.sweeps.workers import Workers

Record = Callable[[Iterable[tuple[int, Outcome]]], None]


def drive(plan: Plan, todo: Iterable[int], workers: Workers, record: Record) -> None:
    """Run points until none is left.

    Args:
        plan: the sweep.
        todo: points to run, possible ones.
        workers: what runs them.
        record: receives points as they are done, in any order.

    Raises:
        ResourceError: the workers cannot be restarted.
    """
    _Drive(plan, todo, workers, record).run()


_GONE = "the workers are gone; the finished points are kept where the sweep has a folder: run it again to resume"

# A task is the digest of a routing, or the number of a point.
_Task = str | int


class _Drive:
    def __init__(self, plan: Plan, todo: Iterable[int], workers: Workers, record: Record) -> None:
        self._plan, self._workers, self._record = plan, workers, record
        self._points: dict[str, list[int]] = {}
        for point in sorted(todo):
            self._points.setdefault(plan.possible[point], []).append(point)
        self._unrouted: deque[str] = deque(self._points)
        self._ready: deque[int] = deque()
        self._routed = {} if plan.routed is None else plan.routed
        for key in self._routed.keys() & self._points.keys():
            self._unrouted.remove(key)
            self._ready.extend(self._points[key])
        self._left = {key: len(points) for key, points in self._points.items()}
        self._out: dict[Future[Any], _Task] = {}
        self._suspects: deque[_Task] = deque()
        self._deaths: Counter[_Task] = Counter()

    def run(self) -> None:
        while self._send() or self._out:
            done, _ = wait(self._out, return_when=FIRST_COMPLETED)
            for future in done:
                if future in self._out:
                    self._receive(future)

    def _send(self) -> bool:
        """Hand out tasks while workers are free; suspects one at a time."""
        sent = False
        while self._suspects or self._ready or self._unrouted:
            if len(self._out) >= (1 if self._suspects or self._on_trial() else self._workers.slots()):
                break
            queue: deque[Any] = self._suspects or self._ready or self._unrouted
            self._submit(queue.popleft())
            sent = True
        return sent

    def _on_trial(self) -> bool:
        return any(self._deaths[task] for task in self._out.values())

    def _submit(self, task: _Task) -> None:
        values, executor = self._plan.space.values, self._workers.executor
        future: Future[Any]
        try:
            if isinstance(task, str):
                future = executor.submit(route_point, self._plan.template, values(self._points[task][0]))
            else:
                routed = self._routed[self._plan.possible[task]]
                given = (True,) if self._plan.estimate else ()
                future = executor.submit(time_point, self._plan.template, values(task), routed, *given)
        except self._workers.deaths as death:
            future = Future()
            future.set_exception(death)
        except (BrokenExecutor, RuntimeError) as error:  # broken or shut down, and it cannot be repaired here
            raise ResourceError(_GONE) from error
        self._out[future] = task

    def _receive(self, future: Future[Any]) -> None:
        try:
            result = future.result()
        except self._workers.deaths:
            self._bury()
            return
        except (CancelledError, BrokenExecutor) as error:
            raise ResourceError(_GONE) from error
        except Exception as error:  # a result that cannot travel, an import that fails on the worker
            result = one_line(error)
        self._settle(self._out.pop(future), result)

    def _settle(self, task: _Task, result: Any) -> None:
        if isinstance(task, int):
            self._finish([task], result if isinstance(result, Outcome) else Outcome("failed", str(result)))
        elif isinstance(result, Routed):
            self._routed[task] = result
            self._ready.extend(self._points[task])
        else:
            self._finish(self._points[task], Outcome("failed", str(result)))

    def _finish(self, points: list[int], outcome: Outcome) -> None:
        self._record([(point, outcome) for point in points])
        for point in points:
            key = self._plan.possible[point]
            self._left[key] -= 1
            if not self._left[key] and self._plan.routed is None:
                self._routed.pop(key, None)

    def _bury(self) -> None:
        """A worker died: settle what still came back, start again, and suspect every other task that was out."""
        renewed, out, self._out = self._workers.renew is not None, self._out, {}
        if not renewed:
            dead = [future for future in out if future.done() and isinstance(future.exception(), self._workers.deaths)]
            self._out = {future: task for future, task in out.items() if future not in dead}
            out = {future: out[future] for future in dead}
        else:
            wait(out)
        for future, task in out.items():
            if future.exception() is None:
                self._settle(task, future.result())
                continue
            self._deaths[task] += 1
            if self._deaths[task] < self._workers.tries:
                self._suspects.append(task)
            else:
                self._settle(task, f"its worker died {self._deaths[task]} times" if renewed else "its workers died")
        if self._workers.renew is not None:
            self._workers.executor = self._workers.renew()

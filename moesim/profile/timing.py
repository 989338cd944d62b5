"""The time of one call: the median over samples, with cold inputs or hot ones.

On CUDA a short call (under 1 ms) is captured up to twenty times in one graph, so that neither the host nor the
launch shows, and a sample is a replay divided by its calls. Cold calls take turns over input sets that fill the L2
cache four times over; hot ones repeat one set. Where even 64 sets do not fill it, the cache is flushed before each
call instead. Longer calls, and what cannot be captured, are timed one by one between two events while the host runs
ahead. On the CPU every call is timed by the clock, with sets that outgrow a core's own caches.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from moesim.profile.budget import CACHE_MULTIPLE, FEWEST, LONG_S, chain_length, samples

Inputs = tuple[Any, ...]
Call = Callable[..., object]
MOST_SETS = 64
CPU_SECONDS = 0.01  # of sampling on the CPU
WARM_CALLS = 2


class Samples(NamedTuple):
    """Times of a call in microseconds, and how they were taken."""

    us: list[float]
    timer: str

    def percentiles(self) -> tuple[float, float, float]:
        """Return the 20th, 50th and 80th percentile."""
        cuts = statistics.quantiles(self.us, n=10, method="inclusive")
        return cuts[1], cuts[4], cuts[7]


def sets_needed(moved: float, cache_bytes: int) -> int:
    """Return how many input sets of ``moved`` bytes fill the cache four times over, at least one."""
    return max(1, math.ceil(CACHE_MULTIPLE * cache_bytes / max(moved, 1.0)))


class ClockTimer:
    """Times calls on the CPU."""

    def measure(
        self, call: Call, sets: Sequence[Inputs], cold: bool, filled: bool = True, chained: bool = True
    ) -> Samples:
        """Return the times of ``call(*inputs)``; ``cold`` takes turns over ``sets``. The rest is for `CudaTimer`."""
        sets = sets if cold else sets[:1]
        for _ in range(WARM_CALLS):
            call(*sets[0])
        us: list[float] = []
        stop = time.perf_counter() + CPU_SECONDS
        while len(us) < FEWEST or time.perf_counter() < stop:
            inputs = sets[len(us) % len(sets)]
            begin = time.perf_counter()
            call(*inputs)
            us.append(1e6 * (time.perf_counter() - begin))
        return Samples(us, "clock")


class CudaTimer:
    """Times calls on the current CUDA device. ``cuda`` is ``torch.cuda``."""

    def __init__(self, cache_bytes: int, cuda: Any = None, flush: Callable[[], object] | None = None) -> None:
        self.cuda: Any = cuda or torch.cuda
        self.stream = self.cuda.Stream()
        if flush is None:
            flush = torch.empty(2 * cache_bytes, dtype=torch.int8, device="cuda").zero_
        self.flush = flush

    def measure(
        self, call: Call, sets: Sequence[Inputs], cold: bool, filled: bool = True, chained: bool = True
    ) -> Samples:
        """Return the times of ``call(*inputs)``.

        Args:
            call: what is timed; it must not wait for the device.
            sets: its inputs, one tuple or more.
            cold: take turns over ``sets``, else repeat the first.
            filled: the sets together outgrow the cache; else it is flushed before every cold call.
            chained: calls may be captured in a graph.
        """
        sets = sets if cold else sets[:1]
        for _ in range(WARM_CALLS):
            call(*sets[0])
        flush = cold and not filled
        once = 1e-6 * self._once(lambda: call(*sets[0]))
        if once >= LONG_S or not chained:
            return self._one_by_one(lambda turn: call(*sets[turn % len(sets)]), flush)
        chain = 1 if flush else max(chain_length(once), len(sets))
        graph = self._captured(lambda: [call(*sets[turn % len(sets)]) for turn in range(chain)])
        if graph is None:
            return self._one_by_one(lambda turn: call(*sets[turn % len(sets)]), flush)
        if flush:
            return self._one_by_one(lambda turn: graph.replay(), flush)
        graph.replay()
        count = samples(1e-6 * self._once(graph.replay))
        return Samples([time / chain for time in self._events(lambda turn: graph.replay(), count, False)], "graph")

    def _one_by_one(self, call: Callable[[int], object], flush: bool) -> Samples:
        count = samples(1e-6 * self._once(lambda: call(0)))
        return Samples(self._events(call, count, flush), "events")

    def _once(self, call: Callable[[], object]) -> float:
        return self._events(lambda turn: call(), 1, False)[0]

    def _events(self, call: Callable[[int], object], count: int, flush: bool) -> list[float]:
        """Return ``count`` times in microseconds between the events around a call."""
        pairs = []
        for turn in range(count):
            if flush:
                self.flush()
            begin, end = (self.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call(turn)
            end.record()
            pairs.append((begin, end))
        self.cuda.synchronize()
        return [1e3 * begin.elapsed_time(end) for begin, end in pairs]

    def _captured(self, calls: Callable[[], object]) -> Any:
        """Return a graph of ``calls``, None for one that waits for the device and so cannot be captured.

        ``torch.cuda.graph`` would collect garbage and empty the allocator's cache every time: tens of milliseconds
        for each of thousands of points.
        """
        graph = self.cuda.CUDAGraph()
        self.cuda.synchronize()
        try:
            with self.cuda.stream(self.stream):
                graph.capture_begin()
                try:
                    calls()
                finally:
                    graph.capture_end()
        except RuntimeError:
            self.cuda.synchronize()
            return None
        return graph

"""Per-rank processes on one clock: gate, permute, dispatch, experts, combine, unpermute, layer after layer.

Every rank goes its own way; the only thing that ties ranks together are the flows of the all-to-alls, so a late rank
delays those who wait for it and nobody else. A compute kernel is a flow of so many seconds on the rank's own ``sm``
pseudo-link, whose capacity 1 is the whole GPU; a communication kernel that holds SMs lowers it while it runs.

One compute stream per rank: the shared expert starts when dispatch does and runs beside it; what of it is left when
dispatch ends delays the routed experts and is *exposed*. NCCL permutes before dispatch and unpermutes after combine,
DeepEP permutes after dispatch and unpermutes before combine.

Not modelled: overlap of two micro-batches, CPU launch gaps between kernels.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import simpy

from moesim.cluster import Fabric
from moesim.network import FlowNetwork, NetworkClock, SteppedNetwork
from moesim.timeline.link_use import LinkUse
from moesim.timeline.phase import PhaseRun, PhaseTrace, network_capacity
from moesim.traffic.flows import Floats, Ints, PhaseFlows

_ONE = np.array([0, 1], np.int64)

LANE = ("gate", "permute", "dispatch", "shared_expert", "experts", "combine", "unpermute")


@dataclass(frozen=True)
class LayerWork:
    """What one MoE layer asks of every rank: kernel seconds, [ranks] each, and the flows of its two phases."""

    gate_s: Floats
    permute_s: Floats
    shared_expert_s: Floats
    experts_s: Floats
    unpermute_s: Floats
    dispatch: PhaseFlows
    combine: PhaseFlows
    permute_first: bool


@dataclass(frozen=True)
class LayerTrace:
    """When each rank did what in one layer. Absolute seconds, [ranks].

    ``start_s[name]`` and ``end_s[name]`` for every name of ``LANE``; ``shared_expert`` runs in a lane of its own.
    """

    layer: int
    entry_s: Floats
    end_s_of_layer: Floats
    start_s: dict[str, Floats]
    end_s: dict[str, Floats]
    dispatch: PhaseTrace
    combine: PhaseTrace

    @property
    def exposed_shared_s(self) -> Floats:
        """Part of the shared expert that outlasts dispatch and so delays the routed experts, [ranks]."""
        return np.maximum(self.end_s["shared_expert"] - self.end_s["dispatch"], 0.0)


@dataclass(frozen=True)
class LinkSeries:
    """Use of the links over time: ``utilisation`` [buckets, links] of what the algorithm can reach."""

    bucket_s: float
    bucket_start_s: Floats
    utilisation: Floats


def run_layers(
    fabric: Fabric,
    n_layers: int,
    work_of_layer: Callable[[int], LayerWork],
    collect: Callable[[LayerTrace], None],
    start_offset_s: Floats,
    other_time_s: float,
    bucket_s: float,
    tolerance: float = 0.0,
) -> LinkSeries:
    """Run every rank through all layers.

    Args:
        fabric: links of the cluster.
        n_layers: layers, one after the other.
        work_of_layer: called once per layer, when the first rank reaches it.
        collect: called with each layer's trace when its last rank has left, in the order in which that happens.
        start_offset_s: when each rank enters the first layer, [ranks].
        other_time_s: compute time between two layers (attention and the like).
        bucket_s: width of the time buckets in which the links' use is kept.
        tolerance: longest step of the flows on wires as a share of the busiest link's time; 0: every event.

    Returns:
        What the links carried over time.
    """
    env = simpy.Environment()
    capacity = network_capacity(fabric)
    network: FlowNetwork | SteppedNetwork = FlowNetwork(capacity, log_bottlenecks=True)
    if tolerance:
        network = SteppedNetwork(capacity, tolerance, range(fabric.n_links, fabric.n_links + fabric.n_ranks))
    network.record_utilisation(bucket_s, np.arange(fabric.n_links))
    clock = NetworkClock(env, network)
    cluster = _Ranks(clock, fabric, n_layers, work_of_layer, collect, other_time_s)
    for rank in range(fabric.n_ranks):
        env.process(cluster.rank(rank, float(start_offset_s[rank])))
    env.run()
    bucket_start_s, served = network.utilisation()
    use = LinkUse(fabric.capacity, clock.capacity_events())
    return LinkSeries(bucket_s, bucket_start_s, use.share(served, bucket_start_s, bucket_s))


class _LayerInProgress:
    def __init__(self, layer: int, work: LayerWork, clock: NetworkClock, sm_link: Ints) -> None:
        n_ranks = len(sm_link)
        self.layer, self.work = layer, work
        self.dispatch = PhaseRun(clock, work.dispatch, sm_link)
        self.combine = PhaseRun(clock, work.combine, sm_link)
        self.entry = np.full(n_ranks, np.nan)
        self.end = np.full(n_ranks, np.nan)
        self.start_of = {name: np.full(n_ranks, np.nan) for name in LANE}
        self.end_of = {name: np.full(n_ranks, np.nan) for name in LANE}

    def trace(self) -> LayerTrace:
        return LayerTrace(
            layer=self.layer,
            entry_s=self.entry,
            end_s_of_layer=self.end,
            start_s=self.start_of,
            end_s=self.end_of,
            dispatch=self.dispatch.trace(),
            combine=self.combine.trace(),
        )


class _Ranks:
    """The ranks' processes and the layers that some rank is in."""

    def __init__(
        self,
        clock: NetworkClock,
        fabric: Fabric,
        n_layers: int,
        work_of_layer: Callable[[int], LayerWork],
        collect: Callable[[LayerTrace], None],
        other_time_s: float,
    ) -> None:
        self._clock, self._env = clock, clock.env
        self._sm_link = np.arange(fabric.n_ranks, dtype=np.int32) + fabric.n_links
        self._n_layers, self._work_of_layer, self._collect = n_layers, work_of_layer, collect
        self._other_time_s = other_time_s
        self._open: dict[int, _LayerInProgress] = {}

    def rank(self, rank: int, offset_s: float) -> Generator[simpy.Event, object, None]:
        env = self._env
        if offset_s:
            yield env.timeout(offset_s)
        for index in range(self._n_layers):
            layer = self._layer(index)
            work = layer.work
            layer.entry[rank] = env.now
            yield from self._compute(layer, rank, "gate", work.gate_s)
            if work.permute_first:
                yield from self._compute(layer, rank, "permute", work.permute_s)
            shared = env.process(self._compute(layer, rank, "shared_expert", work.shared_expert_s))
            yield from self._phase(layer, rank, "dispatch", layer.dispatch)
            yield shared
            if not work.permute_first:
                yield from self._compute(layer, rank, "permute", work.permute_s)
            yield from self._compute(layer, rank, "experts", work.experts_s)
            if not work.permute_first:
                yield from self._compute(layer, rank, "unpermute", work.unpermute_s)
            yield from self._phase(layer, rank, "combine", layer.combine)
            if work.permute_first:
                yield from self._compute(layer, rank, "unpermute", work.unpermute_s)
            layer.end[rank] = env.now
            if not np.isnan(layer.end).any():
                self._collect(self._open.pop(index).trace())
            if self._other_time_s and index + 1 < self._n_layers:
                yield from self._run_kernel(rank, self._other_time_s)

    def _layer(self, index: int) -> _LayerInProgress:
        if index not in self._open:
            self._open[index] = _LayerInProgress(index, self._work_of_layer(index), self._clock, self._sm_link)
        return self._open[index]

    def _compute(
        self, layer: _LayerInProgress, rank: int, name: str, seconds: Floats
    ) -> Generator[simpy.Event, object, None]:
        layer.start_of[name][rank] = self._env.now
        if seconds[rank] > 0:
            yield from self._run_kernel(rank, float(seconds[rank]))
        layer.end_of[name][rank] = self._env.now

    def _run_kernel(self, rank: int, seconds: float) -> Generator[simpy.Event, object, None]:
        """A kernel that takes so many seconds with the whole GPU to itself."""
        network = self._clock.network
        waiter = network.new_waiters(1)
        handle = self._clock.transfer(
            _ONE, self._sm_link[rank : rank + 1], None, [seconds], waiter_ptr=_ONE, waiter_ids=[waiter]
        )
        yield self._clock.wait(waiter)
        network.release(handle)
        network.release_waiters(waiter, 1)

    def _phase(
        self, layer: _LayerInProgress, rank: int, name: str, phase: PhaseRun
    ) -> Generator[simpy.Event, object, None]:
        layer.start_of[name][rank] = self._env.now
        yield from phase.enter(rank)
        layer.end_of[name][rank] = self._env.now

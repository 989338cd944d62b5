"""Every rank's program on one clock: two processes per rank, one for each of its lanes.

Every rank goes its own way; the only thing that ties ranks together are the flows of the all-to-alls, so a late rank
delays only those that wait for it. A compute kernel is a flow of so many seconds on the rank's own ``sm``
pseudo-link, whose capacity 1 is the whole GPU; a communication kernel that holds SMs lowers it while it runs. A kernel
on the network lane is a transfer of a fixed time.

Not modelled: CPU launch gaps between kernels.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy

from moesim.cluster import Fabric
from moesim.errors import InvariantError
from moesim.network import FlowBatch, FlowNetwork, NetworkClock, SteppedNetwork, Throttle, Unfair, hold
from moesim.stages import BESIDE, LANES, OTHER, Lane
from moesim.timeline.link_use import LinkUse
from moesim.timeline.phase import PhaseRun, PhaseTrace, network_capacity
from moesim.timeline.program import Key, Operation, Program
from moesim.traffic import Floats, Ints, PhaseFlows

_ONE = np.array([0, 1], np.int64)
# SimPy events of one instant: a rank has some ten; more go round in a circle.
_MOST_AT_ONCE = 1_000_000
NO_CURVES_S = 1e9
"""One bucket over everything, where nobody looks at the links' use over time."""


@dataclass(frozen=True)
class LayerWork:
    """What a layer of a micro-batch asks of every rank: ``seconds`` [ranks] of each kernel, ``flows`` of each phase."""

    seconds: dict[str, Floats]
    flows: dict[str, PhaseFlows]


Phases = dict[str, PhaseTrace]
WorkOf = Callable[[int, int], LayerWork]
"""The work of a layer (first argument) of a micro-batch (second)."""


@dataclass(frozen=True)
class LayerTrace:
    """When each rank did what in one layer of one micro-batch. Absolute seconds, [ranks].

    ``start_s[name]`` and ``end_s[name]`` of every stage that is part of the layer, in the order of the program;
    ``phases[name]`` of its all-to-alls. ``beside[name]``: start and end of what the program runs with the layer that is
    no part of it. ``throttles`` of wires and GPUs, on the same clock.
    """

    layer: int
    micro_batch: int
    start_s: dict[str, Floats]
    end_s: dict[str, Floats]
    phases: dict[str, PhaseTrace]
    entry_s: Floats
    end_s_of_layer: Floats
    beside: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    throttles: tuple[Throttle, ...] = ()

    @property
    def dispatch(self) -> PhaseTrace:
        """What became of dispatch."""
        return self.phases["dispatch"]

    @property
    def combine(self) -> PhaseTrace:
        """What became of combine."""
        return self.phases["combine"]

    @property
    def length_s(self) -> float:
        """From the first rank's entry to the last one's end."""
        return float(self.end_s_of_layer.max() - self.entry_s.min())

    @property
    def ends_s(self) -> float:
        """When the last rank is through."""
        return float(self.end_s_of_layer.max())

    @property
    def wait_s(self) -> Floats:
        """Time in the phases with none of a rank's own flows in progress, [ranks]."""
        return sum((phase.wait_s for phase in self.phases.values()), np.zeros(len(self.entry_s)))

    def exposed_s(self, name: str) -> Floats:
        """Time of a stage in which the rank is in none of this layer's phases: what it adds to the layer, [ranks]."""
        exposed, covered, end = np.zeros(len(self.entry_s)), self.start_s[name], self.end_s[name]
        for phase in self.phases:
            exposed += np.maximum(np.minimum(self.start_s[phase], end) - covered, 0.0)
            covered = np.maximum(covered, self.end_s[phase])
        return exposed + np.maximum(end - covered, 0.0)

    @property
    def idle_s(self) -> Floats:
        """Time between entry and end in which the rank is in none of the layer's stages, [ranks]."""
        start, end = np.array(list(self.start_s.values())), np.array(list(self.end_s.values()))
        order = np.argsort(start, axis=0)
        start, end = np.take_along_axis(start, order, 0), np.take_along_axis(end, order, 0)
        gaps = np.maximum(start[1:] - np.maximum.accumulate(end)[:-1], 0.0)
        return np.asarray(gaps.sum(axis=0))


@dataclass(frozen=True)
class MigrationTrace:
    """What became of one layer's move of weights: ``beside`` the tokens, or while all ranks stopped for it."""

    layer: int
    beside: bool
    phase: PhaseTrace


@dataclass(frozen=True)
class LinkSeries:
    """Use of the links over time: ``utilisation`` [buckets, links] of what the algorithm can reach."""

    bucket_s: float
    bucket_start_s: Floats
    utilisation: Floats


@dataclass(frozen=True)
class RankGroup:
    """Ranks that exchange tokens among themselves, and what they do.

    Attributes:
        fabric: their view of the cluster; links and routes are those of all groups.
        program: what each rank does, in order.
        work_of: called once per layer and micro-batch, when the first rank reaches it.
        start_offset_s: when each rank begins, [ranks].
        weights: flows of the program's moves of weights, by operation.
        throttles: of wires, the same in every group on them, and of its own GPUs.
    """

    fabric: Fabric
    program: Program
    work_of: WorkOf
    start_offset_s: Floats
    weights: Mapping[Key, PhaseFlows] = field(default_factory=dict)
    throttles: Sequence[Throttle] = ()


def run_layers(
    fabric: Fabric,
    program: Program,
    work_of: WorkOf,
    start_offset_s: Floats,
    bucket_s: float = NO_CURVES_S,
    tolerance: float = 0.0,
    weights: Mapping[Key, PhaseFlows] | None = None,
    throttles: Sequence[Throttle] = (),
) -> Iterator[LayerTrace | MigrationTrace | LinkSeries]:
    """Run a program on every rank of one group: ``run_groups`` without the group's number."""
    group = RankGroup(fabric, program, work_of, start_offset_s, weights or {}, throttles)
    return (trace for _, trace in run_groups([group], bucket_s, tolerance))


def run_groups(
    groups: Sequence[RankGroup], bucket_s: float, tolerance: float = 0.0
) -> Iterator[tuple[int, LayerTrace | MigrationTrace | LinkSeries]]:
    """Run the program of every group on its ranks, all on one clock: their flows share the links that they cross.

    Args:
        groups: on one fabric, no rank in two.
        bucket_s: width of the time buckets in which the links' use is kept.
        tolerance: longest step of the flows on wires as a share of the busiest link's time; 0: every event.

    Yields:
        With the group's number: the trace of each layer and each move of weights when its last rank has left it, then
        what the links carried over time, of all groups together.

    Raises:
        InvariantError: a program names an operation that it does not hold, or one that waits for it in turn.
    """
    env, fabric = simpy.Environment(), groups[0].fabric
    first_sm = np.cumsum([fabric.n_links, *(group.fabric.n_ranks for group in groups)]).tolist()
    sms = range(first_sm[0], first_sm[-1])
    capacity = network_capacity(fabric, len(sms))
    network: FlowNetwork | SteppedNetwork = FlowNetwork(capacity, log_bottlenecks=True)
    if tolerance:
        network = SteppedNetwork(capacity, tolerance, sms)
    network.record_utilisation(bucket_s, np.arange(fabric.n_links))
    clock = NetworkClock(env, network)
    hold(clock, list(_throttles(groups, fabric.n_links, len(sms))))
    running = [_Ranks(clock, group, first, sms) for group, first in zip(groups, first_sm, strict=False)]
    for group, ranks in zip(groups, running, strict=True):
        for rank in range(group.fabric.n_ranks):
            for lane in ranks.lanes:
                env.process(ranks.run(rank, lane, float(group.start_offset_s[rank])))
    at, events = -1.0, 0
    while any(ranks.running for ranks in running) and env.peek() < np.inf:
        try:
            env.step()
        except Unfair as unfair:
            names = [*fabric.link_names, *(f"sm of rank {rank}" for rank in range(len(sms)))]
            over = (names[link] if link < len(names) else f"{link} of a kernel or a cap" for link in unfair.links)
            raise InvariantError(unfair.text.format(", ".join(over))) from unfair
        at, events = env.now, events + 1 if env.now == at else 0
        if events > _MOST_AT_ONCE:
            busy = "; ".join(ranks.in_progress(fabric) for ranks in running)
            raise InvariantError(f"more than {_MOST_AT_ONCE:,} events at {at} s; {busy}")
        for number, ranks in enumerate(running):
            while ranks.left:
                yield number, ranks.left.popleft()
    for ranks in running:
        ranks.check_all_done(fabric)
    bucket_start_s, served = network.utilisation()
    use = LinkUse(fabric.capacity, clock.capacity_events())
    series = LinkSeries(bucket_s, bucket_start_s, use.share(served, bucket_start_s, bucket_s))
    for number in range(len(groups)):
        yield number, series


def _throttles(groups: Sequence[RankGroup], wires: int, n_ranks: int) -> Iterator[Throttle]:
    """The throttles of all groups on one network: of wires once, of each group's GPUs by their numbers there."""
    first = 0
    for group in groups:
        numbers = first + np.arange(group.fabric.n_ranks, dtype=np.int32)
        for one in group.throttles:
            if not first or (one.links >= wires).any():
                yield one.renumbered(wires, numbers, n_ranks)
        first += group.fabric.n_ranks


class _LayerInProgress:
    def __init__(
        self, work: LayerWork, operations: list[Operation], clock: NetworkClock, sm_link: Ints, all_sms: range
    ) -> None:
        n_ranks, names = len(sm_link), [operation.stage.name for operation in operations]
        self.work, self._of = work, operations[0]
        self.phases = {
            operation.stage.name: PhaseRun(clock, work.flows[operation.stage.name], sm_link, all_sms)
            for operation in operations
            if operation.stage.kind == "phase"
        }
        self._part = [operation.stage.name for operation in operations if operation.stage.component]
        self.start_of = {name: np.full(n_ranks, np.nan) for name in names}
        self.end_of = {name: np.full(n_ranks, np.nan) for name in names}
        self.to_do = n_ranks * len(names)

    def trace(self, throttles: tuple[Throttle, ...]) -> LayerTrace:
        phases = {name: phase.trace() for name, phase in self.phases.items()}
        return layer_trace(self._of, self._part, (self.start_of, self.end_of), phases, throttles)


def layer_trace(
    of: Operation,
    part: Collection[str],
    span: tuple[dict[str, Floats], dict[str, Floats]],
    phases: Phases,
    throttles: tuple[Throttle, ...],
) -> LayerTrace:
    """Return the trace of the layer that an operation is of; the stages that are part of it are in ``part``."""
    start_s, end_s = ({name: times[name] for name in part} for times in span)
    return LayerTrace(
        layer=of.layer,
        micro_batch=of.micro_batch,
        start_s=start_s,
        end_s=end_s,
        phases=phases,
        entry_s=np.minimum.reduce(list(start_s.values())),
        end_s_of_layer=np.maximum.reduce(list(end_s.values())),
        beside={name: (begin, span[1][name]) for name, begin in span[0].items() if name not in start_s},
        throttles=throttles,
    )


class _Ranks:
    """The processes of a group's ranks and the layers that some rank is in."""

    def __init__(self, clock: NetworkClock, group: RankGroup, first_sm: int, all_sms: range) -> None:
        program, weights, n_ranks = group.program, group.weights, group.fabric.n_ranks
        self.left: deque[LayerTrace | MigrationTrace] = deque()
        self.lanes: tuple[Lane, ...] = (*LANES, *({operation.stage.lane for operation in program} - set(LANES)))
        self.running = n_ranks * len(self.lanes)
        self._clock, self._env = clock, clock.env
        self._sm_link, self._all_sms = np.arange(n_ranks, dtype=np.int32) + np.int32(first_sm), all_sms
        self._program, self._work_of = program, group.work_of
        self._open: dict[tuple[int, int], _LayerInProgress] = {}
        self._throttles = tuple(group.throttles)
        self._weights, self._moving = weights, dict[Key, PhaseRun]()
        self._part_of: dict[tuple[int, int], list[Operation]] = {}
        for operation in program:
            if operation.stage != OTHER and operation.key not in weights:
                self._part_of.setdefault((operation.layer, operation.micro_batch), []).append(operation)
        self._place: dict[Key, int] = {operation.key: place for place, operation in enumerate(program)}
        self._done = [bytearray(len(program)) for _ in range(n_ranks)]
        self._awaited: dict[tuple[int, int], simpy.Event] = {}
        self._on_lane = {
            lane: [
                (place, operation, self._waits(operation))
                for place, operation in enumerate(program)
                if operation.stage.lane == lane
            ]
            for lane in self.lanes
        }

    def _waits(self, operation: Operation) -> tuple[int, ...]:
        unknown = [key for key in operation.after if key not in self._place]
        if unknown:
            raise InvariantError(f"{operation.key} waits for {unknown[0]}, which the program does not hold")
        return tuple(self._place[key] for key in operation.after)

    def run(self, rank: int, lane: Lane, offset_s: float) -> Generator[simpy.Event, object, None]:
        """Take one lane of a rank through its operations."""
        env, done = self._env, self._done[rank]
        if offset_s:
            yield env.timeout(offset_s)
        for place, operation, waits in self._on_lane[lane]:
            for before in waits:
                if not done[before]:
                    # Two lanes may wait for one operation.
                    yield self._awaited.setdefault((rank, before), env.event())
            yield from self._do(operation, rank)
            done[place] = True
            if (rank, place) in self._awaited:
                self._awaited.pop((rank, place)).succeed()
        self.running -= 1

    def check_all_done(self, fabric: Fabric) -> None:
        """Raise InvariantError where a rank waits for what never comes."""
        for rank, done in enumerate(self._done):
            if not all(done):
                key = self._program[done.index(0)].key
                raise InvariantError(f"rank {rank} never gets {key} done; {self.in_progress(fabric)}")

    def in_progress(self, fabric: Fabric) -> str:
        """Name the first few flows that have not ended, by their ranks and links."""
        found = []
        for (layer, _), open_layer in self._open.items():
            for name, phase in open_layer.phases.items():
                for source, target, links in phase.unfinished():
                    over = ", ".join(fabric.link_names[link] for link in links)
                    found.append(f"{name} of layer {layer}, rank {source} to {target} over {over}")
        return f"{len(found)} flows have not ended" + "".join(f"; {one}" for one in found[:3])

    def _do(self, operation: Operation, rank: int) -> Generator[simpy.Event, object, None]:
        stage, key = operation.stage, (operation.layer, operation.micro_batch)
        if operation.key in self._weights:
            yield from self._move(operation, rank)
            return
        layer = self._layer(key)
        name, env = stage.name, self._env
        followed = name in layer.start_of
        if followed:
            layer.start_of[name][rank] = env.now
        if stage.kind == "phase":
            yield from layer.phases[name].enter(rank)
        elif (seconds := float(layer.work.seconds[name][rank])) > 0:
            yield from self._run_kernel(rank, seconds) if stage.lane == "compute" else self._transfer(seconds)
        if followed:
            layer.end_of[name][rank] = env.now
            layer.to_do -= 1
            if not layer.to_do:
                self.left.append(self._open.pop(key).trace(self._throttles))

    def _layer(self, key: tuple[int, int]) -> _LayerInProgress:
        if key not in self._open:
            work = self._work_of(*key)
            self._open[key] = _LayerInProgress(work, self._part_of[key], self._clock, self._sm_link, self._all_sms)
        return self._open[key]

    def _move(self, operation: Operation, rank: int) -> Generator[simpy.Event, object, None]:
        """Take a rank through a move of weights."""
        key = operation.key
        if key not in self._moving:
            self._moving[key] = PhaseRun(self._clock, self._weights[key], self._sm_link, self._all_sms)
        yield from self._moving[key].enter(rank)
        if self._moving[key].finished:
            trace = self._moving.pop(key).trace()
            self.left.append(MigrationTrace(operation.layer, operation.stage is BESIDE, trace))

    def _run_kernel(self, rank: int, seconds: float) -> Generator[simpy.Event, object, None]:
        """A kernel that takes so many seconds with the whole GPU to itself."""
        network = self._clock.network
        waiter = network.new_waiters(1)
        handle = self._clock.transfer(
            FlowBatch(_ONE, self._sm_link[rank : rank + 1], [seconds], waiter_ptr=_ONE, waiter_ids=[waiter])
        )
        yield self._clock.wait(waiter)
        network.release(handle)
        network.release_waiters(waiter, 1)

    def _transfer(self, seconds: float) -> Generator[simpy.Event, object, None]:
        yield self._env.timeout(seconds)

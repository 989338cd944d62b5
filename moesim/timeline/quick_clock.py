"""A program on every rank without events: each operation once, in closed form over all ranks.

The same operations, waits, kernels and flows as ``run_layers``, and the same traces. What is simplified is how flows
share links: a link ends with its last byte, at the latest of (start of its k-th flow + all that follows on it at the
calibrated rate), and a flow ends with the slowest of its links: per-port and shared links, communication kernels,
limits of one pair. Phases of two micro-batches do not take bandwidth from each other. Kernels slow down while a
communication kernel of their rank holds SMs.

How close this comes is measured in ``docs/plan.md``.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from moesim import csr
from moesim.cluster import Fabric
from moesim.errors import InputError, InvariantError
from moesim.network import CapacityEvents, Throttle
from moesim.stages import BESIDE, OTHER, Lane
from moesim.timeline.phase import PhaseTrace, last_flow_s, network_capacity, waits
from moesim.timeline.program import Key, Operation, Program
from moesim.timeline.ranks import LayerTrace, LayerWork, LinkSeries, MigrationTrace, Phases, WorkOf, layer_trace
from moesim.traffic import Floats, Ints, PhaseFlows

_Hold = tuple[Floats, Floats, float]
"""Instants between which a communication kernel leaves a share of its rank's SMs, [ranks] each, and that share."""


def run_layers_quickly(
    fabric: Fabric,
    program: Program,
    work_of: WorkOf,
    start_offset_s: Floats,
    weights: Mapping[Key, PhaseFlows] | None = None,
    throttles: Sequence[Throttle] = (),
) -> Iterator[LayerTrace | MigrationTrace | LinkSeries]:
    """Run a program on every rank without an event; arguments, values and errors as for ``run_layers``.

    The links' use over time is not known: the series at the end is empty. What comes and goes is an InputError.
    """
    weights, capacity = weights or {}, network_capacity(fabric)
    for one in throttles:
        if not one.whole_run:
            raise InputError("a fault that comes and goes needs the event engine", "faults", "leave --quick away")
        capacity[one.links] *= one.factor
    speed = capacity[fabric.n_links : fabric.n_links + fabric.n_ranks]
    lanes: dict[Lane, deque[tuple[int, Operation]]] = {}
    for place, operation in enumerate(program):
        lanes.setdefault(operation.stage.lane, deque()).append((place, operation))
    free = {lane: start_offset_s for lane in lanes}
    done: dict[Key, Floats] = {}
    held: deque[_Hold] = deque(maxlen=2)
    # Of each layer that is not over: its work, starts and ends of its stages, its phases.
    layers: dict[tuple[int, int], tuple[LayerWork, dict[str, Floats], dict[str, Floats], Phases]] = {}
    followed = [one for one in program if one.stage != OTHER and one.key not in weights]
    left = Counter((one.layer, one.micro_batch) for one in followed)
    while any(lanes.values()):
        ready = [row[0] for row in lanes.values() if row and all(key in done for key in row[0][1].after)]
        if not ready:
            raise InvariantError(f"nothing gets {next(row[0][1].key for row in lanes.values() if row)} done")
        operation = min(ready)[1]
        stage, key = operation.stage, (operation.layer, operation.micro_batch)
        lanes[stage.lane].popleft()
        begin = np.maximum.reduce([free[stage.lane], *(done[before] for before in operation.after)])
        if operation.key in weights:
            phase = in_closed_form(weights[operation.key], capacity, begin)
            yield MigrationTrace(operation.layer, stage is BESIDE, phase)
            free[stage.lane] = done[operation.key] = phase.leave_s
            continue
        if key not in layers:
            layers[key] = work_of(*key), {}, {}, {}
        work, starts, ends, phases = layers[key]
        if stage.kind == "phase":
            phases[stage.name] = phase = in_closed_form(work.flows[stage.name], capacity, begin)
            end = phase.leave_s
            if phase.flows.sms:
                held.append(_hold(phase))
        else:
            seconds = work.seconds[stage.name]
            end = _beside(begin, seconds / speed, held) if stage.lane == "compute" else begin + seconds
        free[stage.lane] = done[operation.key] = end
        if stage != OTHER:
            starts[stage.name], ends[stage.name] = begin, end
            left[key] -= 1
            if not left[key]:
                part = [one.stage.name for one in followed if one.stage.component and one.stage.name in starts]
                yield layer_trace(operation, dict.fromkeys(part), (starts, ends), phases, tuple(throttles))
                del layers[key]
    yield LinkSeries(1.0, np.zeros(0), np.zeros((0, fabric.n_links)))


def _hold(phase: PhaseTrace) -> _Hold:
    flows = phase.flows
    begin = phase.enter_s + flows.entry_setup_s
    if flows.all_ranks_gate:
        begin = np.full(len(begin), begin.max())
    return np.minimum(begin, phase.leave_s), phase.leave_s, 1.0 - flows.sms / flows.total_sms


def _beside(begin: Floats, seconds: Floats, held: deque[_Hold]) -> Floats:
    """End of kernels that take ``seconds`` with the whole GPU, [ranks]; the holds do not overlap."""
    at, left = begin.copy(), seconds.copy()
    for start, end, left_share in held:
        for until, share in ((start, 1.0), (end, left_share)):
            longest = left / share if share else np.where(left > 0, np.inf, 0.0)
            spent = np.minimum(np.maximum(until - at, 0.0), longest)
            at += spent
            left = np.maximum(left - spent * share, 0.0)
    return np.asarray(at + left)


def in_closed_form(flows: PhaseFlows, capacity: Floats, enter_s: Floats) -> PhaseTrace:
    """Return what becomes of a phase that ranks enter at ``enter_s`` [ranks], ``capacity`` as ``network_capacity``."""
    ready, n_ranks = enter_s + flows.entry_setup_s, len(enter_s)
    if flows.all_ranks_gate:
        launch, opener = np.full(flows.n_flows, ready.max()), np.full(flows.n_flows, ready.argmax(), np.int32)
    else:
        launch, opener = _latest(flows, ready)
    start = launch + flows.group_setup_s + flows.delay_s
    finish, link = _finish(flows, capacity, start, n_ranks)
    done = last_flow_s(flows, start, finish, enter_s)
    if flows.least_s is not None:
        least = launch + flows.group_setup_s + flows.least_s
        np.maximum.at(done, flows.member_ranks, csr.spread(least, flows.member_ptr))
    leave = np.full(n_ranks, done.max()) if flows.all_ranks_leave else done
    if flows.exit_s is not None:
        leave = leave + flows.exit_s
    wait, blamed, tail = waits(flows, launch, opener, start, finish, enter_s, done, leave, int(done.argmax()))
    moves = np.flatnonzero(finish > start)
    return PhaseTrace(
        flows=flows,
        launch_s=launch,
        opener=opener,
        start_s=start,
        finish_s=finish,
        enter_s=enter_s,
        leave_s=leave,
        wait_s=wait,
        waited_on=blamed,
        tail_s=tail,
        bottleneck_time_s=start[moves],
        bottleneck_flow=moves.astype(np.int32),
        bottleneck_link=link[moves],
        capacity_events=CapacityEvents.none(),
    )


def _latest(flows: PhaseFlows, ready: Floats) -> tuple[Floats, Ints]:
    """When the last of each flow's gates opens, and whose that is, [flows]."""
    if not flows.n_flows:
        return np.zeros(0), np.zeros(0, np.int32)
    at = ready[flows.gate_ranks]
    launch = np.maximum.reduceat(at, flows.gate_ptr[:-1])
    opener = np.zeros(flows.n_flows, np.int32)
    last = at == csr.spread(launch, flows.gate_ptr)
    opener[csr.owners(flows.gate_ptr)[last]] = flows.gate_ranks[last]
    return launch, opener


def _finish(flows: PhaseFlows, capacity: Floats, start: Floats, n_ranks: int) -> tuple[Floats, Ints]:
    """When each flow ends, and the link that ends last of those that it uses, -1 where it has none, [flows]."""
    ptr, links, weight = flows.resources(len(capacity) - n_ranks)
    flow = csr.owners(ptr)
    seconds = flows.size[flow] * weight / capacity[links]
    used = np.flatnonzero(seconds > 0)
    finish, slowest = start.copy(), np.full(flows.n_flows, -1, np.int32)
    if len(used):
        order = used[np.lexsort((start[flow[used]], links[used]))]
        row = csr.from_lengths(np.unique(links[order], return_counts=True)[1])
        begun, own = start[flow[order]], seconds[order]
        served = np.cumsum(own)
        following = csr.spread(served[row[1:] - 1], row) - served + own
        ends = np.empty(len(links))
        ends[order] = csr.spread(np.maximum.reduceat(begun + following, row[:-1]), row)
        # Back in the order of the flows, of each the slowest last.
        used = used[np.lexsort((ends[used], flow[used]))]
        last = used[np.flatnonzero(np.diff(flow[used], append=-1))]
        finish[flow[last]], slowest[flow[last]] = ends[last], links[last]
    if flows.rate_cap is not None:
        finish = np.maximum(finish, start + flows.size / flows.rate_cap)
    return finish, slowest

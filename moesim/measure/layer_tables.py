"""Rows of the result tables for one simulated layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.layer import LayerLoad
from moesim.network import Throttle
from moesim.results import TableBuilder, nulls
from moesim.stages import BESIDE, KERNELS, MIGRATION, PHASES, STAGES, STEP, Stage
from moesim.timeline import LayerTrace, LinkSeries, MigrationTrace, PhaseTrace, phase_use, union_length
from moesim.traffic import busiest_link_s

Floats = NDArray[np.float64]

# Above this many ranks the transfers table has a row per node pair.
RANK_PAIR_LIMIT = 256
# Time buckets that the busiest link of a dispatch gets in ``link_series``, and the least width of one.
_BUCKETS = 40
_SHORTEST_BUCKET_S = 1e-6
# Link classes whose migrated bytes have a column of their own.
_PORTS = ("nvlink", "nic")
# Links of each class whose use over time is kept.
_BUSY_LINKS = 24
# Buckets x links that a run keeps at most (32 MB): past this the buckets get wider.
_CELLS = 4_000_000
_MOST_BUCKETS = 10_000  # of small clusters, each of whose links has a row per bucket


def add_layer_rows(
    tables: TableBuilder,
    where: dict[str, int],
    fabric: Fabric,
    load: LayerLoad,
    trace: LayerTrace,
    wire: dict[str, Floats],
) -> None:
    """Add a layer's rows to ``ranks, experts, links, transfers`` and ``spans``.

    Args:
        tables: receives the rows.
        where: ``step``, ``layer`` and ``micro_batch`` of the rows.
        fabric: of the run.
        load: routing and traffic of the layer.
        trace: when everything happened.
        wire: bytes on each link by phase, [links].
    """
    for name, phase in trace.phases.items():
        _add_links(tables, where, fabric, name, phase, wire[name])
        _add_transfers(tables, where, fabric, load, name, phase)
    _add_ranks(tables, where, fabric, load, trace, wire)
    slots = np.arange(load.placement.n_slots)
    mass = load.slot_gate_mass
    tables.add(
        "experts",
        **where,
        expert=np.asarray(load.placement.slot_expert),
        slot=slots.astype(np.int32),
        rank=np.asarray(load.placement.slot_rank),
        tokens=load.slot_tokens,
        gate_mass=nulls(len(slots)) if mass is None else mass,
    )
    _add_spans(tables, where, fabric, trace)


def _add_links(
    tables: TableBuilder, where: dict[str, int], fabric: Fabric, name: str, phase: PhaseTrace, wire: Floats
) -> None:
    flows = phase.flows
    flow = np.repeat(np.arange(flows.n_flows), np.diff(flows.route_ptr))
    carries = (flows.size[flow] > 0) & (flows.share > 0)
    flow, link = flow[carries], flows.route_links[carries]
    order = np.lexsort((phase.start_s[flow], link))
    ptr = np.searchsorted(link[order], np.arange(fabric.n_links + 1))
    busy = union_length(ptr, phase.start_s[flow[order]], phase.finish_s[flow[order]])
    tables.add(
        "links",
        **where,
        phase=name,
        link=np.array(fabric.link_names),
        link_class=np.array(fabric.link_class),
        source=np.array(fabric.link_source),
        target=np.array(fabric.link_target),
        capacity_bytes_per_s=fabric.capacity,
        wire_bytes=wire,
        busy_s=busy,
        utilisation=phase_use(fabric, phase, wire),
    )


def _begin(phase: PhaseTrace) -> float:
    return float(phase.start_s.min()) if len(phase.start_s) else 0.0


def _end(phase: PhaseTrace) -> float:
    return float(phase.finish_s.max()) if len(phase.finish_s) else 0.0


def add_series_rows(
    tables: TableBuilder, where: dict[str, int], fabric: Fabric, trace: LayerTrace, series: LinkSeries
) -> None:
    """Add a layer's ``link_series`` rows: the buckets in which a phase moved bytes, per link class."""
    for name, phase in trace.phases.items():
        first, last = np.searchsorted(series.bucket_start_s, [_begin(phase), _end(phase)])
        during = slice(max(int(first) - 1, 0), int(last))
        utilisation = series.utilisation[during]
        # One rank alone moves nothing; the table has its columns all the same.
        none = np.empty(0)
        empty = {"time_s": none, "link_class": np.empty(0, str), "utilisation_mean": none, "utilisation_max": none}
        tables.add("link_series", **where, phase=name, **empty)
        for link_class in fabric.link_classes:
            of_class = utilisation[:, fabric.is_class(link_class)]
            if of_class.any():
                tables.add(
                    "link_series",
                    **where,
                    phase=name,
                    time_s=series.bucket_start_s[during],
                    link_class=link_class,
                    utilisation_mean=of_class.mean(axis=1),
                    utilisation_max=of_class.max(axis=1),
                )


def add_busy_links(
    tables: TableBuilder, where: dict[str, int], fabric: Fabric, trace: LayerTrace, series: LinkSeries
) -> None:
    """Add a layer's ``busy_links`` rows: the links of each class that carry most of what they can, over time."""
    phases = trace.phases.values()
    first, last = np.searchsorted(series.bucket_start_s, [min(map(_begin, phases)), max(map(_end, phases))])
    during = slice(max(int(first) - 1, 0), int(last))
    time, utilisation = series.bucket_start_s[during], series.utilisation[during]
    for link_class in fabric.link_classes:
        links = np.flatnonzero(fabric.is_class(link_class))
        use = utilisation[:, links].sum(axis=0)
        busiest = links[np.argsort(-use, kind="stable")[: min(_BUSY_LINKS, np.count_nonzero(use))]]
        names = np.array(fabric.link_names)[busiest]
        tables.add(
            "busy_links",
            **where,
            link=np.repeat(names, len(time)),
            link_class=np.full(len(names) * len(time), link_class),
            time_s=np.tile(time, len(names)),
            utilisation=utilisation[:, busiest].T.ravel(),
        )


def bucket_width_s(
    fabric: Fabric, load: LayerLoad, last_entry_s: float, n_layers: int, throttles: Sequence[Throttle] = ()
) -> float:
    """Width of the time buckets of a run: a fortieth of what the busiest link needs for one dispatch.

    Wider where the run is so long, by late ranks, many layers or faults, that the buckets would fill the memory.
    """
    down_s = sum(one.to_s for one in throttles if one.factor == 0)
    speed = np.ones(fabric.n_links + 2 * fabric.n_ranks)
    for one in throttles:
        speed[one.links] *= one.factor or 1.0
    busiest = {name: busiest_link_s(fabric, flows) for name, flows in load.flows.items()}
    compute = sum(load.kernels.seconds.values(), np.zeros(fabric.n_ranks))
    setup = sum(flows.entry_setup_s + flows.group_setup_s for flows in load.flows.values())
    layer_s = sum(busiest.values()) + setup + float(compute.max())
    longest = min(_CELLS / max(fabric.n_links, 1), _MOST_BUCKETS)
    whole_s = last_entry_s + down_s + n_layers * layer_s / float(speed.min())
    return max(busiest["dispatch"] / _BUCKETS, _SHORTEST_BUCKET_S, whole_s / longest)


def _add_transfers(
    tables: TableBuilder, where: dict[str, int], fabric: Fabric, load: LayerLoad, name: str, phase: PhaseTrace
) -> None:
    flows = phase.flows
    per_copy = load.bytes_per_copy[name]
    if flows.pairs is not None:
        pairs = flows.pairs()
        source, target, count, flow = pairs.source, pairs.target, pairs.copies, pairs.flow
    else:
        flow = np.flatnonzero(flows.size)
        source, target = flows.source[flow].astype(np.int64), flows.target[flow].astype(np.int64)
        count = np.rint(flows.size[flow] / per_copy).astype(np.int64)
    start, finish = phase.start_s[flow], phase.finish_s[flow]
    if fabric.n_ranks > RANK_PAIR_LIMIT:
        pair = fabric.rank_node[source].astype(np.int64) * fabric.n_nodes + fabric.rank_node[target]
        first, last = np.full(fabric.n_nodes**2, np.inf), np.full(fabric.n_nodes**2, -np.inf)
        np.minimum.at(first, pair, start)
        np.maximum.at(last, pair, finish)
        used = np.flatnonzero(last > -np.inf)
        count = np.bincount(pair, weights=count, minlength=len(last))[used].astype(np.int64)
        source, target, start, finish = used // fabric.n_nodes, used % fabric.n_nodes, first[used], last[used]
    tables.add(
        "transfers",
        **where,
        phase=name,
        source_rank=source.astype(np.int32),
        target_rank=target.astype(np.int32),
        copies=count,
        wire_bytes=count * float(per_copy),
        start_s=start,
        finish_s=finish,
    )


def _add_ranks(
    tables: TableBuilder,
    where: dict[str, int],
    fabric: Fabric,
    load: LayerLoad,
    trace: LayerTrace,
    wire: dict[str, Floats],
) -> None:
    ranks = np.arange(fabric.n_ranks)
    totals = load.totals
    sent, received, own = totals.selections_sent, totals.selections_received, totals.selections_own
    if load.hierarchical:
        sent, received, own = totals.ranks_sent, totals.ranks_received, totals.ranks_own
    total = wire["dispatch"] + wire["combine"]
    through: dict[str, NDArray[Any]] = {}
    for direction, rank in (("sent", fabric.link_source_rank), ("received", fabric.link_target_rank)):
        at_rank = rank >= 0
        through[direction] = np.bincount(rank[at_rank], weights=total[at_rank], minlength=fabric.n_ranks)
    took = {name: trace.end_s[name] - trace.start_s[name] for name in trace.start_s}
    compute = sum((took[stage.name] for stage in KERNELS), np.zeros(fabric.n_ranks))
    in_phases = sum((took[name] for name in PHASES), np.zeros(fabric.n_ranks))
    tables.add(
        "ranks",
        **where,
        rank=ranks.astype(np.int32),
        node=fabric.rank_node,
        tokens=load.tokens,
        sent_copies=sent - own,
        received_copies=received - own,
        computed_selections=totals.selections_received,
        sent_bytes=through["sent"],
        received_bytes=through["received"],
        compute_s=compute,
        expert_gemm_s=load.kernels.seconds["experts"],
        expert_flops=load.kernels.experts_flops,
        expert_moved_bytes=load.kernels.experts_moved_bytes,
        transfer_s=in_phases - trace.wait_s,
        wait_s=trace.wait_s,
        finish_s=trace.end_s_of_layer,
    )


def add_migration_rows(
    tables: TableBuilder, step: int, fabric: Fabric, trace: MigrationTrace, moves: int, bound_s: float
) -> None:
    """Add a layer's move of weights to ``migrations`` and ``spans``; ``bound_s`` is what its busiest link needs."""
    phase, stage = trace.phase, BESIDE if trace.beside else MIGRATION
    where = {"step": step, "layer": trace.layer, "micro_batch": 0}
    wire = phase.flows.link_wire_bytes(fabric.n_links)
    tables.add(
        "migrations",
        **where,
        lane=[stage.lane],
        moves=moves,
        wire_bytes=float(phase.flows.size.sum()),
        **{f"{name}_wire_bytes": float(wire[fabric.is_class(name) & fabric.sender_port].sum()) for name in _PORTS},
        fixed_s=phase.flows.entry_setup_s,
        lower_bound_s=bound_s,
        start_s=float(phase.enter_s.min()),
        end_s=float(phase.leave_s.max()),
    )
    _add_span(tables, where, fabric, stage, phase.enter_s, phase.leave_s, phase)


def _add_spans(tables: TableBuilder, where: dict[str, int], fabric: Fabric, trace: LayerTrace) -> None:
    for stage in STAGES:
        begin, end = trace.start_s[stage.name], trace.end_s[stage.name]
        _add_span(tables, where, fabric, stage, begin, end, trace.phases.get(stage.name))
    for stage in (stage for stage in STEP if stage.name in trace.beside):
        _add_span(tables, where, fabric, stage, *trace.beside[stage.name], None)


def _add_span(
    tables: TableBuilder,
    where: dict[str, int],
    fabric: Fabric,
    stage: Stage,
    begin: Floats,
    end: Floats,
    phase: PhaseTrace | None,
) -> None:
    """Add the spans of one stage, one of each rank."""
    blamed = phase.waited_on if phase is not None else np.full(fabric.n_ranks, -1, np.int32)
    tables.add(
        "spans",
        **where,
        rank=np.arange(fabric.n_ranks, dtype=np.int32),
        node=fabric.rank_node,
        lane=stage.lane,
        phase=stage.label,
        start_s=begin,
        end_s=end,
        wait_s=phase.wait_s if phase is not None else np.zeros(fabric.n_ranks),
        waited_on=np.ma.masked_less(blamed, 0),
    )

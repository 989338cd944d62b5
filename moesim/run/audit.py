"""Laws that must hold after every run, whatever was simulated; a breach is our bug and no result leaves.

Bytes on links equal those of the flows that cross them; tokens arrive, are computed and return; no link carries more
than it can; no rank leaves before the flows end that it waits for; the parts of a time add up to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moesim import csr
from moesim.cluster import Fabric
from moesim.errors import InvariantError
from moesim.layer import LayerLoad
from moesim.results import Term, combined
from moesim.timeline import LayerTrace, LinkSeries, MigrationTrace, PhaseTrace

_SLACK = 1e-9


def _rounding(clock_s: float) -> float:
    """What times that the clock tells at ``clock_s`` may be off by, some sums later; never less than 1e-15 s."""
    return max(float(np.spacing(clock_s)) * 32, 1e-15)


def audit_layer(fabric: Fabric, load: LayerLoad, trace: LayerTrace, tokens: int, top_k: int, dropped: int) -> None:
    """Check one layer.

    Raises:
        InvariantError: naming the law and the figures that break it.
    """
    layer = trace.layer
    selections = int(load.totals.selections_sent.sum())
    _equal(f"layer {layer}: selections computed by the slots", int(load.slot_tokens.sum()), selections)
    _equal(f"layer {layer}: selections and dropped ones", selections + dropped, tokens * top_k)
    received = load.totals.ranks_sent.sum()
    if not load.totals.nodes_sent.sum() <= received <= selections:
        raise InvariantError(f"layer {layer}: copies per node, rank and selection are not in ascending order")
    for name, phase in trace.phases.items():
        _audit_phase(f"layer {layer} {name}", fabric, phase)
    out, back = trace.dispatch.flows.size.sum(), trace.combine.flows.size.sum()
    _close(
        f"layer {layer}: copies out and back",
        out / load.bytes_per_copy["dispatch"],
        back / load.bytes_per_copy["combine"],
    )


def audit_together(fabric: Fabric, phases: Sequence[PhaseTrace], series: LinkSeries) -> None:
    """Check that links carried the bytes of all groups on the clock, no others, and never more than they can.

    Raises:
        InvariantError: naming the link and the figures that break it.
    """
    if any(phase.limits is not None or (phase.capacity_events.link < fabric.n_links).any() for phase in phases):
        return  # what stepped flows carried is known to their tolerance; what links could, changed
    links = np.concatenate([phase.flows.route_links for phase in phases])
    loads = [csr.spread(phase.flows.size, phase.flows.route_ptr) * phase.flows.weight for phase in phases]
    wanted = np.bincount(links, weights=np.concatenate(loads), minlength=fabric.n_links)
    carried = series.utilisation.sum(axis=0) * fabric.capacity * series.bucket_s
    for link in np.flatnonzero(np.abs(carried - wanted) > _SLACK * np.maximum(wanted, 1.0))[:1]:
        _close(f"bytes of all groups on {fabric.link_names[link]}", carried[link], wanted[link])
    if (series.utilisation > 1 + _SLACK).any():
        link = int(np.argmax(series.utilisation.max(axis=0)))
        raise InvariantError(f"{fabric.link_names[link]} carries more of all groups than its capacity")


def audit_migration(fabric: Fabric, trace: MigrationTrace, n_bytes: int) -> None:
    """Check one layer's move of weights, of so many bytes.

    Raises:
        InvariantError: other bytes moved, or a law of every phase is broken.
    """
    where = f"layer {trace.layer}, migration"
    _close(f"{where}: bytes", float(trace.phase.flows.size.sum()), float(n_bytes))
    _audit_phase(where, fabric, trace.phase)


def _audit_phase(where: str, fabric: Fabric, phase: PhaseTrace) -> None:
    flows = phase.flows
    for what, times in (("finish", phase.finish_s), ("leave", phase.leave_s), ("launch", phase.launch_s)):
        if not np.isfinite(times).all():
            raise InvariantError(f"{where}: a {what} time is missing")
    if (phase.finish_s < phase.start_s * (1 - _SLACK)).any():
        raise InvariantError(f"{where}: a flow ends before its first byte")
    # What a rank waits for has ended when it leaves, what it posts has begun; and a rank waits for every flow.
    waiting_ptr, waiting = flows.waiting
    last = np.full(fabric.n_ranks, -np.inf)
    np.maximum.at(last, waiting, np.repeat(phase.finish_s, np.diff(waiting_ptr)))
    np.maximum.at(last, flows.member_ranks, np.repeat(phase.start_s, np.diff(flows.member_ptr)))
    early = np.flatnonzero(phase.leave_s < last * (1 - _SLACK))
    if len(early):
        raise InvariantError(f"{where}: rank {early[0]} leaves before its last flow ends")
    if (phase.finish_s > phase.leave_s.max() * (1 + _SLACK)).any():
        raise InvariantError(f"{where}: a flow ends after the last rank has left")
    clock = _rounding(phase.leave_s.max())
    if (phase.wait_s < 0).any() or (phase.wait_s > (phase.leave_s - phase.enter_s) * (1 + _SLACK) + clock).any():
        raise InvariantError(f"{where}: a rank waits longer than it is in the phase")
    # No link faster than its peak, over the time from the first byte on it to the last.
    flow = csr.owners(flows.route_ptr)
    carries = flows.size[flow] > 0
    flow, link, weight = flow[carries], flows.route_links[carries], flows.weight[carries]
    begin, end = np.full(fabric.n_links, np.inf), np.full(fabric.n_links, -np.inf)
    np.minimum.at(begin, link, phase.start_s[flow])
    np.maximum.at(end, link, phase.finish_s[flow])
    used = np.isfinite(begin)
    demand = np.bincount(link, weights=flows.size[flow] * weight, minlength=fabric.n_links)
    _audit_kernels(where, phase, fabric.n_ranks)
    # A flow of a few bytes lasts less than a rounding of the clock: allow for it.
    clock = np.spacing(np.abs(end[used])) * 8
    over = demand[used] > fabric.capacity[used] * (end[used] - begin[used] + clock) * (1 + _SLACK)
    if over.any():
        name = fabric.link_names[np.flatnonzero(used)[np.argmax(over)]]
        raise InvariantError(f"{where}: link {name} carried more than its capacity")


def _audit_kernels(where: str, phase: PhaseTrace, n_ranks: int) -> None:
    """No communication kernel works for longer than from its first byte to its last."""
    flows, kernel = phase.flows, phase.flows.kernel
    if kernel is None:
        return
    owner = csr.owners(kernel.ptr)
    begin, end = np.full(n_ranks, np.inf), np.full(n_ranks, -np.inf)
    np.minimum.at(begin, kernel.ranks, phase.start_s[owner])
    np.maximum.at(end, kernel.ranks, phase.finish_s[owner])
    used = np.isfinite(begin)
    needed, had = flows.kernel_seconds(n_ranks)[used], (end - begin)[used]
    over = needed > (had + np.spacing(np.abs(end[used])) * 8) * (1 + _SLACK)
    if over.any():
        raise InvariantError(f"{where}: the kernel of rank {np.flatnonzero(used)[np.argmax(over)]} did too much")


def audit_components(components: dict[str, float], layer_time_s: float, layer: int, clock_s: float = 0.0) -> None:
    """Check that the parts of a layer's time sum to it; ``clock_s``: when it ended.

    Raises:
        InvariantError: they do not, within 1e-9 or the clock's rounding.
    """
    total, rounding = sum(components.values()), _rounding(clock_s)
    if abs(total - layer_time_s) > max(_SLACK * layer_time_s, rounding):
        raise InvariantError(f"layer {layer}: components sum to {total!r} s, the layer takes {layer_time_s!r} s")
    if any(value < -max(rounding, 1e-12) for value in components.values()):
        raise InvariantError(f"layer {layer}: a component is negative: {components}")


def audit_terms(summary: Mapping[str, Any], terms: Mapping[str, Sequence[Term]], clock_s: float = 0.0) -> None:
    """Check that the terms of every number give its value, and so on down; ``clock_s``: when the longest step ended.

    Raises:
        InvariantError: they do not, within 1e-9 of the largest of them or the clock's rounding.
    """
    for key, parts in terms.items():
        _audit_terms(key, float(summary[key]), parts, _rounding(clock_s))


def _audit_terms(what: str, value: float, terms: Sequence[Term], rounding: float) -> None:
    got = combined(terms)
    # Two clocks that nearly agree differ by little: what is added up is the measure, not what is left of it.
    largest = max([abs(value), *(abs(term["value"]) for term in terms if "combine" not in term)])
    if not abs(got - value) <= max(_SLACK * largest, rounding):
        raise InvariantError(f"{what} is {value!r}, its terms give {got!r}")
    for term in terms:
        below, shares = term.get("terms"), term.get("of")
        if below:
            _audit_terms(f"{what}: {term['name']}", term["value"], below, rounding)
        if shares:
            _close(f"{what}: shares of {term['name']}", sum(share["value"] for share in shares), term["value"])


def _equal(what: str, got: int, wanted: int) -> None:
    if got != wanted:
        raise InvariantError(f"{what}: {got}, expected {wanted}")


def _close(what: str, got: float, wanted: float) -> None:
    if abs(got - wanted) > _SLACK * max(abs(wanted), 1.0):
        raise InvariantError(f"{what}: {got!r} against {wanted!r}")

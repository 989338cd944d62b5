"""What breaks a scenario's cluster: every single fault ranked by its cost, and the worst pair of those tried.

Every fault is a point of a sweep over ``faults``, so that workers, journal and resuming are a sweep's, and all points
share one routing. Of faults that are alike two are simulated, the first place and the last, for the first shows what it
costs and the second that it costs the same there. Where the faults that are not alike are too many for about two
minutes of a core, they are ranked by how much they raise the layers' lower bound, and the first of them are simulated.

Pairs are searched greedily: all pairs among the few worst single faults, two of those that are alike. A pair of faults
that are harmless each, but not together, is not found.
"""

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.layer import KernelLedger, LayerLoad, Parts, alike_places, effects, layer_load, rewired, with_effects
from moesim.measure import LayerBytes
from moesim.results import How, PairCost, RankedFault, WhatBreaks, percent
from moesim.run import RoutedStep, simulated_layers
from moesim.scenario import Fault, Scenario, ScenarioTemplate
from moesim.stages import PHASES
from moesim.sweeps.digests import routing_digest
from moesim.sweeps.evaluate_points import Routed, one_line, parts_of, recording_of, route
from moesim.sweeps.single_faults import Severities, SingleFault, single_faults
from moesim.sweeps.space import Axis, Space
from moesim.sweeps.sweep_run import Watch, run_sweep
from moesim.sweeps.workers import Workers

# Seconds of a core for a point, and for an entry of a flow's route in it where no two flows are equal.
_POINT_S, _ENTRY_S = 0.1, 1e-5
# How many seconds are worth spending, and what the usual share may take at most.
_WORTH_S, _LONGEST_S, _SHARE = 120.0, 900.0, 0.05
_FEWEST = 20
# Worst single faults whose pairs are tried, where a point takes little time or much.
_WORST, _WORST_SLOW = 8, 4
_SLOW_S = 1.0

Crew = Callable[[int], AbstractContextManager[Workers]]
Row = dict[str, Any]


def what_breaks(
    scenario: Scenario,
    workers: Crew,
    *,
    typed: Sequence[str] = (),
    folder: Path | None = None,
    severities: Severities = Severities(),  # noqa: B008 - frozen
    share: float | None = None,
    watch: Watch = lambda *_: None,
) -> WhatBreaks:
    """Rank every single fault of a scenario's cluster by what it costs, on top of the faults that it has.

    Args:
        scenario: the scenario.
        workers: makes the workers of a sweep, given the number of points.
        typed: the scenario and its overrides as typed, for the command that looks at the worst fault.
        folder: where the journals are, so that an interrupted search resumes; None for memory.
        severities: of faults that leave something.
        share: of the faults that are not alike, how many are simulated at least; None for 5 %, or as many as a quarter
            of an hour of a core allows.
        watch: called with the progress.

    Raises:
        InputError: the scenario does not run as it is, or it is of several groups.
    """
    if scenario.groups_at_once > 1:
        what = "faults are ranked for one expert-parallel group, or there would be a clock of all groups for each"
        raise InputError(what, "parallel.dp", "leave dp out; a run has several groups with the faults that it names")
    own: list[Row] = scenario.resolved().get("faults", [])
    died = [fault.mode for fault in scenario.faults if fault.kind == "rank_death" and fault.mode != "abort"]
    if "replicas" in died or (scenario.placement.redundant_experts and not died):
        severities = severities._replace(death="replicas")
    parts = parts_of(scenario)
    recording = recording_of(scenario)
    routed = route(scenario, parts, recording)
    loads = loads_of(parts, routed)
    carried = [flows.link_wire_bytes(parts.fabric.n_links) for load in loads for flows in load.flows.values()]
    used = np.sum(carried, axis=0) > 0
    everything = single_faults(parts.fabric, np.ones_like(used), severities)
    faults = single_faults(parts.fabric, used, severities)
    classes = _classes(parts, routed, loads, faults)
    point_s = _POINT_S + _ENTRY_S * _entries(parts, routed, loads)
    wanted = np.ceil((_SHARE if share is None else share) * len(classes))
    most = max(int(min(wanted, _LONGEST_S / point_s) if share is None else wanted), int(_WORTH_S / point_s), _FEWEST)
    bounds: list[Rise] = []
    chosen: Sequence[int] = range(len(classes))
    if len(classes) > most:
        bounds = bound_rises(scenario, parts, routed, loads, [one[0] for one in classes], most, watch)
        ranked = sorted((i for i in chosen if not bounds[i].error), key=lambda i: bounds[i][:2], reverse=True)
        kinds = {classes[i][0].what: i for i in reversed(ranked)}
        chosen = sorted({*ranked[:most], *kinds.values()})

    def swept(sets: Iterable[Sequence[SingleFault]], name: str) -> list[Row]:
        values = tuple(([*own, *(one.entry for one in some)],) for some in sets)
        space, below = Space((Axis(("faults",), values),)), None if folder is None else folder / name
        done = run_sweep(scenario, space, workers, impossible="skip", folder=below, watch=watch)
        names = ("status", "error", "step_time_s", "bottleneck", "layers", "tokens_per_second")
        rows: list[Row] = done.table.select(names).to_pylist()
        return rows

    sets: list[tuple[SingleFault, ...]] = [()]
    places: dict[int, list[int]] = {}
    for i in chosen:
        ends = classes[i][:1] + classes[i][1:][-1:]
        places[i] = list(range(len(sets), len(sets) + len(ends)))
        sets += [(one,) for one in ends]
    rows = swept(sets, "singles")
    base = rows[0]
    if base["status"] != "ok":
        raise InputError(f"the scenario does not run as it is: {base['error']}")
    base_s: float = base["step_time_s"]
    costs = [
        _cost(members, [rows[point] for point in places.get(i, ())], base_s, bounds[i] if bounds else None)
        for i, members in enumerate(classes)
    ]
    in_order = sorted(range(len(costs)), key=lambda i: (*costs[i].order, i))
    costly = [(one, costs[i].cost_s or 0.0) for i in in_order if (costs[i].cost_s or 0.0) > 0 for one in classes[i][:2]]
    worst = costly[: _WORST if point_s < _SLOW_S else _WORST_SLOW]
    pairs = [pair for pair in itertools.combinations(worst, 2) if _apart(pair[0][0], pair[1][0])]
    outcomes = swept([(one, other) for (one, _), (other, _) in pairs], "pairs") if pairs else []
    tried = sum(len(classes[i]) for i in chosen)
    layers = int(base["layers"])
    alone = "the layer" if layers == 1 else f"the step of {layers} layers"
    first = next((costs[i] for i in in_order if costs[i].cost_s is not None), None)
    return WhatBreaks(
        scenario=scenario.name,
        # Of a whole step some layers are on the clock and stand for all.
        subject=alone if base["tokens_per_second"] is None else "the whole step",
        base_s=base_s,
        faults=_stops_together([costs[i] for i in in_order]),
        n_faults=len(faults),
        n_simulated=len(sets) - 1,
        idle=len(everything) - len(faults),
        pairs=_pairs(pairs, outcomes, base_s),
        severities=severities.said(),
        notes=_notes(costs, tried, len(faults), len(everything), len(worst), len(pairs), base_s),
        command="" if first is None or not typed else _command(typed, [*own, dict(first.entry)]),
    )


class Rise(NamedTuple):
    """How much a fault raises the bound of a layer, and the mean over ranks of their own chains; means over the layers.

    Seconds; ``error`` says why nothing runs any more; ``guessed``: as if dead links had half their rate.
    """

    bound_s: float
    mean_s: float
    error: str = ""
    guessed: bool = False


def bound_rises(
    scenario: Scenario,
    parts: Parts,
    routed: Routed,
    loads: Sequence[LayerLoad],
    faults: Sequence[SingleFault],
    most: int,
    watch: Watch = lambda *_: None,
) -> list[Rise]:
    """Return what each fault does to the bounds.

    Slow links and GPUs leave flows as they are, and masked ranks only take away. For what else is dead flows are made
    anew, which takes a second on a large cluster: of at most so many, switches first, then those whose links' bytes
    raise the bound most if they take twice the time, as they do on a detour that is as busy.
    """
    fabric, template = parts.fabric, ScenarioTemplate.of(scenario)
    own = scenario.resolved().get("faults", [])
    digest = routing_digest(scenario, parts, recording_of(scenario))

    def bound(layers: Sequence[tuple[LayerBytes, Any]], capacity: Any, slower: Any) -> tuple[float, float]:
        found = [
            (of.bound(capacity, seconds * slower).seconds, of.chains_s(capacity, seconds * slower).mean())
            for of, seconds in layers
        ]
        one, mean = np.mean(found, axis=0)
        return float(one), float(mean)

    as_it_is = _bytes(parts, loads)
    base = bound(as_it_is, fabric.capacity, np.ones(fabric.n_ranks))

    def at_once(one: SingleFault) -> Rise:
        (effect,) = effects([Fault.model_validate(one.entry)], fabric, lambda _, what, fix: InputError(what, "", fix))
        if effect.throttles:
            factor = np.ones(fabric.n_links + 2 * fabric.n_ranks)
            for throttle in effect.throttles:
                factor[throttle.links] *= throttle.factor
            sm = factor[fabric.n_links : fabric.n_links + fabric.n_ranks]
            return rise(bound(as_it_is, fabric.capacity * factor[: fabric.n_links], 1 / sm))
        if effect.gone:
            with_effects(parts, broken(one))
            return rise(base, guessed=effect.gone.replaced)
        capacity = fabric.capacity.copy()
        capacity[effect.dead] /= 2
        return rise(bound(as_it_is, capacity, np.ones(fabric.n_ranks)), guessed=True)

    def made_anew(one: SingleFault) -> Rise:
        scenario = broken(one)
        without, recording = parts_of(scenario), recording_of(scenario)
        if routing_digest(scenario, without, recording) == digest:
            layers = [rewired(without, load) for load in loads]
        else:
            layers = loads_of(without, route(scenario, without, recording))
        return rise(bound(_bytes(without, layers), without.fabric.capacity, np.ones(without.fabric.n_ranks)))

    def broken(one: SingleFault) -> Scenario:
        return template.scenario({"faults": [*own, one.entry]})

    def rise(now: tuple[float, float], guessed: bool = False) -> Rise:
        return Rise(now[0] - base[0], now[1] - base[1], guessed=guessed)

    def told(how: Callable[[SingleFault], Rise], one: SingleFault) -> Rise:
        try:
            return how(one)
        except InputError as error:
            return Rise(np.inf, np.inf, one_line(error))

    found = [told(at_once, one) for one in faults]
    guessed = [i for i, one in enumerate(found) if one.guessed]
    guessed = sorted(guessed, key=lambda i: (len(faults[i].links) > 2, found[i][:2]), reverse=True)[:most]
    for seen, i in enumerate(guessed):
        watch("bounds", seen, len(guessed))
        found[i] = told(made_anew, faults[i])
    return found


def _bytes(parts: Parts, loads: Sequence[LayerLoad]) -> list[tuple[LayerBytes, Any]]:
    """What bounds each layer: bytes at the rates that the all-to-all reaches, and the experts' own seconds.

    Nearer to the times than ``lower_bound_s``, which takes the links' peaks and the experts' roofline.
    """
    found = []
    for load in loads:
        flows = (replace(load.flows[phase], share=load.flows[phase].weight) for phase in PHASES)
        found.append((LayerBytes(parts.fabric, *flows), load.kernels.seconds["experts"]))
    return found


def loads_of(parts: Parts, routed: Routed) -> list[LayerLoad]:
    """Return what every routed layer of every step and micro-batch asks of the cluster."""
    ledger = KernelLedger()
    return [layer_load(parts, one, ledger) for step in routed.steps for one in _layers(step)]


def _layers(step: RoutedStep) -> list[Any]:
    return [one for of in (step.layers, *step.later) for one in of.values()]


def _entries(parts: Parts, routed: Routed, loads: Sequence[LayerLoad]) -> float:
    """Entries of routes that a run has: each recorded layer may stand for several."""
    times = sum(simulated_layers(parts, len(step.layers)) for step in routed.steps)
    each = sum(len(flows.route_links) for load in loads for flows in load.flows.values())
    return each * times / sum(len(step.layers) for step in routed.steps)


def _classes(
    parts: Parts, routed: Routed, loads: Sequence[LayerLoad], faults: Sequence[SingleFault]
) -> list[list[SingleFault]]:
    """Faults that are alike, together; moves of weights and drawn arrivals tell all ranks apart."""
    arrivals = parts.schedule.start_offset
    if any(step.moves for step in routed.steps) or not isinstance(arrivals, float | int | tuple):
        return [[one] for one in faults]
    alike = alike_places(parts.fabric, loads, np.full(parts.fabric.n_ranks, arrivals, np.float64))
    found: dict[Any, list[SingleFault]] = {}
    for one in faults:
        found.setdefault(one.colours(alike), []).append(one)
    return list(found.values())


def _stops_together(costs: Sequence[RankedFault]) -> tuple[RankedFault, ...]:
    """Put faults of one kind after which nothing runs into one row; the rest stays as it is."""
    kinds: dict[Any, list[RankedFault]] = {}
    for i, one in enumerate(costs):
        kinds.setdefault(one.what if one.how == "stops" else i, []).append(one)
    return tuple(
        replace(
            some[0],
            places=tuple(place for one in some for place in one.places),
            marks=tuple(marks for one in some for marks in one.marks),
        )
        for some in kinds.values()
    )


def _cost(members: Sequence[SingleFault], rows: Sequence[Row], base_s: float, rise: Rise | None) -> RankedFault:
    times = [row["step_time_s"] for row in rows if row["status"] == "ok"]
    errors = [row["error"] for row in rows if row["status"] != "ok"]
    errors = [rise.error] if rise is not None and rise.error else errors
    longest = max(times) if times and not errors else None
    how: How = "bound only"
    if errors:  # what cannot run is refused in words of ours; a mistake of ours begins with its kind
        how = "failed" if re.match(r"\w+Error: ", errors[0]) else "stops"
    elif times:
        how = "alike" if len(members) > 2 else "simulated"
    return RankedFault(
        what=members[0].what,
        places=tuple(one.place for one in members),
        entry=members[0].entry,
        how=how,
        time_s=longest,
        cost_s=None if longest is None else longest - base_s,
        other_s=min(times) if len(times) > 1 and longest is not None else None,
        bound_change_s=None if rise is None or rise.error or rise.guessed else rise.bound_s,
        bottleneck=rows[times.index(longest)]["bottleneck"] if longest is not None else "",
        error=errors[0] if errors else "",
        marks=tuple(one.marks for one in members),
    )


def _apart(one: SingleFault, other: SingleFault) -> bool:
    """Whether two faults are at different parts."""
    return one.place != other.place and not set(one.links) & set(other.links)


def _pairs(pairs: Sequence[Any], rows: Sequence[Row], base_s: float) -> tuple[PairCost, ...]:
    found = []
    for ((one, first_s), (other, second_s)), row in zip(pairs, rows, strict=True):
        time_s = row["step_time_s"] if row["status"] == "ok" else None
        cost_s = None if time_s is None else time_s - base_s
        first, second = (f"{each.what} at {each.place}" for each in (one, other))
        found.append(PairCost(first, second, time_s, cost_s, first_s + second_s, row["error"] or ""))
    return tuple(sorted(found, key=lambda pair: -np.inf if pair.cost_s is None else -pair.cost_s))


def _notes(
    costs: Sequence[RankedFault], tried: int, faults: int, all_faults: int, worst: int, pairs: int, base_s: float
) -> tuple[str, ...]:
    share = "all" if tried == faults else percent(tried / max(faults, 1))
    notes = [f"{faults:,} single faults, {share} of them simulated or alike one that was"]
    if idle := all_faults - faults:
        notes.append(f"{idle:,} faults are left out: they are at links that carry nothing")
    if alike := [one for one in costs if one.other_s is not None]:
        apart = max((one.time_s or 0.0) - (one.other_s or 0.0) for one in alike) / base_s
        notes.append(
            f"faults are alike where the traffic tells their places not apart; each kind was simulated at two of them, "
            f"which differ by {percent(apart)} at most"
        )
    if bound := sum(len(one.places) for one in costs if one.how == "bound only"):
        notes.append(
            f"{bound:,} faults were not simulated: they raise the layers' lower bound least, and have no cost here"
        )
    if pairs:
        notes.append(f"pairs: greedy, the {pairs:,} among the {worst} worst single faults; others were not tried")
    return tuple(notes)


def _command(typed: Sequence[str], faults: Sequence[Row]) -> str:
    return shlex.join(["moesim", "run", *typed, "-o", f"faults={json.dumps(faults)}"])

"""What must hold between the fields of a scenario: each breach with the place of the field to change."""

from collections.abc import Iterator

from moesim.alltoall_library import algorithm_named
from moesim.errors import InputError
from moesim.mistakes import Loc, did_you_mean, fields_at
from moesim.placement_policies import LEARN_FROM, SINGLE_SLOT_POLICIES
from moesim.scenario.fields import ScenarioFields
from moesim.scenario.named_files import is_path
from moesim.scenario.thresholds import parse_objective, parse_threshold

Breach = tuple[Loc, str, str]


def breaches(scenario: ScenarioFields) -> Iterator[Breach]:
    """Yield (place, what is wrong, what would be right) for every breach."""
    yield from _router(scenario)
    yield from _workload(scenario)
    yield from _per_rank_lists(scenario)
    yield from _unused(scenario)
    yield from _step(scenario)
    yield from _training(scenario)
    for i, text in enumerate(scenario.thresholds):
        try:
            parse_threshold(text)
        except InputError as error:
            yield ("thresholds", i), error.what, error.fix
    yield from _sweep(scenario)


def _router(scenario: ScenarioFields) -> Iterator[Breach]:
    routing, experts = scenario.routing, scenario.model.n_experts
    if routing.top_k > experts:
        yield ("routing", "top_k"), f"{routing.top_k} experts per token, but only {experts} experts", "lower top_k"
    ep = scenario.parallel.ep
    groups = routing.groups if isinstance(routing.groups, int) else ep if routing.groups == "rank" else None
    if routing.top_groups == 0:
        yield (
            ("routing",),
            f"groups are given ({routing.groups}) but not how many of them a token may reach",
            "add top_groups (M)",
        )
        return
    if groups is None:
        return
    if groups > experts:
        yield ("routing", "groups"), f"{groups} groups, but only {experts} experts", "use fewer groups"
        return
    if routing.top_groups > groups:
        yield (
            ("routing", "top_groups"),
            f"a token may reach {routing.top_groups} groups, but there are {groups}",
            f"give at most {groups}",
        )
        return
    # numpy.array_split: the last groups are the small ones
    smallest = experts // groups
    small_groups = groups - experts % groups
    room = routing.top_groups * smallest + max(0, routing.top_groups - small_groups)
    if room < routing.top_k <= experts:
        yield (
            ("routing", "top_groups"),
            f"{routing.top_groups} of {groups} groups can hold only {room} of {experts} experts, "
            f"fewer than top_k = {routing.top_k}",
            "raise top_groups or lower top_k",
        )


def _workload(scenario: ScenarioFields) -> Iterator[Breach]:
    workload = scenario.workload
    sources = ("routing", "recording", "synthetic", "expert_ids", "counts")
    given = [name for name in sources if getattr(workload, name) is not None]
    if len(given) != 1:
        yield (
            ("workload", given[-1]) if given else ("workload",),
            f"{' and '.join(given) or 'no source of tokens'} given",
            f"give one of {', '.join(sources)} (set the others to null)",
        )
    if isinstance(workload.tokens_per_rank, tuple) and sum(workload.tokens_per_rank) == 0:
        yield ("workload", "tokens_per_rank"), "no rank has any token", "give at least one token"
    if workload.deals and workload.assign != "by_sequence":
        yield ("workload", "assign"), "where a rule deals the experts, tokens are not assigned", "leave it out"
    recording = workload.recording
    if recording is not None and recording.layers is not None and len(set(recording.layers)) < len(recording.layers):
        yield (
            ("workload", "recording", "layers"),
            "a layer is named twice",
            "name each layer once; layers_simulated repeats them",
        )
    if scenario.routing.bias == "recorded" and recording is None and workload.routing is None:
        yield ("routing", "bias"), "there is no recording to take the bias from", "set bias: zero, or give a file"


def _per_rank_lists(scenario: ScenarioFields) -> Iterator[Breach]:
    ep = scenario.parallel.ep
    for loc, value in (
        (("workload", "tokens_per_rank"), scenario.workload.tokens_per_rank),
        (("schedule", "start_offset"), scenario.schedule.start_offset),
    ):
        if ep is not None and isinstance(value, tuple) and len(value) != ep:
            yield loc, f"{len(value)} values for parallel.ep = {ep} ranks", "give one value per rank"


def _unused(scenario: ScenarioFields) -> Iterator[Breach]:
    """Yield what would be read and then have no effect."""
    placed = scenario.placement
    if placed.redundant_experts and placed.policy in SINGLE_SLOT_POLICIES and placed.rebalance is None:
        yield (
            ("placement", "redundant_experts"),
            f"policy {scenario.placement.policy} places no replicas",
            "set policy: eplb, or redundant_experts: 0",
        )
    placement = scenario.placement
    if placement.file is not None and (placement.policy != "contiguous" or placement.redundant_experts):
        yield ("placement", "file"), "the map says where experts are, and so does the policy", "leave one of them out"
    if placement.policy == "per_batch" and not placement.redundant_experts:
        yield (
            ("placement", "redundant_experts"),
            "policy per_batch has no slots to fetch weights into",
            "give one per rank, for example",
        )
    anew = placement.rebalance
    if anew is not None and placement.policy == "per_batch":
        yield ("placement", "rebalance"), "policy per_batch fetches weights for every batch", "leave rebalance out"
    elif anew is not None and anew.policy in SINGLE_SLOT_POLICIES and placement.redundant_experts:
        what = f"policy {anew.policy} places no replicas"
        yield ("placement", "rebalance", "policy"), what, "use eplb, or redundant_experts: 0"
    parallel, alone = scenario.parallel, scenario.schedule.phase == "training"
    if parallel.group_placement != "packed" and (parallel.ep is None or alone):
        what = "a training step is simulated on one group" if alone else "without ep one group has every GPU"
        yield ("parallel", "group_placement"), what, "leave it out"
    if parallel.gradient_dtype is not None and (parallel.groups == 1 or alone):
        what = "no other group is there to reduce gradients with"
        yield ("parallel", "gradient_dtype"), what, "leave it out, or give dp: a multiple of ep, of MoE layers alone"
    elif parallel.gradient_dtype is not None and (anew is not None or placement.policy == "per_batch"):
        what = "weights of experts travel beside the layers, and so do gradients"
        yield ("parallel", "gradient_dtype"), what, "leave placement.rebalance or policy per_batch out, or this"
    learnt = placement.learn_from
    if learnt is not None and learnt not in LEARN_FROM and not is_path(learnt):
        yield (
            ("placement", "learn_from"),
            f"{learnt!r:.60} is none of {', '.join(LEARN_FROM)} and no file",
            did_you_mean(learnt, LEARN_FROM) or "name one of these, or the path of recorded routing",
        )
    algorithm = algorithm_named(scenario.alltoall.algorithm)
    if scenario.alltoall.cached_handle and not algorithm.handle:
        yield ("alltoall", "cached_handle"), f"{algorithm.name} has no handle", "cached_handle: false"
    if not scenario.alltoall.receive_hook and not algorithm.receive_hook:
        yield (
            ("alltoall", "receive_hook"),
            f"{algorithm.name} has no receive hook",
            "receive_hook: true, the default",
        )
    if scenario.routing.update_bias and scenario.routing.kind != "v3":
        yield ("routing", "update_bias"), f"a {scenario.routing.kind} router has no bias", "update_bias: false"
    elif scenario.routing.update_bias and (
        scenario.workload.expert_ids or scenario.workload.counts or scenario.workload.deals
    ):
        yield ("routing", "update_bias"), "no router runs on given experts", "update_bias: false"


def _step(scenario: ScenarioFields) -> Iterator[Breach]:
    """Yield what does not make a whole inference step."""
    work, schedule, decode = scenario.workload, scenario.schedule, scenario.schedule.phase == "decode"
    lengths = "requests and context" if decode else "sequence_length"
    others = ("sequence_length",) if decode else ("requests", "context", "draft_tokens")
    for name in others:
        if getattr(work, name) is not None:
            what = f"{name} is not of a {schedule.phase}"
            yield (
                ("workload", name),
                what,
                f"give {lengths}, or set schedule.phase: {'prefill' if decode else 'decode'}",
            )
    if decode and (work.requests is None) != (work.context is None):
        yield ("workload",), "requests and context belong together", "give both: requests: 128, context: 4096"
    if work.requests is not None and work.tokens_per_rank != work.requests * work.query_tokens:
        what = (
            f"{work.requests} requests of {work.query_tokens} tokens are not tokens_per_rank = {work.tokens_per_rank}"
        )
        yield ("workload", "tokens_per_rank"), what, "leave tokens_per_rank out"
    if work.acceptance is not None and work.draft_tokens is None:
        yield ("workload", "acceptance"), "nothing is drafted", "add draft_tokens: 1"
    if work.draft_tokens is not None and work.requests is None and decode:
        yield ("workload", "draft_tokens"), "no requests that draft", f"give {lengths}"
    model, compute = scenario.model, scenario.compute
    of_steps = {("model", name): getattr(model, name) for name in ("attention", "heads", "kv_heads", "kv_lora_rank")}
    of_steps |= {("compute", "library_date"): compute.library_date}
    of_steps |= {("compute", "attention_dtype"): None if compute.attention_dtype == "bf16" else "fp8"}
    for loc, given in () if work.of_step else of_steps.items():
        if given is not None:
            yield loc, "read for whole steps alone", f"give workload.{lengths}, or leave it out"
    if work.of_step and scenario.placement.moves_weights:
        what = "weights that move are simulated beside MoE layers alone, not in a whole step"
        yield ("workload",), what, f"leave {lengths} out, or rebalance and per_batch"
    if work.of_step and work.layers_simulated == 1:
        yield ("workload", "layers_simulated"), "a step's period shows between two layers", "give 2, or leave it out"
    if schedule.overlap == "none":
        return
    if not work.of_step:
        yield ("schedule", "overlap"), "overlap needs attention, and so a whole step", f"give workload.{lengths}"
    if schedule.overlap != "two-batch" and not decode:
        yield ("schedule", "overlap"), f"{schedule.overlap} is of a decode", "two-batch, or phase: decode"
    algorithm = algorithm_named(scenario.alltoall.algorithm)
    if decode and not (algorithm.receive_hook and scenario.alltoall.receive_hook):
        what = f"{schedule.overlap} of a decode needs a receive hook, which {algorithm.name} has not or does not use"
        yield ("schedule", "overlap"), what, "overlap: none, or alltoall.algorithm: deepep-low-latency"


def _training(scenario: ScenarioFields) -> Iterator[Breach]:
    """Yield what does not make a training step."""
    schedule, parallel = scenario.schedule, scenario.parallel
    count, order = schedule.micro_batches, schedule.pipeline
    if schedule.phase != "training":
        least = 2 if schedule.overlap == "two-batch" else 1
        if count not in (None, least):
            what = f"overlap {schedule.overlap} of a {schedule.phase} has {least} at a time"
            yield ("schedule", "micro_batches"), what, "leave it out, or set schedule.phase: training"
        if order != "none":
            yield ("schedule", "pipeline"), f"a {schedule.phase} has no pipeline", "set schedule.phase: training"
        if parallel.pp > 1:
            yield ("parallel", "pp"), f"a {schedule.phase} has no pipeline", "pp: 1, or schedule.phase: training"
        for name, unset in (("stage_layers", "whole"), ("mtp_layers", None), ("recompute", "none")):
            if getattr(schedule, name) != unset:
                yield ("schedule", name), f"{name} is not of a {schedule.phase}", "set schedule.phase: training"
        return
    if scenario.workload.sequence_length is None:
        yield ("workload",), "a training step needs the length of its sequences", "give workload.sequence_length"
    if schedule.overlap != "none":
        yield ("schedule", "overlap"), "in training the pipeline says what overlaps", "overlap: none"
    if count is None:
        yield ("schedule",), "a training step needs its micro-batches", "add micro_batches: 8"
    for i, fault in enumerate(scenario.faults):
        if fault.from_s > 0 or fault.to_s is not None:
            yield ("faults", i), "a training step has faults of the whole run alone", "leave from and to out"
    if parallel.tp > 1:
        yield ("parallel", "tp"), "attention in tensor parallel is not simulated", "tp: 1"
    if (order == "none") != (parallel.pp == 1):
        what = f"pipeline {order} with pp = {parallel.pp}"
        fix = "use 1f1b, zb1p, dualpipe or dualpipev, or pp: 1" if order == "none" else "pp: 2 or more"
        yield ("schedule", "pipeline"), what, fix
        return
    stages, dealt = parallel.pp * (2 if order == "dualpipev" else 1), schedule.stage_layers
    if stages > scenario.model.layers:
        yield ("parallel", "pp"), f"{stages} stages for {scenario.model.layers} layers", "use fewer ranks of a pipeline"
    elif not isinstance(dealt, str) and (len(dealt) != stages or sum(dealt) != scenario.model.layers):
        what = f"{len(dealt)} stages of {sum(dealt)} layers in all"
        yield ("schedule", "stage_layers"), what, f"give {stages} numbers that sum to {scenario.model.layers}"
    if order == "dualpipe" and parallel.pp % 2:
        yield ("parallel", "pp"), f"dualpipe enters at both ends of {parallel.pp} ranks", "use an even pp"
    elif count is not None and order.startswith("dualpipe"):
        odd = order == "dualpipe" and count % 2
        if odd or count < 2 * parallel.pp:
            fix = f"use {'an even number, ' * (order == 'dualpipe')}{2 * parallel.pp} or more"
            yield ("schedule", "micro_batches"), f"{count} micro-batches through {order} of {parallel.pp} ranks", fix


def _sweep(scenario: ScenarioFields) -> Iterator[Breach]:
    sweep = scenario.sweep
    if sweep is None:
        return
    try:
        parse_objective(sweep.objective or "layer_time_s")
    except InputError as error:
        yield ("sweep", "objective"), error.what, error.fix
    named: list[tuple[Loc, str]] = [(("sweep", "axes", key), key) for key in sweep.axes]
    named += [(("sweep", "zip", i, key), key) for i, group in enumerate(sweep.zip) for key in group]
    for place, key in named:
        try:
            check_axis(key, type(scenario))
        except InputError as error:
            yield place, error.what, error.fix
        if sum(key == other for _, other in named) > 1:
            yield place, f"{key} is given twice", "give each key one axis"
    for i, group in enumerate(sweep.zip):
        if len({len(values) for values in group.values()}) != 1:
            lengths = ", ".join(f"{key}: {len(values)}" for key, values in group.items()) or "none"
            yield ("sweep", "zip", i), f"keys that move together need as many values each ({lengths})", ""


def check_axis(key: str, model: type[ScenarioFields]) -> None:
    """Refuse a dotted key that no scenario has.

    Raises:
        InputError: no such key, or one that cannot differ between the points of a sweep.
    """
    *above, last = key.split(".")
    known = sorted(fields_at(model, tuple(above)))
    if last not in known or key.split(".")[0] in ("sweep", "variants"):
        fix = did_you_mean(last, known, "keys known there") if known else "write a dotted key"
        raise InputError(f"no key {key!r:.80} in a scenario", fix=fix)

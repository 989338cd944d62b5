"""One number of a result taken apart, in lines of text: what it means, the terms that give it, their sources."""

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from moesim.errors import InputError
from moesim.results.bands import Moves
from moesim.results.definitions import DEFINITIONS, GROUP_SUMMARY, TRAINING_SUMMARY
from moesim.results.folder_schema import AGAIN, LATER
from moesim.results.result import Result
from moesim.results.terms import Share, Term
from moesim.stages import PHASES
from moesim.units import format_bandwidth, format_bytes, format_duration

# Ranks and links listed of a term, and layers of an average; the largest come first.
_SHARES, _LAYERS = 4, 8
_STAGES = 32


def explain_lines(result: Result, key: str) -> Iterator[str]:
    """Explain the summary value ``key``.

    Raises:
        InputError: no such value; the error suggests the closest.
    """
    if key not in DEFINITIONS:
        close = difflib.get_close_matches(key, DEFINITIONS, n=1)
        fix = f"did you mean {close[0]}?" if close else f"choose among {', '.join(result.summary)}"
        raise InputError(f"no number {key!r} in a summary", fix=fix)
    if key in LATER["summary"] and key not in result.summary:
        raise InputError(f"this run has no {key}: an earlier moesim wrote it", fix=AGAIN)
    if key in GROUP_SUMMARY and key not in result.summary:
        raise InputError(f"this run has no {key}: it has one expert-parallel group", fix="give parallel.ep and dp")
    if key not in result.summary:
        if key in TRAINING_SUMMARY:
            raise InputError(f"this run has no {key}: it is no training step", fix="set schedule.phase: training")
        what = f"this run has no {key}: its scenario is about MoE layers alone"
        raise InputError(what, fix="give workload.sequence_length (prefill), or requests and context (decode)")
    definition = DEFINITIONS[key]
    yield f"{key} = {result.value(key).words(partial(_quantity, definition.unit))}"
    yield f"  {definition.text}"
    yield from _band(result, key)
    terms: Sequence[Term] = result.explanation["terms"].get(key, ())
    if terms:
        yield f"  {_HEADINGS[terms[0].get('combine')]}:"
        yield from _term_lines(terms, len(terms) if "combine" not in terms[0] else _LAYERS)
        yield from _source_lines(terms)
    if "training" in result.explanation and (key == "step_time_s" or key in TRAINING_SUMMARY):
        yield from _training(result.explanation["training"])
    else:
        yield from _context_of(key)(result, key)


# Changes below this are not listed.
_LEAST_MOVE = 5e-4
_UNKNOWNS = {
    "nvlink": "NVLink rates",
    "nic": "NIC rates",
    "setup": "set-up times",
    "work": "kernel work",
    "fill": "fill times",
    "host": "times before the kernel",
}


def _band(result: Result, key: str) -> Iterator[str]:
    """Whence the interval of a time, and which unknowns widen it, the most first."""
    band = result.explanation.get("band", {})
    moves: Moves = band.get("moves", {}).get(key, {})
    if not moves:
        return
    yield f"  in 80 of 100 clusters like this one it lies between the two in brackets: {band['source']}"
    by = sorted((one for one in moves if abs(moves[one][1]) >= _LEAST_MOVE), key=lambda one: -moves[one][1])
    shown = (
        f"{_UNKNOWNS.get(unknown, unknown)} {100 * moves[unknown][0]:+.1f} / {100 * moves[unknown][1]:+.1f} %"
        for unknown in by
    )
    again = ", simulated again" if band["resimulated"] else ""
    yield f"  one standard deviation faster / slower{again}: {', '.join(shown)}"
    if open_ := [_UNKNOWNS[kind] for kind in band["contended"]]:
        yield f"  which of {' and '.join(open_)} holds it may differ there: run with --band exact"


_HEADINGS = {
    None: "the sum of",
    "ratio": "the first over the second of",
    "product": "the product of",
    "max": "the largest of",
    "mean": "the mean of",
}


def _term_lines(terms: Sequence[Term], most: int, margin: str = "    ") -> Iterator[str]:
    width = max(len(term["name"]) for term in terms)
    for term in terms[:most]:
        formula = f"  {term['formula']}" if term["formula"] else ""
        yield f"{margin}{term['name']:{width}} {_quantity(term['unit'], term['value']):>11}{formula}"
        shares = term.get("of", [])
        if _differ(shares):
            yield from (f"{margin}  {_share(share, term['unit'])}" for share in shares[:_SHARES])
            if len(shares) > _SHARES:
                yield f"{margin}  and {len(shares) - _SHARES} more"
        if below := term.get("terms"):
            yield from _term_lines(below, len(below), f"{margin}  ")
    if len(terms) > most:
        yield f"{margin}and {len(terms) - most} more"


def _differ(shares: Sequence[Share]) -> bool:
    """Whether the shares name links, or ranks that contribute other amounts per layer than the others."""
    each = [share["value"] / len(share["layers"]) for share in shares]
    return any("link" in share for share in shares) or max(each, default=0.0) - min(each, default=0.0) > 1e-9 * max(
        map(abs, each), default=0.0
    )


def _share(share: Share, unit: str) -> str:
    where = [f"rank {share['rank']}"] if "rank" in share else []
    where += [share["link"]] if "link" in share else []
    moved = ""
    if "bytes" in share:
        moved = f", {format_bytes(share['bytes'])} at {format_bandwidth(share['bytes_per_s'])}"
    layers = sorted(set(share["layers"]))
    word = "layer" if len(layers) == 1 else "layers"
    shown = ", ".join(map(str, layers[:_LAYERS])) + (", ..." if len(layers) > _LAYERS else "")
    return f"{_quantity(unit, share['value'])}: {', '.join(where)}{moved} ({word} {shown})"


def _source_lines(terms: Sequence[Term]) -> Iterator[str]:
    by_source: dict[str, list[str]] = {}
    for term in terms:
        by_source.setdefault(term["source"], []).append(term["name"])
    if set(by_source) == {"simulated"}:
        return
    for source, names in by_source.items():
        yield f"  from {source}: {', '.join(names)}"


def _quantity(unit: str, value: Any) -> str:
    if value is None:
        return "does not apply"
    formats = {"s": format_duration, "B": format_bytes, "B/s": format_bandwidth}
    if unit in formats and isinstance(value, (int, float)):
        return f"-{formats[unit](-value)}" if value < 0 else formats[unit](value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_OF_THE_LAYER = ("layer_time_s", "step_time_s", "bottleneck", "bottleneck_utilisation", "wait_time_s", "arrival_time_s")


def _context_of(key: str) -> Callable[[Result, str], Iterator[str]]:
    if key in _OF_THE_LAYER:
        return _layer
    phase = key.split("_")[0]
    if phase in PHASES:
        return _phase
    if key == "lower_bound_s" or key.endswith("wire_bytes"):
        return _links
    if key.startswith(("gate_time", "permute_time", "expert_compute_time", "unpermute_time", "source")):
        return _kernels
    return _groups if key in GROUP_SUMMARY else _router


def _groups(result: Result, _: str) -> Iterator[str]:
    facts = result.explanation["groups"]
    links = facts["links"]
    yield f"  {len(links)} busiest links of several groups:" if links else "  no link carries bytes of two groups"
    for link in links[:_LAYERS]:
        among = ", ".join(str(group) for group, moved in enumerate(link["wire_bytes"]) if moved)
        yield (
            f"    {link['link']}, groups {among}: {format_bytes(sum(link['wire_bytes']))} per layer, "
            f"{format_duration(link['seconds_at_full_rate'])} at full rate, "
            f"held a group {format_duration(link['held_s'])}"
        )
    for placed in facts["placements"]:
        took = placed.get("not") or f"{format_duration(placed['layer_time_mean_s'])} a layer, mean of the groups"
        yield f"  placed {placed['placement']}: {took}"


def _layer(result: Result, _: str) -> Iterator[str]:
    yield "  what held the critical ranks back, over all layers:"
    for name, seconds in result.explanation["held_by_s"].items():
        yield f"    {name:24} {format_duration(seconds)}"
    if culprit := result.explanation["held_longest"]:
        yield f"  the link that held it longest: {culprit['link']}, {format_duration(culprit['seconds'])} per layer"
        if culprit["capacity_bytes_per_s"] < culprit["peers_bytes_per_s"]:
            peak, peers = (format_bandwidth(culprit[name]) for name in ("capacity_bytes_per_s", "peers_bytes_per_s"))
            yield f"  its peak is {peak}, that of most links of its class {peers}"
    for one in result.explanation.get("faults", ()):
        wait = f"; ranks wait {format_duration(one['waited_on_s'])} each and layer for {one['waited_on']}"
        held = f"; {one['held_by']} holds a flow for {format_duration(one['held_s'])}" if one.get("held_by") else ""
        what = one.get("what", "layer")
        time = f"a {what} of {format_duration(one[f'{what}_time_s'])} ({round(one['longer_by'], 4) + 0.0:+.2%})"
        yield f"  {one['name']}: {time}, {one['bottleneck']}{held}{wait if one['waited_on'] else ''}"
    if steps := result.explanation.get("tolerance"):
        yield f"  in steps of up to {steps['tolerance']:.2%}; estimated error {steps['estimated_error']['layer']:.2%}"
    ranks = result.explanation["critical_ranks"]
    yield f"  critical rank of each layer: {', '.join(map(str, ranks[:16]))}{', ...' if len(ranks) > 16 else ''}"


def _training(made: dict[str, Any]) -> Iterator[str]:
    of_stages = [stage["moe"] + stage["dense"] for stage in made["stages"]]
    shown = ", ".join(f"{layers:.4g}" for layers in of_stages[:_STAGES]) + (", ..." if len(of_stages) > _STAGES else "")
    yield f"  pipeline {made['pipeline']}; layers of each stage, those of multi-token prediction too: {shown}"
    passes = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in made["chunk_s"].items())
    yield f"  {made['chunk_layers']} MoE layers of one group on the clock: {passes}"
    if made["pair_s"] is not None:
        pair, hidden = format_duration(made["pair_s"]), made["pair_hidden_share"]
        yield f"  the same forward beside backward: {pair}, {hidden:.1%} of communication hidden"
    for name, seconds in made["others_s"].items():
        parts = ", ".join(f"{kind} {format_duration(value)}" for kind, value in seconds.items())
        yield f"  one {name}: {parts}"
    yield f"  from a stage to the next: {format_duration(made['send_s'])}"


def _phase(result: Result, key: str) -> Iterator[str]:
    phase = key.split("_")[0]
    made = result.explanation["alltoall"][phase]
    yield f"  algorithm {made['algorithm']}, {made['dtype']}: {made['wire_bytes_per_copy']} B per copy on the wire,"
    yield f"  {made['published_bytes_per_copy']} B as the library's own benchmark counts"
    for link_class in result.explanation["topology"]["peak_bytes_per_s"]:
        name = {"nvlink": "NVLink", "nic": "NIC"}.get(link_class, link_class)
        rates = " to ".join(format_bandwidth(rate) for rate in made[f"{link_class}_rates_bytes_per_s"])
        yield f"  {name}: {rates} per link and direction, {made[f'{link_class}_efficiency']:.1%} of the peak"
    yield f"  the kernel holds {made['sms']} of {made['total_sms']} SMs"
    yield from _other_constants(made)
    if made["fitted_rows"]:
        left = ", ".join(f"{name} {value:.1%}" for name, value in made["error_left"].items())
        yield f"  set {made['calibration']}, fitted on {made['fitted_rows']} published figures; error left: {left}"
    if held_out := made["held_out"]:
        spread = f"median {held_out['median']:.1%}, p90 {held_out['p90']:.1%}"
        if clusters := made.get("clusters"):
            own = f"{held_out['rows']:.0f} rows of {clusters} clusters, each predicted by the others"
            yield f"  set {made['calibration']}, off on {own}: {spread}"
        else:
            yield f"  on {held_out['rows']:.0f} rows of that library and GPU that were held out: {spread}"
    if steps := result.explanation.get("tolerance"):
        error, earlier, later = (steps[name][phase] for name in ("estimated_error", "proven_earlier", "proven_later"))
        yield f"  in steps of up to {steps['tolerance']:.2%}; estimated error {error:.2%} of the phase's length;"
        yield f"  proven, given when flows start: its last flow ends at most {earlier:.2%} earlier, {later:.2%} later"


# Constants that the terms, or a line of their own, show.
_SHOWN = {
    *("nvlink_peak", "nic_peak", "nvlink_rate", "nic_rate", "nvlink_sm_half", "nvlink_rank_slope"),
    *("layout_s", "cpu_sync_s", "notify_two_nodes_s", "notify_four_nodes_s"),
}


def _other_constants(made: dict[str, Any]) -> Iterator[str]:
    """What else the constants charge: fill, floor, kernel work, epilogue, NCCL's protocols."""
    for name, value in made["constants"].items():
        if name in _SHOWN or name.startswith("setup"):
            continue
        if name.endswith("_s"):
            shown = format_duration(value)
        else:
            shown = format_bandwidth(value) if name.endswith("_rate") else f"{value:g}"
        yield f"  {name.removesuffix('_s')}: {shown}"
    if made["protocols"]:
        yield f"  each message by the fastest of: {', '.join(one['name'] for one in made['protocols'])}"


def _busiest(result: Result, phase: str) -> Iterator[str]:
    for row in result.explanation["busiest_links"][phase]:
        yield (
            f"  busiest {row['link_class']} link in {phase}: {row['link']}, "
            f"{format_bytes(row['wire_bytes'])} per layer, {format_bandwidth(row['capacity_bytes_per_s'])} peak, "
            f"{format_duration(row['seconds_at_full_rate'])} at the algorithm's rate"
        )


def _links(result: Result, _: str) -> Iterator[str]:
    yield from _busiest(result, "dispatch")
    yield from _busiest(result, "combine")
    for name, peaks in result.explanation["topology"]["peak_bytes_per_s"].items():
        yield f"  {name}: peak {', '.join(format_bandwidth(peak) for peak in peaks)}"


def _kernels(result: Result, _: str) -> Iterator[str]:
    total = sum(row["seconds"] for row in result.explanation["kernels"])
    yield "  kernel time over all ranks, by source:"
    for row in sorted(result.explanation["kernels"], key=lambda row: -row["seconds"]):
        error = "" if row["error"] is None else f", error about {row['error']:.0%}"
        note = f" ({row['note']})" if row["note"] else ""
        yield f"    {row['kernel']:22} {row['seconds'] / total:6.1%}  {row['source']}{error}{note}"


# The knobs that the lines below name; any other one follows by its key.
_IN_WORDS = ("kind", "score", "top_k", "top_groups", "n_groups", "groups_are", "group_score")


def _router(result: Result, _: str) -> Iterator[str]:
    router = result.explanation["router"]
    yield f"  router {router['kind']}: {router['score']}, top-{router['top_k']}, "
    limit = f"{router['top_groups']} of {router['n_groups']} groups ({router['groups_are']})"
    yield f"  {limit}, groups ranked by {router['group_score']}"
    if further := [f"{name} {json.dumps(value)}" for name, value in router.items() if name not in _IN_WORDS]:
        yield f"  {', '.join(further)}"
    for note in result.explanation["workload"]["notes"]:
        yield f"  {note}"

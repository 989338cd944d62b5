"""One number of a result taken apart, in lines of text: what it means, what it is made of, where that comes from."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from moesim.errors import InputError
from moesim.results.definitions import COMPONENTS, SUMMARY
from moesim.results.result import Result
from moesim.stages import KERNEL_COMPONENTS, PHASES
from moesim.units import format_bandwidth, format_bytes, format_duration

_OF_THE_LAYER = (
    "layer_time_s",
    "step_time_s",
    "bottleneck",
    "bottleneck_utilisation",
    "wait_time_s",
    "rank_wait_mean_s",
    "arrival_time_s",
)


def explain_lines(result: Result, key: str) -> Iterator[str]:
    """Explain the summary value ``key``.

    Raises:
        InputError: no such value; the error suggests the closest.
    """
    if key not in SUMMARY:
        close = difflib.get_close_matches(key, SUMMARY, n=1)
        fix = f"did you mean {close[0]}?" if close else f"choose among {', '.join(SUMMARY)}"
        raise InputError(f"no number {key!r} in a summary", fix=fix)
    definition, value = SUMMARY[key], result.summary[key]
    yield f"{key} = {_quantity(definition.unit, value)}"
    yield f"  {definition.text}"
    yield from _part_for(key)(result, key)


def _quantity(unit: str, value: Any) -> str:
    if value is None:
        return "does not apply"
    formats = {"s": format_duration, "B": format_bytes, "B/s": format_bandwidth}
    if unit in formats and isinstance(value, (int, float)):
        return formats[unit](value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _part_for(key: str) -> Callable[[Result, str], Iterator[str]]:
    phase = key.split("_")[0]
    if phase in PHASES:
        return _phase
    if key in _OF_THE_LAYER:
        return _layer
    if key.removesuffix("_time_s") in KERNEL_COMPONENTS or key.startswith("source"):
        return _kernels
    if key in ("lower_bound_s",) or key.endswith("wire_bytes"):
        return _links
    return _router


def _layer(result: Result, _: str) -> Iterator[str]:
    yield "  parts, averaged over layers:"
    for name in COMPONENTS:
        yield f"    {name:24} {format_duration(result.summary[name])}"
    yield "  what held the critical ranks back, over all layers:"
    for name, seconds in result.explanation["held_by_s"].items():
        yield f"    {name:24} {format_duration(seconds)}"
    if steps := result.explanation.get("tolerance"):
        yield f"  in steps of up to {steps['tolerance']:.2%}; estimated error {steps['estimated_error']['layer']:.2%}"
    ranks = result.explanation["critical_ranks"]
    yield f"  critical rank of each layer: {', '.join(map(str, ranks[:16]))}{', ...' if len(ranks) > 16 else ''}"


def _phase(result: Result, key: str) -> Iterator[str]:
    phase = key.split("_")[0]
    made = result.explanation["alltoall"][phase]
    yield f"  algorithm {made['algorithm']}, {made['dtype']}: {made['wire_bytes_per_copy']} B per copy on the wire,"
    yield f"  {made['published_bytes_per_copy']} B as the library's own benchmark counts"
    for name, link_class in (("NVLink", "nvlink"), ("NIC", "nic")):
        rate, share = made[f"{link_class}_rate_bytes_per_s"], made[f"{link_class}_efficiency"]
        yield f"  {name}: {format_bandwidth(rate)} per GPU and direction, {share:.1%} of the peak"
    for name in ("layout_s", "notify_s", "cpu_sync_s", "setup_intra_node_s", "setup_inter_node_s"):
        if made[name]:
            yield f"  {name.removesuffix('_s')}: {format_duration(made[name])}"
    yield f"  the kernel holds {made['sms']} of {made['total_sms']} SMs"
    yield from _other_terms(made)
    yield f"  constants: {made['source']}"
    if made["fitted_rows"]:
        left = ", ".join(f"{name} {value:.1%}" for name, value in made["error_left"].items())
        yield f"  set {made['calibration']}, fitted on {made['fitted_rows']} published figures; error left: {left}"
    if held_out := made["held_out"]:
        spread = f"median {held_out['median']:.1%}, p90 {held_out['p90']:.1%}"
        yield f"  on {held_out['rows']:.0f} rows of that library and GPU that were held out: {spread}"
    if steps := result.explanation.get("tolerance"):
        error, earlier, later = (steps[name][phase] for name in ("estimated_error", "proven_earlier", "proven_later"))
        yield f"  in steps of up to {steps['tolerance']:.2%}; estimated error {error:.2%} of the phase's length;"
        yield f"  proven, given when flows start: its last flow ends at most {earlier:.2%} earlier, {later:.2%} later"
    yield from _busiest(result, phase)


# Terms that have a line of their own, or that such a line contains.
_TOLD = {
    *("nvlink_peak", "nic_peak", "nvlink_rate", "nic_rate", "nvlink_sm_half", "nvlink_rank_slope"),
    *("layout_s", "cpu_sync_s", "notify_two_nodes_s", "notify_four_nodes_s"),
}


def _other_terms(made: dict[str, Any]) -> Iterator[str]:
    """What else the constants charge: fill, floor, kernel work, epilogue, NCCL's protocols."""
    for name, value in made["terms"].items():
        if name in _TOLD or name.startswith("setup"):
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


def _router(result: Result, _: str) -> Iterator[str]:
    router = result.explanation["router"]
    yield f"  router {router['kind']}: {router['score']}, top-{router['top_k']}, "
    limit = f"{router['top_groups']} of {router['n_groups']} groups ({router['groups_are']})"
    yield f"  {limit}, groups ranked by {router['group_score']}"
    for note in result.explanation["workload"]["notes"]:
        yield f"  {note}"

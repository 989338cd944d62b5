"""The tables of a run's report: numbers by definition, and what they rest on."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from moesim.report.balance_charts import LOSSES
from moesim.report.columns import columns_of, layers_in, node_of_rank, pick, rows_in
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.palette import LINK_WORDS
from moesim.report.quantities import ABSENT, filled, quantity, unit_of
from moesim.results import SUMMARY, Result

# Facts of the wall clock would make equal runs give different pages.
_WALL_CLOCK = ("utc", "wall_s")
# Numbers whose terms the page lists.
_TAKEN_APART = ("dispatch_time_s", "expert_compute_time_s", "combine_time_s", "lower_bound_s")
# Rows of the table of what held the critical ranks back.
_HOLDERS = 12


def imbalance(summary: dict[str, Any]) -> DataTable:
    """Max/mean, mean/max and MaxVio over experts, ranks, nodes and links, and within sequences."""
    rows: list[tuple[Cell, ...]] = []
    for noun, violation in (("expert", "max_violation"), ("rank", "rank_max_violation"),
                            ("node", "node_max_violation"), ("link", "link_max_violation")):  # fmt: skip
        floor = summary["uniform_router_expert_max_over_mean"] if noun == "expert" else None
        keys = (f"{noun}_load_max_over_mean", f"{noun}_load_mean_over_max", violation)
        rows.append((f"{noun}s", *(Quantity(summary[key]) for key in keys), Quantity(floor)))
    for label, key in (("within a sequence, median", "sequence_imbalance_p50"),
                       ("within a sequence, 99th percentile", "sequence_imbalance_p99")):  # fmt: skip
        rows.append((label, Quantity(summary[key]), None, None, None))
    return DataTable(("over", "max/mean", "mean/max", "MaxVio", "uniform router"), rows)


def losses(result: Result) -> DataTable:
    """Balance losses beside their values in perfect balance, and the gate mass lost."""
    summary, even = result.summary, result.explanation["losses_in_balance"]
    rows: list[tuple[Cell, ...]] = [
        (SUMMARY[key].text, Quantity(summary[key]), Quantity(even.get(key))) for key in LOSSES
    ]
    rows.append(("gate mass lost to the group limit (share)", Quantity(summary["gate_mass_lost"]), None))
    return DataTable(("loss", "value", "in balance"), rows)


def bandwidths(result: Result) -> DataTable:
    """Every bandwidth of both phases under its name, with what it means."""
    summary, phases = result.summary, ("dispatch", "combine")
    rows: list[tuple[Cell, ...]] = []
    for name in ("algbw", "busbw", "deepep_rdma", "deepep_nvl"):
        keys = [f"{phase}_{name}_bytes_per_s" for phase in phases]
        definition = SUMMARY[keys[0]].text
        rows.append((name, *(Quantity(summary[key], "B/s") for key in keys), definition))
    steps = columns_of(result, "steps")
    for name in (name for name in steps if name.startswith("dispatch_") and name.endswith("_wire_bytes_per_s")):
        link_class = name.removeprefix("dispatch_").removesuffix("_wire_bytes_per_s")
        word = LINK_WORDS.get(link_class, link_class)
        rates = [filled(steps[f"{phase}{name.removeprefix('dispatch')}"]) for phase in phases]
        means = (float(rate[known].mean()) if (known := np.isfinite(rate)).any() else None for rate in rates)
        definition = f"bytes on the busiest {word} link over the time from the phase's first byte to its last"
        rows.append((f"wire, {word}", *(Quantity(mean, "B/s") for mean in means), definition))
    return DataTable(("name", *phases, "definition"), rows)


def held(result: Result) -> DataTable:
    """What held the critical ranks back, largest first."""
    held = result.explanation["held_by_s"]
    total = sum(held.values()) or 1.0
    layers = max(int(result.summary["layers"]), 1)
    rows: list[tuple[Cell, ...]] = [
        (_holder(name), Quantity(seconds / layers, "s"), Quantity(seconds / total, "%"))
        for name, seconds in sorted(held.items(), key=lambda item: (-item[1], item[0]))[:_HOLDERS]
    ]
    return DataTable(("held by", "per layer", "share"), rows)


def waits(result: Result) -> DataTable | None:
    """The longest waits of one rank for another, per layer; None where nobody waits."""
    spans = columns_of(result, "spans")
    if not rows_in(spans):
        return None
    wait, blamed = filled(spans["wait_s"]), filled(spans["waited_on"])
    waiting = pick(spans, (wait > 0) & (blamed >= 0))
    if not rows_in(waiting):
        return None
    node, layers = node_of_rank(result), layers_in(spans)
    pairs = zip(waiting["rank"], waiting["waited_on"], waiting["phase"], filled(waiting["wait_s"]), strict=True)
    total: dict[tuple[int, int, str], float] = {}
    for rank, late, phase, seconds in pairs:
        key = int(rank), int(late), str(phase)
        total[key] = total.get(key, 0.0) + float(seconds) / layers
    longest = sorted(total.items(), key=lambda one: (-one[1], one[0]))[:_HOLDERS]
    rows: list[tuple[Cell, ...]] = [
        (rank, int(node[rank]), late, int(node[late]), phase, Quantity(seconds, "s"))
        for (rank, late, phase), seconds in longest
    ]
    left_out = f"The longest {_HOLDERS} of {len(total):,}; all are in spans.parquet." if len(total) > len(rows) else ""
    return DataTable(("waiting rank", "its node", "for rank", "on node", "in", "wait per layer"), rows, left_out)


def fault_costs(result: Result) -> DataTable | None:
    """Layer and step without faults, with each alone and with all; None for a run without."""
    rows: list[tuple[Cell, ...]] = [
        (one["name"], Quantity(one["layer_time_s"], "s"), Quantity(one["step_time_s"], "s"),
         Quantity(one["longer_by"], "%"), one["bottleneck"],
         one.get("held_by") or "", Quantity(one["held_s"], "s") if one.get("held_by") else "",
         one["waited_on"] or "", Quantity(one["waited_on_s"], "s"))
        for one in result.explanation.get("faults", ())
    ]  # fmt: skip
    heads = ("cluster", "layer", "step", "longer by", "bottleneck", "slow link that holds a flow longest", "how long",
             "ranks wait most for", "each, per layer")  # fmt: skip
    what = next((one.get("what", "layer") for one in result.explanation.get("faults", ())), "")
    return DataTable(heads, rows, hints=("", "", "", f"the {what}", *[""] * 5)) if rows else None


def _holder(name: str) -> str:
    """Put a key of ``held_by_s`` in words: ``link nic``, ``rank 3``, ``arrival 3``, ``compute``, ``setup``."""
    kind, _, what = name.partition(" ")
    words = {
        "link": f"wires: {LINK_WORDS.get(what, what)}",
        "rank": f"waiting for rank {what}",
        "arrival": f"late arrival of rank {what}" if what else "its late arrival",
        "compute": "its own compute",
        "setup": "set-up: layout, notify, CPU synchronisation",
    }
    return words.get(kind, name)


def constants(explanation: dict[str, Any]) -> DataTable:
    """Constants of the all-to-all, by phase."""
    phases = [dict(_flat(explanation["alltoall"][phase])) for phase in ("dispatch", "combine")]
    names = sorted({name for phase in phases for name in phase})
    rows: list[tuple[Cell, ...]] = [(name, *(phase.get(name) for phase in phases)) for name in names]
    return DataTable(("constant", "dispatch", "combine"), rows)


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Cell]]:
    """Single numbers, named by the keys that lead to them; of several in a list by their place."""
    for key, value in values.items():
        name = before + _words(key)
        if isinstance(value, dict):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, list):
            for place, one in enumerate(value, 1):
                if isinstance(one, dict):
                    yield from _flat(one, f"{name} {place}: ")
                else:
                    yield f"{name} {place}" if len(value) > 1 else name, _constant(key, one)
        else:
            yield name, _constant(key, value)


def _constant(key: str, value: Any) -> Cell:
    if isinstance(value, str | bool) or value is None:
        return quantity(value, "")
    if key.endswith("_efficiency") or key in ("median", "p90"):
        return Quantity(value, "%")
    if key.endswith(("_rate", "_peak")):
        return Quantity(value, "B/s")
    return Quantity(value, "B" if key.endswith("_bytes_per_copy") else unit_of(key))


def kernels(explanation: dict[str, Any]) -> DataTable:
    """Seconds of each kernel by where they come from."""
    rows: list[tuple[Cell, ...]] = [
        (row["kernel"], row["source"], Quantity(row["seconds"], "s"), Quantity(row["error"], "%"), row["note"])
        for row in explanation["kernels"]
    ]
    return DataTable(("kernel", "source", "seconds", "error", "where from"), rows)


def kernel_sources(explanation: dict[str, Any]) -> list[str]:
    """Where each kernel's time comes from and how far it may be off, in words; the longest kernel first.

    A source of less than 1 % of a kernel's time is left to the table of kernels, unless it is extrapolation.
    """
    by_kernel: dict[str, list[dict[str, Any]]] = {}
    for row in explanation["kernels"]:
        by_kernel.setdefault(row["kernel"], []).append(row)
    seconds = {kernel: sum(row["seconds"] for row in rows) for kernel, rows in by_kernel.items()}
    alike: dict[str, list[str]] = {}
    for kernel in sorted(by_kernel, key=lambda name: (-seconds[name], name)):
        rows = sorted(by_kernel[kernel], key=lambda row: -row["seconds"])
        shown = [row for row in rows if row["source"] == "extrapolated" or row["seconds"] >= 0.01 * seconds[kernel]]
        alike.setdefault(", ".join(map(_source, shown)), []).append(kernel)
    return [f"{', '.join(kernels)} {words}" for words, kernels in alike.items()]


def _source(row: dict[str, Any]) -> str:
    # A measured time is as good as its measurement; for others the report gives the error or says that it is unknown.
    if row["error"] is None:
        return str(row["source"]) if row["source"] == "measured" else f"{row['source']} (error unknown)"
    return f"{row['source']} ± {quantity(row['error'], '%')}"


def topology(explanation: dict[str, Any]) -> DataTable:
    """Peaks and latencies of the link classes."""
    topology = explanation["topology"]
    rows: list[tuple[Cell, ...]] = [
        (
            LINK_WORDS.get(name, name),
            Quantity(peak, "B/s"),
            Quantity(topology["latency_s"][name], "s"),
        )
        for name, peaks in sorted(topology["peak_bytes_per_s"].items())
        for peak in peaks
    ]
    return DataTable(("link class", "peak per direction", "latency"), rows)


def terms(explanation: dict[str, Any]) -> DataTable:
    """What the times and the bound are the sums of, with the link or rank that each part is mostly from."""
    rows: list[tuple[Cell, ...]] = []
    whole = ("step_time_s",) if "layer_period_s" in explanation["terms"] else ()
    for key in (*whole, *_TAKEN_APART):
        for term in explanation["terms"].get(key, ()):
            most = term.get("of", [{}])[0]
            where = most.get("link") or (f"rank {most['rank']}" if "rank" in most else ABSENT)
            rows.append((key, term["name"], Quantity(term["value"], "s"), where, term["formula"], term["source"]))
    return DataTable(("number", "part", "time", "mostly of", "how it comes about", "source"), rows)


def busiest(explanation: dict[str, Any]) -> DataTable:
    """The link of each class that needs longest for its bytes, by phase."""
    rows: list[tuple[Cell, ...]] = [
        (
            phase,
            LINK_WORDS.get(link["link_class"], link["link_class"]),
            link["link"],
            Quantity(link["wire_bytes"], "B"),
            Quantity(link["seconds_at_full_rate"], "s"),
        )
        for phase in ("dispatch", "combine")
        for link in explanation["busiest_links"][phase]
    ]
    return DataTable(("phase", "class", "link", "bytes per layer", "at its own rate"), rows)


def provenance(result: Result) -> DataTable:
    """Versions and digests; the wall clock stays in provenance.json."""
    rows: list[tuple[Cell, ...]] = [
        (_words(key), str(value)) for key, value in sorted(result.provenance.items()) if key not in _WALL_CLOCK
    ]
    return DataTable(("what", "value"), rows)


def _words(key: str) -> str:
    name = key
    for suffix in ("_bytes_per_s", "_s"):
        name = name.removesuffix(suffix)
    words = name.replace("_", " ")
    for short, long in (("nvlink", "NVLink"), ("nic", "NIC"), ("cpu", "CPU"), ("sms", "SMs"), ("setup", "set-up")):
        words = " ".join(long if word == short else word for word in words.split(" "))
    return words

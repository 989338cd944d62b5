"""The tables of a run's report: numbers by definition, and what they rest on."""

from typing import Any

import numpy as np

from moesim.report.balance_charts import LOSSES
from moesim.report.charts import Cell, DataTable
from moesim.report.columns import columns_of
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
        rows.append(
            (
                f"{noun}s",
                quantity(summary[f"{noun}_load_max_over_mean"], ""),
                quantity(summary[f"{noun}_load_mean_over_max"], ""),
                quantity(summary[violation], ""),
                quantity(floor, ""),
            )
        )
    for label, key in (("within a sequence, median", "sequence_imbalance_p50"),
                       ("within a sequence, 99th percentile", "sequence_imbalance_p99")):  # fmt: skip
        rows.append((label, quantity(summary[key], ""), ABSENT, ABSENT, ABSENT))
    return DataTable(("over", "max/mean", "mean/max", "MaxVio", "uniform router"), _numeric(rows))


def losses(result: Result) -> DataTable:
    """Balance losses beside their values in perfect balance, and the gate mass lost."""
    summary, even = result.summary, result.explanation["losses_in_balance"]
    rows: list[tuple[Cell, ...]] = [
        (SUMMARY[key].text, _significant(summary[key]), _significant(even.get(key))) for key in LOSSES
    ]
    rows.append(("gate mass lost to the group limit (share)", _significant(summary["gate_mass_lost"]), None))
    return DataTable(("loss", "value", "in balance"), rows)


def bandwidths(result: Result) -> DataTable:
    """Every bandwidth of both phases under its name, with what it means."""
    summary, phases = result.summary, ("dispatch", "combine")
    rows: list[tuple[Cell, ...]] = []
    for name in ("algbw", "busbw", "deepep_rdma", "deepep_nvl"):
        keys = [f"{phase}_{name}_bytes_per_s" for phase in phases]
        definition = SUMMARY[keys[0]].text
        rows.append((name, *(quantity(summary[key], "B/s") for key in keys), definition))
    steps = columns_of(result, "steps")
    for name in (name for name in steps if name.startswith("dispatch_") and name.endswith("_wire_bytes_per_s")):
        link_class = name.removeprefix("dispatch_").removesuffix("_wire_bytes_per_s")
        word = LINK_WORDS.get(link_class, link_class)
        rates = [filled(steps[f"{phase}{name.removeprefix('dispatch')}"]) for phase in phases]
        shown = [
            quantity(rate[known].mean(), "B/s") if (known := np.isfinite(rate)).any() else ABSENT for rate in rates
        ]
        definition = f"bytes on the busiest {word} link over the time from the phase's first byte to its last"
        rows.append((f"wire, {word}", *shown, definition))
    return DataTable(("name", *phases, "definition"), rows)


def held(result: Result) -> DataTable:
    """What held the critical ranks back, largest first."""
    held = result.explanation["held_by_s"]
    total = sum(held.values()) or 1.0
    layers = max(int(result.summary["layers"]), 1)
    rows: list[tuple[Cell, ...]] = [
        (_holder(name), quantity(seconds / layers, "s"), quantity(seconds / total, "%"))
        for name, seconds in sorted(held.items(), key=lambda item: (-item[1], item[0]))[:_HOLDERS]
    ]
    return DataTable(("held by", "per layer", "share"), rows)


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
    phases = explanation["alltoall"]
    names = sorted(phases["dispatch"])
    rows: list[tuple[Cell, ...]] = [
        (_words(name), *(_shown(name, phases[phase][name]) for phase in ("dispatch", "combine"))) for name in names
    ]
    return DataTable(("constant", "dispatch", "combine"), rows)


def kernels(explanation: dict[str, Any]) -> DataTable:
    """Seconds of each kernel by where they come from."""
    rows: list[tuple[Cell, ...]] = [
        (row["kernel"], row["source"], quantity(row["seconds"], "s"), quantity(row["error"], "%"), row["note"])
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
            ", ".join(quantity(peak, "B/s") for peak in peaks),
            quantity(topology["latency_s"][name], "s"),
        )
        for name, peaks in sorted(topology["peak_bytes_per_s"].items())
    ]
    return DataTable(("link class", "peak per direction", "latency"), rows)


def terms(explanation: dict[str, Any]) -> DataTable:
    """What the times and the bound are the sums of, with the link or rank that each part is mostly from."""
    rows: list[tuple[Cell, ...]] = []
    for key in _TAKEN_APART:
        for term in explanation["terms"].get(key, ()):
            most = term.get("of", [{}])[0]
            where = most.get("link") or (f"rank {most['rank']}" if "rank" in most else ABSENT)
            rows.append((key, term["name"], quantity(term["value"], "s"), where, term["formula"], term["source"]))
    return DataTable(("number", "part", "time", "mostly of", "how it comes about", "source"), rows)


def busiest(explanation: dict[str, Any]) -> DataTable:
    """The link of each class that needs longest for its bytes, by phase."""
    rows: list[tuple[Cell, ...]] = [
        (
            phase,
            LINK_WORDS.get(link["link_class"], link["link_class"]),
            link["link"],
            quantity(link["wire_bytes"], "B"),
            quantity(link["seconds_at_full_rate"], "s"),
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


def _shown(name: str, value: Any) -> Cell:
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {_shown(key, inner)}" for key, inner in sorted(value.items())) or ABSENT
    if isinstance(value, list):
        return "; ".join(str(_shown(name, inner)) for inner in value) or ABSENT
    if name.endswith("_efficiency") or name in ("median", "p90"):
        return quantity(value, "%")
    if name.endswith(("_rate", "_peak")):
        return quantity(value, "B/s")
    return quantity(value, "B" if name.endswith("_bytes_per_copy") else unit_of(name))


def _significant(value: Any) -> Cell:
    return None if value is None else float(f"{float(value):.5g}")


def _numeric(rows: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """Cells of formatted numbers as numbers, so that they line up on the right."""
    return [(row[0], *(None if cell == ABSENT else float(str(cell)) for cell in row[1:])) for row in rows]

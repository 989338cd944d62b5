"""Makes docs/performance.md and its plots from results/*.json: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "pictures"
TITLES = {
    "engine": "The flow engine",
    "routers": "Routers and counting",
    "scale": "Whole runs at scale",
    "run": "A whole run as a user starts it",
    "balance": "Balance over training",
    "simpy_rate": "The clock alone",
    "memory_bandwidth": "Memory, the floor under every count",
}
WORDS = {
    "engine": "`benchmarks/engine.py`. n is the number of flows. Every finish time of SimGrid's is compared with ours, "
    "on every case in which it runs; the script stops at a difference of 1e-9. A kernel's first call on a machine "
    "compiles it; `moesim` says so while it waits. Near-uniform loads on one switch gain least: there each completion "
    "moves the levels of 55 ports of 128 on average, where skewed loads move 7 of 256 links.",
    "routers": "`benchmarks/routers.py`. n is the number of tokens. Reading the logits once is the floor under every "
    "router. The first call on a machine compiles the kernel, and says so.",
    "scale": "`benchmarks/scale.py`. n is what the case's name begins with.",
    "run": "`benchmarks/run.py`. n is the number of flows in the result.",
    "balance": "`benchmarks/balance.py`. n is the number of tokens or of steps. 256 experts, 16,384 tokens a step, "
    "three losses, traffic and layer time on 64 GPUs every tenth step.",
    "simpy_rate": "`benchmarks/simpy_rate.py`. n is the number of events. It is why the network has one event pending "
    "for all its flows.",
    "memory_bandwidth": "`benchmarks/memory_bandwidth.py`. n is the number of bytes.",
}
Rows = list[dict[str, Any]]


def family(case: str) -> str:
    """The case without its numbers of GPUs, ranks and nodes: what is measured at several sizes."""
    return re.sub(r"\d[\d,]* (GPUs|ranks|nodes)", r"n \1", case)


def series(rows: Rows) -> dict[str, Rows]:
    """Cases measured at three sizes or more, each sorted by size."""
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        found[family(row["case"])].setdefault(row["n"], row)
    return {name: [of[n] for n in sorted(of)] for name, of in found.items() if len(of) >= 3 and min(of) > 0}


def exponent(rows: Rows) -> tuple[float, float]:
    """Slope and offset of log seconds over log n."""
    n, seconds = (np.log([row[key] for row in rows]) for key in ("n", "seconds"))
    slope, offset = np.polyfit(n, seconds, 1)
    return float(slope), float(offset)


def plot(name: str, rows: Rows) -> str | None:
    """Draw the series of a result on logarithmic axes; return the picture's path in docs, None without a series."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "moesim"
    from matplotlib import pyplot as plt

    drawn = series(rows)
    if not drawn:
        return None
    figure, axes = plt.subplots(figsize=(8, 5))
    for case, of in drawn.items():
        slope, _ = exponent(of)
        n, seconds = [row["n"] for row in of], [row["seconds"] for row in of]
        (line,) = axes.loglog(n, seconds, "o-", label=f"{case}: n^{slope:.2f}")
        peers = [row for row in of if row["peer_seconds"] and row["peer"]]
        if peers:
            peer_n, peer_seconds = [row["n"] for row in peers], [row["peer_seconds"] for row in peers]
            axes.loglog(peer_n, peer_seconds, "x--", color=line.get_color(), label=f"  {peers[0]['peer']}")
    axes.set_xlabel("n")
    axes.set_ylabel("seconds")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / f"performance-{name}.svg", metadata={"Date": None})
    plt.close(figure)
    return f"pictures/performance-{name}.svg"


def quantity(value: float | None, unit: str = "") -> str:
    """Three digits with a prefix, or a dash."""
    if value is None:
        return "-"
    if value == 0:
        return f"0 {unit}".strip()
    prefixes = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}
    power = max(-3, min(4, math.floor(math.log10(abs(value) * (1 + 1e-9)) / 3)))
    return f"{value / 1000**power:.3g} {prefixes[power]}{unit}".strip()


def table(rows: Rows) -> list[str]:
    """Rows as a table."""
    lines = ["| case | n | time | peer | peer's time | times faster | memory |", "|---|---:|---:|---|---:|---:|---:|"]
    for row in rows:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3g}"
        seconds, peer_seconds = quantity(row["seconds"], "s"), quantity(row["peer_seconds"], "s")
        memory = quantity(row["memory_bytes"] or None, "B")
        cells = (row["case"], f"{row['n']:,}", seconds, row["peer"] or "-", peer_seconds, ratio, memory)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine_line(about: dict[str, Any]) -> str:
    """Machine and versions in a sentence."""
    plain = {key: value for key, value in about.items() if not isinstance(value, dict)}
    versions = {key: value for key, value in plain.items() if key not in ("cpu", "cores", "threads", "system")}
    versions |= about.get("versions", {})
    listed = ", ".join(f"{name} {value}" for name, value in versions.items())
    return f"Measured on {plain.get('cpu', 'an unknown processor')}, {plain.get('cores')} cores; {listed}."


def hundred_thousand(rows: Rows) -> list[str]:
    """What the measured growth says about 100,000 ranks; every figure an extrapolation."""
    found = series(rows)
    ranks, gpus = 100_000, 8
    nodes = ranks // gpus
    lines = []
    for words, name, flows in (
        ("one flow per pair of GPUs, exact", "n GPUs, pairs, zipf", ranks * (ranks - 1)),
        ("one tree per (GPU, node), exact", "n GPUs, trees, zipf", ranks * nodes),
        ("one flow per pair of nodes, exact (growth of the pair flows)", "n GPUs, pairs, zipf", nodes * (nodes - 1)),
    ):
        of = found.get(name)
        if of is None:
            continue
        slope, _ = exponent(of)
        last = of[-1]
        seconds = last["seconds"] * (flows / last["n"]) ** slope
        big = next((row for row in reversed(of) if row["memory_bytes"]), last)
        memory = (big["memory_bytes"] or 0) * flows / big["n"]
        lines.append(f"| {words} | {flows:.3g} | n^{slope:.2f} | {duration(seconds)} | {quantity(memory, 'B')} |")
    for row in rows:
        if "tolerance" in row["case"]:
            flows = nodes * (nodes - 1)
            seconds, memory = (row[key] * flows / row["n"] for key in ("seconds", "memory_bytes"))
            words = f"one flow per pair of nodes, {row['case'].rpartition(', ')[2]}"
            lines.append(f"| {words} | {flows:.3g} | n (assumed) | {duration(seconds)} | {quantity(memory, 'B')} |")
    if not lines:
        return []
    head = ["| flows | how many | growth | time | memory |", "|---|---:|---:|---:|---:|"]
    return [
        "## What a hundred thousand ranks would take",
        "",
        "Extrapolated from the largest case measured along its own growth; estimates, none of them measured.",
        "",
        *head,
        *lines,
        "",
        "So at this size neither pairs nor trees of single GPUs are a way. What is: equal messages by symmetry (a few",
        "classes whatever the number of ranks, exact), one flow per port of a rank (`cluster.flows: ports`: a run of",
        "16,384 ranks, and its error where both run, are measured below), or steps within a tolerance, whose time",
        "grows like the number of flows; what then is left is memory, for the tables of the flows.",
        "",
    ]


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for name, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {name}"
    return f"{seconds:.0f} s"


def main() -> None:
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    lines = [
        "# Performance",
        "",
        "Made by `python -m benchmarks.page` from `benchmarks/results`; do not edit. How to measure again stands in",
        "`benchmarks/README.md`. The machine was shared while these were taken: times are medians, mostly of processor",
        "time, and vary by tens of percent; a ratio comes from one run and varies less. Exponents are slopes of log",
        "time over log n.",
        "",
    ]
    for name in [*TITLES, *(name for name in results if name not in TITLES)]:
        if name not in results:
            continue
        rows = results[name]["rows"]
        lines += [
            f"## {TITLES.get(name, name)}",
            "",
            WORDS.get(name, ""),
            "",
            machine_line(results[name]["machine"]),
            "",
        ]
        lines += [*table(rows), ""]
        picture = plot(name, rows)
        if picture:
            lines += [f"![{TITLES.get(name, name)}, log-log]({picture})", ""]
        if name == "engine":
            lines += hundred_thousand(rows)
    (DOCS / "performance.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A few lines about a table: how many rows came out how, whether the device drifted, what uneven load costs."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from moesim.profile.meta import anchor_times, drift


class Uneven(NamedTuple):
    """How the time of one kernel answers to uneven load at equal rows in all.

    ``factor`` is time / time when balanced, the median over sizes; ``fullest`` is rows of the fullest expert over
    the mean. Time that follows the sum has a factor of 1 (or less: fewer weights are read), time that follows the
    fullest expert one of ``fullest``.
    """

    kernel: str
    dtype: str
    load_shape: str
    factor: float
    fullest: float
    points: int


def uneven_load(rows: Iterable[Mapping[str, str]]) -> list[Uneven]:
    """Return one line per kernel, dtype and load shape that is in the table together with its balanced twin."""
    timed = [row for row in rows if row["load_shape"] and row["median_us"]]
    balanced = {_twin(row): float(row["median_us"]) for row in timed if row["load_shape"] == "balanced"}
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in timed:
        if row["load_shape"] != "balanced" and _twin(row) in balanced:
            factor = float(row["median_us"]) / balanced[_twin(row)]
            fullest = float(row["largest_load"]) / float(row["tokens_per_expert"])
            found[row["kernel"], row["dtype"], row["load_shape"]].append((factor, fullest))
    return [
        Uneven(*name, statistics.median(f for f, _ in pairs), statistics.median(m for _, m in pairs), len(pairs))
        for name, pairs in sorted(found.items())
    ]


def _twin(row: Mapping[str, str]) -> tuple[str, ...]:
    columns = ("kernel", "impl", "dtype", "variant", "tokens", "experts_local", "cache")
    return tuple(row[name] for name in columns)


def summary(rows: list[dict[str, str]], name: str, ended: str, left: int) -> str:
    """Return what to know about table ``name``, in lines."""
    statuses = Counter(row["status"].partition(":")[0] for row in rows)
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    lines = [f"{name}: {len(rows)} rows, {counts}; {ended}, {left} points left"]
    moved = drift(anchor_times(rows))
    if moved["spread"]:
        text = ", ".join(f"{kernel} {100 * spread:.1f} %" for kernel, spread in moved["spread"].items())
        verdict = "the device drifted, the table is marked" if moved["marked"] else "steady"
        lines.append(f"anchors moved by {text} ({verdict}; limit {100 * moved['limit']:.0f} %)")
    for line in uneven_load(rows):
        lines.append(
            f"{line.kernel} {line.dtype}, {line.load_shape}: {line.factor:.2f} x the balanced time, fullest expert "
            f"{line.fullest:.2f} x the mean ({line.points} sizes)"
        )
    return "\n".join(lines)

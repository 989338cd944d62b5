"""What both command lines call: measure, then say in a few lines what came out."""

import math
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from moesim.errors import InputError, ResourceError
from moesim.profile.grid import FAMILIES
from moesim.profile.meta import anchor_times, drift
from moesim.profile.timing_journal import parse


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


DEFAULT_BUDGET_S = 480.0


def run(
    out: str | os.PathLike[str],
    device: str = "cuda",
    budget: float = DEFAULT_BUDGET_S,
    quick: bool = False,
    families: str | None = None,
    quiet: bool = False,
) -> str:
    """Run the profiler and return its summary; ``families`` are names with commas between.

    Raises:
        InputError: a value cannot be used, or the table is another device's, driver's or grid's.
        ResourceError: PyTorch is not installed, the table cannot be written, or the device failed for good.
    """
    began = time.monotonic()  # loading PyTorch takes seconds and counts
    path = Path(out)
    if path.suffix != ".csv":
        raise InputError(f"{path.name!r} does not end in .csv", "--out")
    if not (budget > 0 and math.isfinite(budget)):
        raise InputError(f"the budget is {budget:g} s", "--budget", "give a positive number of seconds")
    wanted = FAMILIES if families is None else tuple(name.strip() for name in families.split(","))
    if unknown := [name for name in wanted if name not in FAMILIES]:
        raise InputError(f"no family {unknown[0]!r}", "--families", f"families are {', '.join(FAMILIES)}")
    try:
        from moesim.profile.timing_session import profile, to_stderr
    except ImportError as error:
        if error.name != "torch":
            raise
        raise ResourceError("moesim profile needs PyTorch: pip install 'moesim[gpu]'") from None
    ended, left = profile(path, device, budget, began, quick, wanted, (lambda line: None) if quiet else to_stderr)
    return summary(parse(path.read_bytes(), str(path)), path.name, ended, left)

"""From a point to its rows: build, run once, compare with float64, time each cache state.

What the device or version refuses is a row that says so, and so is a result that is wrong, which is not timed.
"""

from collections import Counter
from typing import Protocol

import torch

from moesim.profile.budget import caches
from moesim.profile.csv_columns import COLUMNS, SCHEMA_VERSION
from moesim.profile.kernels import build
from moesim.profile.kernels.case import Draw
from moesim.profile.points import Point
from moesim.profile.timing import MOST_SETS, Call, Inputs, Samples, sets_needed
from moesim.profile.work import Peaks, work

SEED = 0
MOST_LETTERS = 160

Row = dict[str, str]


class Timer(Protocol):
    """`ClockTimer` or `CudaTimer`."""

    def measure(self, call: Call, sets: list[Inputs], cold: bool, filled: bool, chained: bool) -> Samples:
        """Return the times of a call."""


def rows_of(point: Point, device: str, name: str, cache_bytes: int, timer: Timer, peaks: Peaks | None) -> list[Row]:
    """Return one row per cache state of ``point``.

    Args:
        point: what to measure.
        device: cpu or cuda.
        name: the device's own name, for the rows.
        cache_bytes: the cache that cold inputs have to outgrow.
        timer: takes the times.
        peaks: of the device, None where they are not known.
    """
    states = caches(point, cache_bytes)

    def all_say(status: str, error: float | None = None) -> list[Row]:
        return [row(point, state, name, peaks, status, error) for state in states]

    try:
        case = build(point, Draw(device, SEED))
        inputs = case.inputs()
        output = case.call(*inputs)
        if device == "cuda":
            torch.cuda.synchronize()
    except Exception as error:  # whatever it is that a device or version refuses with
        return all_say(f"unsupported: {_in_short(error)}")
    try:
        off = case.error(inputs, output)
        if not off <= case.tolerance:
            return all_say(f"wrong: error {off:.3g} above {case.tolerance:g}", off)
        del output
        needed = sets_needed(work(point).moved, cache_bytes)
        drawn = [inputs] + [case.inputs() for _ in range(min(needed, MOST_SETS) - 1 if "cold" in states else 0)]
        return [
            row(
                point, state, name, peaks, "ok", off,
                timer.measure(case.call, drawn, state == "cold", needed <= MOST_SETS, case.chained),
            )
            for state in states
        ]  # fmt: skip
    except Exception as error:
        return all_say(f"failed: {_in_short(error)}")


def row(
    point: Point,
    cache: str,
    name: str,
    peaks: Peaks | None,
    status: str,
    error: float | None = None,
    samples: Samples | None = None,
) -> Row:
    """Return one row, every column as text; what was not measured or does not apply is empty."""
    need = work(point)
    loads = point.loads() if point.load_shape else []
    floor = peaks.floor_us(need.flops, need.moved, need.dtype) if peaks else None
    values: dict[str, float | str | None] = {
        "schema_version": str(SCHEMA_VERSION),
        **point.fields(cache),
        "flops": need.flops or None,
        "bytes": need.moved or None,
        "sol_us": floor or None,
        "max_rel_err": error,
        "status": status,
        "largest_load": max(loads, default=None),
        "experts_hit": sum(load > 0 for load in loads) or None,
        "device": name,
    }
    if samples is not None:
        p20, median, p80 = samples.percentiles()
        values |= {
            "median_us": median,
            "p20_us": p20,
            "p80_us": p80,
            "n": str(len(samples.us)),
            "tflops": need.flops / median * 1e-6 or None,
            "gbps": need.moved / median * 1e-3 or None,
            "util": floor / median if floor else None,
            "timer": samples.timer,
        }
    return {column: _text(values.get(column)) for column in COLUMNS}


def by_status(rows: list[Row]) -> dict[str, int]:
    """Return how many rows are ok, wrong, unsupported and failed."""
    return dict(Counter(row["status"].partition(":")[0] for row in rows))


def _text(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def _in_short(error: Exception) -> str:
    """Return kind and first line of an error, printable, of bounded length."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:MOST_LETTERS]

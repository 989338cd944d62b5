"""A user's own kernel table: measured times of the expert MLP, one row per balanced run.

A CSV file with a header; lines that start with ``#`` are comments. Columns:

    kernel             grouped_gemm (routed experts: up, SwiGLU, down) or dense_mlp (experts = 1)
    dtype              bf16 | fp8
    tokens_per_expert  rows of each expert, all equal
    experts            experts that got a token, on one GPU
    hidden, inter      sizes of the expert
    seconds            time of the three kernels (or time_us, time_ms: the unit is in the name)
    gpu                optional: the GPU's name, the same in every row

An exact balanced hit is returned as it stands (`measured`). Otherwise T(m, E) is interpolated log-log in both
axes; uneven loads m_1 .. m_E cost the mean over their experts of T(m_e, E), which is exact for balanced loads
and for a kernel whose time is a constant plus a sum over experts. Past the ends the last log-log slope is
held, between 0 and 1, and the number of experts scales the time (`extrapolated`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu, load_gpu, nearest
from moesim.compute.roofline import Floats, gemm_work
from moesim.errors import InputError, ResourceError

KERNELS = ("grouped_gemm", "dense_mlp")
UNITS = {"seconds": 1.0, "time_ms": 1e-3, "time_us": 1e-6}
KEY_COLUMNS = ("kernel", "dtype", "tokens_per_expert", "experts", "hidden", "inter")
OPTIONAL_COLUMNS = ("gpu",)
LARGEST_FILE = 64 << 20
MOST_MISTAKES = 20


class Shape(NamedTuple):
    """What one surface of a table is for."""

    kernel: str
    dtype: str
    hidden: int
    inter: int


@dataclass(frozen=True)
class Surface:
    """T(tokens per expert, experts) of one shape: one curve over tokens per number of experts.

    ``experts`` ascending; ``tokens[i]`` and ``seconds[i]`` are the points of curve i; ``error`` the median
    leave-one-out error over inner points, None when there is none.
    """

    experts: NDArray[np.int64]
    tokens: tuple[NDArray[np.int64], ...]
    seconds: tuple[Floats, ...]
    error: float | None

    def exact(self, loads: NDArray[np.int64]) -> float | None:
        """Return the measured time when ``loads`` (hit experts only) is a row of the table, else None."""
        found = np.flatnonzero(self.experts == len(loads))
        if len(found) == 0 or loads.min() != loads.max():
            return None
        curve = int(found[0])
        hit = np.flatnonzero(self.tokens[curve] == loads[0])
        return float(self.seconds[curve][hit[0]]) if len(hit) else None

    def seconds_at(self, loads: NDArray[np.int64]) -> tuple[float, bool]:
        """Return the time of ``loads`` (rows of each hit expert) and whether it lies inside the table."""
        n = len(loads)
        right = int(np.searchsorted(self.experts, n))
        if right < len(self.experts) and self.experts[right] == n:
            low = high = right
        else:
            low, high = max(right - 1, 0), min(right, len(self.experts) - 1)
        at = np.log(loads)
        log_low, in_low = _curve_at(self.tokens[low], self.seconds[low], at)
        if low == high:
            scale = math.log(n / self.experts[low])
            return float(np.exp(log_low + scale).mean()), in_low and bool(self.experts[low] == n)
        log_high, in_high = _curve_at(self.tokens[high], self.seconds[high], at)
        weight = math.log(n / self.experts[low]) / math.log(self.experts[high] / self.experts[low])
        return float(np.exp((1 - weight) * log_low + weight * log_high).mean()), in_low and in_high


def _curve_at(tokens: NDArray[np.int64], seconds: Floats, at: Floats) -> tuple[Floats, bool]:
    """Return log seconds at log tokens ``at`` and whether all of it lies between the curve's ends."""
    x, y = np.log(tokens), np.log(seconds)
    value = np.interp(at, x, y)
    if len(x) > 1:
        first = min(max((y[1] - y[0]) / (x[1] - x[0]), 0.0), 1.0)
        last = min(max((y[-1] - y[-2]) / (x[-1] - x[-2]), 0.0), 1.0)
    else:
        first, last = 0.0, 1.0
    value = value + first * np.minimum(at - x[0], 0.0) + last * np.maximum(at - x[-1], 0.0)
    return value, bool((at >= x[0]).all() and (at <= x[-1]).all())


@dataclass(frozen=True)
class MeasuredTable:
    """A user's table: its surfaces, the GPU they were measured on, and where they came from."""

    gpu: Gpu
    surfaces: dict[Shape, Surface]
    path: str
    digest: str
    rows: int


def mlp_floor(gpu: Gpu, loads: NDArray[np.int64], hidden: int, inter: int, dtype: str) -> Floats:
    """Return the floor of up + down GEMM for ``loads[..., slots]`` in seconds[...].

    The two GEMMs run one after the other, so their floors add up; the activation between them is left out.
    """
    total: Floats = np.zeros(loads.shape[:-1])
    for n, k in ((2 * inter, hidden), (hidden, inter)):
        work = gemm_work(loads, n, k, dtype)
        flops, moved = work.flops.sum(axis=-1), work.moved.sum(axis=-1)
        total = total + np.maximum(flops / gpu.flops(dtype), moved / gpu.hbm_bandwidth)
    return total


def load_measured(path: str | Path, gpu: str | None = None) -> MeasuredTable:
    """Read a user's kernel table.

    ``gpu`` is needed where the file has no gpu column and must agree with it where it has. Raises InputError
    with ``file:line`` for every mistake (missing or unknown column, unknown unit, value that is no positive
    number, duplicate key, a time below what the GPU's peaks allow), ResourceError when it cannot be read.
    """
    file = Path(path)
    content = _content(file)
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] | None = None
    mistakes: list[InputError] = []
    first_line: dict[tuple[Shape, int, int], int] = {}
    times: dict[tuple[Shape, int, int], float] = {}
    found_gpu = load_gpu(gpu) if gpu is not None else None
    try:
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if not cells or cells[0].lstrip().startswith("#"):
                continue
            if header is None:
                header = _header([cell.strip() for cell in cells], where)
                continue
            try:
                row = _row(header, cells, where)
                found_gpu = _same_gpu(row, found_gpu, where)
                key, seconds = _measurement(row, header, where)
                if key in first_line:
                    raise InputError("duplicate row", where, f"the same shape stands in line {first_line[key]}")
                first_line[key] = reader.line_num
                _at_least_the_floor(found_gpu, key, seconds, where)
                times[key] = seconds
            except InputError as mistake:
                mistakes.append(mistake)
                if len(mistakes) == MOST_MISTAKES:
                    break
    except csv.Error as error:
        raise InputError(f"not a CSV file: {error}", f"{file}:{reader.line_num}") from None
    if mistakes:
        first, *others = mistakes
        raise InputError(first.what, first.where, first.fix, tuple(others))
    if header is None or not times or found_gpu is None:
        raise InputError("the kernel table has no rows", str(file), f"columns: {', '.join(KEY_COLUMNS)}, seconds")
    digest = hashlib.sha256(content.encode()).hexdigest()
    return MeasuredTable(found_gpu, _surfaces(times), str(file), digest, len(times))


def _content(file: Path) -> str:
    try:
        if not file.is_file():
            raise InputError("no such kernel table", str(file), "a CSV file or one of the GPUs' names")
        if file.stat().st_size > LARGEST_FILE:
            raise InputError("the kernel table is larger than 64 MiB", str(file), "split it by model")
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not a UTF-8 text file", str(file), "save the kernel table as CSV in UTF-8") from None
    except OSError as error:
        raise ResourceError(f"{file}: cannot be read: {error.strerror}") from error
    if "\0" in content:
        raise InputError("not a text file (it holds NUL bytes)", str(file), "save the kernel table as CSV")
    return content


def _header(columns: list[str], where: str) -> list[str]:
    """Check the header and return it."""
    known = (*KEY_COLUMNS, *UNITS, *OPTIONAL_COLUMNS)
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(f"column {column!r} stands there twice", where)
        if column not in known and column.startswith(("time_", "seconds")):
            raise InputError(f"unknown unit in column {column!r}", where, f"one of: {', '.join(UNITS)}")
        if column not in known:
            raise InputError(f"unknown column {column!r}", where, nearest(column, known))
    missing = [column for column in KEY_COLUMNS if column not in columns]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing", where, f"needed: {', '.join(KEY_COLUMNS)}, seconds")
    if sum(column in UNITS for column in columns) != 1:
        raise InputError("exactly one time column is needed", where, f"one of: {', '.join(UNITS)}")
    return columns


def _row(header: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise InputError(f"{len(cells)} fields where the header has {len(header)}", where)
    return dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _same_gpu(row: dict[str, str], gpu: Gpu | None, where: str) -> Gpu:
    if "gpu" in row:
        try:
            named = load_gpu(row["gpu"])
        except InputError as error:
            raise InputError(error.what, where, error.fix) from None
        if gpu is not None and named != gpu:
            raise InputError(f"measured on {named.name}, but {gpu.name} is asked for", where)
        return named
    if gpu is None:
        raise InputError("the table does not say on which GPU it was measured", where, "add a gpu column")
    return gpu


def _positive_int(row: dict[str, str], column: str, where: str) -> int:
    try:
        value = int(row[column])
    except ValueError:
        value = 0
    if not 0 < value <= 1 << 40:
        raise InputError(f"{column} is {row[column]!r}", where, "expected a whole number above 0")
    return value


def _measurement(row: dict[str, str], header: list[str], where: str) -> tuple[tuple[Shape, int, int], float]:
    for column, known in (("kernel", KERNELS), ("dtype", tuple(BYTES_PER_ELEMENT))):
        if row[column] not in known:
            raise InputError(f"unknown {column} {row[column]!r}", where, nearest(row[column], known))
    tokens, experts, hidden, inter = (_positive_int(row, column, where) for column in KEY_COLUMNS[2:])
    if row["kernel"] == "dense_mlp" and experts != 1:
        raise InputError(f"dense_mlp with {experts} experts", where, "experts is 1 for dense_mlp")
    unit = next(column for column in header if column in UNITS)
    try:
        seconds = float(row[unit]) * UNITS[unit]
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"{unit} is {row[unit]!r}", where, "expected a finite time above 0")
    return (Shape(row["kernel"], row["dtype"], hidden, inter), tokens, experts), seconds


def _at_least_the_floor(gpu: Gpu, key: tuple[Shape, int, int], seconds: float, where: str) -> None:
    """Refuse a time that the GPU cannot reach: a wrong unit, or weights that were still in the cache."""
    shape, tokens, experts = key
    # One expert times their number: no array as long as a mistyped number of experts.
    one = mlp_floor(gpu, np.array([tokens], dtype=np.int64), shape.hidden, shape.inter, shape.dtype)
    floor = experts * float(one)
    if seconds < floor:
        raise InputError(
            f"{seconds:.3g} s is faster than {gpu.name} can be ({floor:.3g} s at its peaks)",
            where,
            "check the unit, and that weights come from memory, not from a warm cache",
        )


def _surfaces(times: dict[tuple[Shape, int, int], float]) -> dict[Shape, Surface]:
    by_shape: dict[Shape, dict[int, list[tuple[int, float]]]] = {}
    for (shape, tokens, experts), seconds in times.items():
        by_shape.setdefault(shape, {}).setdefault(experts, []).append((tokens, seconds))
    return {shape: _surface(curves) for shape, curves in by_shape.items()}


def _surface(curves: dict[int, list[tuple[int, float]]]) -> Surface:
    experts = sorted(curves)
    tokens, seconds, errors = [], [], []
    for number in experts:
        points = sorted(curves[number])
        x = np.array([t for t, _ in points], dtype=np.int64)
        y = np.array([s for _, s in points])
        kept = np.arange(len(x))
        for i in range(1, len(x) - 1):
            guess, _ = _curve_at(x[kept != i], y[kept != i], np.log(x[[i]]))
            errors.append(abs(math.expm1(float(guess[0]) - math.log(y[i]))))
        tokens.append(x)
        seconds.append(y)
    error = float(np.median(errors)) if errors else None
    return Surface(np.array(experts, dtype=np.int64), tuple(tokens), tuple(seconds), error)

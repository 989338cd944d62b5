"""Reading a measured kernel table (`moesim.compute.table_format`): every mistake with its line, up to a limit."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from moesim.bounded_text import csv_rows, number
from moesim.compute.gpus import Gpu, load_gpu, nearest
from moesim.compute.table_format import (
    AXES,
    BALANCED,
    CHOICES,
    COLD,
    KNOWN_COLUMNS,
    OVER_EXPERTS,
    UNITS,
    Row,
    floor_seconds,
)
from moesim.errors import InputError

MOST_MISTAKES = 20
_LARGEST = 1 << 40
# No kernel of a layer takes as long: mostly the unit is another.
_LONGEST_S = 100.0


class _AnotherGpu(InputError):
    """A row of another GPU: with one, the rest of the file is useless."""


@dataclass
class Reading:
    """What was read of a file: its rows with the line of each, the GPU that they name, and its comments."""

    rows: list[tuple[Row, int]] = field(default_factory=list)
    gpu: Gpu | None = None
    comments: list[str] = field(default_factory=list)


def read_rows(content: str, file: str, gpu: Gpu | None = None) -> Reading:
    """Read a table.

    Args:
        content: of the file.
        file: its name, for the places of mistakes.
        gpu: the one that every row must be of, where it is known.

    Raises:
        InputError: with ``file:line`` of up to 20 mistakes: a column that is missing or unknown, an unknown unit, a
            value that is not a positive number, a key that appears twice, a time below what the GPU's peaks allow.
    """
    reading = Reading(gpu=gpu)
    mistakes: list[InputError] = []
    first_line: dict[tuple[object, ...], int] = {}
    layouts: dict[tuple[str, str, tuple[int, ...]], str] = {}
    header: _Header | None = None
    for line, cells in _lines(content, file):
        where = f"{file}:{line}"
        if cells[0].lstrip().startswith("#"):
            reading.comments.append(",".join(cells).lstrip().removeprefix("#").strip())
            continue
        try:
            if header is None:
                header = _Header.of([cell.strip() for cell in cells], where)
                continue
            fields = header.fields(cells, where)
            reading.gpu = _same_gpu(fields, reading.gpu, where)
            row = header.row(fields, where)
            if row.key in first_line:
                raise InputError("duplicate row", where, f"the same shape is in line {first_line[row.key]}")
            first_line[row.key] = line
            if layouts.setdefault((row.kernel, row.dtype, row.fixed), row.layout) != row.layout:
                raise InputError("two layouts of one shape", where, "masked and contiguous rows go into two tables")
            _at_least_the_floor(reading.gpu, row, where)
            reading.rows.append((row, line))
        except InputError as mistake:
            mistakes.append(mistake)
            of_the_whole_file = header is None or mistake.where == header.where or isinstance(mistake, _AnotherGpu)
            if of_the_whole_file or len(mistakes) == MOST_MISTAKES:
                break
    if mistakes:
        first, *others = mistakes
        raise InputError(first.what, first.where, first.fix, tuple(others))
    return reading


def _lines(content: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that hold something, as cells."""
    yield from csv_rows(content, file)


class _Header(NamedTuple):
    """Columns of a file, the unit of its times, and its place."""

    columns: list[str]
    unit: str
    where: str

    @classmethod
    def of(cls, columns: list[str], where: str) -> "_Header":
        for column in columns:
            if columns.count(column) > 1:
                raise InputError(f"column {column!r} appears twice", where)
            if column not in KNOWN_COLUMNS and column.startswith(("time_", "seconds")):
                raise InputError(f"unknown unit in column {column!r}", where, f"one of: {', '.join(UNITS)}")
            if column not in KNOWN_COLUMNS:
                raise InputError(f"unknown column {column!r}", where, nearest(column, KNOWN_COLUMNS))
        for column in ("kernel", "dtype"):
            if column not in columns:
                raise InputError(f"column {column!r} is missing", where, "every table has kernel, dtype and a time")
        units = [column for column in columns if column in UNITS]
        if len(units) != 1:
            raise InputError("exactly one time column is needed", where, f"one of: {', '.join(UNITS)}")
        return cls(columns, units[0], where)

    def fields(self, cells: list[str], where: str) -> dict[str, str]:
        if len(cells) != len(self.columns):
            raise InputError(f"{len(cells)} fields where the header has {len(self.columns)}", where)
        return dict(zip(self.columns, (cell.strip() for cell in cells), strict=True))

    def row(self, fields: Mapping[str, str], where: str) -> Row:
        """Return the row that the fields describe."""
        kernel = fields["kernel"]
        if kernel not in AXES:
            raise InputError(f"unknown kernel {kernel!r}", where, nearest(kernel, AXES))
        for column, known in CHOICES.items():
            given = fields.get(column, "")
            if given not in known and (given or column == "dtype"):
                raise InputError(f"unknown {column} {given!r}", where, nearest(given, known))
        axes = AXES[kernel]
        for column in axes.columns:
            if column not in self.columns:
                raise InputError(
                    f"column {column!r} is missing", self.where, f"{kernel} needs {', '.join(axes.columns)}"
                )
        fixed = tuple(int(_number(fields, column, where)) for column in axes.fixed)
        outer = _number(fields, axes.outer, where) if axes.outer else 1.0
        inner = _number(fields, axes.inner, where, whole=axes.inner != "tokens_per_expert")
        if kernel == "dense_mlp" and outer != 1:
            raise InputError(f"dense_mlp with {outer:g} experts", where, "experts is 1 for dense_mlp")
        load_shape, skew = _load(kernel, fields, where)
        seconds = self._seconds(fields, where)
        cache, layout = fields.get("cache") or COLD, fields.get("layout", "")
        error = _number(fields, "error", where, whole=False) if fields.get("error") else None
        return Row(kernel, fields["dtype"], fixed, outer, inner, seconds, load_shape, skew, cache, layout, error)

    def _seconds(self, fields: Mapping[str, str], where: str) -> float:
        try:
            seconds = number(fields[self.unit]) * UNITS[self.unit]
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= _LONGEST_S:
            fix = f"expected a time above 0, at most {_LONGEST_S:g} s"
            raise InputError(f"{self.unit} is {fields[self.unit]!r:.60}", where, fix)
        return seconds


def _load(kernel: str, fields: Mapping[str, str], where: str) -> tuple[str, float]:
    """Return the name of a row's load and its max/mean."""
    name = fields.get("load_shape") or BALANCED
    if name == BALANCED:
        return name, 1.0
    if kernel not in OVER_EXPERTS or kernel == "dense_mlp":
        raise InputError(f"{kernel} with a load shape", where, "only grouped_gemm has loads, and expert_gemm")
    ratio = _number({"max_over_mean": "", **fields}, "max_over_mean", where, whole=False)
    if ratio <= 1:
        raise InputError(f"max_over_mean is {ratio:g}", where, "an uneven load has more than 1")
    return name, ratio


def _number(fields: Mapping[str, str], column: str, where: str, whole: bool = True) -> float:
    try:
        value = number(fields[column])
    except ValueError:
        value = 0.0
    if not 0 < value <= _LARGEST or (whole and value != int(value)):
        what = "a whole number" if whole else "a number"
        raise InputError(f"{column} is {fields[column]!r}", where, f"expected {what} above 0")
    return value


def _same_gpu(fields: Mapping[str, str], gpu: Gpu | None, where: str) -> Gpu:
    if "gpu" in fields:
        try:
            named = load_gpu(fields["gpu"])
        except InputError as error:
            raise InputError(error.what, where, error.fix) from None
        if gpu is not None and named != gpu:
            raise _AnotherGpu(f"measured on {named.name}, but {gpu.name} is asked for", where)
        return named
    if gpu is None:
        raise InputError("the table does not say on which GPU it was measured", where, "add a gpu column")
    return gpu


def _at_least_the_floor(gpu: Gpu, row: Row, where: str) -> None:
    """Refuse a time that the GPU cannot reach: a wrong unit, or weights that were still in the cache."""
    floor = floor_seconds(gpu, row)
    if row.seconds < floor:
        raise InputError(
            f"{row.seconds:.3g} s is faster than {gpu.name} can be ({floor:.3g} s at its peaks)",
            where,
            "check the unit, and that weights come from memory, not from a warm cache",
        )

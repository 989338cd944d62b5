"""The table of a sweep: one row per point, in the order of the points, the same bytes whoever computed them.

Columns: ``point``, every key of the axes, ``status`` (ok, failed, impossible), ``error``, ``bottleneck``,
``counterfactual``, every number of the summary, and the ends of the intervals of its times (``layer_time_s_low``).
Axis values with a unit become numbers in SI units where all values of the key are numbers, text otherwise.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim.errors import InputError
from moesim.results import BANDED, ENDS
from moesim.scenario import SUMMARY_KEYS
from moesim.sweeps.journal import Outcome
from moesim.sweeps.space import Space, axis_label
from moesim.units import parse_quantity

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_FILE = "points.parquet"
SCHEMA_VERSION = "1"
_WHOLE_NUMBERS = ("tokens", "distinct_tokens", "ranks", "layers", "seed")


def arrow_table(space: Space, outcomes: Iterable[tuple[int, Outcome]]) -> "pa.Table":
    """Return the table of these points."""
    import pyarrow as pa

    points: list[int] = []
    status: list[str] = []
    errors: list[str | None] = []
    names = tuple(name for name in ("bottleneck", "counterfactual", *SUMMARY_KEYS, "seed") if name not in space.keys)
    names += tuple(f"{key}_{end}" for key in BANDED for end in ENDS)
    numbers: dict[str, list[Any]] = {name: [] for name in names}
    for point, outcome in outcomes:
        points.append(point)
        status.append(outcome.status)
        errors.append(outcome.error)
        summary = outcome.summary or {}
        for name, column in numbers.items():
            column.append(summary.get(name))
    columns: dict[str, pa.Array] = {"point": pa.array(points, pa.int64())}
    places = [space.places(point) for point in points]
    for index, axis in enumerate(space.axes):
        for k, key in enumerate(axis.keys):
            values = axis_column([row[k] for row in axis.values])
            columns[key] = pa.array([values[place[index]] for place in places], _type_of(values))
    columns["status"] = pa.array(status, pa.string())
    columns["error"] = pa.array(errors, pa.string())
    types = {"bottleneck": pa.string(), "counterfactual": pa.bool_()} | dict.fromkeys(_WHOLE_NUMBERS, pa.int64())
    for name, column in numbers.items():
        columns[name] = pa.array(column, types.get(name, pa.float64()))
    return pa.table(columns)


def parquet_bytes(table: "pa.Table") -> bytes:
    """Return the table as a parquet file."""
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({"moesim_schema": SCHEMA_VERSION}),
        file,
        compression="zstd",
        write_page_checksum=True,
    )
    return file.getvalue()


def read_table(folder: Path) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
    """Read the table of a finished sweep.

    Returns:
        The keys of its axes, and its columns.

    Raises:
        InputError: the sweep is not finished, or the file is not its table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / TABLE_FILE
    if not path.is_file():
        raise InputError("the sweep is not finished", where=str(folder), fix="run its command again, it resumes")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"not readable: {error}", where=str(path), fix="run the sweep again") from None
    version = (table.schema.metadata or {}).get(b"moesim_schema", b"").decode()
    names = list(table.column_names)
    if version != SCHEMA_VERSION or names[:1] != ["point"] or "status" not in names:
        raise InputError("no table of a sweep", where=str(path), fix=f"this moesim reads version {SCHEMA_VERSION}")
    return tuple(names[1 : names.index("status")]), table.to_pydict()


def axis_column(values: Sequence[Any]) -> list[Any]:
    """Return the values of a key as one kind of thing: truth values, numbers in SI units, or text."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return list(values)
    numbers = [None if value is None else number_of(value) for value in values]
    if all(number is not None or value is None for number, value in zip(numbers, values, strict=True)):
        whole = all(isinstance(number, int) for number in numbers if number is not None)
        return numbers if whole else [None if number is None else float(number) for number in numbers]
    return [None if value is None else axis_label(value) for value in values]


def number_of(value: Any) -> float | int | None:
    """Return a number, or a quantity with its unit in SI units; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    found = parse_quantity(value)
    return None if found is None else found[0]


def _type_of(values: Sequence[Any]) -> "pa.DataType":
    import pyarrow as pa

    known = [value for value in values if value is not None]
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if all(isinstance(value, kind) for value in known):
            return arrow
    return pa.string()

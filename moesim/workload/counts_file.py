"""Expert counts from a table with the columns ``layer, expert, count``: one row per layer and expert.

As CSV or Parquet. The order of rows and of columns is free; a pair that is absent counts 0. Every mistake is named by
its line (CSV) or row (Parquet, from 1).
"""

import csv
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("layer", "expert", "count")
SUFFIXES = (".csv", ".parquet")
MAX_LINES = 2_000_000
MAX_EXPERTS = 65_536
MAX_LAYERS = 10_000
MAX_PARQUET_BYTES = 256 << 20


def read_counts(path: str | Path, n_experts: int | None = None) -> dict[int, NDArray[np.float64]]:
    """Return layer -> counts [E]; without ``n_experts``, E is one more than the highest expert in the file.

    A name that ends in ``.parquet`` is read as Parquet, any other as CSV.

    Raises InputError, as file:line, for a missing column, a value that is not a number in range, a pair given
    twice, or an empty file.
    """
    read = _parquet_entries if Path(path).suffix.lower() == ".parquet" else _csv_entries
    entries = read(Path(path), n_experts or MAX_EXPERTS)
    if not entries:
        raise InputError("no counts", str(path), "at least one row of layer, expert and count is needed")
    width = n_experts or 1 + max(expert for _, expert in entries)
    counts = {layer: np.zeros(width) for layer in sorted({layer for layer, _ in entries})}
    for (layer, expert), count in entries.items():
        counts[layer][expert] = count
    return counts


def _csv_entries(path: Path, experts: int) -> dict[tuple[int, int], float]:
    entries: dict[tuple[int, int], float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = [name.strip() for name in next(rows, [])]
            if sorted(header) != sorted(COLUMNS):
                raise InputError(f"the header is {header}", f"{path}:1", f"it has to be {','.join(COLUMNS)}")
            place = [header.index(name) for name in COLUMNS]
            for row in itertools.islice(rows, MAX_LINES + 1):
                where = f"{path}:{rows.line_num}"
                if not row:
                    continue
                if len(row) != len(COLUMNS):
                    raise InputError(f"{len(row)} values, not {len(COLUMNS)}", where)
                if len(entries) == MAX_LINES:
                    raise InputError(f"more than {MAX_LINES} lines", where)
                layer = _whole(row[place[0]], "layer", MAX_LAYERS, where)
                expert = _whole(row[place[1]], "expert", experts, where)
                if (layer, expert) in entries:
                    raise InputError(f"layer {layer}, expert {expert} appears twice", where)
                entries[layer, expert] = _count(row[place[2]], where)
    except FileNotFoundError:
        raise InputError("no such file", str(path)) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", str(path), "a UTF-8 CSV file is needed") from None
    return entries


def _whole(text: str, column: str, limit: int, where: str) -> int:
    if not text.strip().isdecimal() or len(text.strip()) > 9 or int(text) >= limit:
        raise InputError(f"{column} is {text!r}", where, f"a whole number from 0 to {limit - 1} is needed")
    return int(text)


def _count(text: str, where: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = np.nan
    if not 0 <= count < np.inf:
        raise InputError(f"count is {text!r}", where, "a number, 0 or more, is needed")
    return count


def _parquet_entries(path: Path, experts: int) -> dict[tuple[int, int], float]:
    table = _parquet_table(path)
    layer = _whole_column(table, "layer", MAX_LAYERS, path)
    expert = _whole_column(table, "expert", experts, path)
    count = _column(table, "count", path).astype(np.float64)
    _refuse_rows(~((count >= 0) & (count < np.inf)), count, "count", "a number, 0 or more, is needed", path)
    pairs = layer * MAX_EXPERTS + expert
    _, first = np.unique(pairs, return_index=True)
    if len(first) < len(pairs):
        row = int(np.setdiff1d(np.arange(len(pairs)), first)[0])
        raise InputError(f"layer {layer[row]}, expert {expert[row]} appears twice", _row(path, row))
    return dict(zip(zip(layer.tolist(), expert.tolist(), strict=True), count.tolist(), strict=True))


def _parquet_table(path: Path) -> "pa.Table":
    """Read the file; what it announces is checked before any of its data is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size > MAX_PARQUET_BYTES:
            raise InputError(f"more than {MAX_PARQUET_BYTES >> 20} MiB", str(path), "counts are a small table")
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema, groups = file.schema_arrow, range(file.metadata.num_row_groups)
            # The total and the parts are announced apart; a reader allocates for the parts.
            rows = max(file.metadata.num_rows, sum(file.metadata.row_group(group).num_rows for group in groups))
            if sorted(schema.names) != sorted(COLUMNS):
                raise InputError(
                    f"the columns are {str(schema.names)[:200]}", str(path), f"they have to be {', '.join(COLUMNS)}"
                )
            for column in schema:
                whole = pa.types.is_integer(column.type)
                if not whole and not (column.name == "count" and pa.types.is_floating(column.type)):
                    raise InputError(f"{column.name} is of type {str(column.type)[:60]}", str(path), "store numbers")
            if rows > MAX_LINES:
                raise InputError(f"more than {MAX_LINES} rows", str(path))
            return file.read()
    except FileNotFoundError:
        raise InputError("no such file", str(path)) from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot be read: {reason}", str(path), "is it a whole Parquet file?") from None


def _column(table: "pa.Table", name: str, path: Path) -> NDArray[Any]:
    column = table[name].combine_chunks()
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{name} is missing", _row(path, row))
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _whole_column(table: "pa.Table", name: str, limit: int, path: Path) -> NDArray[np.int64]:
    values = _column(table, name, path)
    fix = f"a whole number from 0 to {limit - 1} is needed"
    _refuse_rows((values < 0) | (values >= limit), values, name, fix, path)
    return values.astype(np.int64)


def _refuse_rows(bad: NDArray[np.bool_], values: NDArray[Any], name: str, fix: str, path: Path) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"{name} is {values[row]}", _row(path, row), fix)


def _row(path: Path, index: int) -> str:
    return f"{path}: row {index + 1}"

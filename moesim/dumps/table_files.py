"""CSV and Parquet files as columns, checked before they are believed; mistakes named by line (CSV) or row (Parquet)."""

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim import parquet_file
from moesim.bounded_text import number
from moesim.broken_files import reading
from moesim.dumps.routing_columns import counts_something, is_known, read_columns
from moesim.dumps.routing_trace import RoutingTrace, Source, Told
from moesim.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LINES = 2_000_000
# Python also reads 1_0 and Arabic digits.
_DIGITS = re.compile(r"[-+0-9.eE\s]*")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+")
_LONGEST_WORD = 100
_LAYER_FILE = re.compile(r"layer[_-]?([0-9]+)\.parquet")
_STEP_FOLDER = re.compile(r"(?:iter|iteration|step|checkpoint)[_-]?([0-9]+)")


def read_csv(path: Path, told: Told) -> RoutingTrace:
    """Return the trace of a CSV file with a header.

    Raises:
        InputError: as file:line, for what is no number or out of range.
    """
    lines: list[int] = []
    cells: list[list[str]] = []
    with reading(path, "a UTF-8 CSV file is needed"), path.open(newline="", encoding="utf-8-sig") as stream:
        mark = max(",;\t", key=stream.readline(1 << 16).count)
        stream.seek(0)
        rows = csv.reader(stream, delimiter=mark)
        header = [name.strip() for name in next(rows, [])]
        if len(set(header)) < max(len(header), 2):
            fix = "columns such as layer,expert,count are needed"
            raise InputError(f"the header is {header!r:.200}", f"{path}:1", fix)
        for row in rows:
            if row and len(row) != len(header):
                fix = f"the header has {', '.join(header)}"[:200]
                raise InputError(f"{len(row)} values, not {len(header)}", f"{path}:{rows.line_num}", fix)
            if len(cells) == MAX_LINES:
                raise InputError(f"more than {MAX_LINES} lines", f"{path}:{rows.line_num}")
            if row:
                lines.append(rows.line_num)
                cells.append(row)
    if mark == ";":
        _refuse_thousands(header, cells, path, lines)
    columns = {name: _numbers([row[at] for row in cells], name, path, lines) for at, name in enumerate(header)}
    return read_columns(
        columns, told, Source("table", "csv"), str(path), lambda row: f"{path}:{lines[row] if lines else 1}"
    )


def _refuse_thousands(header: list[str], cells: list[list[str]], path: Path, lines: list[int]) -> None:
    """Where semicolons part the cells, 1.024 may be a thousand and more: read as a fraction it would be nearly 1."""
    for at in [at for at, name in enumerate(header) if is_known(name)]:
        dotted = [(row[at].strip(), line) for row, line in zip(cells, lines, strict=True) if "." in row[at]]
        if dotted and all(_THOUSANDS.fullmatch(text) for text, _ in dotted):
            what = f"{header[at]} has thousands or fractions: {dotted[0][0]!r:.40}?"
            raise InputError(what, f"{path}:{dotted[0][1]}", "write numbers without thousands separators")


def _numbers(texts: list[str], name: str, path: Path, lines: list[int]) -> NDArray[Any]:
    """A column as numbers, whole ones where all are."""
    plain = _DIGITS.fullmatch(" ".join(texts)) is not None
    for kind in (np.int64, np.float64) if plain else ():
        try:
            return np.array(texts, kind)
        except (ValueError, OverflowError):
            continue
    if is_known(name):
        for text, line in zip(texts, lines, strict=True):
            try:
                number(text)
            except ValueError:
                raise InputError(f"{name} is {text!r:.40}", f"{path}:{line}", "a number is needed") from None
    return np.array([text[:_LONGEST_WORD] for text in texts])  # a name of a task or of a data set, perhaps


def read_parquet(files: list[Path], told: Told) -> RoutingTrace:
    """Return the trace of a Parquet file, or of files of one layer each (layer_03.parquet), in folders by step or not.

    Raises:
        InputError: what is no whole Parquet file, or columns and files that do not go together.
    """
    tables = [(path, _columns(path)) for path in files]
    named = [_LAYER_FILE.fullmatch(path.name) for path, _ in tables]
    if len(files) > 1 and not all(named):
        fix = "names such as layer_03.parquet are needed"
        raise InputError(f"{len(files)} Parquet files", str(files[0].parent), fix)
    columns = tables[0][1]
    if len(files) > 1:
        if len({frozenset(found) for _, found in tables}) > 1:
            raise InputError("files of different columns", str(files[0].parent))
        # Only what is a number of routing: texts and token ids of a million rows are none of our business.
        columns = {name: np.concatenate([found[name] for _, found in tables]) for name in columns if name != "token_id"}
        lengths = [len(next(iter(found.values()))) for _, found in tables]
        columns["layer"] = np.repeat([int(match[1]) for match in named if match], lengths)
        steps = [_STEP_FOLDER.fullmatch(path.parent.name) for path, _ in tables]
        if all(steps) and len({match[1] for match in steps if match}) > 1:
            columns["step"] = np.repeat([int(match[1]) for match in steps if match], lengths)
    where = str(files[0] if len(files) == 1 else files[0].parent)
    layer = int(named[0][1]) if named[0] else 0
    return read_columns(columns, told, Source("table", "parquet"), where, lambda row: f"{where}: row {row + 1}", layer)


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    """Read the file's numbers."""
    table = parquet_file.read_parquet(path, numbers=True)
    for name in json.loads((table.schema.metadata or {}).get(b"left out", b"[]")):
        if counts_something(name):
            raise InputError(f"the column {name!r:.60} is not of numbers", str(path), "store whole numbers")
    return {name: _values(table[name].combine_chunks(), name, path) for name in dict.fromkeys(table.column_names)}


def _values(column: "pa.Array", name: str, path: Path) -> NDArray[Any]:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{name} is missing", f"{path}: row {row + 1}")
    if not hasattr(column, "flatten"):
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values
    flat: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(column.type):
        return flat.reshape(len(column), column.type.list_size)
    lengths = np.diff(column.offsets.to_numpy())
    width = int(lengths.max(initial=0))
    if (lengths == width).all():
        return flat.reshape(len(column), width)
    padded = np.full((len(column), width), -1, flat.dtype if flat.dtype.kind == "i" else np.float64)
    padded[np.arange(width) < lengths[:, None]] = flat
    return padded

"""Tables of a result: columns as arrays, data frames only on access.

Collecting appends plain arrays; pandas is imported when a table is opened as a data frame and pyarrow when it is
written or read, so that a simulation pays for neither. pyarrow's ``array`` and
``read_table`` import pandas too, which takes a quarter of a second; so they are not used.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

Columns = dict[str, Any]


class Tables(Mapping[str, "pd.DataFrame"]):
    """Named tables; ``tables["links"]`` is a pandas data frame, ``tables.columns("links")`` its arrays."""

    def __init__(self, columns: Mapping[str, Columns]) -> None:
        self._columns = columns
        self._frames: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> "pd.DataFrame":
        if name not in self._columns:
            raise KeyError(name)
        if name not in self._frames:
            import pandas as pd

            self._frames[name] = pd.DataFrame(
                {column: _series(values) for column, values in self._columns[name].items()}
            )
        return self._frames[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns  # a Mapping's own would make the data frame

    def columns(self, name: str) -> Columns:
        """Columns of a table as arrays (or lists of text), without pandas."""
        return self._columns[name]


def nulls(length: int) -> Any:
    """A column in which no value applies."""
    return np.ma.MaskedArray(np.zeros(length), mask=np.ones(length, bool))


class TableBuilder:
    """Collects rows of several tables, piece by piece, column-wise."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Columns]] = {}

    def add(self, table: str, **columns: Any) -> None:
        """Append rows: each column is an array, a list or one value for all rows of the piece.

        Pieces without rows are kept too, so that a table with no rows still has its columns.
        """
        length = max((len(value) for value in columns.values() if _is_column(value)), default=1)
        full = {
            name: np.ma.asarray(value)
            if np.ma.isMaskedArray(value)
            else np.asarray(value)
            if _is_column(value)
            else np.full(length, value)
            for name, value in columns.items()
        }
        self._pieces.setdefault(table, []).append(full)

    def build(self) -> dict[str, Columns]:
        """Join the pieces of every table."""
        return {
            table: {name: _joined([piece[name] for piece in pieces]) for name in pieces[0]}
            for table, pieces in self._pieces.items()
        }


def _joined(pieces: list[Any]) -> Any:
    """Concatenate pieces of a column; a column with nulls in any piece is a masked array."""
    if any(np.ma.isMaskedArray(piece) for piece in pieces):
        mask = np.concatenate([np.ma.getmaskarray(piece) for piece in pieces])
        return np.ma.MaskedArray(np.concatenate([np.ma.getdata(piece) for piece in pieces]), mask=mask)
    return np.concatenate(pieces)


def _series(values: Any) -> Any:
    """Make a data frame column; nulls of a masked array become pandas' NA in a nullable column."""
    if not np.ma.isMaskedArray(values):
        return values
    import pandas as pd

    nullable = pd.arrays.IntegerArray if values.dtype.kind == "i" else pd.arrays.FloatingArray
    return nullable(values.data.copy(), np.ma.getmaskarray(values).copy())


def _is_column(value: object) -> bool:
    return isinstance(value, (np.ndarray, list, tuple))


def write_parquet(columns: Columns, file: IO[bytes], metadata: dict[str, str]) -> None:
    """Write one table; ``metadata`` (schema version) goes into the file's schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: _arrow(values) for name, values in columns.items()})
    pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd", write_page_checksum=True)


def _arrow(values: Any) -> "pyarrow.Array":
    """An array, masked array or list as an Arrow column; nothing of numbers without nulls is copied."""
    import pyarrow as pa

    data, missing = np.ma.getdata(values), np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    valid = None if missing is None else pa.py_buffer(_bits(~missing))
    if data.dtype.kind == "U":
        words = [word.encode() for word in data.tolist()]
        ends = np.concatenate([[0], np.cumsum([len(word) for word in words])]).astype(np.int32)
        return pa.Array.from_buffers(
            pa.string(), len(data), [valid, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(words))]
        )
    kind = pa.from_numpy_dtype(data.dtype)
    content = _bits(data) if data.dtype.kind == "b" else np.ascontiguousarray(data)
    return pa.Array.from_buffers(kind, len(data), [valid, pa.py_buffer(content)])


def _bits(values: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(values, bitorder="little")


def arrow_columns(path: Path, words: list[str], most: int) -> Columns:
    """Read the columns of a parquet file.

    Args:
        path: the file.
        words: columns of text, each different one of which is read once.
        most: bytes that all text may take.

    Raises:
        InputError: it would take more.
        Exception: whatever pyarrow raises for a file that is damaged.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=words) as file:
        table = file.read().unify_dictionaries()
    columns: Columns = {}
    for name in table.column_names:
        columns[name] = _column(table[name].combine_chunks(), most, f"{path}: column {name}")
        most -= columns[name].nbytes if columns[name].dtype.kind == "U" else 0
    return columns


def _column(values: Any, most: int, where: str) -> Any:
    """Arrow column to array; nullable numbers become a masked array again, text an array of text."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type) and not values.null_count:
        if 4 * values.dictionary.nbytes > most:
            raise InputError(f"words of {values.dictionary.nbytes} bytes", where)
        known = np.array(values.dictionary.to_pylist() or [""], dtype=str)
        if known.itemsize * len(values) > most:
            raise InputError(f"words of {known.itemsize // 4} letters in {len(values)} rows", where)
        return known[_column(values.indices, most, where)]
    if not (pa.types.is_boolean(values.type) or pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InputError(f"neither numbers nor words: {values.type!s:.40}, {values.null_count} nulls", where)
    valid, content = values.buffers()
    span = slice(values.offset, values.offset + len(values))
    if pa.types.is_boolean(values.type) and not values.null_count:
        return _from_bits(content, span)
    numbers = np.frombuffer(content or b"", values.type.to_pandas_dtype())[span]
    if not values.null_count:
        return numbers
    known = _from_bits(valid, span)
    return np.ma.masked_array(np.where(known, numbers, numbers.dtype.type(0)), mask=~known)


def _from_bits(bits: Any, span: slice) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bits or b"", np.uint8), bitorder="little")[span].astype(np.bool_)

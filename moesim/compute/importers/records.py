"""Files of other tools as records: CSV or parquet, one mapping of column to text per row, with its line."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moesim.bounded_text import csv_rows, number
from moesim.compute.gpus import Gpu, gpus
from moesim.compute.measured import LARGEST_FILE, read_table_file
from moesim.errors import InputError
from moesim.parquet_file import read_parquet

# Number formats as the tools write them, by what moesim prices them as: 16 and 8 bits per weight.
DTYPES = {
    "bf16": "bf16", "bfloat16": "bf16", "float16": "bf16", "fp16": "bf16", "half": "bf16",
    "fp8": "fp8", "fp8_block": "fp8", "fp8_e4m3": "fp8", "float8_e4m3fn": "fp8",
}  # fmt: skip


class Refused(Exception):
    """A row that a table cannot hold; its text is the reason, the same for all rows of a kind."""


@dataclass(frozen=True)
class Record:
    """One row of a file: ``line`` counts lines of a CSV file, rows of a parquet file."""

    fields: Mapping[str, str]
    line: int

    def text(self, column: str) -> str:
        """Return a field without blanks around it, empty where the file has no such column."""
        return self.fields.get(column, "").strip()

    def number(self, column: str) -> float:
        """Return a positive number. Raises Refused."""
        try:
            value = number(self.text(column))
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise Refused(f"{column} is not a number above 0")
        return value

    def whole(self, column: str) -> int:
        """Return a positive whole number. Raises Refused."""
        value = self.number(column)
        if value != int(value):
            raise Refused(f"{column} is not a whole number")
        return int(value)

    def dtype(self, column: str) -> str:
        """Return the number format that moesim prices. Raises Refused for another."""
        given = self.text(column).lower()
        if given not in DTYPES:
            raise Refused(f"{column} {given or 'is empty'}: tables hold bf16 and fp8")
        return DTYPES[given]


@dataclass
class Job:
    """One import under way: what a reader may look at beside the record, and where it leaves its notes."""

    path: Path
    gpu: Gpu
    notes: dict[str, None] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Keep a note, once; an empty one says nothing."""
        if text:
            self.notes[text] = None


def read_records(path: Path) -> tuple[list[str], Iterator[Record]]:
    """Return the columns of a file and its rows.

    Raises:
        InputError: no such file, or it is neither CSV nor parquet.
        ResourceError: it cannot be read.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    rows = csv_rows(read_table_file(path), str(path))
    columns = [cell.strip() for cell in next(rows, (1, []))[1]]
    return columns, _csv_rows(path, columns, rows)


def _csv_rows(path: Path, columns: list[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    for line, cells in rows:
        if len(cells) != len(columns):
            raise InputError(f"{len(cells)} fields where the header has {len(columns)}", f"{path}:{line}")
        yield Record(dict(zip(columns, cells, strict=True)), line)


def _parquet(path: Path) -> tuple[list[str], Iterator[Record]]:
    if path.exists() and path.stat().st_size > LARGEST_FILE:
        raise InputError("the file is larger than 64 MiB", str(path), "split it by model")
    table = read_parquet(path)

    def rows() -> Iterator[Record]:
        line = 0
        for batch in table.to_batches():
            for fields in batch.to_pylist():
                line += 1
                yield Record({name: "" if value is None else str(value) for name, value in fields.items()}, line)

    return list(table.column_names), rows()


def device_is(device: str, gpu: Gpu) -> bool:
    """Return whether a device that calls itself ``device`` (NVIDIA H100 80GB HBM3) is ``gpu``."""
    return gpu.name in re.split(r"[^a-z0-9]+", device.lower())


def gpu_of_path(path: Path) -> str | None:
    """Return the GPU that the file or a folder near it is named after, None where none is.

    The tools' own trees have it up to three folders above the file: ``compute/h100/vendor/model/mlp.csv``.
    """
    for part in reversed(path.resolve().parts[-4:]):
        for word in re.split(r"[^a-z0-9]+", part.lower()):
            if word in gpus():
                return word
    return None

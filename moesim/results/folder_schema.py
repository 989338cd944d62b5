"""What the files of a result folder must be before anything is made of them: they may come from anywhere.

Sizes are looked at before anything is unpacked, types and limits before a number is used. ``data/result_tables.toml``
has the tables.
"""

import json
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.broken_files import content, reading
from moesim.errors import InputError
from moesim.numpy_file import read_npz
from moesim.output_folder import has_changed
from moesim.results.definitions import DEFINITIONS, STEP_SUMMARY, SUMMARY
from moesim.results.tables import Columns, arrow_columns

SCHEMA_VERSION = "2"
FIRST_SCHEMA = "1"
"""Of the folders without intervals; what else they have not is ``LATER``."""
AGAIN = "run the scenario again"
_SPEC = tomllib.loads((Path(__file__).parents[1] / "data" / "result_tables.toml").read_text(encoding="utf-8"))
TABLES: Mapping[str, list[str]] = _SPEC["tables"]
"""Columns of the tables that every result has."""
OPTIONAL: Mapping[str, list[str]] = _SPEC["optional"]
LATER: Mapping[str, list[str]] = _SPEC["later"]
"""What earlier releases did not write, by the part of a result that it is of."""

_MOST_JSON, _MOST_TEXT = 64_000_000, 10_000_000
# What a small file may unpack to, and how many times its size a large one.
_UNPACKED, _RATIO = 1 << 26, 200
_MOST_ID, _MOST_AMOUNT, _MOST = 1 << 24, 1 << 62, 1e30
_LONGEST_S = 1e9  # a thousand layers of the longest that are simulated
_WORDS = ("name", "bottleneck", "contended_link")
# Free memory that is missing is below 0.
_SIGNED = ("memory_free_bytes",)


def read_text(path: Path) -> str:
    """Read a text file of a folder.

    Raises:
        InputError: it is not there, too long, or no text.
    """
    with reading(path, AGAIN, "not readable"):
        return content(path, _MOST_TEXT).decode()


def read_json(path: Path, key: str, kind: type = dict) -> Any:
    """Read what stands under a key of a JSON file of a schema version that is read; every number in it is finite.

    Raises:
        InputError: it is something else.
    """

    def number(text: str) -> float:
        if not abs(value := float(text)) <= _MOST:
            raise ValueError(f"a number is not finite, or beyond {_MOST:g}")
        return value

    def whole(text: str) -> int:
        return int(text) if len(text) < 20 else int(number(text))

    with reading(path, AGAIN, "not JSON of ours"):
        found = json.loads(content(path, _MOST_JSON), parse_float=number, parse_constant=number, parse_int=whole)
    _check_version(found.get("schema") if isinstance(found, dict) else None, path)
    if not isinstance(found.get(key), kind):
        raise InputError(f"no {key} in it", where=str(path), fix=AGAIN)
    return found[key]


def _check_version(found: Any, path: Path) -> None:
    if found not in (FIRST_SCHEMA, SCHEMA_VERSION):
        what = f"schema version {found!s:.20}" if found else "schema version missing"
        raise InputError(what, where=str(path), fix=f"this moesim reads versions {FIRST_SCHEMA} and {SCHEMA_VERSION}")


def read_summary(path: Path) -> dict[str, Any]:
    """Read a summary: every number that a summary has, of its kind, none below 0 that is a time or an amount of bytes.

    Raises:
        InputError: it is something else.
    """
    summary: dict[str, Any] = read_json(path, "summary")
    absent = [key for key in SUMMARY if key not in summary and key not in LATER["summary"]]
    if absent:
        raise InputError(f"no number {', '.join(absent[:5])}", where=str(path), fix=AGAIN)
    for key, value in summary.items():
        if key not in DEFINITIONS:
            continue
        unit = DEFINITIONS[key].unit
        if key in _WORDS:
            right = isinstance(value, str) or (value is None and key not in SUMMARY)
        elif key == "counterfactual":
            right = isinstance(value, bool)
        elif value is None:
            right = unit != "s" or key in STEP_SUMMARY
        else:
            right = type(value) in (int, float) and (value >= 0 or not unit or key in _SIGNED)
            right = right and (unit != "s" or value <= _LONGEST_S)
        if not right:
            raise InputError(f"{key} is {value!r:.60}", where=str(path), fix=AGAIN)
    return summary


def read_table(path: Path, name: str) -> Columns:
    """Read a table of a folder.

    Raises:
        InputError: it is of another schema version, damaged, larger than its file can honestly be, or has other
            columns or values than ``data/result_tables.toml`` says.
    """
    import pyarrow.parquet as pq

    most = max(_UNPACKED, _RATIO * path.stat().st_size) if path.is_file() else 0
    with reading(path, AGAIN, "not a readable parquet table"):
        with pq.ParquetFile(path) as file:
            about, names = file.metadata, file.schema_arrow.names
            _check_version(
                (file.schema_arrow.metadata or {}).get(b"moesim_schema", b"").decode("ascii", "replace"), path
            )
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        # What each column announces is left alone: asking a damaged footer for it aborts the process.
        packed = sum(max(group.total_byte_size, 8 * group.num_rows * len(names)) for group in groups)
        if max(packed, 8 * about.num_rows * len(names)) > most:
            raise InputError(f"{about.num_rows} rows in {path.stat().st_size} bytes", where=str(path), fix=AGAIN)
        columns = arrow_columns(path, [one for one in names if _kind(one) == "words"], most)
    wanted = {**TABLES, **OPTIONAL}.get(name, [])
    if absent := [column for column in wanted if column not in columns and column not in LATER.get(name, ())]:
        raise InputError(f"no column {', '.join(absent[:5])}", where=str(path), fix=AGAIN)
    for column, values in columns.items():
        if wrong := _wrong(_kind(column), values):
            raise InputError(f"column {column}: {wrong}", where=str(path), fix=AGAIN)
    return columns


def _kind(column: str) -> str:
    return next((kind for kind, names in _SPEC["kinds"].items() if column in names), "number")


def _wrong(kind: str, values: NDArray[Any]) -> str:
    """Return what is wrong with a column, nothing where it is as it should be."""
    data, letter = np.ma.getdata(values), values.dtype.kind
    if kind == "words":
        return "" if letter == "U" else "not text"
    if letter not in ("iu" if kind != "number" else "iufb"):
        return "not numbers"
    low, high = {"id": (-1, _MOST_ID), "amount": (0, _MOST_AMOUNT)}.get(kind, (-_MOST, _MOST))
    if len(data) and not (low <= data.min() and data.max() <= high):
        return f"a value is beyond {low:g} to {high:g}, or not a number"
    return ""


def read_arrays(path: Path, name: str) -> dict[str, NDArray[Any]]:
    """Read ``flows.npz`` or ``traffic.npz``.

    Raises:
        InputError: as for a table.
    """
    with reading(path, AGAIN, "not a readable array file"):
        arrays = read_npz(path, small=4 * _UNPACKED)
    version = arrays.pop("moesim_schema", np.array(""))
    _check_version(str(version) if version.size == 1 else "", path)
    for key, values in arrays.items():
        axes = next((n for start, n in _SPEC["arrays"][name].items() if key.startswith(start)), values.ndim)
        wrong = f"{values.ndim} axes" if values.ndim != axes else _wrong("number", values.ravel())
        if wrong:
            raise InputError(f"array {key:.60}: {wrong}", where=str(path), fix=AGAIN)
    return arrays


def unpacked_trace(path: Path) -> bytes:
    """Return a folder's trace as JSON text.

    Raises:
        InputError: it is not one, or larger than its file can honestly be.
    """
    with reading(path, AGAIN, "not readable"):
        packed = path.read_bytes()
        most, unpacking = max(_UNPACKED, _RATIO // 5 * len(packed)), zlib.decompressobj(wbits=31)  # honest: 13 to 1
        trace = unpacking.decompress(packed, most)
        if unpacking.unconsumed_tail:
            raise InputError(f"more than {most} bytes from {len(packed)}", where=str(path), fix=AGAIN)
        if not unpacking.eof or not trace.startswith(b'{"traceEvents"'):
            raise InputError("not a whole trace", where=str(path), fix=AGAIN)
    return trace


@contextmanager
def made_of(*folders: Path) -> Iterator[None]:
    """Make something of results read from folders inside it.

    Raises:
        InputError: that cannot be done, and a folder's files are not as its run wrote them: they no longer fit each
            other. What fails on an untouched folder is a fault of moesim's and goes on as it is.
    """
    try:
        yield
    except Exception as error:
        mistake = isinstance(error, OSError) or hasattr(error, "exit_code")
        for folder in () if mistake else folders:
            if has_changed(folder):
                what = (
                    f"its files have changed since its run and do not fit each other ({type(error).__name__}: {error})"
                )
                raise InputError(what, where=str(folder), fix=AGAIN) from error
        raise

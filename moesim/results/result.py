"""A result and its folder: summary, tables, flows, provenance.

Everything but ``provenance.json`` is a function of the scenario and its seed, byte for byte. A folder is written under
a temporary name beside its place and renamed, so it appears whole or not at all.
"""

import gzip
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.files import folder_in_one_piece
from moesim.results.definitions import SUMMARY, Value
from moesim.results.tables import Tables, read_parquet, write_parquet
from moesim.results.trace import chrome_trace

SCHEMA_VERSION = "2"
TABLES = ("steps", "ranks", "experts", "links", "link_series", "transfers", "spans")
"""What every result has; ``training`` comes with a recording."""

_AGAIN = "run the scenario again"
T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Note:
    """Something the reader must know: ``degraded``, ``counterfactual``, ``estimated`` or plain ``info``."""

    kind: str
    text: str


@dataclass(frozen=True)
class Result:
    """What one simulated scenario gave.

    Attributes:
        summary: flat; values that do not apply are None.
        tables: ``steps, ranks, experts, links, link_series, transfers, spans`` and ``training`` for recordings.
        notes: what is degraded, counterfactual or estimated.
        explanation: constants, bytes and sources behind the summary's numbers, for ``moesim explain``.
        flows: the arguments of ``moesim.network.solve_flows`` and the ``finish`` that the run saw.
        traffic: copies per pair and layer, arrays by name.
        scenario_yaml: the fully resolved scenario.
        provenance: versions, host, wall time; the only part that differs between equal runs.
        intervals: (low, high) of the summary's numbers whose error is known.
    """

    summary: dict[str, Any]
    tables: Tables
    notes: tuple[Note, ...]
    explanation: dict[str, Any]
    flows: Arrays
    traffic: Arrays
    scenario_yaml: str
    provenance: dict[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def value(self, key: str) -> Value:
        """Return a number of the summary with the interval that it lies in."""
        return Value(self.summary[key], *self.intervals.get(key, ()))

    def _repr_html_(self) -> str:
        import moesim  # the package knows who makes pages; results do not

        return moesim.run_in_notebook(self)

    def save(self, directory: str | Path, extra: Mapping[str, bytes] | None = None) -> Path:
        """Write the result folder; an existing result is replaced.

        Args:
            directory: the folder.
            extra: further files of the folder, by relative path: its report, its figures.

        Raises:
            ResourceError: the place cannot be written, or holds something that is not a result.
        """
        with folder_in_one_piece(Path(directory), marker="scenario.resolved.yaml") as staging:
            self._write_files(staging)
            for name, data in (extra or {}).items():
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).write_bytes(data)
        return Path(directory)

    def _write_files(self, folder: Path) -> None:
        (folder / "scenario.resolved.yaml").write_text(self.scenario_yaml, encoding="utf-8")
        summary = {"schema": SCHEMA_VERSION, "summary": self.summary, "intervals": dict(self.intervals)}
        _write_json(folder / "summary.json", summary)
        notes = [{"kind": note.kind, "text": note.text} for note in self.notes]
        _write_json(folder / "notes.json", {"schema": SCHEMA_VERSION, "notes": notes})
        _write_json(folder / "explanation.json", {"schema": SCHEMA_VERSION, "explanation": self.explanation})
        _write_json(folder / "provenance.json", {"schema": SCHEMA_VERSION, "provenance": self.provenance})
        for name in self.tables:
            write_parquet(self.tables.columns(name), folder / f"{name}.parquet", {"moesim_schema": SCHEMA_VERSION})
        _write_npz(folder / "flows.npz", self.flows)
        _write_npz(folder / "traffic.npz", self.traffic)
        trace = chrome_trace(self.tables, self.summary)
        data = json.dumps(trace, separators=(",", ":"), allow_nan=False).encode()
        # No time stamp or file name in the header: equal runs give equal bytes.
        (folder / "trace.json.gz").write_bytes(gzip.compress(data, compresslevel=6, mtime=0))


class _WhenAsked(Mapping[str, T]):
    """What files hold, read when the first of it is asked for."""

    def __init__(self, read: Callable[[], Mapping[str, T]]) -> None:
        self._read = read

    @cached_property
    def _content(self) -> Mapping[str, T]:
        return self._read()

    def __getitem__(self, name: str) -> T:
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


def load_result(directory: str | Path, *, at_once: bool = True) -> Result:
    """Read a result folder back.

    Args:
        directory: the folder.
        at_once: read and check every file; else tables, flows and traffic are read when they are asked for.

    Raises:
        InputError: not a result folder, damaged, or of another schema version.
    """
    folder = Path(directory)
    if not (folder / "summary.json").is_file():
        raise InputError("not a result folder (no summary.json)", where=str(folder), fix="give the --out of a run")
    summary = _read_json(folder / "summary.json", "summary")
    absent = [key for key in SUMMARY if key not in summary]
    if absent:
        raise InputError(f"no number {', '.join(absent[:5])}", where=str(folder / "summary.json"), fix=_AGAIN)
    paths = {path.stem: path for path in sorted(folder.glob("*.parquet"))}
    missing = [name for name in TABLES if name not in paths]
    if missing:
        raise InputError(f"no table {', '.join(missing)}", where=str(folder), fix=_AGAIN)
    tables = _WhenAsked(lambda: {name: read_parquet(path, SCHEMA_VERSION) for name, path in paths.items()})
    flows, traffic = (_WhenAsked(partial(_read_npz, folder / f"{name}.npz")) for name in ("flows", "traffic"))
    if at_once:
        [len(files) for files in (tables, flows, traffic)]
    return Result(
        summary=summary,
        tables=Tables(tables),
        notes=tuple(_notes(folder / "notes.json")),
        explanation=_read_json(folder / "explanation.json", "explanation"),
        flows=flows,
        traffic=traffic,
        scenario_yaml=_read_text(folder / "scenario.resolved.yaml"),
        provenance=_read_json(folder / "provenance.json", "provenance"),
        intervals=dict(_intervals(folder / "summary.json")),
    )


def _intervals(path: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    for key, ends in _read_json(path, "intervals").items():
        if not isinstance(ends, list) or [type(end) for end in ends] != [float, float]:
            raise InputError(f"no interval of {key}", where=str(path), fix=_AGAIN)
        yield key, (ends[0], ends[1])


def _notes(path: Path) -> Iterator[Note]:
    for note in _read_json(path, "notes", list):
        if not isinstance(note, dict) or not all(isinstance(note.get(key), str) for key in ("kind", "text")):
            raise InputError("a note without kind and text", where=str(path), fix=_AGAIN)
        yield Note(note["kind"], note["text"])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"not readable: {error}", where=str(path), fix=_AGAIN) from error


def _read_json(path: Path, key: str, kind: type = dict) -> Any:
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not JSON: {error}", where=str(path), fix=_AGAIN) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA_VERSION:
        found = content.get("schema") if isinstance(content, dict) else None
        raise InputError(
            f"schema version {found or 'missing'}", where=str(path), fix=f"this moesim reads version {SCHEMA_VERSION}"
        )
    if not isinstance(content.get(key), kind):
        raise InputError(f"no {key} in it", where=str(path), fix=_AGAIN)
    return content[key]


def _write_npz(path: Path, arrays: Arrays) -> None:
    np.savez_compressed(path, allow_pickle=False, moesim_schema=np.array(SCHEMA_VERSION), **arrays)


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"not a readable array file: {error}", where=str(path)) from error
    found = str(arrays.pop("moesim_schema", ""))
    if found != SCHEMA_VERSION:
        raise InputError(
            f"schema version {found or 'missing'}", where=str(path), fix=f"this moesim reads version {SCHEMA_VERSION}"
        )
    return arrays

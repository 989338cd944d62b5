"""A result and its folder: summary, tables, flows, provenance.

Everything but ``provenance.json`` is a function of the scenario and its seed, byte for byte. A folder is written under
a temporary name beside its place and renamed, so it appears whole or not at all.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.files import telling, written
from moesim.output_folder import PROVENANCE, folder_in_one_piece, sha256
from moesim.results.definitions import Value
from moesim.results.folder_schema import (
    AGAIN,
    FIRST_SCHEMA,
    LATER,
    OPTIONAL,
    SCHEMA_VERSION,
    TABLES,
    read_arrays,
    read_json,
    read_summary,
    read_table,
    read_text,
)
from moesim.results.tables import Tables, write_parquet
from moesim.results.trace import chrome_trace

_EARLIER = "an earlier moesim wrote this, without"

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
        with folder_in_one_piece(Path(directory)) as staging, telling(Path(directory)):
            self.write(staging, extra)
        return Path(directory)

    def write(self, folder: Path, extra: Mapping[str, bytes] | None = None) -> None:
        """Write the files of the result into a folder of ``folder_in_one_piece``, or below it; see ``save``."""
        folder.mkdir(exist_ok=True, parents=True)
        self._write_files(folder)
        for name, data in (extra or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with written(folder / name) as file:
                file.write(data)
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        digests = {name: sha256(folder / name) for name in names}
        about = {"schema": SCHEMA_VERSION, "provenance": self.provenance, "files": digests}
        _write_json(folder / PROVENANCE, about)

    def _write_files(self, folder: Path) -> None:
        with written(folder / "scenario.resolved.yaml") as file:
            file.write(self.scenario_yaml.encode())
        summary = {"schema": SCHEMA_VERSION, "summary": self.summary, "intervals": dict(self.intervals)}
        _write_json(folder / "summary.json", summary)
        notes = [{"kind": note.kind, "text": note.text} for note in self.notes]
        _write_json(folder / "notes.json", {"schema": SCHEMA_VERSION, "notes": notes})
        _write_json(folder / "explanation.json", {"schema": SCHEMA_VERSION, "explanation": self.explanation})
        for name in self.tables:
            with written(folder / f"{name}.parquet") as file:
                write_parquet(self.tables.columns(name), file, {"moesim_schema": SCHEMA_VERSION})
        for name, arrays in (("flows", self.flows), ("traffic", self.traffic)):
            with written(folder / f"{name}.npz") as file:
                np.savez_compressed(file, allow_pickle=False, moesim_schema=np.array(SCHEMA_VERSION), **arrays)
        trace = chrome_trace(self.tables, self.summary)
        data = json.dumps(trace, separators=(",", ":"), allow_nan=False).encode()
        with written(folder / "trace.json.gz") as file:
            # No time stamp or file name in the header: equal runs give equal bytes.
            file.write(gzip.compress(data, compresslevel=6, mtime=0))


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
        InputError: not a result folder, damaged, or of an unknown schema version. What a folder of an earlier release
            does not have is named in a note.
    """
    folder = Path(directory)
    if not (folder / "summary.json").is_file():
        raise InputError("not a result folder (no summary.json)", where=str(folder), fix="give the --out of a run")
    summary = read_summary(folder / "summary.json")
    paths = {name: path for name in (*TABLES, *OPTIONAL) if (path := folder / f"{name}.parquet").is_file()}
    missing = [name for name in TABLES if name not in paths]
    if missing:
        raise InputError(f"no table {', '.join(missing)}", where=str(folder), fix=AGAIN)
    tables = _WhenAsked(lambda: {name: read_table(path, name) for name, path in paths.items()})
    flows, traffic = (_WhenAsked(partial(read_arrays, folder / f"{name}.npz", name)) for name in ("flows", "traffic"))
    if at_once:
        [len(files) for files in (tables, flows, traffic)]
    first = read_json(folder / "summary.json", "schema", str) == FIRST_SCHEMA
    absent = ["intervals", *LATER["ranks"]] if first else []
    absent += [key for key in LATER["summary"] if key not in summary]
    notes = list(_notes(folder / "notes.json"))
    if absent and not any(note.text.startswith(_EARLIER) for note in notes):
        notes.append(Note("info", f"{_EARLIER} {', '.join(absent)}"))
    return Result(
        summary=summary,
        tables=Tables(tables),
        notes=tuple(notes),
        explanation={key: {} for key in LATER["explanation"]} | read_json(folder / "explanation.json", "explanation"),
        flows=flows,
        traffic=traffic,
        scenario_yaml=read_text(folder / "scenario.resolved.yaml"),
        provenance=read_json(folder / "provenance.json", "provenance"),
        intervals={} if first else dict(_intervals(folder / "summary.json")),
    )


def _intervals(path: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    for key, ends in read_json(path, "intervals").items():
        if not isinstance(ends, list) or [type(end) for end in ends] != [float, float]:
            raise InputError(f"no interval of {key}", where=str(path), fix=AGAIN)
        yield key, (ends[0], ends[1])


def _notes(path: Path) -> Iterator[Note]:
    for note in read_json(path, "notes", list):
        if not isinstance(note, dict) or not all(isinstance(note.get(key), str) for key in ("kind", "text")):
            raise InputError("a note without kind and text", where=str(path), fix=AGAIN)
        yield Note(note["kind"], note["text"])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with written(path) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")

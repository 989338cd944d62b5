"""A result and its folder: summary, tables, flows, provenance.

Everything but ``provenance.json`` is a function of the scenario and its seed, byte for byte. A folder is written under
a temporary name beside its place and renamed, so it appears whole or not at all.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.files import folder_in_one_piece
from moesim.results.tables import Tables, read_parquet, write_parquet
from moesim.results.trace import chrome_trace

SCHEMA_VERSION = "1"


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
    """

    summary: dict[str, Any]
    tables: Tables
    notes: tuple[Note, ...]
    explanation: dict[str, Any]
    flows: dict[str, NDArray[Any]]
    traffic: dict[str, NDArray[Any]]
    scenario_yaml: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: str | Path, extra: Mapping[str, bytes] | None = None) -> Path:
        """Write the result folder; an existing result is replaced.

        Args:
            directory: the folder.
            extra: further files of the folder, by relative path: its report, its figures.

        Raises:
            ResourceError: the place cannot be written, or holds something that is not a result.
        """
        with folder_in_one_piece(Path(directory), marker="summary.json") as staging:
            self._write_files(staging)
            for name, data in (extra or {}).items():
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).write_bytes(data)
        return Path(directory)

    def _write_files(self, folder: Path) -> None:
        (folder / "scenario.resolved.yaml").write_text(self.scenario_yaml, encoding="utf-8")
        _write_json(folder / "summary.json", {"schema": SCHEMA_VERSION, "summary": self.summary})
        notes = [{"kind": note.kind, "text": note.text} for note in self.notes]
        _write_json(folder / "notes.json", {"schema": SCHEMA_VERSION, "notes": notes})
        _write_json(folder / "explanation.json", {"schema": SCHEMA_VERSION, "explanation": self.explanation})
        _write_json(folder / "provenance.json", {"schema": SCHEMA_VERSION, "provenance": self.provenance})
        for name in self.tables:
            write_parquet(self.tables.columns(name), folder / f"{name}.parquet", {"moesim_schema": SCHEMA_VERSION})
        version = np.array(SCHEMA_VERSION)
        _write_npz(folder / "flows.npz", {"moesim_schema": version, **self.flows})
        _write_npz(folder / "traffic.npz", {"moesim_schema": version, **self.traffic})
        trace = chrome_trace(self.tables.columns("spans"), self.tables.columns("link_series"), self.summary)
        data = json.dumps(trace, separators=(",", ":"), allow_nan=False).encode()
        # No time stamp or file name in the header: equal runs give equal bytes.
        (folder / "trace.json.gz").write_bytes(gzip.compress(data, compresslevel=6, mtime=0))


def load_result(directory: str | Path) -> Result:
    """Read a result folder back.

    Raises:
        InputError: not a result folder, or of another schema version.
    """
    folder = Path(directory)
    if not (folder / "summary.json").is_file():
        raise InputError("not a result folder (no summary.json)", where=str(folder), fix="give the --out of a run")
    tables = {path.stem: read_parquet(path, SCHEMA_VERSION) for path in sorted(folder.glob("*.parquet"))}
    notes = _read_json(folder / "notes.json", "notes")
    return Result(
        summary=_read_json(folder / "summary.json", "summary"),
        tables=Tables(tables),
        notes=tuple(Note(note["kind"], note["text"]) for note in notes),
        explanation=_read_json(folder / "explanation.json", "explanation"),
        flows=_read_npz(folder / "flows.npz"),
        traffic=_read_npz(folder / "traffic.npz"),
        scenario_yaml=(folder / "scenario.resolved.yaml").read_text(encoding="utf-8"),
        provenance=_read_json(folder / "provenance.json", "provenance"),
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path, key: str) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not readable: {error}", where=str(path)) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA_VERSION or key not in content:
        raise InputError("not of this schema version", where=str(path), fix=f"this moesim reads {SCHEMA_VERSION}")
    return content[key]


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"not a readable array file: {error}", where=str(path)) from error
    if str(arrays.pop("moesim_schema", "")) != SCHEMA_VERSION:
        raise InputError("not of this schema version", where=str(path), fix=f"this moesim reads {SCHEMA_VERSION}")
    return arrays

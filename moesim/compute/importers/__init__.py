"""Measured tables of other tools, read into the rows of `moesim.compute.table_format`.

Each format is one module with three names: ``NEEDED``, the columns it is known by; ``IMPL``, the column that says who
computed a row; and ``rows_of(record, job)``, which yields a record's rows or refuses it with a reason. What is common
is done here: the device of each record against the GPU asked for, times that beat the GPU's peaks, keys that stand
there twice, masked beside contiguous kernels of one shape.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np

from moesim.compute.gpus import Gpu, load_gpu, nearest
from moesim.compute.importers import aiconfigurator, infersim, moesim_profile, vidur
from moesim.compute.importers.records import Job, Record, Refused, device_is, gpu_of_path, read_records
from moesim.compute.interpolate import Grid
from moesim.compute.measured import grids_of, surfaces_of
from moesim.compute.table_format import CHOICES, COLD, Row, floor_seconds, table_text
from moesim.errors import InputError

__all__ = ["FORMATS", "Imported", "import_table"]

FORMATS: dict[str, ModuleType] = {
    "profile": moesim_profile,
    "aiconfigurator": aiconfigurator,
    "infersim": infersim,
    "vidur": vidur,
}
Duplicates = Literal["refuse", "median"]


class Taken(NamedTuple):
    """A row with the line that it comes from and who computed it."""

    row: Row
    line: int
    impl: str


@dataclass(frozen=True)
class Imported:
    """What was made of a file.

    Attributes:
        rows: of the table.
        gpu: they were measured on.
        format: that the file turned out to be in.
        path: of the file; ``digest`` is its sha256.
        read: rows of the file.
        refused: rows by the reason for which they are not in the table.
        merged: rows that went into a median with others of their key.
        notes: what the reader must know about the rows.
    """

    rows: list[Row]
    gpu: Gpu
    format: str
    path: Path
    digest: str
    read: int
    refused: dict[str, int]
    merged: int
    notes: tuple[str, ...]

    def accuracies(self) -> list[tuple[str, Grid]]:
        """Return each shape of the table, in words, and its grid with its leave-one-out errors."""
        cold = [row for row in self.rows if row.cache == COLD]
        surfaces = {
            " ".join(map(str, shape)): s.grid for shape, s in surfaces_of(cold, self.gpu, str(self.path)).items()
        }
        grids = {
            " ".join(filter(None, (kernel, dtype, *map(str, sizes)))): grid
            for (kernel, dtype, sizes), grid in grids_of(cold, self.gpu).items()
        }
        return sorted({**surfaces, **grids}.items())

    def text(self) -> str:
        """Return the table's file, with where it comes from and its errors as comments."""
        comments = [
            f"kernel times of {self.gpu.title}, imported by moesim from {self.path.name} ({self.format})",
            f"sha256 of that file: {self.digest}",
            f"{self.read} rows read, {len(self.rows)} in this table, {self.merged} merged, "
            f"{sum(self.refused.values())} refused",
            *(f"refused: {count} x {reason}" for reason, count in self.refused.items()),
            *(f"note: {note}" for note in self.notes),
            *(f"leave-one-out: {shape}: {error_words(grid)}" for shape, grid in self.accuracies()),
        ]
        return table_text(self.rows, self.gpu, comments)


def error_words(grid: Grid) -> str:
    """Return a grid's leave-one-out errors as words."""
    words = []
    for axis, error in (("", grid.inner_error), (" across curves", grid.outer_error)):
        if error.median is not None and error.p90 is not None:
            figures = f"{100 * error.median:.3g} % median, {100 * error.p90:.3g} % p90"
            words.append(f"{figures} of {len(error.errors)} points{axis} ({error.method})")
    return "; ".join(words) or "unknown, no point has neighbours on both sides"


def import_table(
    path: str | Path,
    gpu: str,
    format: str = "auto",
    impl: str | None = None,
    layout: str | None = None,
    duplicates: Duplicates = "refuse",
) -> Imported:
    """Read another tool's table.

    Args:
        path: CSV or parquet file.
        gpu: that it was measured on; rows that name another device are refused.
        format: one of ``FORMATS``, or auto.
        impl: take only what this implementation computed.
        layout: take only masked or contiguous grouped GEMMs.
        duplicates: what to do with a key that stands there more than once: refuse the file, or take the median.

    Raises:
        InputError: an unknown GPU, format or layout; a file that is in no known format, has a duplicate key or both
            layouts of a shape, or leaves no row.
        ResourceError: the file cannot be read.
    """
    file, known = Path(path), load_gpu(gpu)
    if layout is not None and layout not in CHOICES["layout"]:
        raise InputError(f"unknown layout {layout!r}", "--layout", nearest(layout, CHOICES["layout"]))
    named = gpu_of_path(file)
    columns, records = read_records(file)
    format, reader = _format(format, columns, file)
    if "device" not in columns and named is not None and named != known.name:
        raise InputError(f"the path says {named}, but {known.name} is asked for", str(file))
    job = Job(file, known)
    if "device" not in columns:
        job.note(f"the file does not say on which GPU it was measured: {known.name} was given")
    refused: Counter[str] = Counter()
    taken: list[Taken] = []
    read = 0
    for record in records:
        read += 1
        try:
            for row in _rows(record, reader, job, impl, layout):
                taken.append(Taken(row, record.line, record.text(reader.IMPL)))
        except Refused as refusal:
            refused[str(refusal)] += 1
    if reader is moesim_profile and impl is None:
        taken = _fastest(taken, refused)
    _one_layout(taken, file)
    rows, merged = _merged(taken, duplicates, file)
    if not rows:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in refused.most_common(3))
        raise InputError(f"none of {read} rows can be taken", str(file), reasons)
    if merged:
        job.note(f"{merged} rows share their key with others: their median is taken")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    order = dict(sorted(refused.items(), key=lambda item: (-item[1], item[0])))
    return Imported(rows, known, format, file, digest, read, order, merged, tuple(job.notes))


def _format(wanted: str, columns: Sequence[str], file: Path) -> tuple[str, ModuleType]:
    """Return the format of a file by its columns, or the one asked for if they fit."""
    if wanted not in ("auto", *FORMATS):
        raise InputError(f"unknown format {wanted!r}", "--format", nearest(wanted, ("auto", *FORMATS)))
    for name, reader in FORMATS.items():
        fits = all(any(one in columns for one in needed.split("|")) for needed in reader.NEEDED)
        if fits and wanted in ("auto", name):
            return name, reader
    if {"kernel", "dtype"} <= set(columns):
        raise InputError("this is a kernel table already", str(file), "name it in compute.table of a scenario")
    if wanted != "auto":
        needed = ", ".join(name.replace("|", " or ") for name in FORMATS[wanted].NEEDED)
        raise InputError(f"not a table of {wanted}", str(file), f"it has columns {needed}")
    raise InputError("a table in no known format", str(file), f"known: {', '.join(FORMATS)}; see docs/kernel-tables.md")


def _rows(record: Record, reader: ModuleType, job: Job, impl: str | None, layout: str | None) -> Iterator[Row]:
    """Yield the rows of a record that stand the common checks."""
    device = record.text("device")
    if "device" in record.fields and not device_is(device, job.gpu):
        raise Refused(f"measured on {device or 'a device without a name'}, not on {job.gpu.name}")
    if impl is not None and record.text(reader.IMPL) != impl:
        raise Refused(f"computed by {record.text(reader.IMPL) or 'an unnamed implementation'}, not by {impl}")
    for row in reader.rows_of(record, job):
        if layout is not None and row.layout and row.layout != layout:
            raise Refused(f"{row.layout}, not {layout}")
        if row.seconds < floor_seconds(job.gpu, row):
            raise Refused(f"faster than the peaks of {job.gpu.name} allow")
        yield row


def _fastest(taken: Iterable[Taken], refused: Counter[str]) -> list[Taken]:
    """Keep the fastest implementation of each key."""
    best: dict[tuple[object, ...], Taken] = {}
    for one in taken:
        held = best.get(one.row.key)
        if held is None or held.impl == one.impl:
            # Twice the same implementation is a duplicate, for the check of duplicates to find.
            key = one.row.key if held is None else (*one.row.key, one.line)
            best[key] = one
            continue
        slower = max(held, one, key=lambda each: each.row.seconds)
        refused[f"a slower implementation of the same shape ({slower.impl})"] += 1
        best[one.row.key] = one if slower is held else held
    return list(best.values())


def _one_layout(taken: Iterable[Taken], file: Path) -> None:
    layouts: dict[tuple[object, ...], Taken] = {}
    for one in taken:
        other = layouts.setdefault((one.row.kernel, one.row.dtype, one.row.fixed), one)
        if other.row.layout != one.row.layout:
            raise InputError(
                f"{other.row.layout} (line {other.line}) beside {one.row.layout} kernels of one shape",
                f"{file}:{one.line}",
                "take one of them: --layout masked, or --layout contiguous",
            )


def _merged(taken: Iterable[Taken], duplicates: Duplicates, file: Path) -> tuple[list[Row], int]:
    """Return one row per key, and how many went into a median with others."""
    by_key: dict[tuple[object, ...], list[Taken]] = {}
    for one in taken:
        by_key.setdefault(one.row.key, []).append(one)
    several = [own for own in by_key.values() if len(own) > 1]
    if several and duplicates == "refuse":
        own = several[0]
        impls = sorted({one.impl for one in own if one.impl})
        choose = f"--duplicates median, or --impl {impls[0]}" if len(impls) > 1 else "--duplicates median"
        keys = "1 key stands" if len(several) == 1 else f"{len(several)} keys stand"
        raise InputError(
            f"{keys} there more than once, the first in lines {own[0].line} and {own[1].line}",
            f"{file}:{own[1].line}",
            choose,
        )
    rows = []
    for own in by_key.values():
        first, median = own[0].row, float(np.median([one.row.seconds for one in own]))
        rows.append(first if len(own) == 1 else Row(**{**vars(first), "seconds": median}))
    return rows, sum(len(own) for own in several)

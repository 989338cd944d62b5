"""The CSV file of a profile while it grows, and beside it the point at hand.

Every row is on disk before the next point starts. A run that died while writing leaves a torn last line; it is dropped,
everything before it is kept. An error of a kernel is caught and becomes a row; a crash of the whole process (or of the
driver under it) is not. The point at hand therefore stands in ``NAME.at`` while it is measured, and one that took the
process with it twice is given up, so that a run can be repeated until it ends.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

from moesim.errors import InputError, ResourceError
from moesim.files import check_replaceable, marked, write_files
from moesim.profile.csv_columns import COLUMNS, KEY_COLUMNS, SCHEMA_VERSION

Key = tuple[str, ...]
HEADER = (",".join(COLUMNS) + "\n").encode()


class Journal:
    """Rows on disk, and the keys of those that are done. One process at a time may have it open."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, or start it.

        Raises:
            InputError: the file is not a profile of this version, or broken before its last line.
            ResourceError: it cannot be written, or another run writes it.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - stays open as long as the run
        except OSError as error:
            raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            self._lock()
            self.rows = self._read()
        except BaseException:
            self._file.close()
            raise
        self.done = {key_of(row) for row in self.rows}

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"{self.path} is being written by another run") from None

    def _read(self) -> list[dict[str, str]]:
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if data and not whole and not HEADER.startswith(data):
            raise InputError("not a profile of moesim's", str(self.path), "give another --out")
        rows = parse(whole, str(self.path)) if whole else []
        if len(whole) < len(data):
            os.ftruncate(self._file.fileno(), len(whole))
        if not whole:
            self._write(HEADER)
        return rows

    def append(self, row: Mapping[str, str]) -> None:
        """Write one row and wait until it is on disk. Raises ResourceError where it cannot be."""
        line = io.StringIO()
        csv.DictWriter(line, COLUMNS, lineterminator="\n").writerow(row)
        self._write(line.getvalue().encode())
        self.rows.append(dict(row))
        self.done.add(key_of(row))

    def _write(self, data: bytes) -> None:
        try:
            while data:  # a pipe or a full disk may take less than all
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResourceError(f"cannot write {self.path}: {error.strerror or error}") from error

    def digest(self, size: int | None = None) -> tuple[int, str]:
        """Return length and SHA-256 of the first ``size`` bytes of the file, by default of all whole lines."""
        self._file.seek(0)
        data = self._file.read()
        data = data[: data.rfind(b"\n") + 1 if size is None else size]
        return len(data), hashlib.sha256(data).hexdigest()

    def close(self) -> None:
        """Let others write."""
        self._file.close()


def key_of(row: Mapping[str, str]) -> Key:
    """Return what names a row."""
    return tuple(row[name] for name in KEY_COLUMNS)


def parse(data: bytes, where: str) -> list[dict[str, str]]:
    """Return the rows of a whole profile; raises InputError with file and line."""
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
        header = next(lines, [])
        if tuple(header) != COLUMNS:
            raise InputError("the header is not that of a profile of this version", f"{where}:1", "give another --out")
        rows, keys = [], set()
        for values in lines:
            at = f"{where}:{lines.line_num}"
            if len(values) != len(COLUMNS):
                raise InputError(f"{len(values)} values, {len(COLUMNS)} columns", at)
            row = dict(zip(COLUMNS, values, strict=True))
            if row["schema_version"] != str(SCHEMA_VERSION):
                raise InputError(f"schema_version {row['schema_version']!r}, not {SCHEMA_VERSION}", at)
            if key_of(row) in keys:
                raise InputError("this row stands in the table already", at)
            keys.add(key_of(row))
            rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not CSV in UTF-8: {error}", where) from None
    return rows


GIVE_UP = 2
_AT = "note of a profile"


class Attempts:
    """The file ``NAME.at`` beside a table; it is there only while a run is, or after one that died."""

    def __init__(self, table: Path) -> None:
        """Read what an earlier process left, if one died. Raises ResourceError for a file of somebody else's."""
        self.path = table.with_suffix(".at")
        check_replaceable(self.path, _AT)
        self._point, self._deaths = "", 0
        try:
            left = json.loads(self.path.read_bytes())
            self._point, self._deaths = str(left["point"]), int(left["begun"])
        except (OSError, ValueError, TypeError, KeyError):
            pass  # nobody died

    def hopeless(self, point: str) -> bool:
        """Has the process died in ``point`` so often that it is given up?"""
        return point == self._point and self._deaths >= GIVE_UP

    def begin(self, point: str) -> None:
        """Say that ``point`` is being measured."""
        begun = 1 + (self._deaths if point == self._point else 0)
        text = json.dumps({"point": point, "begun": begun})
        write_files(self.path.parent, {self.path.name: marked(_AT, text.encode())})

    def end(self) -> None:
        """The run is over and nobody died."""
        self.path.unlink(missing_ok=True)

"""The journal of a sweep: which points are done and what they gave, safe against a kill at any instant.

One SQLite file in WAL mode with the driver as its only writer: each point is one transaction, so that a reader, or the
next run after a kill, sees it whole or not at all. What the sweep *is* (scenario as written, axes, digests of the input
files, version) is in the journal too; a journal of another sweep is refused with what differs.

SQLite does not check what it reads back. So each point has a digest of its row; a point whose row has rotted is not
done, and is run again.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import InputError, ResourceError

SCHEMA_VERSION = "2"
JOURNAL_FILE = "journal.sqlite"
_MOST_DIFFERENCES = 12

_POINTS = (
    "CREATE TABLE points "
    "(point INTEGER PRIMARY KEY, status TEXT NOT NULL, error TEXT, summary TEXT, sha256 TEXT NOT NULL)"
)
_Row = tuple[int, str, str | None, str | None]


@dataclass(frozen=True)
class Outcome:
    """What came of one point: ``ok`` with its summary and the ends of its intervals (``..._low``, ``..._high``),
    ``failed`` or ``impossible`` with the reason."""

    status: str
    error: str | None = None
    summary: Mapping[str, Any] | None = None


class Journal:
    """Points that are done. Open one with ``open_journal``."""

    def __init__(self, database: sqlite3.Connection, where: str) -> None:
        self._database, self._where = database, where

    def add(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Write points, all or none of them.

        Raises:
            ResourceError: the disk is full or the file cannot be written.
        """
        rows = [
            (point, done.status, done.error, None if done.summary is None else _canonical(done.summary))
            for point, done in outcomes
        ]
        with self._transaction():
            self._database.executemany(
                "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?)", [(*row, _digest(row)) for row in rows]
            )

    def forget(self, status: str) -> None:
        """Remove the points of a status, so that they are run again."""
        with self._transaction():
            self._database.execute("DELETE FROM points WHERE status = ?", (status,))

    def done(self) -> set[int]:
        """Return the numbers of the points that are written down."""
        return {row[0] for row in self._rows()}

    def counts(self) -> dict[str, int]:
        """Return how many points have each status."""
        return dict(sorted(Counter(row[1] for row in self._rows()).items()))

    def outcomes(self) -> Iterator[tuple[int, Outcome]]:
        """Yield the points in the order of their numbers."""
        for point, status, error, summary in self._rows():
            yield point, Outcome(status, error, None if summary is None else json.loads(summary))

    def _rows(self) -> Iterator[_Row]:
        with self._telling():
            yield from self._database.execute("SELECT point, status, error, summary FROM points ORDER BY point")

    def _mend(self) -> None:
        """Keep the rows that are as they were written, each once, if any other is there: the tree may be wrong too."""
        with self._telling():
            found = self._database.execute("SELECT * FROM points").fetchall()
        intact = {row[0]: row for row in found if _digest(row[:4]) == row[4]}
        if len(intact) < len(found) or list(intact) != sorted(intact):
            with self._transaction():
                self._database.execute("DROP TABLE points")
                self._database.execute(_POINTS)
                self._database.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", intact.values())

    def identity(self) -> dict[str, Any]:
        """Return the identity of this sweep, as it was given to ``open_journal``."""
        with self._telling():
            return dict(json.loads(self._database.execute("SELECT value FROM meta WHERE key = 'sweep'").fetchone()[0]))

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Make an empty journal this sweep's, or check that it is.

        Raises:
            InputError: it is of another sweep, moesim version or schema version; names what differs.
        """
        with self._transaction():
            tables = {row[0] for row in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                self._database.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
                self._database.execute(_POINTS)
                about = [("schema", SCHEMA_VERSION), ("sweep", _canonical(identity))]
                self._database.executemany("INSERT INTO meta VALUES (?, ?)", about)
                return
        self.check_schema()
        if (before := self.identity()) != (now := json.loads(_canonical(identity))):
            found = differences(before, now)
            more = [f"and {len(found) - _MOST_DIFFERENCES} more"] if len(found) > _MOST_DIFFERENCES else []
            raise InputError(
                f"the folder holds another sweep: {'; '.join([*found[:_MOST_DIFFERENCES], *more])}",
                where=self._where,
                fix="give another --out, or remove the folder to start again",
            )
        self._mend()

    def check_schema(self) -> None:
        """Refuse a file that is not a journal of this schema version.

        Raises:
            InputError: see above.
        """
        try:
            row = self._database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        except sqlite3.OperationalError:
            row = None
        except sqlite3.DatabaseError as error:
            raise InputError(f"not a journal: {error}", where=self._where, fix="remove it to start again") from error
        if row is None or row[0] != SCHEMA_VERSION:
            found = "no journal of a sweep" if row is None else f"schema version {row[0]}"
            raise InputError(found, where=self._where, fix=f"this moesim reads version {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything inside or nothing, tables made inside included."""
        with self._telling():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ResourceError(f"{self._where}: {error}") from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise InputError(
                f"not an intact journal: {error}", where=self._where, fix="remove it to start again"
            ) from error


@contextmanager
def open_journal(folder: Path | None) -> Iterator[Journal]:
    """Open the journal of a folder, made if it is not there; None for one that lives in memory.

    Raises:
        InputError: the file is not an SQLite file.
        ResourceError: it cannot be opened.
    """
    where = ":memory:" if folder is None else str(folder / JOURNAL_FILE)
    try:
        database = sqlite3.connect(where, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise ResourceError(f"{where}: {error}") from error
    try:
        database.text_factory = lambda text: text.decode(errors="replace")  # of a row that has rotted
        journal = Journal(database, where)
        with journal._telling():
            database.execute("PRAGMA journal_mode = WAL")
            # A kill of the process loses nothing; a power cut at most the last points, which are then run again.
            database.execute("PRAGMA synchronous = NORMAL")
        yield journal
    finally:
        database.close()


def differences(before: Any, now: Any, at: str = "") -> list[str]:
    """Return what differs between two pieces of plain data, one line per value: ``routing.top_k: 4 before, 8 now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in dict.fromkeys([*before, *now]):
            below = f"{at}.{key}" if at else str(key)
            lines += differences(before.get(key), now.get(key), below)
        return lines
    return [] if before == now else [f"{at}: {_short(before)} before, {_short(now)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return "nothing" if value is None else text if len(text) <= 60 else f"{text[:57]}..."


def _digest(row: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(row, default=str).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

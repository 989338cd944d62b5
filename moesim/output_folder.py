"""Folders that moesim writes: one process at a time has one, and none is taken in which anything is somebody else's.

Both are looked at before the work begins. A folder that is replaced as a whole (a run's) is filled beside its place and
renamed, so that it stands whole or not at all, whatever fails in between; one that is filled piece by piece (a sweep's)
keeps what it has.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from moesim.errors import ResourceError
from moesim.files import LEFTOVER, is_ours, settle, telling

PROVENANCE = "provenance.json"
_PAGES = ("report.html", "figures/*.svg", "figures/*.png")
# How long a lock's holder may take to write who it is.
_NAMED_S = 1.0

waiting: ContextVar[Callable[[str], None] | None] = ContextVar("waiting", default=None)
"""Whether to wait for a folder that another process holds, and what says once that it waits; else that is an error."""

# Files of locks that are held. A fork lets go of them, or a worker would keep the lock of a driver that is dead.
_locks: set[IO[bytes]] = set()
os.register_at_fork(after_in_child=lambda: [file.close() for file in _locks])


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        noun: what it is called.
        sign: the file that is there whenever any other is.
        marked: patterns of files that bear a mark of moesim's (``is_ours``); pages and figures may be there besides.
        plain: patterns of files that cannot bear one.
        has_runs: ``sign`` lists folders of results.
    """

    noun: str
    sign: str
    marked: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    has_runs: bool = False


RESULT = Kind("result", "summary.json", ("*.json", "*.parquet", "*.npz"), ("scenario.resolved.yaml", "trace.json.gz"))
VARIANTS = Kind("result", "variants.json", ("variants.json",), has_runs=True)
SWEEP = Kind("sweep", "journal.sqlite", ("points.parquet", "answer.json"), ("journal.sqlite*", ".lock"))
BALANCE = Kind("study of balance", "balance.json", ("balance.json",))


def check_ours(target: Path, *kinds: Kind) -> None:
    """Refuse a folder that holds what is somebody else's; an empty one, or none, is nobody's.

    Raises:
        ResourceError: the first such entry is named; or the place cannot be read.
    """
    with telling(target):
        if not target.exists():
            return
        odd = [_foreign(target, kind) for kind in kinds] if target.is_dir() else [""]
    if None not in odd:
        why = f" (it holds {odd[0]}, not as moesim writes it)" if odd[0] else ""
        raise ResourceError(f"{target} exists and is not a {kinds[0].noun} of moesim's{why}: choose another place")


def _foreign(folder: Path, kind: Kind) -> str | None:
    """Return the first entry that this kind of folder has not."""
    runs, said = (
        _runs(folder / kind.sign) if kind.has_runs else [],
        _said(folder / (kind.sign if kind.has_runs else PROVENANCE)),
    )
    above = {"figures"} | {one.rpartition("/")[0] for one in (*runs, *said)}
    own = False
    for name in _entries(folder, "", above):
        path, page = folder / name, any(fnmatch(name, one) for one in _PAGES)
        marked, plain = (
            name not in said and any(fnmatch(name, one) for one in names) for names in (kind.marked, kind.plain)
        )
        if name in runs:
            odd = _foreign(path, RESULT)
        elif path.is_symlink() or not path.is_file():
            odd = ""
        else:
            as_said = name == PROVENANCE or said.get(name) == sha256(path)
            mine = as_said or plain or LEFTOVER.fullmatch(path.name) or ((marked or page) and is_ours(path))
            odd = None if mine else ""
        if odd is not None:
            return f"{name}/{odd}".rstrip("/")
        own |= name[0] != "."
    return next(_entries(folder, "", above)) if own and not (folder / kind.sign).is_file() else None


def _entries(folder: Path, below: str, above: set[str]) -> Iterator[str]:
    """Names of what a folder holds; of the folders in ``above`` what they hold."""
    for entry in sorted((folder / below).iterdir()):
        name = f"{below}/{entry.name}".lstrip("/")
        if name in above and entry.is_dir() and not entry.is_symlink():
            yield from _entries(folder, name, above)
        else:
            yield name


def _runs(sign: Path) -> list[str]:
    try:
        names = json.loads(sign.read_bytes())["variants"]
        return [name for name in names if sign.parent.joinpath(name, RESULT.sign).is_file()]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _said(file: Path) -> dict[str, str]:
    """What a run said that it wrote: digests of files by name."""
    try:
        return dict(json.loads(file.read_bytes())["files"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def has_changed(folder: Path) -> bool:
    """Return whether the files of a result, pages aside, are others than its run said that it wrote."""
    files = {
        name: known
        for name, known in _said(folder / PROVENANCE).items()
        if "/" not in name and not name.endswith(".html")
    }
    return not files or any(sha256(folder / name) != known for name, known in files.items())


def sha256(path: Path) -> str:
    """Return the digest of a file; nothing where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(folder: Path, lock: Path, passing: bool = False) -> Iterator[None]:
    """Hold a folder for this process, by a lock that the system itself drops when its holder dies.

    ``passing``: the file of the lock is gone afterwards.

    Raises:
        ResourceError: another process holds it (named), or the lock cannot be written.
    """
    with ExitStack() as closing:
        say, said = waiting.get(), False
        while True:
            with telling(folder):
                file = closing.enter_context(open(lock, "a+b", buffering=0))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    in_use = "" if said else f"{folder} is in use by {_holder(file)}"
                    if say is None:
                        raise ResourceError(f"{in_use}: give another --out, or --wait") from None
                    if not said:
                        say(f"{in_use}: waiting")
                        said = True
                    fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.fstat(file.fileno()).st_ino == os.stat(lock).st_ino:
                    break  # else the one that held it has just removed it
        _locks.add(file)
        closing.callback(_locks.remove, file)
        closing.callback(file.truncate, 0)
        if passing:
            closing.callback(lock.unlink, missing_ok=True)
        with telling(folder):
            file.truncate(0)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            who = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            file.write(json.dumps(who).encode())
        yield


def _holder(file: IO[bytes]) -> str:
    until, found = time.monotonic() + _NAMED_S, "another process"
    while time.monotonic() < until:  # it may be about to write who it is, and what is there of one that was killed
        file.seek(0)
        with suppress(ValueError, TypeError, KeyError):
            who = json.loads(file.read())
            found = f"process {who['pid']} on {who['host']}, started {who['started']}"
            if who["host"] != socket.gethostname() or Path(f"/proc/{who['pid']}").exists():
                break
        time.sleep(0.02)
    return found


@contextmanager
def folder_in_one_piece(target: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it takes the place of ``target``, on failure it is gone.

    A result that stands there, of one run or of variants, is replaced; a link to a folder is followed.

    Raises:
        ResourceError: the place cannot be written, is in use, or holds something else.
    """
    target = Path(os.path.realpath(target))
    staging, aside, lock = (target.parent / f".{target.name}.moesim-{use}" for use in ("new", "old", "lock"))
    with ExitStack() as ending:
        with telling(target):
            if Path.cwd().is_relative_to(target) or os.path.ismount(target):
                what = "a mount point" if os.path.ismount(target) else "the current folder, or one above it"
                raise ResourceError(f"{target} is {what} and cannot be replaced: give a folder in it")
            check_ours(target, RESULT, VARIANTS)
            for folder in (target.parent, *target.parents)[::-1]:
                if not folder.exists():
                    folder.mkdir(exist_ok=True)
                    ending.callback(_remove_if_empty, folder)
            ending.enter_context(held(target, lock, passing=True))
            if aside.exists() and not target.exists():  # a kill came between the two renames
                os.replace(aside, target)
            for left in (staging, aside):
                shutil.rmtree(left, ignore_errors=True)
            staging.mkdir()
            ending.callback(shutil.rmtree, staging, ignore_errors=True)
        yield staging
        with telling(target):
            for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
                settle(folder)
            check_ours(target, RESULT, VARIANTS)
            _take_the_place_of(target, staging, aside)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _take_the_place_of(target: Path, staging: Path, aside: Path) -> None:
    """Rename; what stood there before is removed only once the new folder stands, and put back if it cannot."""
    before = target.exists()
    if before:
        os.replace(target, aside)
    try:
        os.replace(staging, target)
        settle(target.parent)
    except OSError:
        # Should this fail too, what stood there is still whole under ``aside``: the next run puts it back.
        if target.exists():
            os.replace(target, staging)
        if before:
            os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)

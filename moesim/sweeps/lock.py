"""One sweep at a time in a folder: an advisory lock that the system itself drops when its holder dies."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from moesim.errors import ResourceError

LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder for this process.

    Raises:
        ResourceError: another process holds it (named, if it has written who it is), or the folder cannot be written.
    """
    try:
        file = open(folder / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115 - closed below, whatever happens
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ResourceError(f"{folder} is in use by {_holder(file.read())}: wait, or give another --out") from None
        file.truncate(0)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": started}, file)
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        who = json.loads(text)
        return f"process {who['pid']} on {who['host']}, started {who['started']}"
    except (ValueError, TypeError, KeyError):  # it is about to write who it is
        return "another process"

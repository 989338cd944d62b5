"""Whatever a broken or foreign file makes its reader raise, as one line that names the file."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moesim.errors import InputError, ResourceError

# A sparse file takes no room on the disk, and all of it in memory.
_SMALL_BYTES, _MOST_HOLES = 64 << 20, 200


def content(path: str | Path, most: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: it cannot be read, or has more than ``most`` bytes.
    """
    with reading(path, ""), open(path, "rb") as stream:
        found = stream.read(most + 1)
    if len(found) > most:
        raise InputError(f"more than {most / 10**6:g} MB", str(path), "is it the right file?")
    return found


@contextmanager
def reading(
    path: str | Path, fix: str = "is it truncated or of another kind?", what: str = "cannot be read"
) -> Iterator[None]:
    """Read inside it what others wrote.

    Raises:
        InputError: the file is not there, or is not what it says it is.
        ResourceError: it may not be read.
    """
    try:
        found = os.stat(path)
        # Into a pipe nobody may ever write, and a device has no end.
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise InputError("is not a regular file", str(path), "save it as one")
        if found.st_size > max(_SMALL_BYTES, _MOST_HOLES * 512 * getattr(found, "st_blocks", found.st_size)):
            raise InputError(f"{found.st_size} bytes, nearly all of them a hole", str(path), "is it the right file?")
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("no such file", str(path)) from None
    except PermissionError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    except MemoryError:
        raise InputError("it does not fit into memory", str(path)) from None
    except Exception as error:  # every reader of a format has kinds of its own
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise InputError(f"{what}: {reason or type(error).__name__}", str(path), fix) from None

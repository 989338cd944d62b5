"""Files that appear whole or not at all: written beside their place under another name, on the disk, then renamed.

A file that moesim wrote bears a mark (its schema, its generator). One that is to take the place of a file without one,
where it has one itself, is refused: it would be somebody else's that is lost.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from moesim.errors import ResourceError

_NEAR = 1 << 16
LEFTOVER = re.compile(r"\..+\.moesim-\w+")
"""What a kill may leave: names of files that were to be renamed."""
command_line: list[str] = []
"""Its words, where one began this process: a file that is written may be only one of them."""


def is_marked(content: bytes) -> bool:
    """Return whether a file that has these bytes, or begins and ends so, bears a mark of moesim's."""
    head, tail = content[:_NEAR], content[-_NEAR:]
    if head.startswith(b"{"):
        return b'"schema"' in head or b'"schema"' in tail
    if head.startswith((b"PAR1", b"PK\x03\x04")):
        return b"moesim_schema" in tail
    if head.startswith(b"<!doctype html>"):
        return b'name="generator" content="moesim"' in head
    return head.startswith((b"<?xml", b"\x89PNG")) and b"moesim" in head[:2048]


def is_ours(path: Path) -> bool:
    """Return whether a file bears a mark of moesim's; False for what is no plain file."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_NEAR)
        file.seek(max(len(head), os.fstat(file.fileno()).st_size - _NEAR))
        return is_marked(head + file.read())


def check_replaceable(path: Path | None) -> None:
    """Refuse a place for a page where a file of somebody else's is; before the work, rather than after it.

    Raises:
        ResourceError: see above.
    """
    if path is not None and path.exists() and not is_ours(path):
        raise ResourceError(f"{path} exists and is not a page of moesim's: choose another place")


@contextmanager
def telling(place: Path) -> Iterator[None]:
    """Write inside it.

    Raises:
        ResourceError: the disk or the system refuses; ``place`` is named.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(f"cannot write {place}: {error.strerror or error}") from error
    except RecursionError:
        raise ResourceError(f"cannot write {str(place)[:60]}...: too many folders in each other") from None


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file to write; at the end it is on the disk."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def settle(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_input(path: Path) -> bool:
    """Return whether the command line names a file beside naming it as the place to write: it or its folder."""
    words = [Path(word) for text in command_line for word in {text, text.partition("=")[2]} if word]
    with contextlib.suppress(OSError, ValueError):
        named = [word for word in words if word.exists() and path.exists() and word.samefile(path)]
        folders = [word for word in words if word.is_dir() and word.samefile(path.parent)]
        return len(named) > 1 or (bool(named) and bool(folders))
    return False


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write single files (paths relative to ``folder``), each whole or not at all.

    Raises:
        ResourceError: a place cannot be written, or holds what is somebody else's.
    """
    for name, data in files.items():
        path = folder / name
        if is_marked(data):
            check_replaceable(path)
        elif is_input(path):
            raise ResourceError(f"{path} is what is read: choose another place")
        with telling(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.moesim-", dir=path.parent)
            os.close(handle)
            try:
                with written(Path(temporary)) as file:
                    file.write(data)
                os.chmod(temporary, 0o644)
                os.replace(temporary, path)
                settle(path.parent)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

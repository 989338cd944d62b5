"""Files that appear whole or not at all: written beside their place under another name, on the disk, then renamed.

A file that moesim wrote says so and of which kind it is, by a mark; that of a text has a digest of the rest, so that a
file that somebody has edited is theirs. What is written takes the place of a file of its own kind, as moesim wrote it,
and of nothing else. Forms that have no room for a mark replace nothing: what stands there may only be the same.
"""

import contextlib
import hashlib
import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from moesim.errors import ResourceError

PAGE, PICTURE, PART = "page", "picture", "file of a result"
"""Kinds whose files have had marks of their own for long."""
LEFTOVER = re.compile(r"\..+\.moesim-\w+")
"""What a kill may leave: names of files that were to be renamed."""
command_line: list[str] = []
"""Its words, where one began this process: a file that is written may be only one of them."""
_NEAR = 1 << 16
_TEXT = re.compile(rb'(?:# |<!-- |{"made_by": ")moesim, ([a-z -]+), ([0-9a-f]{16})(?: -->|",)?\n')
_BINARY = re.compile(rb"made by moesim, ([a-z ]+);")
_SCHEMA = re.compile(rb'"schema": ?"[0-9]+"')


def marked(kind: str, text: bytes) -> bytes:
    """Return a text of a form that has comments (``#``; ``<!--`` in XML), or a JSON object, with its mark in front."""
    left, right = {"{": ('{"made_by": "', '",'), "<": ("<!-- ", " -->")}.get(chr(text[0]), ("# ", ""))
    rest = text.removeprefix(b"{")
    return f"{left}moesim, {kind}, {hashlib.sha256(rest).hexdigest()[:16]}{right}\n".encode() + rest


def mark(kind: str) -> str:
    """Return the mark for the end of a binary file: a comment of its archive, an entry of its metadata."""
    return f"made by moesim, {kind};"


def marked_archive(kind: str, archive: bytes) -> bytes:
    """Return a zip (``.npz``) with its mark."""
    stream = io.BytesIO(archive)
    with zipfile.ZipFile(stream, "a") as opened:
        opened.comment = mark(kind).encode()
    return stream.getvalue()


def kind_of(content: bytes) -> str:
    """Return the kind that a file which has these bytes, or begins and ends so, says it is; "" without a mark."""
    head, tail = content[:_NEAR], content[-_NEAR:]
    if head.startswith((b"PAR1", b"PK\x03\x04")):
        found = _BINARY.search(tail)
        return found[1].decode() if found else PART * (b"moesim_schema" in tail)
    if found := _TEXT.match(head):
        return found[1].decode()
    if head.startswith(b"{"):
        return PART * bool(_SCHEMA.search(head) or _SCHEMA.search(tail))
    if head.startswith(b"<!doctype html>"):
        return PAGE * (b'name="generator" content="moesim"' in head)
    sign = {b"<?xml": b"<dc:title>moesim</dc:title>", b"\x89PNG": b"tEXtSoftware\0moesim"}.get(head[:5].rstrip(b"\r"))
    return PICTURE * (sign is not None and sign in head[:2048])


def is_ours(path: Path, kind: str = "") -> bool:
    """Return whether a file is as moesim wrote it, and of this kind if one is named; False for no plain file."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_NEAR)
        file.seek(max(len(head), os.fstat(file.fileno()).st_size - _NEAR))
        found = kind_of(head + file.read())
        if text := _TEXT.match(head):
            file.seek(text.end())
            if hashlib.file_digest(file, "sha256").hexdigest()[:16] != text[2].decode():
                return False
    return bool(found) and kind in ("", found)


def check_replaceable(path: Path | None, kind: str, content: bytes | None = None) -> None:
    """Refuse a place where anything is but a file of this kind, as moesim wrote it: before the work, and when it ends.

    With ``kind`` "" its form has no room for a mark: what is there may only have the same ``content``, once known.

    Raises:
        ResourceError: see above, or the place is what the command line reads.
    """
    if path is None or not os.path.lexists(path):
        return
    if _is_input(path, kind):
        raise ResourceError(f"{path} is what is read: choose another place")
    if kind and not is_ours(path, kind):
        raise ResourceError(f"{path} exists and is not a {kind} as moesim wrote it: choose another place")
    plain = path.is_file() and not path.is_symlink()
    if not kind and not (plain and content in (None, path.read_bytes())):
        raise ResourceError(f"{path} exists, and nothing in such a file says whose it is: choose another place")


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


def _is_input(path: Path, kind: str) -> bool:
    """Return whether the command line names a file, or for routing its folder, beside naming it as the place."""
    words = [Path(word) for text in command_line for word in {text, text.partition("=")[2]} if word]
    with contextlib.suppress(OSError, ValueError):
        named = [word for word in words if word.exists() and path.exists() and word.samefile(path)]
        folders = [word for word in words if word.is_dir() and word.samefile(path.parent)]
        return len(named) > 1 or bool(named and folders and kind.startswith("routing"))
    return False


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write single files (paths relative to ``folder``), each whole or not at all.

    Raises:
        ResourceError: a place cannot be written, or holds what is somebody else's; then none is written.
    """
    for name, data in files.items():
        check_replaceable(folder / name, kind_of(data), data)
    for name, data in files.items():
        path = folder / name
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

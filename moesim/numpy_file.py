"""Arrays from a user's ``.npy`` or ``.npz`` file, read without trusting the file.

No pickle; the archive's member count, declared sizes and compression ratio are checked before anything is
allocated, and whatever does not fit is an InputError that names the file.
"""

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from moesim.broken_files import reading
from moesim.errors import InputError

MAX_BYTES = 8 << 30
MAX_MEMBERS = 1000
MAX_RATIO = 200
RATIO_EXEMPT_BYTES = 1 << 20
"""Small arrays of zeros legitimately compress further than MAX_RATIO."""
LARGE_BYTES, LARGE_RATIO = 256 << 20, 20
"""What large ones may compress at most."""


def read_array(path: str | Path, member: str, most_bytes: int | None = None) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, or the array named ``member`` of a ``.npz`` file.

    Raises InputError for a missing, foreign, truncated or oversized file, an absent member, or one that holds
    Python objects.
    """
    file, where = Path(path), str(path)
    with reading(file), file.open("rb") as stream:
        if is_zip(stream.read(4)):
            found = read_npz(file, member)
            if member not in found:
                there = ", ".join(member_names(file)[:10])
                raise InputError(f"no array {member!r}", where, f"it has {there or 'none'}")
            return found[member]
        stream.seek(0)
        return _read_plain(stream, file.stat().st_size, "", where, most_bytes)


def read_npz(path: Path, only: str | None = None, small: int = RATIO_EXEMPT_BYTES) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive by name, all or the one that is asked for.

    Up to ``small`` bytes it may unpack to whatever its size.

    Raises InputError as ``read_array`` does.
    """
    where, file_bytes = str(path), path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise InputError(f"{len(infos)} members", where, f"at most {MAX_MEMBERS} are read")
        declared = sum(info.file_size for info in infos)
        if declared > MAX_BYTES:
            raise InputError(f"members declare {declared} bytes", where, f"at most {MAX_BYTES} are read")
        large = declared > max(LARGE_BYTES, LARGE_RATIO * file_bytes)
        if large or declared > max(MAX_RATIO * file_bytes, small):
            most = LARGE_RATIO if large else MAX_RATIO
            raise InputError(f"{file_bytes} bytes would unpack to {declared}, more than {most}:1", where)
        arrays: dict[str, NDArray[Any]] = {}
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in arrays:
                raise InputError(f"unexpected member {info.filename!r}", where)
            if info.file_size > max(MAX_RATIO * info.compress_size, small):
                raise InputError(f"member {name!r} is compressed more than {MAX_RATIO}:1", where)
            if only in (None, name):
                with archive.open(info) as stream:
                    arrays[name] = _read_plain(stream, info.file_size, f"member {name!r} ", where)
                    stream.read(1)  # reaches the end, where the checksum is compared
    return arrays


def is_zip(head: bytes) -> bool:
    """Return whether a file that begins so is a zip, as ``.npz`` files are."""
    return head[:4] == b"PK\x03\x04"


def is_numpy_array(head: bytes) -> bool:
    """Return whether a file that begins so is a ``.npy`` file."""
    return head[:6] == b"\x93NUMPY"


def member_names(path: Path) -> list[str]:
    """Return the names of the files in an archive, arrays without their ``.npy``.

    Raises:
        InputError: it is no archive.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _read_plain(stream: IO[bytes], size: int, name: str, where: str, most: int | None = None) -> NDArray[Any]:
    """Read one .npy stream of ``size`` bytes whose header must announce exactly what follows it."""
    most = MAX_BYTES if most is None else most
    if size > most:
        raise InputError(f"{name}{size} bytes", where, f"at most {most} are read")
    with reading(where, "write it with numpy.save or savez", f"{name}not a numpy array"):
        plain = np.lib.format.read_magic(stream) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if plain else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings(action="ignore"):  # numpy reads it as Python, which has its own word on escapes
            shape, fortran, dtype = header(stream)
    if dtype.hasobject:
        raise InputError(f"{name}holds Python objects", where, "store plain numbers")
    announced, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    data = stream.read(held) if announced == held and min(shape, default=0) >= 0 else b""
    if len(data) != announced:
        what = f"{name}announces shape {shape} of {dtype}, holds {held} bytes"
        raise InputError(what, where, "is it truncated?")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

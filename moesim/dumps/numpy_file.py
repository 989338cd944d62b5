"""Arrays from a user's ``.npy`` or ``.npz`` file, read without trusting the file.

No pickle; the archive's member count, declared sizes and compression ratio are checked before anything is
allocated, and whatever does not fit is an InputError that names the file.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.broken_files import reading
from moesim.errors import InputError

MAX_BYTES = 4 << 30
MAX_MEMBERS = 1000
MAX_RATIO = 200
RATIO_EXEMPT_BYTES = 1 << 20
"""Small arrays of zeros legitimately compress further than MAX_RATIO."""


def read_array(path: str | Path, member: str) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, or the array named ``member`` of a ``.npz`` file.

    Raises InputError for a missing, foreign, truncated or oversized file, an absent member, or one that holds
    Python objects.
    """
    file = Path(path)
    with reading(file), file.open("rb") as stream:
        if not is_zip(stream.read(4)):
            stream.seek(0)
            return _read_plain(stream, file.stat().st_size, str(file))
        with zipfile.ZipFile(stream) as archive:
            return _read_member(archive, member, str(file))


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


def _read_member(archive: zipfile.ZipFile, member: str, where: str) -> NDArray[Any]:
    infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{len(infos)} members", where, f"at most {MAX_MEMBERS} are read")
    if member not in infos:
        raise InputError(f"no array {member!r}", where, f"it has {', '.join(list(infos)[:10]) or 'none'}")
    info = infos[member]
    if info.file_size > max(MAX_RATIO * info.compress_size, RATIO_EXEMPT_BYTES):
        raise InputError(f"{member!r} is compressed more than {MAX_RATIO}:1", where)
    with archive.open(info) as stream:
        array = _read_plain(stream, info.file_size, where)
        stream.read(1)  # reaches the end, where the checksum is compared
    return array


def _read_plain(stream: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """Read one .npy stream of ``size`` bytes whose header must announce exactly what follows it."""
    if size > MAX_BYTES:
        raise InputError(f"{size} bytes", where, f"at most {MAX_BYTES} are read")
    with reading(where, "write it with numpy.save or savez", "not a numpy array"):
        plain = np.lib.format.read_magic(stream) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if plain else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    if dtype.hasobject:
        raise InputError("holds Python objects", where, "store plain numbers")
    data = stream.read(size)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise InputError(f"announces shape {shape} of {dtype}, holds {len(data)} bytes", where, "is it truncated?")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

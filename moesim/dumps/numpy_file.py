"""Arrays from a user's ``.npy`` or ``.npz`` file, read without trusting the file.

No pickle; the archive's member count, declared sizes and compression ratio are checked before anything is
allocated, and whatever does not fit is an InputError that names the file.
"""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

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
    try:
        with file.open("rb") as stream:
            if is_zip(stream.read(4)):
                return _read_member(file, member)
            stream.seek(0)
            return _read_plain(stream, file.stat().st_size, str(file))
    except FileNotFoundError:
        raise InputError("no such file", where=str(file)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"cannot be read: {error}", str(file), "is it truncated or of another kind?") from None


def is_zip(head: bytes) -> bool:
    """Return whether a file that begins so is a zip, as ``.npz`` files are."""
    return head[:4] == b"PK\x03\x04"


def is_numpy_array(head: bytes) -> bool:
    """Return whether a file that begins so is a ``.npy`` file."""
    return head[:6] == b"\x93NUMPY"


def member_names(path: Path) -> list[str]:
    """Return the names of the arrays in an archive.

    Raises:
        InputError: it is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [info.filename.removesuffix(".npy") for info in archive.infolist()]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", str(path), "is it truncated or of another kind?") from None


def number_layers(layers: Sequence[int] | None, count: int, where: str) -> tuple[int, ...]:
    """Return the numbers of ``count`` layers of data: those given, or 0, 1, ...

    Raises InputError unless as many different numbers as layers are given.
    """
    numbers = tuple(range(count)) if layers is None else tuple(int(layer) for layer in layers)
    if len(numbers) != count or len(set(numbers)) != count:
        raise InputError(f"{count} layers of data for the layers {numbers}", where, "name each once")
    return numbers


def _read_member(file: Path, member: str) -> NDArray[Any]:
    where = str(file)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise InputError(f"{len(infos)} members", where, f"at most {MAX_MEMBERS} are read")
        names = [info.filename.removesuffix(".npy") for info in infos]
        if member not in names:
            raise InputError(f"no array {member!r}", where, f"it has {', '.join(names[:10]) or 'none'}")
        info = infos[names.index(member)]
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
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except ValueError as error:
        raise InputError(f"not a numpy array: {error}", where, "write it with numpy.save or savez") from None
    if dtype.hasobject:
        raise InputError("holds Python objects", where, "store plain numbers")
    data = stream.read(size)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise InputError(f"announces shape {shape} of {dtype}, holds {len(data)} bytes", where, "is it truncated?")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

"""Names, values and float tensors of a GGUF file (version 2 or 3, little endian), as llama.cpp writes imatrix files.

Only what an importance matrix holds is read: scalars, text and arrays in the header, F32 tensors.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _F32 = 8, 9, 0
_MOST = 1_000_000


class _Reader:
    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.at, self.where = data, 0, where

    def scalar(self, form: str) -> Any:
        size = struct.calcsize(form)
        if self.at + size > len(self.data):
            raise InputError("the header ends early", self.where, "is it truncated?")
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return value

    def text(self) -> str:
        length = self.scalar("<Q")
        if length > len(self.data) - self.at:
            raise InputError(f"a text of {length} bytes", self.where, "is it truncated?")
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, count = self.scalar("<I"), self.scalar("<Q")
            if count > min(_MOST, len(self.data) - self.at) or inner == _ARRAY:
                raise InputError(f"an array of {count} values in the header", self.where)
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise InputError(f"a value of the unknown type {kind}", self.where)
        return self.scalar(_SCALARS[kind])


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Return the header's values and the F32 tensors by name, shapes in numpy's order (GGML's reversed).

    Raises:
        InputError: not a GGUF file of version 2 or 3, or one that announces more than it holds.
    """
    where = str(path)
    try:
        raw: NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where) from None
    reader = _Reader(raw.data, where)
    reader.at = 4
    version, n_tensors, n_values = reader.scalar("<I"), reader.scalar("<Q"), reader.scalar("<Q")
    if version not in (2, 3):
        raise InputError(f"GGUF version {version}", where, "2 and 3 are read")
    if max(n_tensors, n_values) > _MOST:
        raise InputError(f"{n_tensors} tensors and {n_values} values announced", where)
    values = {}
    for _ in range(n_values):
        name = reader.text()
        values[name] = reader.value(reader.scalar("<I"))
    entries = []
    for _ in range(n_tensors):
        name, axes = reader.text(), reader.scalar("<I")
        if axes > 4:
            raise InputError(f"{name!r:.60} has {axes} axes", where)
        shape = tuple(reader.scalar("<Q") for _ in range(axes))[::-1]
        entries.append((name, shape, reader.scalar("<I"), reader.scalar("<Q")))
    align = values.get("general.alignment", 32)
    if not isinstance(align, int) or not 1 <= align <= 1 << 16:
        raise InputError("general.alignment is no alignment", where)
    begin = -(-reader.at // align) * align
    tensors = {}
    for name, shape, kind, offset in entries:
        if kind != _F32:
            continue
        at, end = begin + offset, begin + offset + 4 * math.prod(shape)
        if end > len(raw):
            raise InputError(f"{name!r:.60} lies beyond the end", where, "is it truncated?")
        tensors[name] = np.frombuffer(raw, "<f4", math.prod(shape), at).reshape(shape)
    return values, tensors

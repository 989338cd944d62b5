"""Arrays of a ``.safetensors`` file: an 8-byte length, a JSON header, raw little-endian bytes.

Offsets and sizes are checked against the file before anything is allocated.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.bounded_text import read_json
from moesim.broken_files import reading
from moesim.dumps.torch_file import from_bfloat16
from moesim.errors import InputError

MAX_HEADER_BYTES = 64 << 20
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def is_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file that begins so (9 bytes at least) and has this size may be one."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays by name (bfloat16 as float32), as views of the mapped file.

    Raises:
        InputError: the header is no header, or announces what the file does not hold.
    """
    where = str(path)
    with reading(path, "is it a whole safetensors file?"):
        raw = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(raw[:8].tobytes(), "little")
        if length > min(len(raw) - 8, MAX_HEADER_BYTES):
            raise InputError(f"a header of {length} bytes in a file of {len(raw)}", where, "is it truncated?")
        header = read_json(raw[8 : 8 + length].tobytes().decode(), where)
        data = raw[8 + length :]
        arrays = {name: entry for name, entry in header.items() if name != "__metadata__"}
        read = {name: _array(entry, data, name, where) for name, entry in arrays.items()}
    spans = sorted(tuple(entry["data_offsets"]) for entry in arrays.values())
    if [0, *(end for _, end in spans)] != [*(begin for begin, _ in spans), len(data)]:
        raise InputError("its arrays overlap, or leave bytes between them", where, "is it damaged?")
    return read


def _array(entry: Any, raw: NDArray[np.uint8], name: str, where: str) -> NDArray[Any]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPES:
        raise InputError(f"{name} is of type {dtype!r:.20}", where, f"{', '.join(_DTYPES)} are read")
    if any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
        what = f"{name} has the shape {shape!r:.40} at {[begin, end]!r:.40}"
        raise InputError(what, where, "whole numbers, 0 or more, are needed")
    needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if end - begin != needed or end > len(raw):
        raise InputError(f"{name} announces {needed} bytes, the file holds {min(end, len(raw)) - begin}", where)
    values = raw[begin:end].view(_DTYPES[dtype]).reshape(shape)
    return from_bfloat16(values) if dtype == "BF16" else np.asarray(values)

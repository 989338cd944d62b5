"""Selections per expert in an importance matrix of llama.cpp (``imatrix.gguf``).

``blk.L.ffn_gate_exps.weight.counts`` says how often each expert of layer L was selected; up and down projections repeat
it, so that one of them is read. The older ``.dat`` form has one count per tensor and no load of experts. Of GGUF
(version 2 or 3, little endian) only what such a file holds is read: values of the header and F32 tensors.
"""

import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.broken_files import reading
from moesim.dumps.routing_trace import RoutingTrace, Source, Told, trace_of_counts
from moesim.errors import InputError

_COUNTS = re.compile(r"blk\.([0-9]+)\.ffn_(gate|up|gate_up|down)_exps\.weight\.counts")
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _F32 = 8, 9, 0
_MOST = 1_000_000


def read_imatrix(path: Path, told: Told) -> RoutingTrace:
    """Return the counts of all layers with experts.

    Raises:
        InputError: a GGUF file without them.
    """
    where = str(path)
    values, tensors = read_gguf(path)
    layers: dict[int, np.ndarray] = {}
    for name in sorted(tensors, key=lambda name: ("gate" not in name, name)):  # gate first, where there is one
        found = _COUNTS.fullmatch(name)
        if found:
            layers.setdefault(int(found[1]), tensors[name].reshape(-1))
    if not layers:
        kind = values.get("general.type")
        what = "no counts of experts" if kind == "imatrix" else f"a GGUF file of the type {kind!r:.40}"
        raise InputError(what, where, "an importance matrix of an MoE model is needed")
    if len({len(row) for row in layers.values()}) > 1:
        raise InputError("layers have different numbers of experts", where)
    counts = np.stack([layers[layer] for layer in sorted(layers)])[None].astype(np.float64)
    return trace_of_counts(counts, sorted(layers), told, Source("llama.cpp", "imatrix"), where)


class _Header:
    """The values at the beginning, one after the other."""

    def __init__(self, raw: NDArray[np.uint8], where: str) -> None:
        self.data, self.at, self.where = raw.data, 4, where

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
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
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = self.scalar("<I"), self.scalar("<Q")
        if count > min(_MOST, len(self.data) - self.at) or inner == _ARRAY:
            raise InputError(f"an array of {count} values in the header", self.where)
        return [self.value(inner) for _ in range(count)]


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Return the header's values and the F32 tensors by name, shapes in numpy's order (GGML's reversed).

    Raises:
        InputError: not a GGUF file of version 2 or 3, or one that announces more than it holds.
    """
    where = str(path)
    with reading(path):
        raw: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        header = _Header(raw, where)
        version, n_tensors, n_values = header.scalar("<I"), header.scalar("<Q"), header.scalar("<Q")
        if version not in (2, 3):
            raise InputError(f"GGUF version {version}", where, "2 and 3 are read")
        if max(n_tensors, n_values) > _MOST:
            raise InputError(f"{n_tensors} tensors and {n_values} values announced", where)
        values = {header.text(): header.value(header.scalar("<I")) for _ in range(n_values)}
        entries = []
        for _ in range(n_tensors):
            name, axes = header.text(), header.scalar("<I")
            if axes > 4:
                raise InputError(f"{name!r:.60} has {axes} axes", where)
            shape = tuple(header.scalar("<Q") for _ in range(axes))[::-1]
            entries.append((name, shape, header.scalar("<I"), header.scalar("<Q")))
    align = values.get("general.alignment", 32)
    if not isinstance(align, int) or not 1 <= align <= 1 << 16:
        raise InputError("general.alignment is no alignment", where)
    begin, tensors = -(-header.at // align) * align, dict[str, NDArray[np.float32]]()
    for name, shape, _, offset in (entry for entry in entries if entry[2] == _F32):
        if begin + offset + 4 * math.prod(shape) > len(raw):
            raise InputError(f"{name!r:.60} lies beyond the end", where, "is it truncated?")
        tensors[name] = np.frombuffer(raw, "<f4", math.prod(shape), begin + offset).reshape(shape)
    return values, tensors

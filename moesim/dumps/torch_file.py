"""Tensors, dicts, lists, numbers and text from a file of ``torch.save``; torch is not needed and nothing is unpickled.

Such a file is a zip: ``data.pkl`` says what is where, ``data/N`` are the raw bytes of the storages. The pickle is read
as what it is, a list of instructions (``pickletools.genops``), of which those are followed that build plain data; the
callables that it may name are the dozen below, none of which is called. Whatever else it names is refused: a pickle
that runs code has to name what it runs.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.broken_files import reading
from moesim.errors import InputError

MAX_PICKLE_BYTES = 64 << 20
MAX_INSTRUCTIONS = 2_000_000
MAX_MEMBERS = 100_000
MAX_BYTES = 8 << 30

_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "bf16", "int64": "i8", "int32": "i4", "int16": "i2",
    "int8": "i1", "uint8": "u1", "bool": "?", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}  # fmt: skip
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")


class _Name(NamedTuple):
    """Something importable that the pickle names."""

    module: str
    name: str


class _Storage(NamedTuple):
    dtype: str
    key: str


_ALLOWED = (
    {_Name("torch", name) for name in (*_STORAGES, *_DTYPES, "Size")}
    | {_Name("torch._utils", name) for name in (*_TENSORS, "_rebuild_parameter")}
    | {_Name("torch.storage", name) for name in ("UntypedStorage", "TypedStorage")}
    | {_Name("collections", name) for name in ("OrderedDict", "defaultdict")}
    | {_Name(module, name) for module in ("builtins", "__builtin__") for name in ("list", "dict", "set", "int")}
)


def is_torch_file(path: Path) -> bool:
    """Return whether a zip was written by ``torch.save``."""
    with reading(path), zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def read_torch(path: Path) -> Any:
    """Return the plain data of a file of ``torch.save``, its tensors as arrays (bfloat16 as float32).

    Raises:
        InputError: a pickled object, a truncated or oversized file, sizes that the bytes do not hold.
    """
    where = str(path)
    with reading(path), zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if len(sizes) > MAX_MEMBERS:
            raise InputError(f"{len(sizes)} members", where, f"at most {MAX_MEMBERS} are read")
        pickles = [name for name in sizes if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise InputError("not a file of torch.save", where)
        whole = path.stat().st_size
        for name, size in sizes.items():
            # torch stores, it never compresses: a member larger than the file is no torch member.
            if size > min(whole, MAX_BYTES):
                raise InputError(f"{name} announces {size} bytes, the file has {whole}", where)
        if sizes[pickles[0]] > MAX_PICKLE_BYTES:
            raise InputError(f"a pickle of more than {MAX_PICKLE_BYTES >> 20} MiB", where)
        return _Machine(archive, pickles[0].removesuffix("data.pkl"), where).run(archive.read(pickles[0]))


class _Machine:
    """Follows the instructions of one pickle."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, where: str) -> None:
        self.archive, self.members, self.prefix, self.where = archive, set(archive.namelist()), prefix, where
        big = f"{prefix}byteorder" in self.members and archive.read(f"{prefix}byteorder") == b"big"
        self.order = ">" if big else "<"
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.read: dict[str, NDArray[Any]] = {}

    def run(self, pickle: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if opcode.name == "STOP":
                return self.stack.pop()
            if count == MAX_INSTRUCTIONS:
                raise InputError(f"a pickle of more than {MAX_INSTRUCTIONS} instructions", self.where)
            self.follow(opcode.name, argument)
        raise InputError("the pickle has no end", self.where, "is it truncated?")

    def follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "MARK":
            self.marked.append(stack)
            self.stack = []
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in _PLAIN:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("TUPLE", "LIST"):
            items = self.popped_to_mark()
            self.stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("APPEND", "APPENDS"):
            items = self.popped_to_mark() if name == "APPENDS" else [stack.pop()]
            self.top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.popped_to_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self.top(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(self.allowed(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(self.allowed(stack.pop(-2), stack.pop()))
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(self.built(called, arguments))
        elif name in ("BUILD", "POP"):
            stack.pop()  # attributes that somebody hung on a dict: not data
        elif name not in ("PROTO", "FRAME"):
            raise InputError(f"the pickle holds the instruction {name}", self.where, "plain data and tensors are read")

    def popped_to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise InputError("a list or dict is filled that is none", self.where)
        return self.stack[-1]

    def allowed(self, module: str, name: str) -> _Name:
        named = _Name(module, name)
        if named not in _ALLOWED:
            fix = "only tensors, dicts, lists, numbers and text are read"
            raise InputError(f"holds a pickled object ({module}.{name})", self.where, fix)
        return named

    def storage(self, identity: Any) -> _Storage:
        kind, storage, key, _device, _length = identity  # the device it was saved from does not matter
        if kind != "storage" or not isinstance(storage, _Name):
            raise InputError("a reference that is no storage", self.where)
        return _Storage(_STORAGES.get(storage.name, "u1"), str(key))

    def built(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, _Name):
            raise InputError("a call of what is no name", self.where)
        if called.name in _TENSORS:
            return self.tensor(*arguments)
        if called.name == "_rebuild_parameter":
            return arguments[0]
        if called.name in ("OrderedDict", "defaultdict", "dict"):
            return dict(arguments[0]) if called.name != "defaultdict" and arguments else {}
        if called.name in ("Size", "list", "set"):
            return list(arguments[0]) if arguments else []
        raise InputError(f"a call of {called.name}", self.where)

    def tensor(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Any:
        dtype = next((_DTYPES[item.name] for item in rest if isinstance(item, _Name)), storage.dtype)
        flat = self.bytes_of(storage.key)
        item = 2 if dtype == "bf16" else np.dtype(dtype).itemsize
        flat = flat[: len(flat) // item * item].view(self.order + ("u2" if dtype == "bf16" else dtype))
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        elements = int(np.prod(size, dtype=object)) if size else 1
        if min((offset, *size, *stride, 0)) < 0 or (elements and last >= len(flat)) or elements > max(len(flat), 1):
            what = f"a tensor of shape {list(size)} in a storage of {len(flat)} elements"
            raise InputError(what, self.where, "is it truncated?")
        steps = tuple(flat.itemsize * step for step in stride)
        view = np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False)
        return from_bfloat16(view) if dtype == "bf16" else view

    def bytes_of(self, key: str) -> NDArray[np.uint8]:
        if key not in self.read:
            name = f"{self.prefix}data/{key}"
            if name not in self.members:
                raise InputError(f"no member {name}", self.where, "is it truncated?")
            self.read[key] = np.frombuffer(self.archive.read(name), np.uint8)
        return self.read[key]


_PLAIN = frozenset((
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "INT", "LONG", "FLOAT", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINUNICODE", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING", "STRING",
))  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}


def from_bfloat16(raw: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 of the 16 bits of bfloat16, which are the upper half of a float32."""
    wide: NDArray[np.float32] = (np.ascontiguousarray(raw).astype(np.uint32) << 16).view(np.float32)
    return wide

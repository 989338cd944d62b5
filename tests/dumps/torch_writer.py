"""Writes what ``torch.save`` writes, without torch: arrays as tensors, everything else as plain data."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from unittest import mock

import numpy as np

STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip


class Bfloat16(np.ndarray):
    """Bits of bfloat16 as uint16, to be saved as such."""


class _Storage:
    def __init__(self, kind, data, device):
        self.kind, self.data, self.device = kind, data, device


def _modules():
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*_):
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = rebuild
    return {"torch": torch, "torch._utils": utils}


def save(path, data, device="cpu", protocol=2, prefix="archive"):
    """Write ``data`` to ``path``; tensors claim to come from ``device``."""
    storages = []
    modules = _modules()
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, _Storage):
                return None
            storages.append(item.data)
            kind = getattr(modules["torch"], item.kind)
            return ("storage", kind, str(len(storages) - 1), item.device, item.data.size)

        def reducer_override(self, item):
            if not isinstance(item, np.ndarray):
                return NotImplemented
            name = "bfloat16" if isinstance(item, Bfloat16) else item.dtype.name
            stride = tuple(step // item.itemsize for step in item.strides)
            flat = np.ascontiguousarray(item if item.flags.c_contiguous else item.base)
            storage = _Storage(STORAGES[name], flat, device)
            return modules["torch._utils"]._rebuild_tensor_v2, (storage, 0, item.shape, stride, False, OrderedDict())

    with mock.patch.dict(sys.modules, modules):
        Pickler(stream, protocol).dump(data)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{prefix}/data.pkl", stream.getvalue())
        archive.writestr(f"{prefix}/byteorder", "little")
        for number, flat in enumerate(storages):
            archive.writestr(f"{prefix}/data/{number}", flat.tobytes())
        archive.writestr(f"{prefix}/version", "3\n")
    return path

"""Files that lie, or want to run code, are refused in one line."""

import io
import os
import pickle
import pickletools
import struct
import zipfile

import forms
import numpy as np
import pytest
import torch_writer

from moesim.dumps import read_routing
from moesim.dumps.torch_file import read_torch
from moesim.errors import InputError


class Opens:
    def __reduce__(self):
        return os.system, ("touch /tmp/opened",)


def archive(path, pickled, members=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in members:
            file.writestr(name, content)
    return path


def refused(path, says):
    with pytest.raises(InputError, match=says) as caught:
        read_routing(path)
    assert "\n" not in str(caught.value)


def test_a_pickled_object_is_named_and_never_called(tmp_path):
    refused(archive(tmp_path / "x.pt", pickle.dumps({"logical_count": Opens()}, 2)), r"a pickled object \(.*system\)")
    refused(archive(tmp_path / "x.pt", pickle.dumps(Opens(), 4)), "a pickled object")
    with pytest.raises(InputError, match="a pickled object"):
        read_torch(archive(tmp_path / "x.pt", pickle.dumps(np.ones(3), 2)))


@pytest.mark.parametrize(
    "pickled",
    [b"", b"\x80\x02", b"\x80\x02]", b"\x80\x02}q\0.", b"\x80\x02e.", b"\x80\x02(e.", b"\x80\x02K\x01b.",
     b"\x80\x02tR.", b"\x80\x02h\x07.",
     b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03tR.", b"\x80\x02cos\nsystem\n."],
)  # fmt: skip
def test_disordered_pickles_are_broken_files(tmp_path, pickled):
    refused(archive(tmp_path / "x.pt", pickled), "x.pt")


def test_every_shorter_pickle_and_every_changed_byte_is_refused_or_read(tmp_path):
    forms.sglang_per_pass(tmp_path, forms.routing())
    file = next(tmp_path.iterdir())
    with zipfile.ZipFile(file) as whole:
        pickled = whole.read("archive/data.pkl")
        members = [(name, whole.read(name)) for name in whole.namelist() if name != "archive/data.pkl"]
    assert pickletools.optimize(pickled)
    rng = np.random.default_rng(0)
    for turn in range(300):
        changed = bytearray(pickled)
        if turn % 3:
            changed[rng.integers(len(changed))] = rng.integers(256)
        else:
            changed = changed[: rng.integers(len(changed))]
        try:
            read_torch(archive(tmp_path / "x.pt", bytes(changed), members))
        except InputError as error:
            assert "\n" not in str(error)


def test_a_tensor_larger_than_its_bytes_is_refused_before_anything_is_allocated(tmp_path):
    path = torch_writer.save(tmp_path / "x.pt", {"logical_count": np.ones((2, 2, 2), np.int32)})
    with zipfile.ZipFile(path) as whole:
        pickled = whole.read("archive/data.pkl")
        members = [(name, whole.read(name)) for name in whole.namelist() if name != "archive/data.pkl"]
    huge = pickled.replace(b"K\x02K\x02K\x02\x87", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87", 1)
    assert huge != pickled
    refused(archive(tmp_path / "x.pt", huge, members), "in a storage of 8 elements")
    refused(archive(tmp_path / "x.pt", pickled, members[:1]), "no member archive/data/0")


def test_a_pickle_of_endless_instructions_ends_soon(tmp_path):
    refused(archive(tmp_path / "x.pt", b"\x80\x02" + b"(" * 20_000_000 + b"."), "more than 2000000 instructions")


def test_members_that_announce_gigabytes_are_refused(tmp_path):
    path = archive(tmp_path / "x.pt", pickle.dumps({}, 2), [("archive/data/0", b"\0" * 16)])
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 3_000_000_000)
    path.write_bytes(raw)
    refused(path, "announces 3000000000 bytes")


def test_a_pickle_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"logical_count": [1]}))
    refused(tmp_path / "x.pt", "a pickle that is no zip; load it and write it again")


def test_archives_of_objects_and_of_lies_are_refused(tmp_path):
    np.savez(tmp_path / "o.npz", topk_idx=np.array([{}], object))
    refused(tmp_path / "o.npz", "holds Python objects")
    whole = io.BytesIO()
    np.savez(whole, topk_idx=np.ones((4, 4)))
    (tmp_path / "t.npz").write_bytes(whole.getvalue()[:-20])
    refused(tmp_path / "t.npz", "cannot be read")
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as file:
        file.writestr("../../escape.npy", b"x")
    refused(tmp_path / "e.npz", "not a numpy array")
    assert not (tmp_path.parent.parent / "escape.npy").exists()


@pytest.mark.parametrize(
    "header",
    [
        b'{"counts": {"dtype": "I64", "shape": [1000000000], "data_offsets": [0, 8000000000]}}',
        b'{"counts": {"dtype": "I64", "shape": [-1], "data_offsets": [0, 8]}}',
        b'{"counts": {"dtype": "I63", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"counts": 5}',
        b'{"counts": ',
    ],
)
def test_safetensors_that_announce_what_they_do_not_hold_are_refused(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    refused(tmp_path / "x.safetensors", "x.safetensors")


def test_gguf_files_cut_anywhere_are_refused(tmp_path):
    whole = forms.imatrix(tmp_path, forms.routing()).read_bytes()
    for length in (4, 10, 24, 60, 200, len(whole) - 40):
        (tmp_path / "x.gguf").write_bytes(whole[:length])
        refused(tmp_path / "x.gguf", "x.gguf")
    (tmp_path / "x.gguf").write_bytes(whole[:8] + struct.pack("<QQ", 2**40, 3) + whole[24:])
    refused(tmp_path / "x.gguf", "announced")


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.json", b"[" * 100_000), ("x.json", b'{"a": 1}'), ("x.json", b"{"), ("x.bin", b"abc"), ("x", b""),
     ("x.jsonl", b'{"a": 1}\n{')],
)  # fmt: skip
def test_text_that_is_no_dump_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, name)


def test_folders_that_hold_nothing_known_are_refused(tmp_path):
    refused(tmp_path, "a folder with nothing")
    (tmp_path / "readme.md").write_text("hello")
    (tmp_path / "b.md").write_text("hello")
    refused(tmp_path, "a folder with b.md, readme.md")
    refused(tmp_path / "absent", "no such file")

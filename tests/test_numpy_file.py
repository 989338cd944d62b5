import io
import zipfile

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.numpy_file import read_array

IDS = np.array([[0, 1], [2, 3], [3, 0], [1, 2]])


def npy(array, **how):
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def npz(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


LYING_HEADER = npy(np.zeros(2)).replace(b"(2,)", b"(9,)")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a numpy array"),
        (b"a text file, no numbers", "not a numpy array"),
        (npy(IDS)[:-3], "truncated"),
        (npz({"x.npy": npy(IDS)})[:-30], "cannot be read"),
        (npy(IDS).replace(b"'descr'", b"'\\dscr'"), "not a numpy array"),
        (LYING_HEADER, "announces shape"),
        (npz({"x.npy": LYING_HEADER}), "announces shape"),
        (npy(np.array([{}], object), allow_pickle=True), "Python objects"),
        (npz({"x.npy": npy(np.array([{}], object), allow_pickle=True)}), "Python objects"),
        (npz({"y.npy": npy(IDS)}), "no array 'x'; it has y"),
        (npz({"x.npy": npy(np.zeros(1 << 18))}), "more than 200:1"),
        (npz({f"{i}.npy": b"" for i in range(1001)}), "1001 members"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_arrays_are_refused_in_one_line(tmp_path, recwarn, content, says):
    file = tmp_path / "x.bin"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_array(file, "x")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not recwarn.list


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path):
    content = bytearray(npz({"x.npy": npy(np.random.default_rng(0).random(1000))}))
    content[4000] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_array(tmp_path / "x.npz", "x")


def test_files_larger_than_the_bound_are_refused_before_they_are_read(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros(100))
    monkeypatch.setattr("moesim.numpy_file.MAX_BYTES", 200)
    with pytest.raises(InputError, match="at most 200 are read"):
        read_array(tmp_path / "x.npy", "x")


def test_arrays_with_long_headers_are_read(tmp_path):
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array(stream, IDS, version=(2, 0))
    assert np.array_equal(read_array(tmp_path / "x.npy", "x"), IDS)


def test_fortran_order_is_read_as_written(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(IDS))
    assert np.array_equal(read_array(tmp_path / "x.npy", "x"), IDS)

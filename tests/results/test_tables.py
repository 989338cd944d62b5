"""Tables as columns: pieces joined, nulls kept, data frames only on access."""

import tracemalloc

import numpy as np
import pytest

from moesim.errors import InputError, ResourceError
from moesim.files import marked, write_files
from moesim.results import TableBuilder, Tables, nulls
from moesim.results.tables import arrow_columns, write_parquet


def test_pieces_are_joined_and_single_values_repeated():
    builder = TableBuilder()
    builder.add("loads", layer=0, expert=np.arange(2), name=["a", "b"])
    builder.add("loads", layer=1, expert=np.arange(1), name=["c"])
    frame = Tables(builder.build())["loads"]
    assert frame.to_dict("list") == {"layer": [0, 0, 1], "expert": [0, 1, 0], "name": ["a", "b", "c"]}


def test_a_column_that_is_null_in_one_piece_is_nullable_as_a_whole():
    builder = TableBuilder()
    builder.add("losses", z=np.array([1.5]))
    builder.add("losses", z=nulls(2))
    column = Tables(builder.build())["losses"].z
    assert column.isna().tolist() == [False, True, True] and column[0] == 1.5 and column.dtype == "Float64"


def test_whole_numbers_stay_whole_beside_nulls():
    builder = TableBuilder()
    builder.add("spans", waited_on=np.ma.masked_less(np.array([3, -1], np.int32), 0))
    assert Tables(builder.build())["spans"].waited_on.dtype == "Int32"


def test_a_table_without_rows_has_its_columns_and_an_unknown_one_is_a_key_error():
    builder = TableBuilder()
    builder.add("transfers", layer=0, copies=np.empty(0, int))
    tables = Tables(builder.build())
    assert (
        list(tables["transfers"].columns) == ["layer", "copies"] and len(tables) == 1 and list(tables) == ["transfers"]
    )
    with pytest.raises(KeyError):
        tables["absent"]


def test_single_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    one, two = (marked("page", b"a page of " + word) for word in (b"one", b"two"))
    write_files(tmp_path, {"a/page.html": one})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ResourceError, match="No space left"):
        write_files(tmp_path, {"a/page.html": two})
    assert [path.read_bytes() for path in (tmp_path / "a").iterdir()] == [one]


COLUMNS = {
    "whole": np.arange(3, dtype=np.int32),
    "every_second": np.arange(6.0)[::2],
    "nan": np.array([1.0, np.nan, -0.0]),
    "flag": np.array([True, False, True]),
    "word": np.array(["leaf", "", "Überlink"]),
    "some": np.ma.masked_less(np.array([3, -1, 5], np.int32), 0),
    "none": nulls(3),
    "not_masked": np.ma.MaskedArray(np.arange(3.0), mask=np.zeros(3, bool)),
}


def test_columns_become_the_bytes_that_pyarrow_makes_of_them(tmp_path):
    """pyarrow's own ``array`` is the reference; it is not used because it imports pandas."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from moesim.results.tables import arrow_columns, write_parquet

    with open(tmp_path / "ours.parquet", "wb") as file:
        write_parquet(COLUMNS, file, {"moesim_schema": "2"})
    theirs = {
        name: pa.array(values.data, mask=np.ma.getmaskarray(values))
        if np.ma.isMaskedArray(values)
        else pa.array(values)
        for name, values in COLUMNS.items()
    }
    table = pa.table(theirs).replace_schema_metadata({"moesim_schema": "2"})
    pq.write_table(table, tmp_path / "theirs.parquet", compression="zstd", write_page_checksum=True)
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "theirs.parquet").read_bytes()
    again = arrow_columns(tmp_path / "ours.parquet", ["word"], 1000)
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(np.ma.filled(again[name], 0), np.ma.filled(values, 0))


def test_to_write_read_and_look_for_tables_takes_no_pandas(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, pathlib, numpy as np\nfrom moesim.results.tables import *\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "file = path.open('wb')\n"
        "write_parquet({'a': np.arange(2), 'b': np.array(['x', 'y'])}, file, {'moesim_schema': '2'})\n"
        "file.close()\n"
        "tables = Tables({'links': arrow_columns(path, ['b'], 1000)})\n"
        "print('links' in tables, 'absent' in tables, 'pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [
        "True", "False", "False",
    ]  # fmt: skip


def test_words_that_would_take_far_more_than_their_file_are_refused_before_they_are_unpacked(tmp_path):
    with (tmp_path / "links.parquet").open("wb") as file:
        write_parquet({"link": np.array(["x" * 4_000_000, "y"])}, file, {})
    tracemalloc.start()
    with pytest.raises(InputError, match="words of 40000"):
        arrow_columns(tmp_path / "links.parquet", ["link"], most=8 << 20)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()

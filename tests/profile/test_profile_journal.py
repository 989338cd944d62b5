import csv
import os

import pandas as pd
import pytest

from moesim.errors import InputError, ResourceError
from moesim.profile.csv_columns import COLUMNS
from moesim.profile.meta import anchor_times, check_continues, drift, meta_path, read_meta, write_meta
from moesim.profile.points import Point
from moesim.profile.timing_journal import Attempts, Journal, key_of

IDENTITY = {"device": "a GPU", "driver": "1", "grid": "g"}
POINTS = [Point("copy", dtype="", tokens=4096 << i) for i in range(4)]


@pytest.fixture
def table(tmp_path, row):
    """A table of three rows with its side file."""
    path = tmp_path / "gpu.csv"
    journal = Journal(path)
    for point in POINTS[:3]:
        journal.append(row(point, status='unsupported: a comma, a "quote"'))
    write_meta(journal, IDENTITY, {"sessions": []})
    journal.close()
    return path


def test_every_row_is_on_disk_as_soon_as_it_is_written(tmp_path, row):
    path = tmp_path / "new" / "gpu.csv"
    journal = Journal(path)
    for count, point in enumerate(POINTS, 1):
        journal.append(row(point))
        with open(path, newline="") as file:
            assert len(list(csv.DictReader(file))) == count
    journal.close()
    frame = pd.read_csv(path)
    assert tuple(frame.columns) == COLUMNS
    assert frame["tokens"].tolist() == [point.tokens for point in POINTS]


def test_a_table_cut_at_any_byte_goes_on_with_its_whole_rows(tmp_path, table, row):
    data = table.read_bytes()
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    for size in [*range(0, len(data), 7), len(data)]:
        path = tmp_path / "cut.csv"
        path.write_bytes(data[:size])
        journal = Journal(path)
        assert len(journal.rows) == max(sum(end <= size for end in ends) - 1, 0)
        journal.append(row(POINTS[3]))
        journal.close()
        again = Journal(path)
        assert key_of(again.rows[-1]) == key_of(row(POINTS[3]))
        assert len(again.rows) == len(journal.rows)
        again.close()
        path.unlink()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name,age\n1,2\n", r"gpu.csv:1: the header is not that of a profile"),
        (b"no line at all", "not a profile of moesim's"),
        (b"\xff\xfe\n", "not CSV in UTF-8"),
        ((",".join(COLUMNS) + "\n1,2\n").encode(), rf"gpu.csv:2: 2 values, {len(COLUMNS)} columns"),
        ((",".join(COLUMNS) + "\n" + "," * (len(COLUMNS) - 1) + "\n").encode(), "gpu.csv:2: schema_version ''"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_and_left_alone(tmp_path, data, message):
    path = tmp_path / "gpu.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        Journal(path)
    assert path.read_bytes() == data


def test_a_row_that_stands_there_twice_is_refused(table):
    data = table.read_bytes()
    table.write_bytes(data + data.splitlines(keepends=True)[-1])
    with pytest.raises(InputError, match=r"gpu.csv:5: this row stands in the table already"):
        Journal(table)


def test_one_run_at_a_time_writes_a_table(table):
    first = Journal(table)
    with pytest.raises(ResourceError, match="being written by another run"):
        Journal(table)
    first.close()
    Journal(table).close()


def test_a_place_that_cannot_be_written_is_a_resource_error(tmp_path):
    with pytest.raises(ResourceError, match="cannot write"):
        Journal(tmp_path)


def test_a_table_goes_on_where_it_was_measured(table):
    journal = Journal(table)
    assert check_continues(journal, IDENTITY)["table"]["rows"] == 3
    journal.close()


@pytest.mark.parametrize(("name", "value"), [("device", "NVIDIA H200"), ("driver", "2"), ("grid", "other")])
def test_a_table_of_another_gpu_driver_or_grid_is_refused_in_one_line(table, name, value):
    journal = Journal(table)
    with pytest.raises(InputError, match=f"measured with {name} {IDENTITY[name]}, here is {value}") as caught:
        check_continues(journal, IDENTITY | {name: value})
    assert len(str(caught.value).splitlines()) == 1
    journal.close()


def test_a_table_that_was_edited_is_refused(table):
    table.write_bytes(table.read_bytes().replace(b"2.5", b"1.5", 1))
    journal = Journal(table)
    with pytest.raises(InputError, match="changed since it was measured"):
        check_continues(journal, IDENTITY)
    journal.close()


def test_a_table_without_its_side_file_is_refused_and_a_new_one_needs_none(table, tmp_path):
    meta_path(table).unlink()
    journal = Journal(table)
    with pytest.raises(InputError, match=r"has no gpu\.meta\.json beside it"):
        check_continues(journal, IDENTITY)
    journal.close()
    new = Journal(tmp_path / "new.csv")
    assert check_continues(new, IDENTITY) == {}
    new.close()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"identity": {}}', '{"identity": 1, "sessions": [], "table": {}}'])
def test_a_broken_side_file_is_refused(table, text):
    meta_path(table).write_text(text)
    with pytest.raises(InputError, match=r"gpu\.meta\.json: not the side file of a profile"):
        read_meta(table)


def test_rows_written_after_the_side_file_are_kept(table, row):
    journal = Journal(table)
    journal.append(row(POINTS[3]))
    journal.close()  # killed before the side file was written again
    journal = Journal(table)
    check_continues(journal, IDENTITY)
    assert len(journal.rows) == 4
    journal.close()


def test_drift_is_the_largest_move_of_an_anchor(row):
    times = zip(("start-1", "middle-1", "end-1"), ("100", "101", "104"), strict=True)
    rows = [row(Point("anchor_gemm", variant=when, tokens=8192), median_us=us) for when, us in times]
    rows.append(row(Point("anchor_copy", variant="start-1", tokens=8192), median_us="7"))
    rows.append(row(Point("anchor_copy", variant="end-1", tokens=8192), median_us="", status="wrong: error"))
    found = drift(anchor_times(rows))
    assert found == {"spread": {"anchor_gemm": pytest.approx(4 / 101)}, "limit": 0.03, "marked": True}
    assert not drift(anchor_times(rows[:2]))["marked"]
    assert not drift({})["marked"]


def test_a_point_that_killed_the_process_twice_is_given_up(tmp_path):
    table = tmp_path / "gpu.csv"
    for deaths in range(3):
        attempts = Attempts(table)  # a new process
        assert attempts.hopeless("a") == (deaths >= 2)
        assert not attempts.hopeless("b")
        attempts.begin("a")
    attempts = Attempts(table)
    attempts.begin("b")
    attempts.end()
    assert os.listdir(tmp_path) == []
    (tmp_path / "gpu.at").write_text("mine")
    with pytest.raises(ResourceError, match=r"gpu\.at exists and is not a note of a profile"):
        Attempts(table)
    assert (tmp_path / "gpu.at").read_text() == "mine"

"""Logs of every form in the shared reference, against the rows that a person read in them."""

import csv
import re
from pathlib import Path

import pytest

from moesim.logs import COLUMNS, read_log

LOGS = Path(__file__).parents[2].parent / "shared" / "reference" / "logs"
EXPECTED = sorted(LOGS.glob("*.expected.csv")) if LOGS.is_dir() else []
# What a reader cannot know or words in its own way.
FREE = {"id", "source_id", "version", "definition", "source", "note", "nic_assumed"}


def given(note):
    found = re.findall(r"--([a-z-]+) (\w+)", note.partition("given:")[2])
    return {name.replace("-", "_"): value for name, value in found}


@pytest.mark.skipif(not EXPECTED, reason="no shared reference")
@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.name.removesuffix(".expected.csv"))
def test_a_log_gives_the_rows_that_a_person_read_in_it(path):
    with path.open(encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    stem = path.name.removesuffix(".expected.csv")
    (log,) = (each for each in LOGS.glob(f"{stem}.*") if each != path)
    rows = read_log(log, given(expected[0]["note"])).rows
    assert [(row.op, row.dtype or "", row.tokens, row.quantity) for row in rows] == [
        (row["op"], row["dtype"], int(row["tokens"]), row["quantity"]) for row in expected
    ]
    for row, wanted in zip(rows, expected, strict=True):
        assert row.value == pytest.approx(float(wanted["value"]), rel=1e-3)
        for name in set(COLUMNS) & set(wanted) - FREE - {"value"}:
            got = getattr(row, name)
            assert ("" if got is None else str(got)) == wanted[name], (row.id, name)
        assert row.definition == wanted["definition"]

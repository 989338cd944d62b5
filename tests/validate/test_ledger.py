"""The ledger: roles follow from rules that anyone can apply again, before a single constant is fitted."""

from collections import defaultdict
from pathlib import Path

import pytest

from moesim.validate.clusters_left_out import read_left_out
from moesim.validate.extracts import FILES, extract_rows
from moesim.validate.ledger import FIT, LEFT_OUT, read_ledger
from moesim.validate.listed_clusters import TABLE, listed_rows
from moesim.validate.published import published_rows
from tests.reference.ledger_rules import make_ledger, write_ledger

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
needs_extracts = pytest.mark.skipif(
    not (REFERENCE / "kernels" / FILES[0]).is_file(), reason="the large extracts are not here"
)


@pytest.fixture(scope="module")
def ledger():
    return read_ledger()


@pytest.fixture(scope="module")
def tables(ledger):
    found = defaultdict(list)
    for entry in ledger.values():
        found[entry.table].append(entry)
    return found


@needs_extracts
def test_the_rules_give_the_ledger_that_ships_byte_for_byte():
    rows = [*published_rows(), *extract_rows(REFERENCE), *listed_rows()]
    shipped = (ROOT / "moesim" / "data" / "validate" / "ledger.csv").read_text(encoding="utf-8")
    assert write_ledger(make_ledger(rows)) == shipped


def test_the_transcribed_tables_have_their_rows_in_the_ledger_with_the_same_roles(ledger):
    alone = make_ledger(published_rows())
    assert len(alone) == 362
    for entry in alone:
        assert ledger[entry.name] == entry


def test_at_most_a_third_is_fitted_of_all_and_of_every_table_with_more_than_twelve_rows(ledger, tables):
    assert sum(entry.role == FIT for entry in ledger.values()) <= len(ledger) / 3
    for name, entries in tables.items():
        fitted = sum(entry.role == FIT for entry in entries)
        assert fitted < len(entries)
        assert fitted <= len(entries) / 3 or len(entries) <= 12, name


def test_no_suspect_is_fitted_and_every_suspect_has_its_reason(ledger):
    suspects = [entry for entry in ledger.values() if entry.suspect]
    assert suspects
    assert all(entry.role != FIT and entry.rule for entry in suspects)


def axes(entry):
    return dict(pair.split("=", 1) for pair in entry.row.split(" "))


def test_every_fitted_table_holds_one_value_of_an_axis_out_wholly(tables):
    for name, entries in tables.items():
        if not any(entry.role == FIT for entry in entries):
            continue
        everywhere, fitted = defaultdict(set), defaultdict(set)
        for entry in entries:
            for axis, value in axes(entry).items():
                everywhere[axis].add(value)
                if entry.role == FIT:
                    fitted[axis].add(value)
        assert any(everywhere[axis] - fitted[axis] for axis in ("tokens", "bytes", "sms", "ranks", "nodes", "op")), name


def test_a_figure_carried_over_to_another_release_counts_as_fitted(ledger):
    assert ledger["deepep-v1-h800", "op=dispatch ranks=8"].role == FIT
    twin = ledger["deepep-v1-h800-first", "op=dispatch ranks=8"]
    assert (twin.role, twin.rule) == (FIT, "twin of a fitted row")
    assert ledger["deepep-v1-h800-first", "op=dispatch ranks=32"].role != FIT


@needs_extracts
def test_rows_of_equal_bytes_have_one_role():
    rows = extract_rows(REFERENCE)
    roles = {entry.name: entry.role for entry in make_ledger(rows)}
    of_bytes = defaultdict(set)
    for row in rows:
        if row.library == "nccl":
            of_bytes[row.gpu, row.ranks, row.tokens].add(roles[row.name])
        if row.library == "trtllm-two-sided" and row.op == "combine":
            of_bytes[row.gpu, row.ranks, row.tokens, "combine"].add(roles[row.name])
    # A suspect row is held out whatever its twins are; here none is suspect beside a fitted one.
    assert all(len(found) == 1 for found in of_bytes.values())


@needs_extracts
def test_the_fitted_rows_of_each_extract_span_both_regimes():
    """The largest fitted message is at least a hundred times the smallest in every table that varies it."""
    rows = extract_rows(REFERENCE)
    roles = {entry.name: entry.role for entry in make_ledger(rows)}
    sizes = defaultdict(list)
    for row in rows:
        if roles[row.name] == FIT:
            sizes[row.table].append(row.tokens)
    assert len(sizes) == 12
    assert all(max(found) >= 100 * min(found) for found in sizes.values())


def test_the_ledger_holds_no_measured_value(ledger):
    header = (ROOT / "moesim" / "data" / "validate" / "ledger.csv").open(encoding="utf-8").readline().strip()
    assert header == "table,row,library,release,gpu,source,quantity,role,suspect,rule"
    assert len(ledger) == 3846 + len(listed_rows())


def test_the_split_of_the_clusters_list_is_by_cluster(ledger):
    rows = listed_rows()
    for entry in make_ledger(rows):
        assert ledger[entry.name] == entry
    for row in rows:
        entry = ledger[row.name]
        # All rows of a cluster are left out at once, whatever else was fitted on the same machine's kind.
        assert entry.role == LEFT_OUT and entry.rule.startswith(f"cluster {row.cluster}")
        assert entry.suspect == row.flagged and entry.source
    assert {entry.table for entry in ledger.values() if entry.role == LEFT_OUT} == {TABLE}


def test_the_rows_that_were_predicted_are_those_of_the_split_that_are_not_suspect(ledger):
    predicted = {(TABLE, one.row): one.cluster for one in read_left_out() if (TABLE, one.row) in ledger}
    wanted = {name for name, entry in ledger.items() if entry.table == TABLE and not entry.suspect}
    assert predicted.keys() == wanted
    assert all(ledger[name].rule == f"cluster {cluster}" for name, cluster in predicted.items())

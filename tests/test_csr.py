"""Compressed rows against lists of lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moesim import csr

rows = st.lists(st.lists(st.integers(-99, 99), max_size=5), max_size=7)


def flat(lists):
    """Pointers and entries, one by one."""
    ptr, entries = [0], []
    for row in lists:
        entries += row
        ptr.append(len(entries))
    return np.array(ptr, np.int64), np.array(entries, np.int64)


def as_lists(ptr, entries):
    assert ptr.dtype == np.int64
    return [entries[ptr[r] : ptr[r + 1]].tolist() for r in range(len(ptr) - 1)]


@given(rows)
def test_pointers_follow_from_lengths_and_from_the_row_of_each_entry(lists):
    ptr, _ = flat(lists)
    lengths = np.array([len(row) for row in lists], np.int32)
    owner = [r for r, row in enumerate(lists) for _ in row]
    for made in (csr.from_lengths(lengths), csr.pointers(np.array(owner, np.int32), len(lists))):
        assert made.dtype == np.int64
        assert made.tolist() == ptr.tolist()
    assert csr.owners(ptr).tolist() == owner


@given(rows)
def test_every_entry_of_a_row_gets_the_rows_value(lists):
    values = np.arange(len(lists)) * 1.5
    assert csr.spread(values, flat(lists)[0]).tolist() == [1.5 * r for r, row in enumerate(lists) for _ in row]


@given(rows, st.data())
def test_chosen_rows_come_in_the_order_asked_for_and_as_often(lists, data):
    chosen = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=9)) if lists else []
    ptr, entries = flat(lists)
    new_ptr, where = csr.rows_of(ptr, np.array(chosen, np.int64))
    assert as_lists(new_ptr, entries[where]) == [lists[r] for r in chosen]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-99, 99)), max_size=20))
def test_entries_are_gathered_into_rows_and_keep_their_order(pairs):
    owner, values = np.array(pairs, np.int32).reshape(-1, 2).T
    wanted = [[value for row, value in pairs if row == r] for r in range(6)]
    assert as_lists(*csr.grouped(owner, values, 6)) == wanted

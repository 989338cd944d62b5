import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.timeline.intervals import gaps, union_length
from tests.reference.timeline import uncovered

# Quarters are exact in binary, so sums may be compared exactly.
interval = st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda pair: (pair[0] / 4, (pair[0] + pair[1]) / 4))
groups = st.lists(st.lists(interval, max_size=8).map(sorted), min_size=1, max_size=4)


def csr(sorted_groups):
    ptr = np.cumsum([0, *map(len, sorted_groups)])
    flat = [pair for group in sorted_groups for pair in group]
    return ptr, np.array([begin for begin, _ in flat], float), np.array([end for _, end in flat], float)


@given(groups)
@settings(max_examples=100, deadline=None)
def test_the_length_of_a_union_is_the_time_that_some_interval_covers(sorted_groups):
    want = [
        sum(any(begin <= quarter / 4 < end for begin, end in group) for quarter in range(60)) / 4
        for group in sorted_groups
    ]
    assert union_length(*csr(sorted_groups)).tolist() == want


@given(groups, st.lists(st.integers(0, 48), min_size=4, max_size=4))
@settings(max_examples=100, deadline=None)
def test_gaps_are_what_no_interval_covers_until_the_last_starts(sorted_groups, since):
    covered_from = np.array(since[: len(sorted_groups)]) / 4
    ptr, start, end = csr(sorted_groups)
    total, blamed = gaps(ptr, start, end, np.arange(len(start), dtype=np.int32), covered_from)
    for group, intervals in enumerate(sorted_groups):
        last = max([covered_from[group], *(end for _, end in intervals)])
        found = uncovered(intervals, covered_from[group], last)
        assert total[group] == sum(high - low for low, high in found)
        if found:
            longest = max(high - low for low, high in found)
            opened = start[blamed[group]]
            assert any(high - low == longest and high == opened for low, high in found)
            assert ptr[group] <= blamed[group] < ptr[group + 1]
        else:
            assert blamed[group] == -1


def test_a_rank_between_two_transfers_waits_for_the_one_that_opens_the_next():
    ptr, start, end = np.array([0, 3]), np.array([1.0, 2.0, 7.0]), np.array([4.0, 3.0, 8.0])
    total, blamed = gaps(ptr, start, end, np.array([4, 5, 6], np.int32), np.array([0.5]))
    assert (total.tolist(), blamed.tolist()) == ([0.5 + 3.0], [6])


@pytest.mark.parametrize("n_groups", [1, 3])
def test_groups_without_intervals_have_no_length_and_no_gap(n_groups):
    ptr, nothing = np.zeros(n_groups + 1, np.int64), np.zeros(0)
    assert union_length(ptr, nothing, nothing).tolist() == [0] * n_groups
    total, blamed = gaps(ptr, nothing, nothing, np.zeros(0, np.int32), np.zeros(n_groups))
    assert total.tolist() == [0] * n_groups
    assert blamed.tolist() == [-1] * n_groups

"""What links carried of what they could, against sums over very many short moments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.network import CapacityEvents
from moesim.timeline.link_use import LinkUse

CAPACITY = np.array([10.0, 4.0, 7.0])


def made(*events):
    """(time, link, capacity) in order of time."""
    columns = zip(*events, strict=True) if events else ((), (), ())
    return CapacityEvents(
        *(np.array(list(column), kind) for column, kind in zip(columns, (float, np.int32, float), strict=True))
    )


def by_moments(events, begin, length, efficiency, n=2000):
    """What each link could carry, as a sum of the capacities at the middles of short moments, [links]."""
    total = np.zeros(3)
    for k in range(n):
        level = CAPACITY.copy()
        for time, link, value in zip(*events, strict=True):
            if time <= begin + (k + 0.5) * length / n and link < 3:
                level[link] = value
        total += level * efficiency * length / n
    return total


@settings(max_examples=30, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.5, 12.0])), max_size=6
    ),
    begin=st.integers(-2, 12),
    length=st.integers(1, 12),
)
def test_what_links_could_carry_is_the_integral_of_their_capacities(changes, begin, length):
    events = made(*sorted(changes, key=lambda change: change[0]))
    efficiency, carried = np.array([1.0, 0.5, 0.8]), np.array([1.0, 2.0, 3.0])
    could = by_moments(events, begin, length, efficiency, n=100 * length)
    share = LinkUse(CAPACITY, events).share(carried, float(begin), float(length), efficiency)
    want = np.divide(carried, could, out=np.zeros(3), where=could > 1e-9)
    np.testing.assert_allclose(share, want, rtol=1e-9)


def test_buckets_are_spans_of_their_own():
    events = made((1.0, 1, 0.0), (3.5, 1, 8.0), (9.0, 3, 1.0))
    use, begin = LinkUse(CAPACITY, events), np.arange(0.0, 6.0, 2.0)
    carried = np.arange(9.0).reshape(3, 3)
    alone = np.array([use.share(row, at, 2.0) for row, at in zip(carried, begin, strict=True)])
    np.testing.assert_array_equal(use.share(carried, begin, 2.0), alone)
    assert alone[:, 1].tolist() == [1.0 / 4.0, 4.0 / 4.0, 7.0 / 16.0]


def test_without_changes_it_is_bytes_over_capacity_and_time_to_the_last_bit():
    rng = np.random.default_rng(0)
    capacity, carried, efficiency = rng.random(50) + 0.1, rng.random(50), rng.random(50) + 0.1
    share = LinkUse(capacity, CapacityEvents.none()).share(carried, 0.3, 0.7, efficiency)
    assert share.tolist() == (carried / (capacity * efficiency * 0.7)).tolist()


@pytest.mark.parametrize("events", [made(), made((0.0, 0, 0.0))])
def test_nothing_is_used_of_what_could_carry_nothing(events):
    assert LinkUse(CAPACITY, events).share(np.zeros(3), 1.0, 0.0).tolist() == [0.0, 0.0, 0.0]
    assert LinkUse(CAPACITY, events).share(np.zeros(3), 1.0, 2.0)[0] == 0.0

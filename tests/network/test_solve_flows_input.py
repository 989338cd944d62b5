"""What solve_flows refuses, and that it never answers inf."""

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.network import solve_flows

GOOD = {
    "capacity": [10.0, 4.0],
    "latency": [0.0, 0.0],
    "route_ptr": [0, 1, 3],
    "route_links": [0, 0, 1],
    "size": [60.0, 20.0],
    "start": [0.0, 0.0],
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"latency": [0.0]}, "latency"),
        ({"latency": [0.0, -1.0]}, "link 1"),
        ({"route_links": [0, 0, 2]}, "route_links"),
        ({"start": [0.0, np.nan]}, "flow 1"),
        ({"capacity": [10.0, np.nan]}, "link 1"),
        ({"capacity_events": ([1.0], [0])}, "capacity_events"),
        ({"capacity_events": ([1.0], [5], [1.0])}, "capacity_events link"),
        ({"capacity_events": ([1.0, 2.0], [0], [1.0, 1.0])}, "capacity_events"),
        ({"capacity_events": ([np.nan], [0], [1.0])}, "event 0"),
        ({"capacity": [10.0, 0.0]}, "flow 1 can never finish: capacity 0 of link 1"),
        ({"rate_cap": [0.0, 1.0]}, "flow 0 can never finish: its rate cap"),
        ({"capacity_events": ([1.0], [0], [0.0])}, "flow 0 can never finish"),
    ],
)
def test_a_mistake_is_named(change, named):
    with pytest.raises(InputError, match=named):
        solve_flows(**(GOOD | change))


def test_times_before_zero_are_times_too():
    np.testing.assert_allclose(solve_flows(**(GOOD | {"start": [-3.0, -3.0]})), [5.0, 2.0], rtol=1e-13)
    events = ([-9.0], [1], [8.0])
    np.testing.assert_allclose(solve_flows(**GOOD, capacity_events=events), [8.0, 4.0])


def test_no_flows_take_no_time():
    assert len(solve_flows([1.0], [0.0], [0], [], [], [])) == 0

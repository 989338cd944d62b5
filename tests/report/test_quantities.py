"""Numbers on the page: units, rounding, thinning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.report.quantities import axis_scale, decimated, filled, named_quantity, quantity, rounded, unit_of


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("layer_time_s", 0.00192512, "1.925 ms"),
        ("dispatch_time_s", 3.2e-6, "3.2 µs"),
        ("nic_wire_bytes", 2503046016.0, "2.503 GB"),
        ("dispatch_algbw_bytes_per_s", 26786810589.0, "26.79 GB/s"),
        ("bottleneck_utilisation", 0.99897, "99.9 %"),
        ("source_estimated_share", 0.0, "0 %"),
        ("gate_mass_lost", None, "–"),
        ("tokens", 32768, "32,768"),
        ("expert_load_max_over_mean", 2.34567, "2.346"),
        ("counterfactual", True, "yes"),
    ],
)
def test_a_summary_value_is_printed_in_its_own_unit(key: str, value: object, text: str) -> None:
    assert named_quantity(key, value) == text


def test_what_does_not_apply_is_a_dash_and_never_nan() -> None:
    assert quantity(float("nan"), "s") == quantity(np.ma.masked, "B") == "–"


def test_units_of_columns_that_are_not_in_the_summary_follow_their_suffix() -> None:
    assert [unit_of(key) for key in ("busy_s", "capacity_bytes_per_s", "sent_bytes", "copies")] == ["s", "B/s", "B", ""]


@given(st.floats(1e-12, 1e15) | st.floats(-1e15, -1e-12))
def test_rounding_keeps_five_digits(value: float) -> None:
    assert rounded([value])[0] == float(f"{value:.5g}") or abs(rounded([value])[0] / value - 1) <= 5e-5
    assert len(f"{abs(rounded([value])[0]):.12e}".split("e")[0].rstrip("0").replace(".", "")) <= 5


def test_rounding_leaves_zero_and_nan_alone() -> None:
    assert rounded([0.0])[0] == 0.0
    assert np.isnan(rounded([np.nan])[0])


def test_nulls_of_a_masked_column_become_nan() -> None:
    values = filled(np.ma.masked_less(np.array([3, -1, 5]), 0))
    assert values[0] == 3 and np.isnan(values[1]) and values[2] == 5


def test_a_thinned_curve_keeps_its_highest_and_lowest_point() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 1000)
    y[12345], y[54321] = 7.0, -7.0
    thin_x, thin_y = decimated(x, y)
    assert len(thin_x) <= 2000
    assert thin_y.max() == 7.0 and thin_y.min() == -7.0
    assert (np.diff(thin_x) > 0).all()


def test_a_short_curve_is_not_thinned() -> None:
    x = np.arange(2000.0)
    assert decimated(x, x)[0] is x


@pytest.mark.parametrize(("largest", "unit"), [(2.5e-3, "ms"), (9e-4, "µs"), (3.0, "s"), (0.0, "ns")])
def test_an_axis_takes_the_prefix_of_its_largest_value(largest: float, unit: str) -> None:
    scale, name = axis_scale(np.array([largest, largest / 10, np.nan]), "s")
    assert name == unit
    assert largest / scale < 1000

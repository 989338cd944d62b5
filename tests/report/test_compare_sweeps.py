"""Two sweeps point by point: which points are the same, what the seeds make of them, what is lost."""

import pytest

from moesim.errors import InputError
from moesim.report.compare_sweeps import SweepTable, compare_sweeps


def table(name="a", scale=1.0, **axes):
    """A sweep over the combinations of some axes; a layer takes ``10 K + M + seed`` ms, times a factor."""
    rows = [{}]
    for key, values in axes.items():
        rows = [row | {key: value} for row in rows for value in values]
    for row in rows:
        row |= {
            "status": "ok",
            "layer_time_s": scale * 1e-3 * (10 * row.get("top_k", 0) + row.get("top_groups", 0) + row.get("seed", 0)),
            "gate_mass_lost": 0.1,
        }
    return SweepTable(name, tuple(axes), {key: [row[key] for row in rows] for key in rows[0]})


def times(comparison):
    return {tuple(point.values.values()): point.row("layer_time_s") for point in comparison.points}


def test_points_meet_on_equal_values_whatever_the_order_of_axes_and_values():
    a = table(top_k=[2, 4, 8], top_groups=[1, 2])
    b = table("b", scale=2.0, top_groups=[2, 3, 1], top_k=[4.0, 2.0])
    comparison = compare_sweeps(a, b, ("before", "after"))
    assert comparison.axes == ("top_k", "top_groups")
    rows = times(comparison)
    assert set(rows) == {(2, 1), (2, 2), (4, 1), (4, 2)}
    assert (rows[(4, 2)].a, rows[(4, 2)].b) == (pytest.approx(0.042), pytest.approx(0.084))
    assert rows[(4, 2)].delta_percent == pytest.approx(100) and rows[(4, 2)].verdict == "worse"
    assert rows[(4, 2)].a_band is None
    assert comparison.only == (2, 2)
    worst = comparison.worst_regression(99)
    assert worst is not None and worst[1].key == "layer_time_s"
    assert comparison.worst_regression(101) is None


def test_a_seed_axis_gives_medians_and_bands():
    a, b = table(top_k=[2], seed=[0, 1, 5]), table("b", top_k=[2], seed=[2, 6, 7])
    (point,) = compare_sweeps(a, b, "ab").points
    row = point.row("layer_time_s")
    assert point.values == {"top_k": 2}
    assert (row.a, row.b) == (pytest.approx(0.021), pytest.approx(0.026))
    assert (row.a_band.low, row.a_band.high, row.a_band.runs) == (pytest.approx(0.020), pytest.approx(0.025), 3)
    assert row.verdict == "within noise"  # 20 to 25 ms and 22 to 27 ms
    far = compare_sweeps(a, table("b", top_k=[2], seed=[10, 11]), "ab").points[0].row("layer_time_s")
    assert far.verdict == "worse"


def test_a_sweep_without_seeds_is_judged_by_the_noise_of_the_other():
    a = table(top_k=[2], seed=[0, 1, 5])
    inside = compare_sweeps(a, table("b", scale=23 / 20, top_k=[2]), "ab").points[0].row("layer_time_s")
    outside = compare_sweeps(a, table("b", scale=26 / 20, top_k=[2]), "ab").points[0].row("layer_time_s")
    assert (inside.verdict, outside.verdict) == ("within noise", "worse")


def test_points_that_failed_in_the_second_are_lost():
    a, b = table(top_k=[2, 4, 8]), table("b", top_k=[2, 4, 8])
    b.columns["status"][1], b.columns["status"][2] = "failed", "impossible"
    comparison = compare_sweeps(a, b, "ab")
    assert [point.values["top_k"] for point in comparison.points] == [2]
    assert comparison.lost == ({"top_k": 4},) and comparison.only == (2, 0)


def test_sweeps_that_vary_other_keys_or_share_no_point_are_refused():
    with pytest.raises(InputError, match=r"do not vary the same keys: top_groups"):
        compare_sweeps(table(top_k=[2]), table("b", top_k=[2], top_groups=[1]), "ab")
    with pytest.raises(InputError, match="no point has numbers in both a and b"):
        compare_sweeps(table(top_k=[2]), table("b", top_k=[4]), "ab")

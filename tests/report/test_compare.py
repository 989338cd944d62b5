"""Two runs side by side: direction, size and the worst regression."""

import pytest

from moesim.report import compare
from moesim.report.compare import direction
from moesim.results import Result
from tests.report.conftest import renamed


def test_equal_runs_have_no_regression(result: Result) -> None:
    comparison = compare(result, result, ("before", "after"))
    assert comparison.labels == ("before", "after")
    assert {row.verdict for row in comparison.rows} == {"same", "neutral"}
    assert comparison.worst_regression(0.0) is None


def test_a_slower_layer_is_a_regression_in_percent(result: Result) -> None:
    comparison = compare(result, renamed(result, layer_time_s=1.2 * result.summary["layer_time_s"]))
    row = next(row for row in comparison.rows if row.key == "layer_time_s")
    assert (row.unit, row.verdict) == ("s", "worse")
    assert row.delta_percent == pytest.approx(20.0)
    assert comparison.worst_regression(5) is row
    assert comparison.worst_regression(25) is None


def test_the_worst_of_several_regressions_is_named(result: Result) -> None:
    worse = renamed(result, expert_load_max_over_mean=2.75, dispatch_algbw_bytes_per_s=0.75)
    row = compare(result, worse).worst_regression(5)
    assert row is not None and row.key == "dispatch_algbw_bytes_per_s"
    assert row.regression_percent() == pytest.approx(50.0)


def test_a_loss_that_was_zero_is_an_endless_regression(result: Result) -> None:
    row = compare(renamed(result, gate_mass_lost=0.0), result).worst_regression(1e9)
    assert row is not None and row.key == "gate_mass_lost"
    assert row.delta_percent is None and row.regression_percent() == float("inf")


def test_parts_that_trade_against_each_other_do_not_fail_a_comparison(result: Result) -> None:
    shifted = renamed(result, dispatch_time_s=5e-4, combine_time_s=7e-4)
    comparison = compare(result, shifted)
    verdicts = {row.key: row.verdict for row in comparison.rows}
    assert (verdicts["dispatch_time_s"], verdicts["combine_time_s"]) == ("worse", "better")
    assert comparison.worst_regression(1.0) is None


def test_what_applies_to_one_run_only_is_neutral(result: Result) -> None:
    row = next(row for row in compare(result, renamed(result, gate_mass_lost=None)).rows if row.key == "gate_mass_lost")
    assert (row.b, row.delta_percent, row.verdict) == (None, None, "neutral")


@pytest.mark.parametrize(
    ("key", "way"),
    [("layer_time_s", -1), ("rank_load_mean_over_max", 1), ("nic_wire_bytes", -1), ("bottleneck_utilisation", 0),
     ("lower_bound_s", 0), ("tokens", 0), ("combine_busbw_bytes_per_s", 1), ("max_violation", -1)],
)  # fmt: skip
def test_the_good_direction_of_a_number(key: str, way: int) -> None:
    assert direction(key) == way

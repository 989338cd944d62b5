"""The page of a balance study: its charts and tables from made-up rows."""

import numpy as np

from moesim.report.balance_page import _charts, _comparison_charts, _error_table, render_balance


def study(**changes):
    rows = [
        {"method": method, "step": step, "expert_load_max_over_mean": 2.0 + i - step / 10, "max_violation_batch": 1.5,
         "layer_time_s": 1e-3, "expert_loss": 0.003, "dropped_share": 0.1 * (method == "v2"), "bias_spread": 0.0}
        for i, method in enumerate(("v1", "v2", "tiny <v3>, recorded"))
        for step in (0, 10)
    ]  # fmt: skip
    compared = {
        "name": "tiny <v3>", "fitted": False, "steps": [5, 10], "recorded": [4.0, 2.0], "simulated": [5.0, 1.0],
        "factors": [1.25, 2.0], "bias_recorded": [0.1, 0.2], "bias_simulated": [0.1, 0.3], "null": "v1",
        "null_factors": [1.1, 1.5],
    }  # fmt: skip
    made = {
        "title": "small", "notes": ["an illustration"], "floors": {"sequences": 1.26, "uniform_router": 1.06},
        "rows": rows, "comparisons": [compared], "constants": {"gain": {"value": 379.0, "source": "fitted on tiny-v1"}},
    }  # fmt: skip
    return made | changes


def test_a_chart_has_a_curve_for_each_method_and_points_for_what_was_recorded():
    first, *others = _charts(study(), "balance")
    assert [(one.label, one.style) for one in first.series] == [
        ("v1", "line"), ("v2", "line"), ("tiny <v3>, recorded", "points"),
    ]  # fmt: skip
    assert first.series[1].y.tolist() == [3.0, 2.0] and [mark.value for mark in first.marks] == [1.26, 1.06]
    assert [chart.key for chart in others] == ["balance_max_violation_batch"]  # nothing of a column of zeros
    dropped = next(c for c in _charts(study(), "losses") if c.key == "balance_dropped_share")
    assert [(one.label, one.y.tolist()) for one in dropped.series] == [("v2", [10.0, 10.0])]


def test_recorded_runs_stand_beside_their_simulation_with_the_error_of_both_guesses():
    load, bias = _comparison_charts(study())
    assert [one.y.tolist() for one in load.series] == [[4.0, 2.0], [5.0, 1.0]]
    assert [one.y.tolist() for one in bias.series] == [[0.1, 0.2], [0.1, 0.3]]
    row = _error_table(study()).rows[0]
    assert row[:2] == ("tiny <v3>", "held out") and np.allclose([row[2], row[3]], [1.625, 2.0])
    assert row[4] == "step 10: 1.00 for 2.00" and row[5:] == ("as v1 was", 1.3, 1.5)


def test_the_page_says_what_its_numbers_are_worth_and_escapes_names():
    page = render_balance(study())
    assert "An illustration" in page and "Even experts would show 1.26" in page
    assert "fitted on tiny-v1" in page and "tiny &lt;v3&gt;" in page and "<v3>" not in page
    assert "Simulated and recorded" not in render_balance(study(comparisons=[]))

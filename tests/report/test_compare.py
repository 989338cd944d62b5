"""Two runs side by side: direction, size and the worst regression."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.report import compare, render_comparison
from moesim.report.charts import table_of
from moesim.report.comparison import Band, bands_over, compare_summaries, critical_words, direction
from moesim.report.comparison_charts import noise_chart, noise_sentence
from moesim.report.static import figure_files
from moesim.results import Note, Result
from tests.report.conftest import renamed
from tests.report.test_page import Page


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
    assert (verdicts["dispatch_time_s"], verdicts["combine_time_s"]) == ("worse", "traded")
    assert comparison.worst_regression(1.0) is None


def verdicts(a: Result, b: Result, *keys: str) -> list[str]:
    found = {row.key: row.verdict for row in compare(a, b).rows}
    return [found[key] for key in keys]


PARTS = ("combine_time_s", "combine_time_mean_s", "combine_time_max_s", "combine_algbw_bytes_per_s", "wait_time_s")


@pytest.mark.parametrize(
    ("layer", "step", "verdict"),
    [
        (0.9, 0.9, "better"),
        (0.9, 1.0, "better"),
        (1.0, 0.9, "better"),
        (1.0, 1.0, "traded"),
        (1.1, 1.1, "traded"),
        (0.9, 1.1, "traded"),
        (1.1, 0.9, "traded"),
    ],
)
def test_no_time_and_no_bandwidth_is_better_unless_the_whole_takes_less_time(
    result: Result, layer: float, step: float, verdict: str
) -> None:
    summary = result.summary
    other = renamed(
        result,
        layer_time_s=layer * summary["layer_time_s"],
        step_time_s=step * summary["step_time_s"],
        combine_algbw_bytes_per_s=1.25 * summary["combine_algbw_bytes_per_s"],
        **{key: 0.8 * summary[key] for key in PARTS if key.endswith("_s") and not key.endswith("_per_s")},
        gate_mass_lost=0.03,
    )
    assert verdicts(result, other, *PARTS) == [verdict] * len(PARTS)
    assert verdicts(result, other, "gate_mass_lost") == ["better"]
    whole = verdicts(result, other, "layer_time_s", "step_time_s")
    assert ("better" in whole) == (verdict == "better")
    assert [one == "worse" for one in whole] == [layer > 1, step > 1]


def explained(result: Result, **changes: Any) -> Result:
    return replace(result, explanation=result.explanation | changes)


def test_parts_of_the_critical_rank_are_not_judged_where_another_rank_is_critical(result: Result) -> None:
    """Every rank computes the same, but the critical one has less to compute."""
    changes = {"layer_time_s": 1e-3, "expert_compute_time_s": 1e-4, "combine_time_s": 9e-4, "combine_time_max_s": 1.4}
    other = explained(renamed(result, **changes), critical_ranks=[3, 5])
    keys = ("layer_time_s", "expert_compute_time_s", "combine_time_s", "gate_time_s", "dispatch_kernel_time_s")
    assert verdicts(result, other, *keys) == ["better", "other rank", "other rank", "same", "same"]
    slowest = ("expert_compute_time_max_s", "expert_compute_time_mean_s", "combine_time_max_s")
    assert verdicts(result, other, *slowest) == ["same", "same", "better"]
    same_rank = explained(other, critical_ranks=[3, 3])
    assert verdicts(result, same_rank, *keys[1:3]) == ["better", "worse"]
    assert compare(result, other).critical_ranks == ((3, 3), (3, 5))
    assert compare(result, other).worst_regression(0.0) is None


def test_link_figures_of_another_class_are_not_judged(result: Result) -> None:
    link_figures = ("link_load_max_over_mean", "link_load_mean_over_max", "link_max_violation")
    of_nvlink = explained(result, bottleneck_class="nvlink")
    other = explained(renamed(result, **dict.fromkeys(link_figures, 1.2)), bottleneck_class="nic")
    assert verdicts(of_nvlink, other, *link_figures) == ["other class"] * 3
    assert verdicts(of_nvlink, explained(other, bottleneck_class="nvlink"), *link_figures) == [
        "better",
        "worse",
        "better",
    ]


def test_summaries_that_do_not_say_whom_they_tell_of_are_not_judged_there(result: Result) -> None:
    faster = {key: 0.5 * result.summary[key] for key in ("layer_time_s", "combine_time_s", "combine_time_max_s")}
    other = result.summary | faster | {"link_max_violation": 0.1}
    found = {row.key: row.verdict for row in compare_summaries(result.summary, other)}
    assert [found[key] for key in (*faster, "link_max_violation")] == ["better", "neutral", "better", "neutral"]


@pytest.mark.parametrize(
    ("ranks", "words"),
    [([7], "rank 7"), ([2] * 9, "rank 2"), ([3, 0, 3], "ranks 3, 0, 3"), ([4, 1, 9, 1, 4], "rank 1 in 2 of 5 layers")],
)
def test_the_critical_rank_of_each_layer_or_of_most_is_named(ranks: list[int], words: str) -> None:
    assert critical_words(ranks) == words


@pytest.mark.parametrize(("step", "shown"), [(1.0, False), (1.0 + 1e-15, False), (2.0, True)])
def test_the_page_has_steps_where_they_are_more_than_the_layer(result: Result, step: float, shown: bool) -> None:
    one, two = (renamed(result, layer_time_s=time, step_time_s=step * time) for time in (1e-3, 2e-3))
    page = render_comparison([("before", one), ("after", two)], "two")
    assert ">layer time<" in page and (">step time<" in page) == shown


def test_the_page_names_critical_ranks_and_bolds_no_part_of_different_ones(result: Result) -> None:
    changes = {"layer_time_s": 1e-3, "step_time_s": 2e-3, "combine_time_s": 7.77e-4, "combine_time_max_s": 1.23e-4}
    same = renamed(result, **changes)
    moved = explained(same, critical_ranks=[5, 3])
    pages = [render_comparison([("before", result), ("after", after)], "two") for after in (same, moved)]
    for page, bold in zip(pages, (True, False), strict=True):
        assert ('class="best" data-value="0.000777">777\u00a0µs' in page) == bold
        assert 'class="best" data-value="0.000123">123\u00a0µs' in page
        assert ("before, rank 3" in page) == ("Another rank is critical" in page) == (not bold)
    assert ">ranks 5, 3<" in pages[1] and ">rank 3<" in pages[1]
    slower = renamed(moved, layer_time_s=3e-3)
    assert 'class="best" data-value="0.000123">123\u00a0µs' not in render_comparison(
        [("before", result), ("after", slower)], "two"
    )


def test_what_applies_to_one_run_only_is_neutral(result: Result) -> None:
    row = next(row for row in compare(result, renamed(result, gate_mass_lost=None)).rows if row.key == "gate_mass_lost")
    assert (row.b, row.delta_percent, row.verdict) == (None, None, "neutral")


@pytest.mark.parametrize(
    ("key", "way"),
    [("layer_time_s", -1), ("rank_load_mean_over_max", 1), ("nic_wire_bytes", -1), ("bottleneck_utilisation", 0),
     ("lower_bound_s", 0), ("rank_wait_mean_s", 0), ("combine_time_mean_s", -1), ("dispatch_time_max_s", -1),
     ("tokens", 0), ("combine_busbw_bytes_per_s", 1), ("max_violation", -1), ("tpot_s", -1), ("layer_period_s", -1),
     ("tokens_per_second_per_gpu", 1), ("mfu", 1), ("pipeline_bubble_share", -1), ("contention_cost", -1),
     ("memory_free_bytes", 0), ("communication_hidden_share", 0)],
)  # fmt: skip
def test_the_good_direction_of_a_number(key: str, way: int) -> None:
    assert direction(key) == way


def spread(result: Result, *factors: float) -> dict[str, Band]:
    """Bands of a run over seeds that take so much longer each."""
    time = result.summary["layer_time_s"]
    return bands_over([result.summary | {"layer_time_s": time * factor} for factor in factors])


def test_a_band_reaches_from_the_least_to_the_most_of_the_seeds(result: Result) -> None:
    bands = spread(result, 1.0, 1.3, 0.9, 1.1)
    time = result.summary["layer_time_s"]
    assert bands["layer_time_s"] == Band(0.9 * time, pytest.approx(1.05 * time), 1.3 * time, 4)
    assert bands["rank_load_max_over_mean"].is_one_value
    assert "gate_mass_lost" not in bands_over([{"gate_mass_lost": 0.1}, {"gate_mass_lost": None}])
    assert not {"seed", "counterfactual", "bottleneck"} & set(bands)


@given(st.lists(st.floats(-5, 5), min_size=1), st.lists(st.floats(-5, 5), min_size=1))
def test_bands_touch_where_some_value_lies_in_both(ours: list[float], theirs: list[float]) -> None:
    a, b = (Band(min(values), 0.0, max(values), len(values)) for values in (ours, theirs))
    inside = [
        value for value in (a.low, a.high, b.low, b.high) if a.low <= value <= a.high and b.low <= value <= b.high
    ]
    apart = max(a.low, b.low) - min(a.high, b.high)
    assert a.touches(b) == b.touches(a)
    if inside:
        assert a.touches(b)
    elif apart > 1e-6:
        assert not a.touches(b)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.04, "within noise"), (1.2, "worse"), (0.97, "within noise"), (0.7, "better")]
)
def test_a_difference_within_the_noise_is_neither_better_nor_worse(result: Result, factor: float, verdict: str) -> None:
    other = renamed(result, layer_time_s=factor * result.summary["layer_time_s"])
    bands = spread(result, 1.0, 1.05, 0.95), spread(other, 1.0, 1.05, 0.95)
    comparison = compare(result, other, ("before", "after"), bands)
    row = next(row for row in comparison.rows if row.key == "layer_time_s")
    assert row.verdict == verdict and row.delta_percent == pytest.approx(100 * (factor - 1))
    worst = comparison.worst_regression(1.0)
    assert (worst is row) == (verdict == "worse")
    sentence = noise_sentence(comparison)
    assert ("within the noise of 3 seeds" in sentence) == (verdict == "within noise")
    assert ("outside the noise of 3 seeds" in sentence) == (verdict != "within noise")
    assert f"{abs(100 * (factor - 1)):.3g} % {'more' if factor > 1 else 'less'}" in sentence


def test_what_does_not_vary_with_the_seed_keeps_its_verdict(result: Result) -> None:
    other = renamed(result, nic_wire_bytes=1.001 * result.summary["nic_wire_bytes"])
    bands = spread(result, 1.0, 1.1), spread(other, 1.0, 1.1)
    rows = {row.key: row for row in compare(result, other, bands=bands).rows}
    assert rows["nic_wire_bytes"].verdict == "worse" and rows["layer_time_s"].verdict == "same"


def test_the_chart_of_the_noise_holds_medians_and_error_bars_against_the_first_run(result: Result) -> None:
    other = renamed(result, layer_time_s=1.2 * result.summary["layer_time_s"])
    bands = spread(result, 1.0, 1.1, 0.9), spread(other, 1.0, 1.1, 0.9)
    chart = noise_chart(
        compare(result, other, ("before", "after"), bands), {"layer_time_s": "layer time", "z_loss": "z"}
    )
    assert chart is not None and chart.rows == ("layer time",)  # the z loss is the same everywhere
    assert table_of(chart).columns == (
        "",
        "before (%)",
        "after (%)",
        "before, least (%)",
        "before, most (%)",
        "after, least (%)",
        "after, most (%)",
    )
    assert table_of(chart).rows[0][1:] == pytest.approx((0, 20, -10, 10, 8, 32))
    figure = figure_files([chart])["figures/noise.svg"].decode()
    assert "layer time" in figure and "change against the median of before (%)" in figure
    alike = compare(result, result, bands=(bands_over([result.summary]), bands_over([result.summary])))
    assert noise_chart(alike, {"layer_time_s": "layer time"}) is None


def test_the_page_of_two_runs_tells_differences_from_noise(result: Result) -> None:
    other = renamed(result, layer_time_s=1.04 * result.summary["layer_time_s"])
    bands = spread(result, 1.0, 1.05), spread(other, 1.0, 1.05)
    html = render_comparison([("before", result), ("after", other)], "before and after", "before", bands)
    page = Page(html)
    assert "The layer time of after is 4 % more than that of before, within the noise of 2 seeds" in page.words()
    assert "Differences against the noise of the seeds" in page.words() and "within noise" in page.words()
    without = Page(render_comparison([("before", result), ("after", other)], "before and after")).words()
    assert "within noise" not in without and "Differences and noise" not in without


def _figures(page: Page) -> set[str]:
    return {value for name, value in page.attributes if name == "id" and value.startswith("chart-")}


def _what_if(result: Result, *reasons: str, **changes: Any) -> Result:
    notes = tuple(Note("counterfactual", reason) for reason in reasons)
    return replace(renamed(result, counterfactual=True, **changes), notes=notes)


def test_a_router_that_is_the_same_in_all_runs_brands_no_difference_between_them(result: Result) -> None:
    slow = _what_if(result, "no group limit on logits trained with 4 of 8 groups")
    fast = replace(slow, summary=slow.summary | {"layer_time_s": 1e-3, "dispatch_algbw_bytes_per_s": 3e9})
    page = Page(render_comparison([("400G", slow), ("800G", fast)], "several"))
    words = page.words()
    assert "In all runs alike the router is not the one of the logits: no group limit on logits trained" in words
    assert "what differs between the runs does not come from it." in words
    assert "800G is the fastest of 2 runs:" in words
    assert not {value for name, value in page.attributes if name == "class"} & {"what-if", "badge counterfactual"}
    assert "Bold: best of all runs" in words


def test_what_is_the_same_in_all_runs_is_one_line_and_no_panel(result: Result) -> None:
    fast = renamed(result, layer_time_s=1e-3, dispatch_algbw_bytes_per_s=3e9, link_load_max_over_mean=1.25)
    page = Page(render_comparison([("400G", result), ("800G", fast)], "two"))
    words = page.words()
    figures = _figures(page)
    assert {"chart-imbalance", "chart-dispatch_bandwidth", "chart-rank_times"} <= figures
    assert not {"chart-bytes", "chart-expert_loads", "chart-copies", "chart-gate_mass"} & figures
    assert "Same in all 2 runs: combine bandwidth (" in words
    assert "; bytes on the wires, bytes per layer (GB): NVLink 3, NIC 1; gate mass lost (%): 4; " in words
    assert "; load of the experts." in words
    folded = words[words.index("more numbers") : words.index("Same in all 2 runs: combine")]
    assert "ranks max/mean" in folded and "1.5" in folded and "links max/mean" not in folded
    alone = _figures(Page(render_comparison([("a", result)], "one")))
    assert {"chart-bytes", "chart-expert_loads", "chart-copies", "chart-gate_mass"} <= alone


def test_the_verdict_and_the_box_agree_on_whether_what_ifs_take_part(result: Result) -> None:
    router = {"router": result.explanation["router"] | {"kind": "v1"}}
    own = ("own", result)
    first = ("first", _what_if(result, "bias off on logits trained with it", layer_time_s=1e-3))
    second = ("second", explained(_what_if(result, "kind v1 on logits trained with v3", layer_time_s=9e-4), **router))
    for runs, included, why in (
        ([first, second], True, "since no run has the router of its logits."),
        ([own, first, second], True, "since only one run has the router of its logits."),
        ([own, ("also", explained(renamed(result, layer_time_s=2e-3), **router)), second], False, ""),
    ):
        page = render_comparison(runs, "several")
        words = Page(page).words()
        what_ifs = sum(run.summary["counterfactual"] for _, run in runs)
        assert f"{what_ifs} of {len(runs)} runs are counterfactual (marked what-if)" in words
        assert ("second is the fastest" in words) == included == bool(re.search('class="best"[^>]*>900\u00a0µs', page))
        assert ("take no part" in words) != included and (why in words)

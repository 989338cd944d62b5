"""What the charts say: their numbers are those of the tables."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.report.balance_charts import layer_charts, training_charts, training_fingerprint
from moesim.report.charts import TABLE_ROWS, BarChart, DotChart, HeatMap, LineChart, Mark, Series, table_of
from moesim.report.comparison_charts import comparison_charts, training_overlays
from moesim.report.data_table import shown
from moesim.report.interactive import Drawn, documents, legend_of
from moesim.report.rank_times import rank_times_chart, rank_times_of_runs, roofline_chart
from moesim.report.run_tables import held, waits
from moesim.report.scales import line_scales, point_names, scale_of
from moesim.report.time_charts import link_series_chart, rank_wait_chart, time_chart, timeline_chart, wait_chart
from moesim.report.traffic_charts import (
    bandwidth_chart,
    expert_chart,
    hot_experts,
    link_map,
    node_traffic_chart,
    rank_chart,
    top_links,
    traffic_chart,
)
from moesim.results import Result, Tables
from tests.report.conftest import PARTS, RANKS, fake_result


def test_the_parts_of_the_time_bar_add_up_to_the_layer_time(result: Result) -> None:
    chart = time_chart([("toy", result)])
    assert chart.x_label == "time per layer (ms)"
    assert chart.totals()[0] == pytest.approx(1e3 * sum(PARTS.values()))
    assert [part.kind for part in chart.parts] == ["compute"] * 4 + ["transfer"] * 2 + ["wait"] * 2
    assert chart.bounds[0] == pytest.approx(0.8)


def test_the_heat_map_holds_every_byte_of_the_transfers(result: Result) -> None:
    chart = traffic_chart(result)
    assert chart is not None and chart.grid_every == 4
    table = result.tables.columns("transfers")
    moved = table["wire_bytes"][np.asarray(table["phase"]) == "dispatch"].sum() / 2  # two layers
    unit = {"kB": 1e3, "MB": 1e6}[chart.value_label.split("(")[1].rstrip(")")]
    assert chart.matrices["dispatch"].sum() * unit == pytest.approx(moved)
    assert (np.diag(chart.matrices["dispatch"]) == 0).all()


def test_above_256_ranks_the_heat_map_is_between_nodes() -> None:
    chart = traffic_chart(_per_node(fake_result(ranks=512)))
    assert chart is not None
    assert chart.title == "Traffic between nodes" and chart.matrices["dispatch"].shape == (2, 2)


def _per_node(result: Result) -> Result:
    columns = {name: result.tables.columns(name) for name in result.tables}
    transfers = dict(columns["transfers"])
    for side in ("source_rank", "target_rank"):
        transfers[side] = np.asarray(transfers[side]) // 4
    return Result(
        result.summary, Tables(columns | {"transfers": transfers}), result.notes, result.explanation, {}, {},
        result.scenario_yaml,
    )  # fmt: skip


def test_expert_bars_are_sorted_and_marked_with_the_noise_floor(result: Result) -> None:
    chart = expert_chart(result)
    assert (np.diff(chart.values) <= 0).all()
    mean = chart.values.mean()
    assert {mark.label: mark.value / mean for mark in chart.marks} == {
        "mean": pytest.approx(1.0),
        "most loaded expert under a uniform router": pytest.approx(1.11),
    }
    # The layer with the worst max/mean is shown and named.
    assert chart.title == "Load of the experts, recorded layer 2"


def test_replicas_of_an_expert_are_one_bar_on_several_ranks(result: Result) -> None:
    columns = {name: result.tables.columns(name) for name in result.tables}
    experts = dict(columns["experts"])
    experts["expert"] = np.asarray(experts["expert"]) // 2
    merged = Result(
        result.summary, Tables(columns | {"experts": experts}), (), result.explanation, {}, {}, result.scenario_yaml
    )
    chart = expert_chart(merged)
    assert len(chart.values) == 8
    assert chart.values.sum() == expert_chart(result).values.sum()
    assert len(hot_experts(merged).rows) == 12


def test_hot_experts_of_several_steps_name_their_step(result: Result) -> None:
    columns = {name: result.tables.columns(name) for name in result.tables}
    experts = columns["experts"]
    doubled = {name: np.ma.concatenate([np.ma.asarray(values)] * 2) for name, values in experts.items()}
    doubled["step"] = np.repeat([0, 1], len(experts["step"]))
    twice = Result(
        result.summary, Tables(columns | {"experts": doubled}), (), result.explanation, {}, {}, result.scenario_yaml
    )
    table = hot_experts(twice)
    assert table.columns[:2] == ("step", "recorded layer")
    assert {row[0] for row in table.rows} == {0, 1} and {row[1] for row in table.rows} == {1, 2}
    assert hot_experts(result).columns[0] == "recorded layer"


def test_rank_bars_are_means_over_the_layers(result: Result) -> None:
    assert rank_chart(result).values.tolist() == [1000 + 100 * rank for rank in range(RANKS)]


def test_the_wait_matrix_blames_the_rank_that_came_late(result: Result) -> None:
    chart = wait_chart(result)
    assert chart is not None
    matrix = chart.matrices[""]
    assert matrix[:, 1:].sum() == 0
    assert matrix[3, 0] == pytest.approx(15.0)  # microseconds: 3 x 5 us in each of two layers
    assert chart.value_label == "wait (µs)"


def test_ranks_that_came_late_together_share_the_blame() -> None:
    result = fake_result(layers=1)
    spans = result.tables.columns("spans")
    late = np.isin(spans["rank"], (0, 4, 5)) & (np.asarray(spans["phase"]) == "dispatch")
    spans["start_s"][late], spans["wait_s"][late] = 5.5e-5, 0.0
    chart = wait_chart(result)
    assert chart is not None
    matrix = chart.matrices[""]
    assert matrix[3, [0, 4, 5]] == pytest.approx([5.0, 5.0, 5.0])  # of 3 x 5 us
    assert np.flatnonzero(matrix.sum(axis=0)).tolist() == [0, 4, 5]
    lanes = timeline_chart(result)
    assert lanes is not None and any(note.endswith("for ranks 0, 4 and 5") for note in lanes.note)


def test_no_wait_means_no_wait_charts() -> None:
    result = fake_result()
    for table in ("spans", "ranks"):
        result.tables.columns(table)["wait_s"][:] = 0.0
    assert wait_chart(result) is None
    assert rank_wait_chart(result) is None


def test_the_timeline_shows_every_rank_and_its_wait(result: Result) -> None:
    chart = timeline_chart(result)
    assert chart is not None and chart.rows == tuple(str(rank) for rank in range(RANKS))
    waits = [i for i, phase in enumerate(chart.phase) if phase == "wait"]
    assert len(waits) == RANKS - 1
    assert chart.note[waits[-1]].endswith("for rank 0")
    length = sum(chart.end[i] - chart.start[i] for i in range(len(chart.row)) if chart.row[i] == 7)
    assert length == pytest.approx(1.52)  # all phases of the fake layer, in ms


def test_a_timeline_of_many_ranks_keeps_the_slowest() -> None:
    result = fake_result(layers=1)
    spans = result.tables.columns("spans")
    rank = np.arange(100, dtype=np.int32)
    start = np.zeros(100)
    spans |= {
        "step": start, "layer": start, "micro_batch": start, "rank": rank, "node": rank // 4,
        "lane": np.full(100, "compute"),
        "phase": np.full(100, "gate"), "start_s": start, "end_s": 1e-3 + 1e-6 * ((rank * 37) % 100),
        "wait_s": start, "waited_on": np.ma.masked_all(100),
    }  # fmt: skip
    chart = timeline_chart(result)
    assert chart is not None and len(chart.rows) == 64
    assert chart.end.min() == pytest.approx(1.036)
    assert "64 of 100 ranks" in chart.caption


def test_link_curves_break_between_dispatch_and_combine(result: Result) -> None:
    chart = link_series_chart(result)
    assert chart is not None
    assert [one.label for one in chart.series] == ["NVLink busiest", "NVLink mean", "NIC busiest", "NIC mean"]
    for one in chart.series:
        assert len(one.x) == 21 and np.isnan(one.y).sum() == 1
        assert np.nanmax(one.y) <= 100


def test_the_layers_have_the_numbers_of_the_recording(result: Result) -> None:
    for chart in layer_charts(result):
        assert chart.x_label == "recorded layer" and chart.series[0].x.tolist() == [1.0, 2.0]
    lanes, links = timeline_chart(result), link_series_chart(result)
    assert lanes is not None and links is not None
    assert lanes.title.endswith("recorded layer 1") and links.title.endswith("recorded layer 1")


def test_layers_that_share_a_recorded_one_keep_their_own_numbers() -> None:
    result = fake_result(layers=3)
    result.tables.columns("steps")["recorded_layer"][:] = 5
    assert [chart.x_label for chart in layer_charts(result)] == ["layer", "layer"]
    assert expert_chart(result).title == "Load of the experts, layer 2 (recorded layer 5)"


def test_bandwidth_points_lie_on_size_over_time(result: Result) -> None:
    chart = bandwidth_chart(result)
    assert chart is not None and chart.log_x and chart.log_y
    assert {mark.label: mark.value for mark in chart.marks} == {"NVLink peak": 200.0, "NIC peak": 50.0}
    for one in chart.series:  # every fake transfer takes a microsecond per copy of 7,472 bytes
        assert one.y == pytest.approx(np.full(len(one.y), 7.472))


def test_what_held_the_critical_ranks_is_told_per_layer_and_as_a_share_of_all(result: Result) -> None:
    # 2.5 ms over two layers
    assert [tuple(map(shown, row)) for row in held(result).rows] == [
        ("wires: NVLink", "800 µs", "64 %"),
        ("its own compute", "300 µs", "24 %"),
        ("waiting for rank 0", "100 µs", "8 %"),
        ("set-up: layout, notify, CPU synchronisation", "50 µs", "4 %"),
    ]


def drawn(chart: Drawn, kind: str = "") -> list[dict[str, Any]]:
    """Glyphs of a chart with their style and columns, of one kind if asked."""
    (root,) = documents(chart).values()
    found = []
    for one in root["attributes"]["renderers"]:
        glyph, data = (one["attributes"][part] for part in ("glyph", "data_source"))
        columns = dict(data["attributes"]["data"]["entries"]) if "attributes" in data else {}  # another's source
        found.append({"kind": glyph["name"], **columns, "style": glyph["attributes"]})
    return [one for one in found if not kind or one["kind"] == kind]


def hovers(chart: Drawn) -> list[dict[str, Any]]:
    tools = next(iter(documents(chart).values()))["attributes"]["toolbar"]["attributes"]["tools"]
    return [tool["attributes"] for tool in tools if tool["name"] == "HoverTool"]


def lines(*series: Series, **options: Any) -> LineChart:
    return LineChart("key", "title", "caption", "x", "y", series, **options)


def test_a_series_is_drawn_in_its_own_style() -> None:
    x = np.arange(3.0)
    for style, kinds in (("line", ["Line", "Scatter"]), ("dashed", ["Line", "Scatter"]), ("points", ["Scatter"])):
        found = drawn(lines(Series("a", x, x, "#112233", style)))  # type: ignore[arg-type]
        seen = [one for one in found if one["style"].get("line_alpha") != 0.0]
        assert [one["kind"] for one in seen] == kinds  # few points are marked too
        assert ("line_dash" in seen[0]["style"]) == (style == "dashed")
    stairs = drawn(lines(Series("a", x, x, "#112233", "steps")), "Line")[0]
    assert list(zip(stairs["x"], stairs["y"], strict=True)) == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]


def test_no_text_under_the_pointer_is_not_a_number() -> None:
    nan = float("nan")
    y = np.array([1.0, nan, 3.0, 4.0])
    x = np.arange(4.0)
    matrix = np.array([[0.0, 2.0], [nan, 3.0]])
    for chart in (
        lines(Series("a", x, y, "#112233"), Series("b", x, x, "#445566")),
        lines(Series("a", x, y, "#112233"), Series("b", x[1:], y[1:], "#445566")),
        lines(Series("a", x, y, "#112233", "points")),
        BarChart("key", "t", "c", "x", "y", ("p", "q"), np.array([1.0, nan]), details={"more": (None, 2)}),
        DotChart("key", "t", "c", "x", ("p", "q"), {"a": np.array([1.0, nan]), "b": np.array([nan, nan])}),
        HeatMap("key", "t", "c", "row", "column", "value", {"": matrix}),
    ):
        shown = {name.lstrip("@") for one in hovers(chart) for _, text in one["tooltips"]
                 for name in re.findall(r"@\w+", text)}  # fmt: skip
        texts = [one[name] for one in drawn(chart) for name in shown & one.keys()]
        assert texts and "NaN" not in json.dumps(texts) and '"nan"' not in json.dumps(texts)


def test_one_text_says_what_all_curves_are_at_the_nearest_x() -> None:
    x = np.array([0.0, 10.0, 20.0])
    chart = lines(Series("a", x, np.array([1.0, 2.0, 12345.678]), "#112233"),
                  Series("b", x, np.array([np.nan, 5.0, 6.0]), "#445566", "dashed"))  # fmt: skip
    (hover,) = hovers(chart)
    assert hover["mode"] == "vline" and hover["tooltips"] == [["x", "@at"], ["a", "@s0"], ["b", "@s1"]]
    unseen = drawn(chart, "Line")[-1]
    assert (unseen["s0"], unseen["s1"]) == (["1", "2", "12,346"], ["–", "5", "6"])


def test_points_apart_in_x_each_tell_their_nearest() -> None:
    chart = lines(Series("a", np.arange(3.0), np.arange(3.0), "#112233"), Series("b", np.arange(4.0), np.ones(4), "#1"))
    assert [hover["mode"] for hover in hovers(chart)] == ["vline"]
    bars = BarChart("key", "t", "c", "x", "y", ("p",), np.ones(1))
    dots = DotChart("key", "t", "c", "x", ("p",), {"a": np.ones(1)})
    assert [hovers(chart)[0]["mode"] for chart in (bars, dots)] == ["vline", "hline"]


def test_values_that_differ_by_rounding_alone_have_an_axis_with_room_around_them() -> None:
    scale = scale_of([np.array([0.3, 0.3 + 1e-16, 0.3 - 1e-16])])
    assert (scale.low, scale.high) == (pytest.approx(0.27), pytest.approx(0.33))
    assert scale_of([np.array([0.3, 0.3001])]).high < 0.30011


def test_a_slot_is_hot_once_however_many_micro_batches_have_it(result: Result) -> None:
    experts = result.tables.columns("experts")
    twice = {name: np.ma.concatenate([column, column]) for name, column in experts.items()}
    n = len(experts["layer"])
    twice["micro_batch"] = np.repeat([0, 1], n).astype(np.int32)
    tables = {name: result.tables.columns(name) for name in result.tables}
    again = replace(result, tables=Tables(tables | {"experts": twice}))
    rows = hot_experts(again).rows
    assert list(map(str, rows)) == list(map(str, hot_experts(result).rows)) and len(rows) > 5


def test_numbers_of_an_axis_are_never_rounded_to_nothing() -> None:
    for values, formatter in (((1e-7, 10.0), "PrintfTickFormatter"), ((0.0, 1e6), "NumeralTickFormatter")):
        y = np.array(values)
        chart = lines(Series("a", np.arange(2.0), y, "#112233"), log_y=values[0] > 0)
        (root,) = documents(chart).values()
        assert root["attributes"]["left"][0]["attributes"]["formatter"]["name"] == formatter


def test_names_of_points_cover_neither_points_nor_each_other() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, 1, (2, 9))
    names = tuple(f"M = {i}" for i in range(9))
    chart = lines(Series("a", x, y, "#112233", "line", names))
    placed = point_names(chart)
    assert {one.text for one in placed} == set(names)
    assert len({(one.right, one.above) for one in placed}) > 1
    across, up = line_scales(chart)
    for one in placed:  # a box of the name's size, in parts of the chart
        at = (float(across.place(one.x)), float(up.place(one.y)))
        near = sorted((at[0] + 0.012 * one.right, at[0] + 0.06 * one.right))
        high = sorted((at[1] + 0.012 * one.above, at[1] + 0.06 * one.above))
        inside = (across.place(x) > near[0]) & (across.place(x) < near[1])
        assert not (inside & (up.place(y) > high[0]) & (up.place(y) < high[1])).any()


def test_the_best_point_is_a_star_where_it_lies() -> None:
    x = np.arange(3.0)
    chart = lines(Series("a", x, x, "#112233", "line", ("1", "2 ★", "3")))
    marked = drawn(chart, "Scatter")[0]
    assert marked["marker"] == ["circle", "star", "circle"]
    assert "★" not in {one.text for one in point_names(chart)}


def test_levels_are_named_beside_the_chart_not_over_it(result: Result) -> None:
    chart = expert_chart(result)
    (root,) = documents(chart).values()
    assert {one["name"] for one in root["attributes"]["center"]} == {"Grid", "Span"}
    named = [(label, style) for label, _, style in legend_of(chart)]
    mean = float(chart.values.mean())
    assert named[0] == (f"mean: {mean:,.4g}", "dashed")
    assert named[1] == (f"most loaded expert under a uniform router: {1.11 * mean:,.4g}", "dotted")


def test_links_are_listed_by_how_near_they_are_to_their_limit(result: Result) -> None:
    table = top_links(result)
    assert len(table.rows) == 10
    assert table.rows[0][:3] == ("combine", "n1.gpu3->rail3.leaf", "nic")
    assert shown(table.rows[0][4]) == "95 %"


def test_one_layer_has_no_curves_over_layers() -> None:
    assert layer_charts(fake_result(layers=1)) == []
    assert [chart.key for chart in layer_charts(fake_result(layers=3))] == ["layer_imbalance", "layer_losses"]


def test_training_curves_leave_out_losses_that_are_zero_throughout(result: Result) -> None:
    charts = {chart.key: chart for chart in training_charts(result)}
    assert list(charts) == ["training_imbalance", "training_losses", "training_bias"]
    assert [one.label for one in charts["training_losses"].series] == ["expert", "device", "communication", "sequence"]
    assert charts["training_imbalance"].series[0].y.tolist() == [3.0, 2.0, 1.0]
    assert training_charts(fake_result(training=False)) == []
    assert training_fingerprint(fake_result(training=False)) == b""


def test_variants_of_one_recording_share_a_training_curve(variants: list[tuple[str, Result]]) -> None:
    charts = {chart.key: chart for chart in training_overlays(variants)}
    assert [one.label for one in charts["training_max_over_mean"].series] == ["tiny-v1", "tiny-v2", "tiny-v3"]
    assert "training_z_loss" not in charts


def test_the_group_limits_of_one_router_are_joined_and_named_by_m(variants: list[tuple[str, Result]]) -> None:
    chart = comparison_charts(variants)["trade_off"]
    assert isinstance(chart, LineChart)
    joined = next(one for one in chart.series if one.style == "line")
    assert joined.point_labels == ("M = 1", "M = 3", "M = 5")
    assert joined.x == pytest.approx([30.0, 10.0, 6.0])
    assert {one.label for one in chart.series if one.style == "points"} == {"v1", "v3"}


def test_without_several_limits_there_is_no_trade_off(variants: list[tuple[str, Result]]) -> None:
    assert comparison_charts([variants[0], variants[-1]])["trade_off"] is None


def test_points_that_lie_on_each_other_share_a_label() -> None:
    runs = [
        (f"m{limit}", fake_result(f"m{limit}", gate_mass_lost=lost, layer_time_s=time, router={"top_groups": limit}))
        for limit, lost, time in ((1, 0.4, 1e-3), (6, 0.001, 2e-3), (7, 0.0005, 2e-3), (8, 0.0, 2e-3))
    ]
    chart = comparison_charts(runs)["trade_off"]
    assert isinstance(chart, LineChart)
    assert chart.series[0].point_labels == ("M = 1", "M = 6 to 8", "", "")


def test_a_long_table_says_what_was_left_out_and_where_it_is() -> None:
    x = np.arange(1000.0)
    chart = LineChart("k", "t", "c", "x", "y", (Series("a", x, x, "#000000"),), source="rows.parquet")
    table = table_of(chart)
    assert len(table.rows) == TABLE_ROWS
    assert table.left_out == "The first 300 of 1,000 rows. All are in rows.parquet."


def test_curves_over_different_x_are_listed_point_by_point() -> None:
    series = (
        Series("a", np.array([1.0]), np.array([2.0]), "#000000"),
        Series("b", np.array([3.0, 4.0]), np.array([5.0, np.nan]), "#000000"),
    )
    assert table_of(LineChart("k", "t", "c", "x", "y", series)).rows == [("a", 1, 2), ("b", 3, 5), ("b", 4, None)]


def test_a_large_matrix_is_tabled_by_its_totals() -> None:
    result = fake_result()
    chart = traffic_chart(result)
    assert chart is not None
    table = table_of(chart)
    assert len(table.columns) == 2 + RANKS and len(table.rows) == 2 * RANKS
    wide = type(chart)("k", "t", "c", "row", "column", "bytes", {"": np.ones((80, 80))})
    assert table_of(wide).rows[0] == (0, 80, 80)


def test_a_distribution_of_the_ranks_times_counts_ranks_and_leaves_waiting_out(result: Result) -> None:
    spans = dict(result.tables.columns("spans"))
    expert, rank = np.asarray(spans["phase"]) == "expert_compute", np.asarray(spans["rank"])
    spans["end_s"] = np.where(expert, spans["start_s"] + 3e-4 + 1e-5 * rank, spans["end_s"])
    chart = rank_times_chart(replace(result, tables=Tables({"spans": spans})))
    assert chart is not None
    times = {one.label: (one.x, one.y) for one in chart.series}
    x, share = times["expert compute"]
    assert x.tolist() == pytest.approx([300, *(300 + 10 * rank for rank in range(8))])
    assert share.tolist() == pytest.approx([0, *(12.5 * n for n in range(1, 9))])
    assert times["combine"][0].tolist() == [800, 800] and times["combine"][1].tolist() == [0, 100]
    assert times["dispatch"][0].max() == pytest.approx(400)  # ranks wait for up to 35 us beside that
    runs = rank_times_of_runs([("a", result), ("b", result)])
    assert runs is not None and [one.label for one in runs.series] == ["a", "b"]
    assert set(runs.series[0].x.tolist()) == {1.3}  # 300 us of compute and 1 ms of transfer


def test_no_rank_lies_above_the_roofline_and_each_has_its_own_work_and_time(result: Result) -> None:
    chart = roofline_chart(result)
    assert chart is not None
    roof, ranks = chart.series
    # 1e11 (1 + r) FLOPs over 1e8 bytes in 200 us; the GPU has 2 PFLOP/s and 4 TB/s.
    assert ranks.x.tolist() == [1000 * (1 + rank) for rank in range(8)]
    assert ranks.y.tolist() == pytest.approx([500 * (1 + rank) for rank in range(8)])
    assert ranks.hints[3] == "rank 3"
    assert (roof.x[1], roof.y.tolist()) == (500, [1000, 2000, 2000])
    assert roof.x[2] == 16_000


def test_links_over_time_are_spans_of_equal_use(result: Result) -> None:
    chart = link_map(result)
    assert chart is not None
    assert chart.rows == ("n0.gpu0->n0.nvswitch", "n0.gpu0->rail0.leaf")
    spans = list(zip(chart.row.tolist(), chart.start.tolist(), chart.end.tolist(), chart.phase, strict=True))
    high, middle, low = "80 to 100 %", "40 to 60 %", "20 to 40 %"
    assert [(row, phase) for row, _, _, phase in spans] == [
        (0, high), (0, middle), (0, middle), (0, high), (1, low), (1, low)]  # fmt: skip
    assert np.array([span[1:3] for span in spans]) == pytest.approx(
        1e6 * np.array([(0, 2e-4), (2e-4, 3e-4), (5e-4, 6e-4), (6e-4, 8e-4), (0, 3e-4), (5e-4, 8e-4)])
    )
    assert chart.note[0] == "90 % on average"


def test_bytes_between_nodes_are_the_sums_over_their_ranks(result: Result) -> None:
    nodes, ranks = node_traffic_chart(result), traffic_chart(result)
    assert nodes is not None and ranks is not None
    for phase, matrix in ranks.matrices.items():
        by_node = matrix.reshape(2, 4, 2, 4).sum(axis=(1, 3))
        unit = by_node / nodes.matrices[phase]
        assert unit == pytest.approx(np.full((2, 2), unit[0, 0]))
    assert [name.partition(" ")[0] for name in table_of(nodes).columns[-2:]] == ["0", "1"]


def test_losses_are_drawn_over_their_values_in_balance(result: Result) -> None:
    losses = layer_charts(result)[1]
    assert losses.marks == (Mark("perfect balance", 1.0),)
    # 0.01 where 0.005 is balance; the z-loss has none.
    assert {one.label: one.y.tolist() for one in losses.series} == {
        name: [2, 2] for name in ("expert", "device", "communication", "sequence")
    }


def test_the_longest_waits_name_who_waited_for_whom_in_which_phase(result: Result) -> None:
    # Every rank but the first waits for it in dispatch, 5 µs times its number, in each of two layers.
    table = waits(result)
    assert table is not None
    assert [row[:5] for row in table.rows] == [(rank, rank // 4, 0, 0, "dispatch") for rank in range(7, 0, -1)]
    assert [shown(row[5]) for row in table.rows] == [f"{5 * rank} µs" for rank in range(7, 0, -1)]

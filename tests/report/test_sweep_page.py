"""The page of a sweep: what it says, what its maps and charts hold, what its card tells of each point."""

import json
import re
import shlex
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.report import AxisEffect, SweepAxis, SweepData, render_sweep
from moesim.report.charts import DotChart, LineChart, table_of
from moesim.report.quantities import named_quantity
from moesim.report.static import figure_files
from moesim.report.sweep_answer import sweep_verdict
from moesim.report.sweep_charts import axis_charts, number_charts, pareto_charts, scaling_charts
from moesim.report.sweep_maps import MOST_CELLS, cell_text, heat_maps
from moesim.report.sweep_page import TABLE_ROWS, _what_if
from moesim.results import Value
from tests.report.test_page import HOSTILE, Page

GROUPS = SweepAxis(("routing.top_groups",), (("1",), ("2",), ("3",), ("4",)))
EXPERTS = SweepAxis(("model.n_experts",), (("64",), ("256",)))
TOP_K = SweepAxis(("routing.top_k",), (("2",), ("4",), ("8",)))
NIC = SweepAxis(("cluster.nic_bandwidth",), (("400Gb/s",), ("1.6Tb/s",)))
SMALL_WITH_VARIANTS = """\
name: small
cluster: {topology: two-nodes-explicit}
model: {preset: deepseek-v3, n_experts: 16, hidden: 1024, expert_hidden: 256}
routing: {kind: v3, top_k: 4, groups: 8, top_groups: 4}
workload:
  synthetic: {kind: lognormal, sigma: 0.8, sequence_length: 16}
  tokens_per_rank: 16
variants: {a: {routing.top_k: 2}, b: {}}
"""
LIMIT = "gate_mass_lost < 0.15"


def swept(axes: tuple[SweepAxis, ...] = (EXPERTS, GROUPS, TOP_K), **changes: Any) -> SweepData:
    """A sweep whose numbers follow from its places: with three axes, M = 1 with K = 8 is impossible, point 4 failed.

    The layer takes (1 + 10 M + K) x experts / 64 microseconds; the gate mass lost falls with M: 0.3, 0.2, 0.1, 0.
    """
    places = np.array(list(product(*(range(len(axis.values)) for axis in axes))), np.int64)

    def along(axis: SweepAxis, values: tuple[float, ...], absent: float) -> np.ndarray:
        return np.array(values)[places[:, axes.index(axis)]] if axis in axes else np.full(len(places), absent)

    groups, top_k = along(GROUPS, (1, 2, 3, 4), 4), along(TOP_K, (2, 4, 8), 4)
    experts = along(EXPERTS, (64, 256), 64)
    impossible = (groups == 1) & (top_k == 8)
    failed = np.arange(len(places)) == 4 if len(axes) == 3 else np.zeros(len(places), bool)
    ok = ~impossible & ~failed
    time = (1 + 10 * groups + top_k) * experts / 64 * 1e-6
    lost = (4 - groups) / 10
    imbalance = 1 + 1 / top_k
    numbers = {"layer_time_s": time, "gate_mass_lost": lost, "rank_load_max_over_mean": imbalance,
               "tokens": np.full(len(places), 8000.0), "ranks": np.full(len(places), 8.0)}  # fmt: skip
    status = np.where(impossible, "impossible", np.where(failed, "failed", "ok"))
    kept = ok & (lost < 0.15)
    best = int(np.flatnonzero(kept)[np.argmin(time[kept])])
    data = SweepData(
        title="m-by-k",
        axes=axes,
        places=places,
        columns={
            "status": status.tolist(),
            "error": [{"impossible": "K above M's experts", "failed": "out of bounds"}.get(s) for s in status],
            "bottleneck": ["the NICs" if good else None for good in ok],
            "counterfactual": [bool(good and m == 1) if good else None for good, m in zip(ok, groups, strict=True)],
            **{key: [float(v) if good else None for v, good in zip(values, ok, strict=True)]
               for key, values in numbers.items()},
        },
        objective=f"layer_time_s where {LIMIT}",
        key="layer_time_s",
        larger_is_better=False,
        limits={LIMIT: kept},
        best=best,
        front=(best,),
        effects=(AxisEffect("model.n_experts", "64", "64", "256", 3.0, 3.0),
                 AxisEffect("routing.top_groups", "3", "1", "4", 0.4, 0.5),
                 AxisEffect("routing.top_k", "2", "2", "8", None, 0.1))[: len(axes)],
        command=lambda point: f"moesim run m-by-k --out point-{point}",
    )  # fmt: skip
    return replace(data, **changes)


@pytest.fixture(scope="module")
def html() -> str:
    return render_sweep(swept())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_verdict_names_the_best_point_the_price_of_the_limits_and_the_strongest_axis(page: Page) -> None:
    assert (
        "Best point is n_experts = 64, top_groups = 3, top_k = 2: layer time 33 µs, 83.2 % less than the worst point "
        "within the limits (n_experts = 256, top_groups = 4, top_k = 8: 196 µs)." in page.words()
    )
    # Of 24 points 2 are impossible and 1 failed; 9 of the rest lose too much, (64, 1, 2) first.
    assert (
        f"{LIMIT} excludes 9 of 21 points; the best of them, point 0 (n_experts = 64, top_groups = 1, top_k = 2), "
        f"would be 13 µs but breaks {LIMIT} (0.3)." in page.words()
    )
    assert "The strongest axis is n_experts: 256 instead of 64 is 4 times as much" in page.words()
    assert "24 points: 21 ok, 1 failed, 2 impossible" in page.words()


def test_a_sweep_without_a_point_in_the_limits_names_the_nearest() -> None:
    data = swept(best=None, front=(), limits={LIMIT: np.zeros(24, bool)}, effects=())
    verdict = sweep_verdict(data)
    assert verdict.headline == f"No point keeps {LIMIT}."
    assert "point 0 (n_experts = 64, top_groups = 1, top_k = 2): 13 µs" in verdict.text
    assert "★ best" not in Page(render_sweep(data)).words()


def test_a_sweep_of_failures_says_why() -> None:
    data = swept()
    columns = {key: [None] * 24 for key in data.columns} | {"status": ["failed"] * 24, "error": ["no memory"] * 24}
    words = Page(render_sweep(swept(columns=columns, best=None, front=(), effects=()))).words()
    assert "No point has a result: 24 failed. The reasons are below." in words
    assert "no memory 24" in words and "No map:" in words


def test_where_more_is_better_the_effect_is_told_as_a_loss() -> None:
    verdict = sweep_verdict(swept(larger_is_better=True))
    assert "256 instead of 64 is 75 % less" in verdict.text


def test_limits_that_cost_nothing_are_said_to() -> None:
    data = swept()
    ok = np.array(data.status) == "ok"
    assert f"Every point keeps {LIMIT}." in sweep_verdict(swept(limits={LIMIT: ok})).text
    slow = ok & (data.column("layer_time_s") < 1e-4)
    assert f"{LIMIT} excludes 7 of 21 points, none of them better." in sweep_verdict(
        swept(limits={LIMIT: slow}, best=0)
    ).text  # fmt: skip
    assert "excludes" not in sweep_verdict(swept(limits={}, best=0)).text


def test_three_axes_are_maps_of_two_side_by_side_over_the_one_with_fewest_values() -> None:
    maps = heat_maps(swept())
    assert maps is not None
    assert [panel.title for panel in maps.panels] == ["n_experts = 64", "n_experts = 256"]
    assert (maps.row_name, maps.column_name, maps.columns) == ("top_k", "top_groups", ("1", "2", "3", "4"))
    by_label = {label: [cell.text for cell in line] for label, line in maps.panels[0].rows}
    assert by_label == {
        "2": ["13.0", "23.0", "33.0", "43.0"],
        "4": ["15.0", "", "35.0", "45.0"],
        "8": ["", "29.0", "39.0", "49.0"],
    }
    kinds = [[cell.kind for cell in line] for _, line in maps.panels[0].rows]
    assert kinds == [["over", "over", "ok", "ok"], ["over", "failed", "ok", "ok"], ["impossible", "over", "ok", "ok"]]
    assert (maps.low, maps.high, maps.unit) == ("13.0", "196", "µs")
    # Every point has its cell, with its number.
    assert sorted(cell.point for panel in maps.panels for _, line in panel.rows for cell in line) == list(range(24))


def test_the_darkest_cell_has_the_least_and_the_lightest_the_most() -> None:
    maps = heat_maps(swept())
    assert maps is not None
    style = {cell.text: cell.style for panel in maps.panels for _, line in panel.rows for cell in line}
    assert style["13.0"] == "background:#00224e;color:#ffffff"
    assert style["196"] == "background:#fee838;color:#000000"


def test_a_fourth_axis_is_held_where_the_reader_puts_it() -> None:
    maps = heat_maps(swept((EXPERTS, GROUPS, TOP_K, NIC)))
    assert maps is not None
    assert [(axis.name, axis.labels, axis.chosen) for axis in maps.held] == [
        ("nic_bandwidth", ("400Gb/s", "1.6Tb/s"), 0)
    ]
    assert [(panel.held, panel.shown) for panel in maps.panels] == [("0", True), ("1", False)] * 2


def test_one_axis_is_one_line_of_cells_and_long_values_stand_at_the_side() -> None:
    across = heat_maps(swept((GROUPS,)))
    assert across is not None and len(across.panels[0].rows) == 1 and across.columns == ("1", "2", "3", "4")
    recordings = SweepAxis(("workload.recording.name", "routing.kind"), (("tiny-v1", "v1"), ("tiny-v2", "v2")))
    down = heat_maps(swept((recordings,), effects=()))
    assert down is not None
    assert [label for label, _ in down.panels[0].rows] == ["tiny-v1 / v1", "tiny-v2 / v2"]
    assert down.row_name == "recording.name + routing.kind"
    seven = heat_maps(swept((NIC,), effects=()))  # letters still fit above a column
    assert seven is not None and seven.columns == ("400Gb/s", "1.6Tb/s")


def test_more_cells_than_a_page_can_hold_are_left_to_the_table() -> None:
    def numbered(key: str, size: int) -> SweepAxis:
        return SweepAxis((key,), tuple((str(i),) for i in range(size)))

    wide = swept((numbered("a.b", 60), numbered("a.c", 60)), effects=())
    assert heat_maps(wide) is None
    deep = heat_maps(swept((numbered("a.b", 40), numbered("a.c", 40), numbered("a.d", 3)), effects=()))
    assert deep is not None and "Shown only for d = 0." in deep.note
    assert sum(len(line) for panel in deep.panels for _, line in panel.rows) == 1600 <= MOST_CELLS
    held = heat_maps(swept(tuple(numbered(f"a.{name}", 8) for name in "bcde"), effects=()))
    assert held is not None and "Held at e = 0." in held.note and len(held.panels) == 8 and held.held == []
    html = render_sweep(wide)
    assert html.count("<tr class=") == TABLE_ROWS and "2,600 further points are in points.parquet" in html


def test_points_that_were_not_drawn_leave_holes_in_the_map() -> None:
    data = swept((GROUPS, TOP_K), limits={})
    some = [0, 1, 5, 9, 11]
    columns = {key: [values[i] for i in some] for key, values in data.columns.items()}
    drawn = replace(data, places=data.places[some], columns=columns, best=0, front=(0,))
    maps = heat_maps(drawn)
    assert maps is not None and maps.kinds >= {"none", "ok"}
    assert sum(cell.kind == "none" for _, line in maps.panels[0].rows for cell in line) == 7
    assert "not drawn" in Page(render_sweep(drawn)).words()


def test_a_cell_holds_three_digits() -> None:
    values = (4.4, 0.0123, 99.96, 1234.5, 0.0)
    assert [cell_text(value) for value in values] == ["4.40", "0.0123", "100", "1,234", "0"]


def test_a_number_line_is_in_the_unit_of_its_first_value() -> None:
    assert NIC.numbers is not None
    numbers, unit, key = NIC.numbers
    assert (numbers.tolist(), unit, key) == ([400.0, 1600.0], "Gb/s", "NIC bandwidth")
    assert SweepAxis(("routing.kind",), (("v1",), ("v2",))).numbers is None
    moved = SweepAxis(("routing.kind", "routing.top_k"), (("v1", "2"), ("v2", "4")))
    assert moved.numbers is not None and moved.numbers[2] == "experts per token, K"
    assert SweepAxis(("a.b",), (("1e400",), ("2",))).numbers is None


def test_each_axis_has_its_curve_at_the_best_point_and_over_all_medians() -> None:
    charts = {chart.title: chart for chart in axis_charts(swept())}
    assert list(charts) == ["Experts", "Groups per token, M", "Experts per token, K"]  # strongest first
    groups = charts["Groups per token, M"]
    assert isinstance(groups, LineChart)
    assert table_of(groups).rows == [(1, 13, 33.5), (2, 23, 92), (3, 33, 85.5), (4, 43, 110.5)]
    assert groups.caption.startswith("Others held at n_experts = 64, top_k = 2.")
    kinds = SweepAxis(("routing.kind",), (("v1",), ("v2",)))
    moved = SweepAxis(("model.n_experts", "routing.top_k"), (("16", "2"), ("64", "8")))
    together = axis_charts(swept((moved,), effects=()))[0]
    assert isinstance(together, LineChart)
    assert together.caption.startswith("n_experts + top_k move together.") and together.x_label == "experts"
    words = next(chart for chart in axis_charts(swept((GROUPS, kinds), effects=())) if chart.title == "routing.kind")
    assert isinstance(words, DotChart) and words.rows == ("v1", "v2")


def test_an_axis_of_one_value_or_without_numbers_has_no_chart() -> None:
    fixed = SweepAxis(("cluster.topology",), (("h800",),))
    assert [chart.title for chart in axis_charts(swept((GROUPS, fixed), effects=()))] == ["Groups per token, M"]
    data = swept((GROUPS,), effects=(), best=None)
    assert axis_charts(replace(data, columns={**data.columns, "layer_time_s": [None] * 4})) == []


def test_a_point_whose_limited_number_does_not_apply_says_so() -> None:
    data = swept()
    lost = data.columns["gate_mass_lost"].copy()
    lost[0] = None
    words = Page(render_sweep(replace(data, columns={**data.columns, "gate_mass_lost": lost}))).words()
    assert f"would be 13 µs but breaks {LIMIT} (does not apply)." in words


def test_values_that_double_stand_evenly_on_a_logarithmic_line() -> None:
    doubling = SweepAxis(("cluster.nic_bandwidth",), tuple((f"{100 * 2**i}Gb/s",) for i in range(5)))
    chart = axis_charts(swept((doubling,), effects=()))[0]
    assert isinstance(chart, LineChart)
    assert chart.log_x and chart.x_ticks == (100, 200, 400, 800, 1600) and chart.x_label == "NIC bandwidth (Gb/s)"
    figure = figure_files([chart])["figures/axis_0.svg"].decode()
    assert all(f">{number}</text>" in figure for number in ("100", "200", "400", "800", "1,600"))
    even = axis_charts(swept((GROUPS,), effects=()))[0]
    assert isinstance(even, LineChart) and not even.log_x and even.x_ticks == ()


def test_the_pareto_charts_tell_front_from_points_within_and_outside_the_limits() -> None:
    gate, imbalance = pareto_charts(swept(front=(6, 7)))
    counts = {one.label: len(one.x) for one in gate.series}
    assert counts == {"outside the limits": 9, "within the limits": 10, "on the front": 1, "best": 1}
    best = gate.series[-1]
    assert (best.x.tolist(), best.y.tolist()) == (pytest.approx([10.0]), pytest.approx([33.0]))
    assert (gate.x_label, imbalance.x_label) == ("gate mass lost (%)", "ranks max/mean")
    assert [chart.key for chart in pareto_charts(swept(key="gate_mass_lost"))] == ["pareto_rank_load_max_over_mean"]


def test_efficiency_is_tokens_per_second_and_gpu_over_that_of_the_fewest_ranks() -> None:
    ranks = SweepAxis(("parallel.ep",), (("32",), ("8",), ("16",)))
    data = swept((ranks,), effects=(), limits={}, best=0)
    time, size = [4e-3, 1e-3, 2e-3], [32.0, 8.0, 16.0]
    tokens = [100.0 * n for n in size]
    data = replace(data, columns={**data.columns, "ranks": size, "layer_time_s": time, "tokens": tokens})
    layer_time, throughput, efficiency = scaling_charts(data)
    # 800 tokens in 1 ms on the fewest ranks: four times the ranks would ideally do four times as much.
    assert [one.label for one in throughput.series] == ["simulated", "ideal"]
    assert table_of(throughput).rows == [(8, 0.8, 0.8), (16, 0.8, 1.6), (32, 0.8, 3.2)]
    assert table_of(layer_time).rows == [(8, 1), (16, 2), (32, 4)]
    assert table_of(efficiency).rows == [(8, 100), (16, 50), (32, 25)]
    assert scaling_charts(swept()) == []
    by_groups = swept((ranks, GROUPS), effects=(), limits={}, best=0)
    by_groups = replace(by_groups, columns={**by_groups.columns, "ranks": np.repeat(size, 4)})
    assert [one.label for one in scaling_charts(by_groups)[0].series] == [f"top_groups = {m}" for m in range(1, 5)]
    # A third axis is held where the best point has it: at M = 2, for 25 us and four times that.
    held = swept((ranks, EXPERTS, GROUPS), effects=(), limits={}, best=1)
    held = replace(held, columns={**held.columns, "ranks": np.repeat(size, 8)})
    curves = {one.label: (one.x.tolist(), one.y.tolist()) for one in scaling_charts(held)[0].series}
    assert curves == {
        "n_experts = 64": ([8, 16, 32], pytest.approx([25] * 3)),
        "n_experts = 256": ([8, 16, 32], pytest.approx([100] * 3)),
    }
    # Several placements of as many ranks are no curve along the ranks.
    placed = SweepAxis(("parallel.ep", "placement.policy"), (("8", "eplb"), ("8", "greedy"), ("16", "eplb")))
    assert scaling_charts(replace(data, axes=(placed,), columns={**data.columns, "ranks": [8.0, 8.0, 16.0]})) == []
    # A curve needs two points: with one size that ran there is none.
    alone = replace(data, columns={**data.columns, "status": ["ok", "failed", "failed"]})
    assert scaling_charts(alone) == []


def test_the_card_of_a_point_has_its_values_and_its_command(html: str, page: Page) -> None:
    text = next(text for kind, text in page.scripts if kind.get("id") == "json-points")
    points = json.loads(text)
    assert len(points) == 24
    assert points["6"][:4] == ["Point 6", "★ best", "", "moesim run m-by-k --out point-6"]
    assert points["6"][4:8] == ["64", "3", "2", "33 µs"]
    assert points["2"][1:4] == ["impossible", "K above M's experts", ""]
    assert points["4"][1:3] == ["failed", "out of bounds"] and points["4"][3].endswith("point-4")
    assert points["0"][1] == f"breaks {LIMIT} (0.3); what-if"
    assert "moesim run m-by-k --out point-6" in page.words()
    assert "4 of 21 points, those with top_groups = 1: a router on logits that were trained" in page.words()
    assert "The best point is none of them." in page.words()


def test_the_table_is_sorted_best_first_with_points_without_numbers_last(html: str) -> None:
    rows = re.findall(r'<tr class="(\w+)" data-words="[^"]*"><td data-value="(\d+)"', html)
    assert rows[0] == ("best", "6")
    assert [kind for kind, _ in rows[12:21]] == ["over"] * 9
    assert {int(point) for _, point in rows[21:]} == {2, 4, 14}


def test_equal_sweeps_give_equal_pages_without_an_address_of_the_network(html: str, page: Page) -> None:
    assert render_sweep(swept()) == html
    assert len(html.encode()) < 2e6
    for name, value in page.attributes:
        if name in ("src", "href", "action"):
            assert value.startswith("#")
    assert "unsafe-eval" not in html.split("</head>")[0] and not [n for n, _ in page.attributes if n.startswith("on")]


def hostile(texts: tuple[str, ...]) -> SweepData:
    axis = SweepAxis(("a." + texts[0],), tuple((text,) for text in texts))
    data = swept((axis, GROUPS), effects=(AxisEffect("a." + texts[0], texts[1], texts[2], texts[3], 0.5, 0.5),))
    columns = {**data.columns, "bottleneck": [texts[i % len(texts)] for i in range(len(data.places))]}
    columns["status"] = ["failed" if i % 7 == 6 else "ok" for i in range(len(data.places))]
    columns["error"] = [texts[i % len(texts)] for i in range(len(data.places))]
    return replace(
        data, columns=columns, command=lambda point: texts[point % len(texts)], title=texts[0], objective=texts[1]
    )


def test_hostile_text_is_only_text() -> None:
    harmless = Page(render_sweep(hostile(tuple(f"name number {i}" for i in range(len(HOSTILE))))))
    attacked = Page(render_sweep(hostile(HOSTILE)))
    assert attacked.tags == harmless.tags
    assert [name for name, _ in attacked.attributes] == [name for name, _ in harmless.attributes]
    for kind, text in attacked.scripts:
        if kind.get("type") == "application/json":
            assert json.loads(text) and "<" not in text


def test_a_finished_sweep_becomes_a_page_with_commands_that_run_its_points() -> None:
    from moesim.scenario import load_scenario, parse_objective
    from moesim.sweeps.journal import Outcome
    from moesim.sweeps.points_table import arrow_table
    from moesim.sweeps.report import answered, command_for
    from moesim.sweeps.space import Axis, Space

    scenario = load_scenario("quickstart", overrides=["name=toy"])
    space = Space(
        (Axis(("routing.top_k",), ((2,), (4,))), Axis(("cluster.topology",), (("./my box.yaml",), ("other",))))
    )
    summary = {"gate_mass_lost": 0.0, "rank_load_max_over_mean": 1.2, "bottleneck": "the NICs"}
    outcomes = [(i, Outcome("ok", None, {**summary, "layer_time_s": 1e-3 * (i + 1)})) for i in range(3)]
    table = arrow_table(space, [*outcomes, (3, Outcome("impossible", "K above the experts"))])
    objective = parse_objective("layer_time_s where rank_load_max_over_mean < 1.3")
    command = command_for(scenario, "toy.yaml", ["seed=3"], space)
    _, data = answered(scenario, space, objective, table, (), command)
    page = Page(render_sweep(data))
    assert "Best point is top_k = 2, cluster = ./my box.yaml: layer time 1 ms, 66.7 % less than" in page.words()
    points = json.loads(next(text for kind, text in page.scripts if kind.get("id") == "json-points"))
    assert points["0"][3] == (
        f"moesim run toy.yaml -o seed=3 -o routing.top_k=2 -o 'cluster.topology={scenario.base_dir}/my box.yaml' "
        "--out results/point-0"
    )
    assert points["3"][1:4] == ["impossible", "K above the experts", ""]


def test_the_command_line_writes_the_page_and_its_commands_give_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moesim.cli import main
    from moesim.cli import sweep as verb
    from moesim.sweeps import _given

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "workers_for", lambda *_: _given(None, 1))

    def call(command: str) -> str:
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return capsys.readouterr().out

    (tmp_path / "small.yaml").write_text(SMALL_WITH_VARIANTS, encoding="utf-8")
    axes = "-p routing.top_k=2,4 -p cluster.nic_bandwidth=100Gb/s,1.6Tb/s"
    # A set without work of SMs: where kernels and NICs contend, a run simulates its interval again, a sweep does not.
    sweep = f"moesim sweep small.yaml {axes} -o seed=3 -o alltoall.calibration=deepep-normal-h800 --out out"
    assert "report: out/report.html" in call(f"{sweep} --quiet")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    points = json.loads(next(text for kind, text in Page(html).scripts if kind.get("id") == "json-points"))
    assert len(points) == 4
    summary = json.loads(call(f"{points['2'][3]} --json --quiet"))
    value = Value(summary["layer_time_s"], *summary["intervals"]["layer_time_s"])
    assert value.words(lambda number: named_quantity("layer_time_s", number)) == points["2"][6]
    assert (tmp_path / "results" / "point-2" / "report.html").exists()
    # Run again, everything is found and the page is the same.
    call(f"{sweep} --quiet")
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8") == html


def test_a_what_if_that_is_the_same_at_every_point_tells_none_from_another() -> None:
    def banner(data: SweepData) -> str:
        return _what_if(replace(data, columns=data.columns | {"counterfactual": [True] * len(data.places)}))

    assert banner(swept((NIC,), effects=(), limits={}, best=0)).startswith("All points alike: a router")
    assert banner(swept()).endswith("The answer compares what-ifs.")
    assert _what_if(swept((NIC,), effects=(), limits={}, best=0)) == ""


def test_the_numbers_along_an_axis_are_those_of_its_points_with_the_others_at_the_best_one() -> None:
    data = swept((GROUPS, TOP_K), effects=())
    wire = 1e9 * np.arange(12.0)
    data = replace(data, columns={**data.columns, "dispatch_nic_wire_bytes_per_s": wire, "expert_loss": wire / 1e9},
                   losses_in_balance={"expert_loss": 2.0})  # fmt: skip
    (groups, held, charts), (top_k, _, _) = number_charts(data)
    assert (groups, held, top_k) == ("groups per token, M", "top_k = 2", "experts per token, K")
    drawn = {chart.key: table_of(chart) for chart in charts}
    assert list(drawn) == ["imbalance_0", "dispatch_bandwidth_0", "gate_mass_0", "losses_0"]
    # Points 0, 3, 6 and 9 have K = 2.
    assert [name.partition(" (")[0] for name in drawn["dispatch_bandwidth_0"].columns] == [
        "groups per token, M", "wire, NIC"]  # fmt: skip
    assert drawn["dispatch_bandwidth_0"].rows == [(1, 0), (2, 3), (3, 6), (4, 9)]
    assert drawn["gate_mass_0"].rows == [(1, 30), (2, 20), (3, 10), (4, 0)]
    assert drawn["losses_0"].columns == ("groups per token, M", "expert", "perfect balance")
    assert drawn["losses_0"].rows == [(1, 0, 1), (2, 1.5, 1), (3, 3, 1), (4, 4.5, 1)]


def test_of_many_keys_that_move_together_one_names_the_value() -> None:
    keys = ("routing.kind", "model.preset", "routing.groups", "workload.recording.name")
    axis = SweepAxis(keys, (("v1", "qwen3", "1", "tiny-v1"), ("v1", "olmoe", "1", "tiny-v1")))
    assert (axis.short, axis.labels, axis.label(1)) == ("model", ("qwen3", "olmoe"), "model = olmoe")
    alike = SweepAxis(keys[:1] + keys[2:] + ("routing.top_k",), (("v1", "1", "a", "8"), ("v2", "1", "a", "9")))
    assert alike.short == "routing.kind"
    assert SweepAxis(keys[:2], (("v1", "a"),)).short == "routing.kind + model"

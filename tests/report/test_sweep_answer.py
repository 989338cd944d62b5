"""The answer of a sweep in one sentence, the best point of each group, and the figures beside the page."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.report import SweepAxis, SweepData, render_sweep, sweep_figures
from moesim.report.charts import table_of
from moesim.report.data_table import shown
from moesim.report.sweep_answer import answer_sentence, groups_table, sweep_verdict, telling_axes
from moesim.report.sweep_charts import group_charts
from moesim.report.sweep_maps import map_files
from tests.report.test_page import HOSTILE, Page
from tests.report.test_sweep_page import EXPERTS, GROUPS, LIMIT, NIC, TOP_K, hostile, swept


def per(data: SweepData, *axes: int) -> SweepData:
    """The sweep with the best point of each combination of the values of some axes, found by looking at each point."""
    groups = []
    for group in sorted({tuple(int(p[a]) for a in axes) for p in data.places}):
        ours = [i for i, p in enumerate(data.places) if tuple(int(p[a]) for a in axes) == group and data.within[i]]
        groups.append((group, min(ours, key=lambda i: (data.cost[i], i), default=None)))
    return replace(data, per=axes, groups=tuple(groups), bounds={"gate_mass_lost": 0.15})


def test_the_best_point_is_set_against_the_base_scenario_where_that_keeps_the_limits() -> None:
    # (n_experts, M, K) = (256, 3, 4) is point 19: 35 µs x 4
    assert answer_sentence(swept(base=19)) == (
        "Best point is n_experts = 64, top_groups = 3, top_k = 2: layer time 33 µs, 76.4 % less than the base scenario "
        "(n_experts = 256, top_k = 4: 140 µs)."
    )
    assert answer_sentence(swept(base=6)) == (
        "Best point is the base scenario (n_experts = 64, top_groups = 3, top_k = 2): layer time 33 µs, 83.2 % less "
        "than the worst point within the limits (n_experts = 256, top_groups = 4, top_k = 8: 196 µs)."
    )


@pytest.mark.parametrize("base", [0, 2, None])
def test_a_base_outside_the_limits_or_without_numbers_is_nothing_to_compare_with(base: int | None) -> None:
    assert "83.2 % less than the worst point within the limits" in answer_sentence(swept(base=base))


def test_a_point_alone_within_the_limits_is_said_to_be() -> None:
    alone = np.arange(24) == 6
    assert answer_sentence(swept(limits={LIMIT: alone})).endswith("layer time 33 µs; no other point keeps the limits.")


def test_where_more_is_better_the_best_has_more() -> None:
    limits = {LIMIT: np.arange(24) < 12}
    sentence = answer_sentence(swept(larger_is_better=True, limits=limits, best=11, base=6))
    assert "layer time 49 µs, 48.5 % more than the base scenario (top_groups = 3, top_k = 2: 33 µs)." in sentence


def test_no_point_within_the_limits_is_the_answer() -> None:
    none = swept(best=None, front=(), limits={LIMIT: np.zeros(24, bool)}, effects=())
    assert answer_sentence(per(none, 2)) == f"No point keeps {LIMIT}."


def test_the_best_of_each_value_of_an_axis_is_one_sentence() -> None:
    data = per(swept((GROUPS, TOP_K)), 1)
    assert answer_sentence(data) == (
        f"Least layer time within {LIMIT}: top_groups = 3 for every top_k (33 µs to 39 µs)."
    )
    assert sweep_verdict(data).text.startswith("Overall the best point is top_groups = 3, top_k = 2: layer time")


def test_groups_with_other_answers_are_told_apart_and_axes_that_change_nothing_are_said_to() -> None:
    data = swept()
    kept = data.within & ~((data.places[:, 1] == 2) & (data.places[:, 2] == 2))  # M = 3 does not do for K = 8
    told = per(swept(limits={LIMIT: kept}), 0, 2)
    assert telling_axes(told) == [1]
    assert answer_sentence(told) == (
        f"Least layer time within {LIMIT}: top_groups = 3 for top_k = 2 or 4 (33 µs to 140 µs) and top_groups = 4 for "
        "top_k = 8 (49 µs to 196 µs), whatever n_experts."
    )
    assert answer_sentence(per(swept(limits={LIMIT: kept}), 2)) == (
        f"Least layer time within {LIMIT}: top_groups = 3 for top_k = 2 or 4 (33 µs to 35 µs) and top_groups = 4 for "
        "top_k = 8 (49 µs), each with n_experts = 64."
    )
    none = kept & (data.places[:, 2] != 2)
    assert answer_sentence(per(swept(limits={LIMIT: none}), 2)).endswith(
        ": n_experts = 64, top_groups = 3 for top_k = 2 or 4 (33 µs to 35 µs) and no point for top_k = 8."
    )


def test_neighbouring_numbers_are_told_as_a_range_and_words_are_not() -> None:
    fast = SweepAxis(("cluster.nic_bandwidth",), tuple((f"{n}Gb/s",) for n in (100, 200, 400, 800)))
    words = SweepAxis(("routing.kind",), (("v1",), ("v2",), ("v3",), ("v4",)))
    mixed = SweepAxis(("cluster.nic_bandwidth",), tuple((f"{n}Gb/s",) for n in (200, 100, 400, 800)))
    for axis, told in (
        (fast, "nic_bandwidth = 100Gb/s to 400Gb/s"),
        (mixed, "nic_bandwidth = 200Gb/s, 100Gb/s or 400Gb/s"),
        (words, "routing.kind = v1, v2 or v3"),
    ):
        data = swept((axis, GROUPS), effects=(), limits={})
        limits = {LIMIT: (data.places[:, 0] < 3) | (data.places[:, 1] > 1)}
        assert f": top_groups = 1 for {told} (" in answer_sentence(per(replace(data, limits=limits), 0))


def test_what_is_best_for_each_of_many_groups_is_cut_off() -> None:
    data = swept((GROUPS, EXPERTS, TOP_K), effects=())
    some = np.random.default_rng(1).random(24) < 0.8
    sentence = answer_sentence(per(replace(data, limits={LIMIT: some & np.isfinite(data.cost)}), 0, 1))
    assert sentence.count(" for ") + sentence.count("no point") <= 8


def test_the_table_of_groups_has_the_best_and_the_worst_of_each() -> None:
    table = groups_table(per(swept(), 2))
    assert table is not None
    assert table.columns[:3] == ("top_k", "best n_experts", "best top_groups")
    assert [(row[0], row[2], shown(row[3]), shown(row[-2]), row[-1]) for row in table.rows] == [
        ("2", "3", "33 µs", "172 µs", "6"),
        ("4", "3", "35 µs", "180 µs", "7"),
        ("8", "3", "39 µs", "196 µs", "8"),
    ]
    lost = per(swept(limits={LIMIT: np.arange(24) == 6}), 2)
    table = groups_table(lost)
    assert table is not None and table.rows[1] == ("4", *[None] * 7)
    assert groups_table(swept()) is None


def test_a_curve_of_a_group_holds_the_points_that_no_other_of_it_beats() -> None:
    data = per(swept(), 0, 2)
    (chart,) = group_charts(data)
    curves = {one.label: one for one in chart.series}
    assert list(curves) == ["top_k = 2", "top_k = 4", "top_k = 8", "limit"]
    assert "at n_experts = 64" in chart.caption  # which changes no best M
    x, y = data.column("gate_mass_lost"), data.column("layer_time_s")
    for label, curve in curves.items():
        if label == "limit":
            assert curve.x.tolist() == [pytest.approx(15.0)] * 2
            continue
        top_k = label.rsplit(" ", 1)[1]
        ours = [i for i in range(24) if f"top_k = {top_k}" in data.label(i) and "= 64" in data.label(i)]
        ours = [i for i in ours if np.isfinite(y[i])]
        unbeaten = [i for i in ours if not any(x[j] <= x[i] and y[j] <= y[i] and j != i for j in ours)]
        assert curve.x.tolist() == pytest.approx(sorted(100 * x[i] for i in unbeaten))
        assert [name for name in curve.point_labels if "★" in name] == ["3 ★"]
    assert table_of(chart).rows


def test_an_objective_without_gate_mass_has_no_curves_of_groups() -> None:
    flat = per(swept(), 2)
    columns = {**flat.columns, "gate_mass_lost": [0.0] * 24}
    assert group_charts(replace(flat, columns=columns)) == []
    assert group_charts(swept()) == []
    # Lost mass applies to no point where the axes without a curve of their own are held.
    lost = [None if i < 12 else value for i, value in enumerate(flat.columns["gate_mass_lost"])]
    both = per(swept(), 0, 2)
    assert group_charts(replace(both, columns={**both.columns, "gate_mass_lost": lost})) == []


def test_every_best_point_has_its_star_in_the_map_and_the_table_of_points() -> None:
    html = render_sweep(per(swept(), 2))
    starred = re.findall(r'data-point="(\d+)" aria-pressed="\w+" aria-label="[^"]*, best"', html)
    assert sorted(map(int, starred)) == [6, 7, 8]
    assert "Best of each top_k" in Page(html).words()
    assert html.count('<tr class="best"') == 3


def test_the_question_is_the_first_line_of_the_page_and_only_text() -> None:
    html = render_sweep(swept(question="Which M?"))
    assert re.search(r"<h1><bdi>(.*?)</bdi></h1>", html)[1] == "Which M?"  # type: ignore[index]
    assert "<li>m-by-k</li>" in html
    harmless = Page(render_sweep(replace(hostile(HOSTILE), question="plain")))
    attacked = Page(render_sweep(replace(hostile(HOSTILE), question=HOSTILE[0])))
    assert attacked.tags == harmless.tags


def test_the_figures_are_the_charts_of_the_page_and_the_map_with_its_numbers() -> None:
    data = per(swept((GROUPS, TOP_K), effects=()), 1)
    files = sweep_figures(data)
    keys = {"map", "axis_0", "axis_1", "groups", "pareto_gate_mass_lost", "pareto_rank_load_max_over_mean"}
    keys |= {f"{curves}_{axis}" for curves in ("imbalance", "gate_mass") for axis in (0, 1)}
    assert set(files) == {f"figures/{key}.{suffix}" for key in keys for suffix in ("svg", "png")}
    map_text = files["figures/map.svg"].decode()
    assert all(f">{number}</text>" in map_text for number in ("13.0", "★33.0", "★35.0", "★39.0", "49.0"))
    assert files["figures/map.png"].startswith(b"\x89PNG")
    assert map_files(data).items() <= files.items()


def test_the_file_of_a_map_is_as_wide_as_its_panels_of_cells_and_labels() -> None:
    # Two panels of four columns of 0.62 inches, 0.6 of margin and 0.08 for each of the seven letters of a row's label.
    svg = map_files(swept((EXPERTS, NIC, GROUPS), effects=()))["figures/map.svg"].decode()
    size = re.search(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert size and [float(part) / 72 for part in size.groups()] == pytest.approx([7.28, 2 * 0.36 + 1.9])


@pytest.mark.parametrize("changes", [{"best": None, "front": (), "limits": {LIMIT: np.zeros(24, bool)}}, {}])
def test_a_hostile_or_empty_sweep_has_a_map_or_none(changes: dict[str, Any]) -> None:
    assert map_files(swept(**changes)).keys() == {"figures/map.svg", "figures/map.png"}
    assert map_files(hostile(HOSTILE))["figures/map.svg"].startswith(b"<?xml")
    nothing = {key: [None] * 24 for key in swept().columns} | {"status": ["failed"] * 24}
    assert map_files(swept(columns=nothing, best=None, front=())) == {}

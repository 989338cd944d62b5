"""The curves of the sweeps that ship, in a browser: along every axis the numbers of the table of points, and of --json.

The points have made-up numbers, so that no sweep needs to run.
"""

from pathlib import Path
from typing import Any

import pytest

from moesim.report import render_sweep
from moesim.report.named_numbers import DRAWN, WORDS
from moesim.report.quantities import unit_of
from moesim.scenario import SUMMARY_KEYS, load_scenario, parse_objective
from moesim.sweeps.journal import Outcome
from moesim.sweeps.points_table import arrow_table
from moesim.sweeps.report import answered, points_as_plain
from moesim.sweeps.space import space_of
from tests.report import test_browser as shared

pytestmark = shared.pytestmark
browser, opened = shared.browser, shared.opened

_ALWAYS = {
    "imbalance": ("experts", "ranks", "nodes", "links"),
    "dispatch_bandwidth": ("algbw", "busbw", "DeepEP RDMA", "DeepEP NVLink", "wire, NIC", "wire, NVLink"),
    "combine_bandwidth": ("algbw", "busbw", "DeepEP RDMA", "DeepEP NVLink", "wire, NIC", "wire, NVLink"),
    "bytes": ("NVLink", "NIC"),
    "gate_mass": ("gate mass lost",),
}
_SCALE = {"": 1.0, "%": 100.0, "GB/s": 1e-9, "MB/s": 1e-6, "GB": 1e-9, "MB": 1e-6}
_TABLE = (
    "(figure) => [...figure.querySelectorAll('details table tr')].map(row => [...row.cells].map(c => c.textContent))"
)
_POINTS = """() => [[...document.querySelector('tbody.points').parentElement.rows[0].cells].map(one => one.textContent),
  ...[...document.querySelectorAll('tbody.points tr')].map(row => [...row.cells].map(
    cell => cell.dataset.value ?? cell.textContent))]"""


def made_up(key: str, point: int) -> float:
    """Different for each number and point, of a size that goes with its unit."""
    size = {"B/s": 1e11, "B": 1e10, "%": 0.01}.get(unit_of(key), 1.0)
    return size * (1 + SUMMARY_KEYS.index(key) / 100 + (point * 37 % 101) / 101)


@pytest.mark.parametrize("name", ["sweep-m-by-k", "sweep-nic-speed", "sweep-ep-scaling", "sweep-clusters"])
def test_every_axis_has_the_curves_and_they_are_the_table_of_points(name: str, browser: Any, tmp_path: Path) -> None:
    scenario = load_scenario(name)
    assert scenario.sweep is not None
    space = space_of(scenario.sweep)
    outcomes = [
        (point, Outcome("ok", None, {key: made_up(key, point) for key in SUMMARY_KEYS} | {"bottleneck": "the NICs"}))
        for point in range(len(space))
    ]
    table = arrow_table(space, outcomes)
    _, data = answered(scenario, space, parse_objective(scenario.objective), table, (), str)
    page, trouble = opened(browser, render_sweep(data), tmp_path, 1400)
    heading, *points = page.evaluate(_POINTS)
    rows = {int(point[0]): dict(zip(heading, point, strict=True)) for point in points}
    for index in range(len(space.axes)):
        line = sorted(data.line(index).items())
        if data.axes[index].numbers is not None:
            line.sort(key=lambda pair, axis=data.axes[index]: axis.numbers[0][pair[0]])  # type: ignore[misc]
        for chart, words in _ALWAYS.items():
            figure = page.locator(f"#chart-{chart}_{index}")
            header, *drawn = figure.evaluate(_TABLE)
            assert tuple(name.split(" (")[0] for name in header[1:]) == words, (chart, index)
            drawn_as = next(one for one in DRAWN if one.key == chart)
            assert len(drawn) == len(line)
            for (_, point), cells in zip(line, drawn, strict=True):
                for key, cell in zip(drawn_as.numbers, cells[1:], strict=True):
                    in_table = float(rows[point][WORDS[key]])
                    assert in_table == pytest.approx(made_up(key, point), rel=1e-4)
                    ratio = float(cell) / in_table
                    assert any(ratio == pytest.approx(scale, rel=1e-3) for scale in _SCALE.values()), (key, cell)
    assert page.locator("#curves .canvas").count() >= 5 * len(space.axes)
    printed = points_as_plain(data, space, table)
    keys = [key for one in DRAWN for key in one.numbers]
    assert all(row[key] == made_up(key, row["point"]) for row in printed for key in keys)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400 and trouble == []
    page.close()

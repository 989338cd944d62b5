"""A result, a comparison or a sweep as a notebook shows it: the verdict, its numbers and its charts.

One piece of HTML with pictures inside it: no script, no other file, no network, and a style that holds for it alone. So
it is the same in JupyterLab and VS Code, in a notebook that nobody trusts yet, and on paper.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from moesim.report.charts import Chart, DotChart
from moesim.report.comparison import Comparison, ComparisonRow
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.named_numbers import WORDS
from moesim.report.page import filled
from moesim.report.placement_page import options_table, placement_charts, placement_words
from moesim.report.quantities import named_quantity, quantity, unit_of
from moesim.report.run_page import Verdict, verdict
from moesim.report.static import figure_files
from moesim.report.sweep_answer import sweep_verdict
from moesim.report.sweep_charts import axis_charts
from moesim.report.sweep_data import SweepData
from moesim.report.sweep_page import card_keys, points_table
from moesim.report.time_charts import time_chart, timeline_chart
from moesim.report.traffic_charts import traffic_chart
from moesim.results import PlacementVerdict, Result

# Points of a sweep, best first, and charts of it: the rest is in the table itself.
_POINTS, _CHARTS = 8, 2
_ROUNDING_PERCENT = 1e-7
_NUMBERS = (
    "layer_time_s", "lower_bound_s", "dispatch_time_s", "expert_compute_time_s", "combine_time_s", "rank_wait_mean_s",
    "expert_load_max_over_mean", "rank_load_max_over_mean", "node_load_max_over_mean", "nvlink_wire_bytes",
    "nic_wire_bytes", "gate_mass_lost",
)  # fmt: skip


class Picture(NamedTuple):
    """A chart as an image, and what it shows in words."""

    title: str
    data: str


def run_in_notebook(result: Result) -> str:
    """Show a run: its verdict, its first numbers, where the time and the bytes go."""
    rows: list[tuple[Cell, ...]] = [
        (WORDS.get(key, key), Quantity(result.summary[key], unit_of(key), *result.intervals.get(key, ())))
        for key in _NUMBERS
    ]
    charts = (time_chart([(str(result.summary["name"]), result)]), timeline_chart(result), traffic_chart(result))
    notes = [f"{note.kind}: {note.text}" for note in result.notes]
    return _shown(str(result.summary["name"]), verdict(result), DataTable(("number", "value"), rows), charts, notes)


def comparison_in_notebook(comparison: Comparison) -> str:
    """Show two runs: what became of the layer time, the numbers that differ, and by how much."""
    first, second = comparison.labels
    differing = [row for row in comparison.rows if row.key in WORDS and _differs(row)]
    rows: list[tuple[Cell, ...]] = [
        (
            WORDS[row.key],
            Quantity(row.a, row.unit, *(row.a_interval or ())),
            Quantity(row.b, row.unit, *(row.b_interval or ())),
            None if row.delta_percent is None else Quantity(row.delta_percent / 100, "%"),
            row.verdict,
        )
        for row in differing
    ]
    whole = next(row for row in comparison.rows if row.key == "layer_time_s")
    words = f"{named_quantity(whole.key, whole.b)} per layer, {first} {named_quantity(whole.key, whole.a)}"
    if whole.delta_percent:
        words += f": {quantity(abs(whole.delta_percent) / 100, '%')} {'more' if whole.delta_percent > 0 else 'less'}"
    drawn = [row for row in differing if row.delta_percent is not None]
    changes = DotChart(
        key="changes",
        title=f"{second} against {first}",
        caption="",
        x_label="change (%)",
        rows=tuple(WORDS[row.key] for row in drawn),
        groups={"change": np.array([row.delta_percent for row in drawn])},
    )
    said = Verdict(f"{second}: {words}, {whole.verdict}.", "")
    table = DataTable(("number", first, second, "change", "verdict"), rows)
    return _shown(f"{second} against {first}", said, table, (changes,) if drawn else ())


def _differs(row: ComparisonRow) -> bool:
    return row.a != row.b if row.delta_percent is None else abs(row.delta_percent) > _ROUNDING_PERCENT


def sweep_in_notebook(data: SweepData) -> str:
    """Show a sweep: its answer, its best points, and the objective along the axes."""
    listed = [int(point) for point in data.order[:_POINTS]]
    left = f"The first {_POINTS} of {len(data.order):,} points, best first." if len(data.order) > _POINTS else ""
    table = points_table(data, listed, card_keys(data))
    table = DataTable(table.columns, table.rows, left)
    return _shown(data.question or data.title, sweep_verdict(data), table, axis_charts(data)[:_CHARTS])


def placement_in_notebook(verdict: PlacementVerdict) -> str:
    """Show a placement verdict: its sentence, every placement, and whether moving to the best one pays."""
    title, charts = f"Placement of {verdict.scenario}", placement_charts(verdict)
    return _shown(title, placement_words(verdict), options_table(verdict), charts, verdict.notes)


def _shown(
    title: str, said: Verdict, table: DataTable, charts: Iterable[Chart | None], notes: Sequence[str] = ()
) -> str:
    known = [chart for chart in charts if chart is not None]
    files = figure_files(known, ("svg",))
    pictures = [Picture(chart.title, base64.b64encode(files[f"figures/{chart.key}.svg"]).decode()) for chart in known]
    return filled("notebook.html.j2", title=title, verdict=said, table=table, pictures=pictures, notes=notes)

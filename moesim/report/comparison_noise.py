"""Two runs and the noise of their seeds: which differences are beyond it, in words, as a chart and as a table."""

from collections.abc import Mapping

import numpy as np

from moesim.report.charts import DotChart
from moesim.report.comparison import Band, Comparison, ComparisonRow
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.quantities import quantity

_HEADLINE = "layer_time_s"


def noise_sentence(comparison: Comparison) -> str:
    """State whether the layer time changed by more than the noise of the seeds."""
    row = next(row for row in comparison.rows if row.key == _HEADLINE)
    first, second = comparison.labels
    if row.a_band is None or row.b_band is None:
        return f"The layer time of {second} has no noise band."
    noise = (
        f"the noise of {row.a_band.runs} seeds ({first} {_span(row, row.a_band)}, {second} {_span(row, row.b_band)})"
    )
    if row.a == row.b:
        return f"The layer time of {second} is that of {first}: {quantity(row.b, row.unit)}; {noise}."
    change = f"The layer time of {second} is {_change(row)} than that of {first}"
    return f"{change}, within {noise}." if row.verdict == "within noise" else f"{change}, outside {noise}."


def _change(row: ComparisonRow) -> str:
    if row.delta_percent is None:
        return "different"
    return f"{abs(row.delta_percent):.3g} % {'more' if row.delta_percent > 0 else 'less'}"


def _span(row: ComparisonRow, band: Band) -> str:
    return f"{quantity(band.low, row.unit)} to {quantity(band.high, row.unit)}"


def noise_chart(comparison: Comparison, words: Mapping[str, str]) -> DotChart | None:
    """Draw both runs' medians with their bands, against the first's median; None where nothing varies or differs.

    ``comparison``: of two runs with bands; ``words``: the numbers to draw and their names.
    """
    shown = [
        (row, row.a_band, row.b_band)
        for row in comparison.rows
        if row.key in words and row.a_band is not None and row.b_band is not None and row.a_band.median != 0
        and not (row.a_band.is_one_value and row.b_band.is_one_value and row.verdict == "same")
    ]  # fmt: skip
    if not shown:
        return None
    sides = [np.array([[band.low, band.median, band.high] for band in bands]) for bands in (
        [a for _, a, _ in shown], [b for _, _, b in shown])]  # fmt: skip
    reference = sides[0][:, 1:2]
    low, middle, high = np.moveaxis(100 * (np.stack(sides) - reference) / np.abs(reference), 2, 0)
    groups = {label: middle[i] for i, label in enumerate(comparison.labels)}
    return DotChart(
        key="noise",
        title="Differences against the noise of the seeds",
        caption="Each dot is the median over the seeds, each bar reaches from the least to the most. Where two bars "
        "touch, the difference is within the noise.",
        x_label=f"change against the median of {comparison.labels[0]} (%)",
        rows=tuple(words[row.key] for row, _, _ in shown),
        groups=groups,
        source="summary.json",
        spans={label: (low[i], high[i]) for i, label in enumerate(comparison.labels)},
    )


def numbers_table(comparison: Comparison) -> DataTable:
    """Every number of both runs with its band, what changed and what that means."""
    first, second = comparison.labels
    columns = ("number", first, f"{first} over seeds", second, f"{second} over seeds", "change", "verdict")
    rows: list[tuple[Cell, ...]] = []
    for row in comparison.rows:
        change = None
        if row.delta_percent is not None:
            change = Quantity(row.delta_percent / 100, "%", text=f"{row.delta_percent:+.3g} %".replace("-", "−"))
        sides = ((row.a, row.a_band), (row.b, row.b_band))
        cells = [cell for value, band in sides for cell in (Quantity(value, row.unit), _band_cell(row, band))]
        rows.append((row.key, *cells, change, row.verdict))
    return DataTable(columns, rows)


def _band_cell(row: ComparisonRow, band: Band | None) -> Quantity | None:
    """Write a band: ``4.1 ms to 4.4 ms (4.2 ms)``, least, most and median; one value where all are the same."""
    if band is None:
        return None
    if band.is_one_value:
        return Quantity(band.median, row.unit)
    text = f"{_span(row, band)} ({quantity(band.median, row.unit)})"
    return Quantity(band.median, row.unit, band.low, band.high, text)

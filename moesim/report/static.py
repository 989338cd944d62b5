"""Charts as files: SVG and PNG by matplotlib's object API, the same bytes for the same chart."""

import io
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from moesim.report.charts import (
    BarChart,
    Chart,
    DotChart,
    Gantt,
    HeatMap,
    LineChart,
    Mark,
    SmallMultiples,
    StackedBars,
)
from moesim.report.palette import GRID, MARK, series_colour
from moesim.report.quantities import decimated
from moesim.report.scales import BEST, line_scales, point_names

_STYLE: Any = {
    "svg.hashsalt": "moesim",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa4b0",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_MARKERS = ("o", "s", "^", "D", "v", "h")
_DPI = 110
_FEW_DECADES = 30
_LEGEND_LETTERS = 110


def figure_files(charts: Iterable[Chart], kinds: tuple[str, ...] = ("svg", "png")) -> dict[str, bytes]:
    """Draw charts as ``figures/<key>.svg`` and ``.png``."""
    files: dict[str, bytes] = {}
    for chart in charts:
        files |= drawn_files(chart.key, partial(_draw, chart=chart), kinds)
    return files


def drawn_files(key: str, draw: Callable[[Any], None], kinds: tuple[str, ...] = ("svg", "png")) -> dict[str, bytes]:
    """Let ``draw`` fill a figure, and return it as ``figures/<key>.svg`` and ``.png``."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    files = {}
    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2))
        draw(figure)
        for suffix in kinds:
            buffer = io.BytesIO()
            metadata = {"Date": None, "Creator": "moesim"} if suffix == "svg" else {"Software": "moesim"}
            figure.savefig(buffer, format=suffix, dpi=_DPI, metadata=metadata)
            figure.set_layout_engine("none")  # laid out by the first drawing: once is enough
            files[f"figures/{key}.{suffix}"] = buffer.getvalue()
    return files


def _draw(figure: Any, chart: Chart) -> None:
    match chart:
        case LineChart():
            _lines(figure, chart)
        case BarChart():
            _bars(figure, chart)
        case DotChart():
            _dots(figure, chart)
        case HeatMap():
            _heat_maps(figure, chart)
        case Gantt():
            _gantt(figure, chart)
        case StackedBars():
            _stacked(figure, chart)
        case SmallMultiples():
            _multiples(figure, chart)


def plain_text(label: str) -> str:
    """Make text that is legal in SVG: no control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in label)


def _axes(figure: Any, chart: Chart, y_label: str = "") -> Any:
    axes = figure.add_subplot()
    axes.set_title(plain_text(chart.title))
    axes.set_xlabel(plain_text(getattr(chart, "x_label", "")))
    axes.set_ylabel(plain_text(y_label))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _plain(axis: Any) -> None:
    """Tick labels as plain numbers: 0.01, 1, 1,000."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and low > 0 and high / low < _FEW_DECADES:
        # Powers of ten alone would leave such an axis without a number.
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))


def _add_marks(axes: Any, marks: tuple[Mark, ...]) -> None:
    for i, mark in enumerate(marks):
        dash = (0, ((4, 3), (1, 3))[i % 2])
        axes.axhline(mark.value, color=MARK, linestyle=dash, linewidth=1, label=mark.text)


def _legend_below(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        names = [plain_text(label) for label in labels]
        columns = max(1, min(5, _LEGEND_LETTERS // (6 + max(map(len, names)))))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=8)


def _lines(figure: Any, chart: LineChart) -> None:
    axes = _axes(figure, chart, chart.y_label)
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    for position, one in enumerate(chart.series):
        x, y = (one.x, one.y) if one.style == "points" else decimated(one.x, one.y)
        few = len(x) <= 40
        style: dict[str, Any] = {"color": one.colour, "label": one.label or "_", "linewidth": 1.6}
        if one.style == "points" or few or one.point_labels:
            style |= {"marker": _MARKERS[position % len(_MARKERS)], "markersize": 4.5 if few else 2.5}
        if one.style == "points":
            style |= {"linestyle": "none", "alpha": 1.0 if few else 0.5, "rasterized": not few}
        elif one.style == "dashed":
            style |= {"linestyle": "--"}
        elif one.style == "steps":
            style |= {"drawstyle": "steps-post"}
        axes.plot(x, y, **style)
        best = [i for i, label in enumerate(one.point_labels) if BEST in label]
        axes.plot(one.x[best], one.y[best], color=one.colour, marker="*", markersize=11, linestyle="none")
    for name in point_names(chart):
        style = {"ha": ("center", "left", "right")[name.right], "va": "bottom" if name.above > 0 else "top"}
        offset = {"xytext": (5 * name.right, 3 * name.above), "textcoords": "offset points", "fontsize": 7}
        axes.annotate(plain_text(name.text), (name.x, name.y), **style, **offset)
    for axis in (axes.xaxis, axes.yaxis):
        _plain(axis)
    if chart.x_ticks:
        axes.set_xticks(chart.x_ticks)
    _add_marks(axes, chart.marks)
    for limit, scale in zip((axes.set_xlim, axes.set_ylim), line_scales(chart), strict=True):
        limit(scale.low, scale.high)
    _legend_below(figure, axes)


def _bars(figure: Any, chart: BarChart) -> None:
    axes = _axes(figure, chart, chart.y_label)
    places = np.arange(len(chart.values))
    axes.bar(places, chart.values, 0.8 if len(places) <= 80 else 1.0, color=chart.colour)
    every = max(1, -(-len(places) // 24))
    labels = [plain_text(label)[:8] for label in chart.labels[::every]]
    axes.set_xticks(places[::every], labels, rotation=60 if len(labels) > 12 else 0)
    axes.grid(visible=False, axis="x")
    _plain(axes.yaxis)
    _add_marks(axes, chart.marks)
    _legend_below(figure, axes)


def _row_ticks(axes: Any, labels: dict[int, str], n_rows: int) -> None:
    axes.set_yticks(list(labels), [plain_text(label)[:32] for label in labels.values()])
    axes.set_ylim(n_rows - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _dots(figure: Any, chart: DotChart) -> None:
    figure.set_size_inches(8, 1.4 + 0.26 * len(chart.rows))
    axes = _axes(figure, chart)
    for i, (group, values) in enumerate(chart.groups.items()):
        style = {"color": series_colour(i), "marker": _MARKERS[i], "linestyle": "none", "markersize": 6}
        places = np.arange(len(chart.rows)) + 0.2 * (i - (len(chart.groups) - 1) / 2)
        axes.plot(values, places, label=plain_text(group), **style)
        if group in chart.spans:
            axes.hlines(places, *chart.spans[group], color=series_colour(i), linewidth=3, alpha=0.45)
    if chart.zero:
        axes.axvline(0.0, color=MARK, linewidth=1)
    _row_ticks(axes, dict(enumerate(chart.rows)), len(chart.rows))
    _plain(axes.xaxis)
    _legend_below(figure, axes)


def _heat_maps(figure: Any, chart: HeatMap) -> None:
    from matplotlib.colors import LogNorm

    figure.set_size_inches(4.6 * len(chart.matrices), 4.6)
    for i, (name, matrix) in enumerate(chart.matrices.items()):
        axes = figure.add_subplot(1, len(chart.matrices), i + 1)
        axes.set_title(plain_text(f"{chart.title}: {name}" if name else chart.title))
        axes.set_xlabel(plain_text(chart.column_label))
        axes.set_ylabel(plain_text(chart.row_label))
        shown = np.where(matrix > 0, matrix, np.nan) if chart.log else matrix
        known = shown[np.isfinite(shown)]
        norm = LogNorm(known.min(), max(known.max(), known.min() * 1.001)) if chart.log and known.size else None
        image = axes.imshow(shown, cmap="cividis", norm=norm, interpolation="nearest", aspect="auto")
        for place in range(chart.grid_every, max(matrix.shape), chart.grid_every) if chart.grid_every else ():
            axes.axvline(place - 0.5, color="white", linewidth=0.5)
            axes.axhline(place - 0.5, color="white", linewidth=0.5)
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.9, aspect=40)
        bar.set_label(plain_text(chart.value_label))
        _plain(bar.ax.xaxis)


def _gantt(figure: Any, chart: Gantt) -> None:
    figure.set_size_inches(8, 1.6 + max(0.08 * len(chart.rows), 1.6))
    axes = _axes(figure, chart, chart.row_label)
    phase = np.array(chart.phase)
    for name, colour in chart.colours.items():
        chosen = np.flatnonzero(phase == name)
        slim = chart.slim[chosen]
        bottom = np.where(slim, chart.row[chosen] + 0.26, chart.row[chosen] - 0.44)
        height = np.where(slim, 0.2, 0.64)
        length = chart.end[chosen] - chart.start[chosen]
        if len(chosen):
            label = name.replace("_", " ")
            axes.barh(bottom, length, height, chart.start[chosen], align="edge", color=colour, label=label)
    step = max(1, len(chart.rows) // 16)
    _row_ticks(axes, {row: chart.rows[row] for row in range(0, len(chart.rows), step)}, len(chart.rows))
    _plain(axes.xaxis)
    _legend_below(figure, axes)


def _stacked(figure: Any, chart: StackedBars) -> None:
    figure.set_size_inches(8, 1.9 + 0.3 * len(chart.rows))
    axes = _axes(figure, chart)
    places = np.arange(len(chart.rows))
    left = np.zeros(len(chart.rows))
    for part in chart.parts:
        axes.barh(places, part.values, 0.66, left, color=part.colour, label=part.label)
        left = left + part.values
    known = np.isfinite(chart.bounds)
    if known.any():
        bound = {"color": "black", "marker": "|", "markersize": 13, "linestyle": "none", "label": "lower bound"}
        axes.plot(chart.bounds[known], places[known], **bound)
    _row_ticks(axes, dict(enumerate(chart.rows)), len(chart.rows))
    _plain(axes.xaxis)
    _legend_below(figure, axes)


def _multiples(figure: Any, chart: SmallMultiples) -> None:
    columns = min(4, max(1, len(chart.panels)))
    rows = -(-len(chart.panels) // columns)
    figure.set_size_inches(8, 0.8 + 1.4 * max(rows, 1))
    figure.suptitle(plain_text(chart.title), x=0.01, ha="left", fontsize=11)
    for i, (name, values) in enumerate(chart.panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(plain_text(name)[:32], fontsize=8)
        axes.bar(np.arange(len(values)), values, 1.0, color=series_colour(0))
        axes.axhline(chart.mark.value, color=MARK, linestyle=(0, (4, 3)), linewidth=1)
        axes.set_ylim(0, chart.top())
        axes.set_xticks([])
        axes.tick_params(labelsize=7)
    figure.supxlabel(plain_text(chart.x_label), fontsize=8)
    figure.supylabel(plain_text(chart.y_label), fontsize=8)

"""Charts for the page, drawn with Bokeh.

No CustomJS anywhere: it would need ``unsafe-eval``. Text of users is never markup here: hover text is escaped by Bokeh,
and what looks like TeX is broken up, since Bokeh would fetch MathJax for it.
"""

import re
from typing import Any

import numpy as np

from moesim.report.charts import BarChart, DotChart, Gantt, HeatMap, LineChart, Mark
from moesim.report.palette import GRID, INK, MARK, PAPER, cividis, series_colour
from moesim.report.quantities import Floats, decimated, rounded

Drawn = LineChart | BarChart | DotChart | HeatMap | Gantt

_HEIGHT = 300
_LABEL_LENGTH = 26
_TEX = re.compile(r"\$\$|\\\(|\\\[|\\\)|\\\]")
_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")


def bokeh_figures(chart: Drawn) -> dict[str, Any]:
    """Draw a chart: one Bokeh figure per view by its name; a heat map has one per matrix, others a nameless one."""
    match chart:
        case LineChart():
            return {"": _lines(chart)}
        case BarChart():
            return {"": _bars(chart)}
        case DotChart():
            return {"": _dots(chart)}
        case Gantt():
            return {"": _gantt(chart)}
        case HeatMap():
            return {name: _heat_map(chart, matrix) for name, matrix in chart.matrices.items()}


def height_of(chart: Drawn) -> int:
    """Height of a chart in CSS pixels, known before it is drawn."""
    if isinstance(chart, DotChart):
        return 90 + 26 * len(chart.rows)
    if isinstance(chart, Gantt):
        return 90 + max(8 * len(chart.rows), 24 * min(len(chart.rows), 8))
    return 400 if isinstance(chart, HeatMap) else _HEIGHT


def _text(label: str, length: int = 200) -> str:
    """Make text that Bokeh takes as plain text, cut to a length that fits."""
    plain = "".join(letter if letter.isprintable() else " " for letter in label)
    plain = _TEX.sub(lambda found: " ".join(found[0]), plain)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def _figure(chart: Drawn, tooltips: list[tuple[str, str]], **options: Any) -> Any:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    plot = figure(
        height=height_of(chart),
        sizing_mode="stretch_width",
        tools="box_zoom,pan,reset,save",
        toolbar_location="above",
        toolbar_inner=True,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border_left=8,
        min_border_right=12,
        **options,
    )
    if tooltips:
        plot.add_tools(HoverTool(tooltips=tooltips))
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.axis_line_color = axis.major_tick_line_color = GRID
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = GRID
    plot.grid.grid_line_width = 0.7
    return plot


def _range(start: float, end: float) -> Any:
    from bokeh.models import Range1d

    return Range1d(start=start, end=end)


def _tick_step(size: int, node: int) -> int:
    """Rows between labelled ones: whole nodes where there are several, up to 16 labels."""
    unit = node if node and size // node >= 4 else 1
    return unit * max(1, -(-size // (16 * unit)))


def _plain_ticks(axis: Any) -> None:
    from bokeh.models import BasicTickFormatter

    axis.formatter = BasicTickFormatter(use_scientific=False)


def legend_of(chart: Drawn) -> list[tuple[str, str, str]]:
    """Label, colour and style (``line``, ``dashed``, ``points`` or ``block``) of each thing a chart tells apart.

    Legends are HTML: they wrap on a phone, which Bokeh's own do not.
    """
    match chart:
        case LineChart():
            style = {"steps": "line"}
            return [(one.label, one.colour, style.get(one.style, one.style)) for one in chart.series if one.label]
        case DotChart():
            return [(group, series_colour(i), "points") for i, group in enumerate(chart.groups)]
        case Gantt():
            shown = set(chart.phase)
            return [
                (name.replace("_", " "), colour, "block") for name, colour in chart.colours.items() if name in shown
            ]
        case _:
            return []


def _add_marks(plot: Any, marks: tuple[Mark, ...], right: float) -> None:
    """Draw levels, their names at the right end: the lowest below its line, the others above theirs."""
    from bokeh.models.annotations import Label, Span

    for i, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        plot.add_layout(Span(location=mark.value, dimension="width", line_color=MARK, line_dash="4 3"))
        plot.add_layout(
            Label(
                x=right,
                y=mark.value,
                text=_text(mark.label),
                text_color=INK,
                text_font_size="11px",
                text_align="right",
                text_baseline="top" if i == 0 and len(marks) > 1 else "bottom",
                background_fill_color=PAPER,
                background_fill_alpha=0.75,
            )
        )


def _lines(chart: LineChart) -> Any:
    from bokeh.models import ColumnDataSource
    from bokeh.models.annotations import LabelSet

    tooltips = [("", "@label"), (_text(chart.x_label), "@x{0,0.[0000]}"), (_text(chart.y_label), "@y{0,0.[0000]}")]
    axes = {"x_axis_type": "log" if chart.log_x else "linear", "y_axis_type": "log" if chart.log_y else "linear"}
    plot = _figure(chart, tooltips, x_axis_label=chart.x_label, y_axis_label=chart.y_label, **axes)
    for position, one in enumerate(chart.series):
        x, y = (one.x, one.y) if one.style == "points" else decimated(one.x, one.y)
        names = [_text(name) for name in one.named() or [one.label] * len(x)]
        source = ColumnDataSource({"x": rounded(x).tolist(), "y": rounded(y).tolist(), "label": names})
        if one.style == "steps":
            plot.step("x", "y", source=source, line_color=one.colour, line_width=2, mode="after")
        elif one.style != "points":
            dash = "dashed" if one.style == "dashed" else "solid"
            plot.line("x", "y", source=source, line_color=one.colour, line_width=2, line_dash=dash)
        if one.style == "points" or len(x) <= 40 or one.point_labels:
            marker = _MARKERS[position % len(_MARKERS)]
            style = {"fill_color": one.colour, "line_color": None, "fill_alpha": 0.6 if len(x) > 60 else 1.0}
            size = 4 if len(x) > 60 else 7 if one.style != "dashed" else 5
            plot.scatter("x", "y", source=source, marker=marker, size=size, **style)
        if one.point_labels:
            plot.add_layout(
                LabelSet(
                    x="x", y="y", text="text", x_offset=6, y_offset=4, text_font_size="11px", text_color=INK,
                    source=ColumnDataSource({**source.data, "text": [_text(label) for label in one.point_labels]}),
                )
            )  # fmt: skip
    for axis in plot.axis:
        _plain_ticks(axis)
    if chart.x_ticks:
        plot.xaxis.ticker = list(chart.x_ticks)
    if any(one.point_labels for one in chart.series):
        plot.x_range.range_padding = 0.25  # room for the names of the outermost points
    _fit(plot, chart)
    return plot


def _fit(plot: Any, chart: LineChart) -> None:
    """Stretch the vertical axis over the marks too, and draw them."""
    if not chart.marks:
        return
    y = np.concatenate([*(one.y for one in chart.series), [mark.value for mark in chart.marks]])
    known = y[np.isfinite(y) & (y > 0)] if chart.log_y else y[np.isfinite(y)]
    low, high = float(known.min()), float(known.max())
    room = 0.08 * (high - low or 1.0)
    plot.y_range = _range(low / 1.5, high * 2) if chart.log_y else _range(low - room, high + room)
    _add_marks(plot, chart.marks, float(max(np.nanmax(one.x) for one in chart.series)))


def _bars(chart: BarChart) -> Any:
    from bokeh.models import ColumnDataSource

    columns = {f"d{i}": [_shown(cell) for cell in cells] for i, cells in enumerate(chart.details.values())}
    tooltips = [(_text(chart.x_label), "@label"), (_text(chart.y_label), "@top{0,0.[0000]}")]
    tooltips += [(_text(name), f"@d{i}") for i, name in enumerate(chart.details)]
    plot = _figure(chart, tooltips, x_axis_label=chart.x_label, y_axis_label=chart.y_label)
    data = {
        "x": list(range(len(chart.values))),
        "top": rounded(chart.values).tolist(),
        "label": [_text(label) for label in chart.labels],
        **columns,
    }
    gap = 0.8 if len(chart.values) <= 80 else 1.0
    plot.vbar("x", gap, "top", source=ColumnDataSource(data), fill_color=chart.colour, line_color=None)
    plot.y_range.start = 0
    plot.x_range = _range(-0.7, len(chart.values) - 0.3)
    plot.xgrid.grid_line_color = None
    every = max(1, -(-len(chart.labels) // 12))
    shown = list(range(0, len(chart.labels), every))
    plot.xaxis.ticker = shown
    plot.xaxis.major_label_overrides = {i: _text(chart.labels[i], 8) for i in shown}
    _plain_ticks(plot.yaxis[0])
    _add_marks(plot, chart.marks, len(chart.values) - 0.5)
    return plot


def _shown(cell: Any) -> Any:
    return _text(cell) if isinstance(cell, str) else cell


def _dots(chart: DotChart) -> Any:
    from bokeh.models import ColumnDataSource

    n_rows = len(chart.rows)
    plot = _figure(chart, [("", "@row"), ("", "@group @x{0,0.[0000]}")], x_axis_label=chart.x_label)
    names = [_text(row) for row in chart.rows]
    y = [n_rows - 1 - i for i in range(n_rows)]
    every = (
        rounded(np.array(list(chart.groups.values()))).reshape(-1, n_rows) if chart.groups else np.zeros((1, n_rows))
    )
    low, high = np.nanmin(every, axis=0), np.nanmax(every, axis=0)
    if not chart.spans:
        plot.segment(low.tolist(), y, high.tolist(), y, line_color=GRID, line_width=3)
    for i, (group, values) in enumerate(chart.groups.items()):
        # A little apart, so that equal values do not hide each other.
        apart = [place - 0.2 * (i - (len(chart.groups) - 1) / 2) for place in y]
        source = ColumnDataSource(
            {"x": rounded(values).tolist(), "y": apart, "row": names, "group": [_text(group)] * n_rows}
        )
        if group in chart.spans:
            least, most = (rounded(ends).tolist() for ends in chart.spans[group])
            plot.segment(least, apart, most, apart, line_color=series_colour(i), line_width=4, line_alpha=0.45)
        plot.scatter("x", "y", source=source, marker=_MARKERS[i], size=8, fill_color=series_colour(i), line_color=None)
    _row_ticks(plot.yaxis[0], {y[i]: chart.rows[i] for i in range(n_rows)})
    plot.y_range = _range(-0.7, n_rows - 0.3)
    plot.ygrid.grid_line_color = None
    return plot


def _row_ticks(axis: Any, labels: dict[int, str]) -> None:
    axis.ticker = sorted(labels)
    axis.major_label_overrides = {place: _text(label, _LABEL_LENGTH) for place, label in labels.items()}


def _heat_map(chart: HeatMap, matrix: Floats) -> Any:
    from bokeh.models import BasicTicker, LinearColorMapper, LogColorMapper
    from bokeh.models.annotations import ColorBar, Span

    n_rows, n_columns = matrix.shape
    tooltips = [
        (_text(chart.row_label), "$y{0}"),
        (_text(chart.column_label), "$x{0}"),
        (_text(chart.value_label), "@image{0,0.[000]}"),
    ]
    plot = _figure(chart, tooltips, x_axis_label=chart.column_label, y_axis_label=chart.row_label)
    plot.x_range, plot.y_range = _range(-0.5, n_columns - 0.5), _range(n_rows - 0.5, -0.5)
    plot.grid.grid_line_color = None
    shown = np.where(matrix > 0, rounded(matrix), np.nan) if chart.log else rounded(matrix)
    known = shown[np.isfinite(shown)]
    low = float(known.min()) if known.size else (1.0 if chart.log else 0.0)
    high = float(known.max()) if known.size else low
    if high <= low:
        high = low * 2 if low > 0 else 1.0
    mapper_class = LogColorMapper if chart.log else LinearColorMapper
    mapper = mapper_class(palette=list(cividis()), low=low, high=high, nan_color="rgba(0,0,0,0)")
    plot.image([shown.astype(np.float32)], x=-0.5, y=-0.5, dw=n_columns, dh=n_rows, color_mapper=mapper)
    if chart.grid_every:
        for place in range(chart.grid_every, max(n_rows, n_columns), chart.grid_every):
            for dimension, size in (("height", n_columns), ("width", n_rows)):
                if place < size:
                    line: Any = {"dimension": dimension, "line_color": "#ffffff", "line_width": 0.8, "line_alpha": 0.7}
                    plot.add_layout(Span(location=place - 0.5, **line))
    for axis, size in ((plot.xaxis[0], n_columns), (plot.yaxis[0], n_rows)):
        axis.ticker = list(range(0, size, _tick_step(size, chart.grid_every)))
    bar = ColorBar(color_mapper=mapper, title=_text(chart.value_label), height=10, padding=2)
    bar.background_fill_color = None
    bar.major_label_text_color = bar.title_text_color = INK
    bar.title_text_font_style = "normal"
    bar.title_text_font_size = bar.major_label_text_font_size = "11px"
    if not chart.log:
        bar.ticker = BasicTicker(desired_num_ticks=6)
    _plain_ticks(bar)
    plot.add_layout(bar, "below")
    return plot


def _gantt(chart: Gantt) -> Any:
    from bokeh.models import ColumnDataSource
    from bokeh.models.annotations import Span

    tooltips = [
        (_text(chart.row_label), "@name"),
        ("", "@phase"),
        (_text(chart.x_label), "@left{0,0.[000]} to @right{0,0.[000]}"),
        ("", "@note"),
    ]
    plot = _figure(chart, tooltips, x_axis_label=chart.x_label, y_axis_label=chart.row_label)
    phase = np.array(chart.phase)
    for name, colour in chart.colours.items():
        chosen = np.flatnonzero(phase == name)
        if not len(chosen):
            continue
        slim = chart.slim[chosen]
        middle = chart.row[chosen].astype(np.float64)
        data = {
            "left": rounded(chart.start[chosen]).tolist(),
            "right": rounded(chart.end[chosen]).tolist(),
            "top": np.where(slim, middle + 0.26, middle - 0.44).tolist(),
            "bottom": np.where(slim, middle + 0.46, middle + 0.2).tolist(),
            "name": [_text(chart.rows[row]) for row in chart.row[chosen]],
            "note": [_text(chart.note[i]) for i in chosen],
            "phase": [name.replace("_", " ")] * len(chosen),
        }
        plot.quad(source=ColumnDataSource(data), fill_color=colour, line_color=None)
    n_rows = len(chart.rows)
    step = _tick_step(n_rows, chart.grid_every)
    _row_ticks(plot.yaxis[0], {row: chart.rows[row] for row in range(0, n_rows, step)})
    plot.y_range = _range(n_rows - 0.4, -0.6)
    plot.x_range = _range(0, 1.01 * float(chart.end.max()) if len(chart.end) else 1.0)
    plot.ygrid.grid_line_color = None
    if chart.grid_every:
        for place in range(chart.grid_every, n_rows, chart.grid_every):
            plot.add_layout(Span(location=place - 0.5, dimension="width", line_color=GRID, line_width=1))
    _plain_ticks(plot.xaxis[0])
    return plot

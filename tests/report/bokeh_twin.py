"""The charts as Bokeh's own models, made through its plotting interface: what the plain JSON has to equal.

Ranges, thinned curves and the places of names are taken from the package, they are not what is compared here; how they
become models, and how Bokeh writes those, is Bokeh's.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from bokeh.core.serialization import Deserializer
from bokeh.models import (
    BasicTicker,
    ColorBar,
    ColumnDataSource,
    HoverTool,
    LabelSet,
    LinearColorMapper,
    LogColorMapper,
    Model,
    NumeralTickFormatter,
    PrintfTickFormatter,
    Range1d,
    Span,
)
from bokeh.plotting import figure

from moesim.report.charts import BarChart, DotChart, Gantt, HeatMap, LineChart, Mark
from moesim.report.interactive import Drawn, height_of
from moesim.report.palette import BLANK, GRID, INK, MARK, cividis, series_colour
from moesim.report.quantities import decimated, rounded
from moesim.report.scales import Scale, line_scales, point_names, scale_of

MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
PRINTED = {"@x": "printf", "@y": "printf", "@left": "printf", "@right": "printf"}


def from_bokeh(chart: Drawn) -> list[Model]:
    """One figure per view."""
    match chart:
        case LineChart():
            return [_lines(chart)]
        case BarChart():
            return [_bars(chart)]
        case DotChart():
            return [_dots(chart)]
        case Gantt():
            return [_gantt(chart)]
        case HeatMap():
            return [_heat_map(chart, matrix) for matrix in chart.matrices.values()]


def read_back(root: dict[str, Any]) -> Model:
    """What Bokeh makes of a root object written as JSON."""
    found: Model = Deserializer().deserialize(root)
    return found


def differences(one: Any, other: Any, where: str = "root", met: dict[str, str] | None = None) -> Iterator[str]:
    """Every place where two models differ, defaults included; two references agree where they mean the same object."""
    met = {} if met is None else met
    if isinstance(one, Model) and isinstance(other, Model):
        if one.id in met:
            if met[one.id] != other.id:
                yield f"{where}: refers to another object"
            return
        met[one.id] = other.id
        if type(one) is not type(other):
            yield f"{where}: {type(one).__name__} for {type(other).__name__}"
            return
        ours, theirs = (model.properties_with_values(include_defaults=True) for model in (one, other))
        for name in sorted({*ours, *theirs}):
            yield from differences(ours.get(name), theirs.get(name), f"{where}.{name}", met)
    elif isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            yield f"{where}: {list(one)} for {list(other)}"
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{where}[{key!r}]", met)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{where}: {len(one)} for {len(other)} entries"
        for i, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{where}[{i}]", met)
    elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype != other.dtype or not np.array_equal(one, other, equal_nan=True):
            yield f"{where}: other numbers"
    elif one != other and not (isinstance(one, float) and isinstance(other, float) and np.isnan([one, other]).all()):
        yield f"{where}: {one!r} for {other!r}"


def _range(scale: Scale) -> Range1d:
    return Range1d(start=scale.low, end=scale.high)


def _figure(chart: Drawn, x: Scale, y: Scale, y_label: str = "") -> Any:
    x_label = chart.column_label if isinstance(chart, HeatMap) else chart.x_label
    kinds = {"x_axis_type": "log" if x.log else "linear", "y_axis_type": "log" if y.log else "linear"}
    plot = figure(
        height=height_of(chart), sizing_mode="stretch_width", tools="box_zoom,pan,reset,save", toolbar_location="above",
        toolbar_inner=True, background_fill_color=None, border_fill_color=None, outline_line_color=None,
        min_border_left=8, min_border_right=12, x_axis_label=x_label, y_axis_label=y_label or None, x_range=_range(x),
        y_range=_range(y), **kinds,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    for axis, scale in ((plot.xaxis[0], x), (plot.yaxis[0], y)):
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.axis_line_color = axis.major_tick_line_color = GRID
        axis.minor_tick_line_color = None
        axis.formatter = _formatter(scale)
        axis.ticker.num_minor_ticks = 5  # not drawn
    plot.grid.grid_line_color = GRID
    plot.grid.grid_line_width = 0.7
    return plot


def _formatter(scale: Scale) -> Any:
    small = max(abs(scale.low), abs(scale.high)) < 10_000 or (scale.log and scale.low < 1e-5)
    return PrintfTickFormatter(format="%.6g") if small else NumeralTickFormatter(format="0,0.[000000]")


def _finished(plot: Any) -> Any:
    """Without the copies of every glyph that Bokeh makes for selections, which these charts have none of."""
    for renderer in plot.renderers:
        renderer.nonselection_glyph = renderer.muted_glyph = "auto"
    return plot


def _source(**columns: Any) -> ColumnDataSource:
    return ColumnDataSource(
        {
            name: rounded(values).tolist() if isinstance(values, np.ndarray) else values
            for name, values in columns.items()
        }
    )


def _said(values: Any) -> list[str]:
    return [f"{value:,.10g}" if np.isfinite(value) else "–" for value in rounded(values)]


def _levels(plot: Any, marks: tuple[Mark, ...]) -> None:
    for i, mark in enumerate(marks):
        dash = [4, 3] if i % 2 == 0 else [1, 3]
        plot.add_layout(Span(location=mark.value, dimension="width", line_color=MARK, line_dash=dash))


def _lines(chart: LineChart) -> Any:
    plot = _figure(chart, *line_scales(chart), chart.y_label)
    plain = [one for one in chart.series if one.style != "points" and not one.named()]
    common = bool(plain) and all(np.array_equal(one.x, plain[0].x) for one in plain)
    near, dots = [], []
    for position, one in enumerate(chart.series):
        if one.style != "points":
            x, y = decimated(one.x, one.y)
            if one.style == "steps":
                x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
            gaps = [-1, *np.flatnonzero(~np.isfinite(x + y)).tolist(), len(x)]
            for before, after in pairwise(gaps):
                if after - before > 2:
                    piece = slice(before + 1, after)
                    source = _source(x=x[piece], y=y[piece], label=[one.label] * (after - before - 1))
                    dash = "dashed" if one.style == "dashed" else "solid"
                    line = plot.line("x", "y", source=source, line_color=one.colour, line_width=2, line_dash=dash)
                    near += [] if one.named() or common else [line]
        if one.style == "points" or one.point_labels or len(one.x) <= 40:
            known = np.isfinite(one.x + one.y)
            names = np.array(one.named() or [one.label] * len(one.x), object)[known].tolist()
            size = 4 if len(one.x) > 60 else 5 if one.style == "dashed" else 7
            look: dict[str, Any] = {"marker": MARKERS[position % len(MARKERS)], "size": size}
            columns = {"x": one.x[known], "y": one.y[known], "label": names}
            if any("★" in label for label in one.point_labels):
                best = ["★" in label for label, is_known in zip(one.point_labels, known, strict=True) if is_known]
                columns |= {"marker": ["star" if is_best else look["marker"] for is_best in best],
                            "size": [15 if is_best else size for is_best in best]}  # fmt: skip
                look = {"marker": "marker", "size": "size"}
            alpha = 0.6 if len(one.x) > 60 else 1.0
            style = {"fill_color": one.colour, "line_color": None, "fill_alpha": alpha, "hit_dilation": 2.5}
            drawn = plot.scatter("x", "y", source=_source(**columns), **look, **style)
            dots += [drawn] if one.style == "points" or one.named() else []
    said = [("", "@label"), (chart.x_label, "@x{%.5g}"), (chart.y_label, "@y{%.5g}")]
    if common and np.isfinite([one.y for one in plain]).any():
        every = np.stack([one.y for one in plain])
        rows = np.flatnonzero(np.isfinite(every).any(axis=0))
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 500)).astype(int)]
        columns = {"x": plain[0].x[rows], "y": np.nanmax(every[:, rows], axis=0), "at": _said(plain[0].x[rows])}
        columns |= {f"s{i}": _said(one.y[rows]) for i, one in enumerate(plain)}
        unseen = plot.line("x", "y", source=_source(**columns), line_alpha=0.0, line_color="black")
        tooltips = [(chart.x_label, "@at"), *((one.label, f"@s{i}") for i, one in enumerate(plain))]
        plot.add_tools(HoverTool(renderers=[unseen], tooltips=tooltips, mode="vline"))
    if near:
        plot.add_tools(HoverTool(renderers=near, tooltips=said, mode="vline", formatters=PRINTED))
    if dots:
        plot.add_tools(HoverTool(renderers=dots, tooltips=said, formatters=PRINTED))
    _levels(plot, chart.marks)
    names = point_names(chart)
    if names:
        columns = {
            "x": [one.x for one in names], "y": [one.y for one in names], "text": [one.text for one in names],
            "x_offset": [7 * one.right for one in names], "y_offset": [4 * one.above for one in names],
            "text_align": [{1: "left", 0: "center", -1: "right"}[one.right] for one in names],
            "text_baseline": [{1: "bottom", -1: "top"}[one.above] for one in names],
        }  # fmt: skip
        fields = {name: name for name in columns}
        source = ColumnDataSource(columns)
        plot.add_layout(LabelSet(source=source, **fields, text_font_size="11px", text_color=INK))
    if chart.x_ticks:
        plot.xaxis.ticker = list(chart.x_ticks)
    return _finished(plot)


def _bars(chart: BarChart) -> Any:
    bars = len(chart.values)
    height = scale_of([chart.values, np.array([mark.value for mark in chart.marks])], zero=True)
    plot = _figure(chart, Scale(-0.7, bars - 0.3), height, chart.y_label)
    details = {f"d{i}": ["–" if cell is None else cell for cell in cells]
               for i, cells in enumerate(chart.details.values())}  # fmt: skip
    source = _source(
        x=np.arange(bars), top=chart.values, label=list(chart.labels), said=_said(chart.values), **details
    )  # fmt: skip
    width = 0.8 if bars <= 80 else 1.0
    drawn = plot.vbar("x", width, "top", source=source, fill_color=chart.colour, line_color=None)
    if width < 1:
        drawn = plot.vbar("x", 1.0, "top", source=source, fill_alpha=0.0, fill_color="gray", line_color=None)
    tooltips = [(chart.x_label, "@label"), (chart.y_label, "@said")]
    tooltips += [(name, f"@d{i}") for i, name in enumerate(chart.details)]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=tooltips, mode="vline"))
    plot.xgrid.grid_line_color = None
    shown = range(0, bars, -(-bars // 12))
    plot.xaxis.ticker = list(shown)
    plot.xaxis.major_label_overrides = {i: chart.labels[i] for i in shown}
    _levels(plot, chart.marks)
    return _finished(plot)


def _dots(chart: DotChart) -> Any:
    n_rows = len(chart.rows)
    every = np.stack(list(chart.groups.values()))
    ends = (end for span in chart.spans.values() for end in span)
    x = scale_of([every, *ends, np.array([0.0] if chart.zero else [])])
    plot = _figure(chart, x, Scale(-0.7, n_rows - 0.3))
    if chart.zero:
        plot.add_layout(Span(location=0.0, dimension="height", line_color=MARK))
    y = np.arange(n_rows)[::-1]
    if not chart.spans:
        known = np.isfinite(every).any(axis=0)
        low, high = np.nanmin(every[:, known], axis=0), np.nanmax(every[:, known], axis=0)
        ends = _source(x0=low, y0=y[known], x1=high, y1=y[known])
        plot.segment("x0", "y0", "x1", "y1", source=ends, line_color=GRID, line_width=3)
    for i, (group, values) in enumerate(chart.groups.items()):
        apart = y - 0.2 * (i - (len(chart.groups) - 1) / 2)
        colour = series_colour(i)
        if group in chart.spans:
            least, most = chart.spans[group]
            ends = _source(x0=least, y0=apart, x1=most, y1=apart)
            plot.segment(
                "x0", "y0", "x1", "y1", source=ends, line_color=colour, line_width=4, line_alpha=0.45
            )  # fmt: skip
        known = np.isfinite(values)
        source = _source(x=values[known], y=apart[known])
        plot.scatter(
            "x", "y", source=source, marker=MARKERS[i % len(MARKERS)], size=8, fill_color=colour, line_color=None
        )
    said = {f"g{i}": _said(values) for i, values in enumerate(chart.groups.values())}
    source = _source(
        y=y, left=np.full(n_rows, x.low), right=np.full(n_rows, x.high), row=list(chart.rows), **said
    )  # fmt: skip
    band = plot.hbar("y", 1.0, "right", "left", source=source, fill_alpha=0.0, fill_color="gray", line_color=None)
    tooltips = [("", "@row"), *((group, f"@g{i}") for i, group in enumerate(chart.groups))]
    plot.add_tools(HoverTool(renderers=[band], tooltips=tooltips, mode="hline"))
    _row_ticks(plot, {n_rows - 1 - i: row for i, row in enumerate(chart.rows)})
    return _finished(plot)


def _row_ticks(plot: Any, labels: dict[int, str]) -> None:
    plot.yaxis.ticker = sorted(labels)
    plot.yaxis.major_label_overrides = labels
    plot.ygrid.grid_line_color = None


def _gantt(chart: Gantt) -> Any:
    n_rows = len(chart.rows)
    plot = _figure(chart, Scale(0.0, 1.01 * float(chart.end.max())), Scale(n_rows - 0.4, -0.6), chart.row_label)
    drawn = []
    for name, colour in chart.colours.items():
        chosen = [i for i in range(len(chart.phase)) if chart.phase[i] == name]
        if chosen:
            row, slim = chart.row[chosen], chart.slim[chosen]
            source = _source(
                left=chart.start[chosen], right=chart.end[chosen], top=row + np.where(slim, 0.26, -0.44),
                bottom=row + np.where(slim, 0.46, 0.2), name=[chart.rows[i] for i in row],
                note=[chart.note[i] for i in chosen], phase=[name.replace("_", " ")] * len(chosen),
            )  # fmt: skip
            drawn.append(plot.quad("left", "right", "top", "bottom", source=source, fill_color=colour, line_color=None))
    times = "@left{%.5g} to @right{%.5g}"
    tooltips = [(chart.row_label, "@name"), ("", "@phase"), (chart.x_label, times), ("", "@note")]
    plot.add_tools(HoverTool(renderers=drawn, tooltips=tooltips, formatters=PRINTED))
    for place in range(chart.grid_every, n_rows, chart.grid_every) if chart.grid_every else ():
        plot.add_layout(Span(location=place - 0.5, dimension="width", line_color=GRID))
    _row_ticks(plot, {row: chart.rows[row] for row in range(0, n_rows, _tick_step(n_rows, chart.grid_every))})
    return _finished(plot)


def _tick_step(size: int, node: int) -> int:
    unit = node if node and size // node >= 4 else 1
    return unit * max(1, -(-size // (16 * unit)))


def _heat_map(chart: HeatMap, matrix: Any) -> Any:
    n_rows, n_columns = matrix.shape
    plot = _figure(chart, Scale(-0.5, n_columns - 0.5), Scale(n_rows - 0.5, -0.5), chart.row_label)
    plot.grid.grid_line_color = None
    plot.background_fill_color = BLANK
    cells = rounded(matrix)
    known = cells[np.isfinite(cells) & (cells > (0 if chart.log else -np.inf))]
    low, high = (float(known.min()), float(known.max())) if known.size else ((1.0, 1.0) if chart.log else (0.0, 0.0))
    if high <= low:
        high = low * 2 if low > 0 else 1.0
    clear: dict[str, Any] = {"nan_color": "rgba(0,0,0,0)"}
    clear |= {"low_color": "rgba(0,0,0,0)"} if chart.log else {}
    mapper = (LogColorMapper if chart.log else LinearColorMapper)(palette=list(cividis()), low=low, high=high, **clear)
    source = ColumnDataSource({"image": [cells]})
    said = "@image{0,0.[000]}"
    if not np.isfinite(cells).all():
        source.data["said"] = [_said(cells.ravel())]
        said = "@said"
    place = {"x": -0.5, "y": -0.5, "dw": n_columns, "dh": n_rows}
    drawn = plot.image("image", source=source, color_mapper=mapper, **place)
    tooltips = [(chart.row_label, "$y{0}"), (chart.column_label, "$x{0}"), (chart.value_label, said)]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=tooltips))
    for dimension, size in (("height", n_columns), ("width", n_rows)):
        for at in range(chart.grid_every, size, chart.grid_every) if chart.grid_every else ():
            white: dict[str, Any] = {"line_color": "#ffffff", "line_width": 0.8, "line_alpha": 0.7}
            plot.add_layout(Span(location=at - 0.5, dimension=dimension, **white))
    for axis, size in ((plot.xaxis[0], n_columns), (plot.yaxis[0], n_rows)):
        axis.ticker = list(range(0, size, _tick_step(size, chart.grid_every)))
    bar = ColorBar(color_mapper=mapper, title=chart.value_label, height=10, padding=2)
    bar.background_fill_color = None
    bar.major_label_text_color = bar.title_text_color = INK
    bar.title_text_font_style = "normal"
    bar.title_text_font_size = bar.major_label_text_font_size = "11px"
    bar.formatter = _formatter(Scale(low, high, chart.log))
    if not chart.log:
        bar.ticker = BasicTicker(desired_num_ticks=6)
    plot.add_layout(bar, "below")
    return _finished(plot)

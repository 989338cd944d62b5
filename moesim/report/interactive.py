"""Charts for the page as documents of BokehJS, written as plain JSON.

Bokeh's Python models would say the same in fifty times the time; the tests hold every kind of chart against them,
object by object. What is BokehJS's own default is left out. No CustomJS anywhere: it would need ``unsafe-eval``. Text
of users is never markup here: hover text is escaped by Bokeh, and what looks like TeX is broken up, since Bokeh would
fetch MathJax for it.
"""

import re
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from moesim.report.charts import BarChart, DotChart, Gantt, HeatMap, LineChart, Mark, Series
from moesim.report.palette import BLANK, GRID, INK, MARK, cividis, series_colour
from moesim.report.quantities import ABSENT, Floats, decimated, filled, rounded
from moesim.report.scales import BEST, Scale, line_scales, point_names, scale_of

Drawn = LineChart | BarChart | DotChart | HeatMap | Gantt
Object = dict[str, Any]

_HEIGHT = 300
# On the page, which breaks or cuts names once more to the width that it has.
_LABEL_LENGTH = 44
# Curves of more points have no markers; clouds of more have small, pale ones.
_FEW_POINTS = 40
_FEW_DOTS = 60
# Rows of the text under the pointer; more are thinned evenly.
_READOUT_ROWS = 500
_TEX = re.compile(r"\$\$|\\\(|\\\[|\\\)|\\\]")
_MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
# The first level to compare with, the second, and so on in turn.
_LEVELS = (("dashed", [4, 3]), ("dotted", [1, 3]))
_NAN = {"type": "number", "value": "nan"}
_CLEAR = "rgba(0,0,0,0)"
# Columns that are numbers under the pointer, and how they are written.
_NUMBER = "{%.5g}"
_PRINTED = dict.fromkeys(("@x", "@y", "@left", "@right"), "printf")


def documents(chart: Drawn) -> dict[str, Object]:
    """Draw a chart: the root of one document per view by its name; a heat map has one per matrix, others one."""
    views = chart.matrices if isinstance(chart, HeatMap) else {"": np.empty((0, 0))}
    return {name: _Figure(f"{chart.key}{i}", chart).root(matrix) for i, (name, matrix) in enumerate(views.items())}


def height_of(chart: Drawn) -> int:
    """Height of a chart in CSS pixels, known before it is drawn."""
    if isinstance(chart, DotChart):
        return 90 + 30 * len(chart.rows)
    if isinstance(chart, Gantt):
        return 90 + max(8 * len(chart.rows), 24 * min(len(chart.rows), 8))
    return 400 if isinstance(chart, HeatMap) else _HEIGHT


def legend_of(chart: Drawn) -> list[tuple[str, str, str]]:
    """Label, colour and style (``line``, ``dashed``, ``dotted``, ``points`` or ``block``) of what a chart tells apart.

    Legends are HTML: they wrap on a phone, which Bokeh's own do not, and cover nothing. Levels are named here too.
    """
    match chart:
        case LineChart():
            style = {"steps": "line"}
            named = [(one.label, one.colour, style.get(one.style, one.style)) for one in chart.series if one.label]
            return named + _level_names(chart.marks)
        case BarChart():
            return _level_names(chart.marks)
        case DotChart():
            return [(group, series_colour(i), "points") for i, group in enumerate(chart.groups)]
        case Gantt():
            shown = [(name, colour) for name, colour in chart.colours.items() if name in set(chart.phase)]
            return [(name.replace("_", " "), colour, "block") for name, colour in shown]
        case _:
            return []


def _level_names(marks: tuple[Mark, ...]) -> list[tuple[str, str, str]]:
    return [(mark.text, MARK, _LEVELS[i % len(_LEVELS)][0]) for i, mark in enumerate(marks)]


def _text(label: str, length: int = 200) -> str:
    """Make text that Bokeh takes as plain text, cut to a length that fits."""
    plain = "".join(letter if letter.isprintable() else " " for letter in label)
    plain = _TEX.sub(lambda found: " ".join(found[0]), plain)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def _texts(labels: Any) -> list[Any]:
    return [ABSENT if label is None else _text(label) if isinstance(label, str) else label for label in labels]


def _numbers(values: Any) -> list[str]:
    """Numbers as text under the pointer, a dash where there is none."""
    return [f"{value:,.10g}" if np.isfinite(value) else ABSENT for value in rounded(values).tolist()]


def _every(size: int, labels: int, node: int = 0) -> range:
    """Places between ``size`` that are labelled: whole nodes where there are several, so many labels at most."""
    unit = node if node and size // node >= 4 else 1
    return range(0, size, unit * max(1, -(-size // (labels * unit))))


def _same(made: Object) -> Object:
    """Refer to an object made before."""
    return {"id": made["id"]}


def _map(entries: Mapping[Any, Any]) -> Object:
    return {"type": "map", "entries": [[key, value] for key, value in entries.items()]}


def _value(value: Any) -> Object:
    """One value for all points of a glyph."""
    return {"type": "value", "value": value}


def _fields(*names: str) -> Object:
    """A column of the source for each point, by the property of the same name."""
    return {name: {"type": "field", "field": name} for name in names}


class _Figure:
    """A chart in the making: its objects numbered in the order made, so that equal charts give equal bytes."""

    def __init__(self, prefix: str, chart: Drawn) -> None:
        self._ids = (f"{prefix}-{number}" for number in count())
        self._chart = chart
        self._renderers: list[Object] = []
        self._hovers: list[Object] = []
        self._center: list[Object] = []
        self._below: list[Object] = []

    def root(self, matrix: Floats) -> Object:
        """The root object of the chart; of one matrix, where it is a heat map."""
        kinds: Any = {LineChart: self._lines, BarChart: self._bars, DotChart: self._dots, Gantt: self._gantt}
        made: Object = kinds.get(type(self._chart), partial(self._heat_map, matrix=matrix))(self._chart)
        return made

    def _new(self, kind: str, **attributes: Any) -> Object:
        made: Object = {"type": "object", "name": kind, "id": next(self._ids)}
        return made | {"attributes": attributes} if attributes else made

    def _glyph(self, kind: str, columns: Mapping[str, Any], fields: tuple[str, ...], **style: Any) -> Object:
        """Draw a glyph for each row of the columns, numbers to five digits."""
        lists = {name: rounded(values).tolist() if isinstance(values, np.ndarray) else values
                 for name, values in columns.items()}  # fmt: skip
        return self._over(self._new("ColumnDataSource", data=_map(lists)), kind, fields, **style)

    def _over(self, source: Object, kind: str, fields: tuple[str, ...], **style: Any) -> Object:
        made = self._new("GlyphRenderer", data_source=source, glyph=self._new(kind, **_fields(*fields), **style))
        self._renderers.append(made)
        return made

    def _hover(self, on: list[Object], said: list[tuple[str, str]], mode: str = "mouse") -> None:
        """Say something under the pointer: over a thing itself, or anywhere above (vline) or beside it (hline)."""
        if on:
            options: Object = {} if mode == "mouse" else {"mode": mode}
            options |= {"formatters": _map(_PRINTED)} if any(_NUMBER in text for _, text in said) else {}
            shown, tooltips = [_same(one) for one in on], [[_text(name), text] for name, text in said]
            self._hovers.append(self._new("HoverTool", renderers=shown, tooltips=tooltips, **options))

    def _spans(self, places: Any, dimension: str, **style: Any) -> None:
        self._center += [self._new("Span", location=place, dimension=dimension, **style) for place in places]

    def _levels(self, marks: tuple[Mark, ...]) -> None:
        for i, mark in enumerate(marks):
            self._spans([mark.value], "width", line_color=MARK, line_dash=_LEVELS[i % len(_LEVELS)][1])

    def _formatter(self, scale: Scale) -> Object:
        """Plain numbers: 0.00001 on a small axis, 15,000 on a large one."""
        if max(abs(scale.low), abs(scale.high)) < 1e4 or (scale.log and scale.low < 1e-5):
            return self._new("PrintfTickFormatter", format="%.6g")
        return self._new("NumeralTickFormatter", format="0,0.[000000]")

    def _axis(self, label: str, scale: Scale, ticks: Any) -> Object:
        given: Object = {}
        if ticks is not None:
            given["ticker"] = self._new("FixedTicker", ticks=sorted(ticks), minor_ticks=[])
        if isinstance(ticks, dict):
            given["major_label_overrides"] = _map(ticks)
        return self._new(
            "LogAxis" if scale.log else "LinearAxis", **given, formatter=self._formatter(scale),
            axis_label=_text(label) or None, axis_label_text_color=INK, axis_label_text_font_size="12px",
            axis_label_text_font_style="normal",
            major_label_text_color=INK, major_label_text_font_size="12px", axis_line_color=GRID,
            major_tick_line_color=GRID, minor_tick_line_color=None,
        )  # fmt: skip

    def _plot(self, scales: tuple[Scale, Scale], labels: tuple[str, str], ticks: tuple[Any, Any], grid: str) -> Object:
        """Put the figure together; ticks are numbers, labels by number, or chosen; ``grid`` names axes with lines."""
        axes = [self._axis(*axis) for axis in zip(labels, scales, ticks, strict=True)]
        lines = [
            self._new("Grid", dimension=i, axis=_same(axis), grid_line_width=0.7,
                      grid_line_color=GRID if "xy"[i] in grid else None)
            for i, axis in enumerate(axes)
        ]  # fmt: skip
        tools = [self._new("BoxZoomTool", dimensions="both"), *map(self._new, ("PanTool", "ResetTool", "SaveTool"))]
        ranges = [self._new("Range1d", start=scale.low, end=scale.high) for scale in scales]
        kinds = [self._new("LogScale" if scale.log else "LinearScale") for scale in scales]
        return self._new(
            "Figure", height=height_of(self._chart), sizing_mode="stretch_width", x_range=ranges[0], y_range=ranges[1],
            x_scale=kinds[0], y_scale=kinds[1], renderers=self._renderers, left=[axes[1]],
            below=[axes[0], *self._below], center=lines + self._center,
            toolbar=self._new("Toolbar", tools=tools + self._hovers, logo=None, autohide=True),
            toolbar_location="above", toolbar_inner=True, border_fill_color=None,
            background_fill_color=BLANK if isinstance(self._chart, HeatMap) else None,
            outline_line_color=None, min_border_left=8, min_border_right=12,
        )  # fmt: skip

    def _lines(self, chart: LineChart) -> Object:
        plain = [one for one in chart.series if one.style != "points" and not one.named()]
        common = bool(plain) and all(np.array_equal(one.x, plain[0].x) for one in plain)
        near: list[Object] = []
        dots: list[Object] = []
        for position, one in enumerate(chart.series):
            if one.style != "points":
                drawn = self._curve(one)
                near += [] if one.named() or common else drawn
            if one.style == "points" or one.point_labels or len(one.x) <= _FEW_POINTS:
                drawn = [self._markers(one, _MARKERS[position % len(_MARKERS)])]
                dots += drawn if one.style == "points" or one.named() else []
        said = [("", "@label"), (chart.x_label, f"@x{_NUMBER}"), (chart.y_label, f"@y{_NUMBER}")]
        if common:
            self._readout(plain, chart.x_label)
        self._hover(near, said, "vline")
        self._hover(dots, said)
        self._levels(chart.marks)
        self._names(chart)
        return self._plot(line_scales(chart), (chart.x_label, chart.y_label), (chart.x_ticks or None, None), "xy")

    def _curve(self, one: Series) -> list[Object]:
        """Draw a curve in pieces between its gaps: a gap is no number to show under the pointer."""
        x, y = decimated(one.x, one.y)
        if one.style == "steps":
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        known = np.isfinite(x) & np.isfinite(y)
        dash = {"line_dash": [6]} if one.style == "dashed" else {}
        pieces = []
        for piece in np.split(np.arange(len(x)), np.flatnonzero(np.diff(known)) + 1):
            if len(piece) > 1 and known[piece[0]]:
                columns = {"x": x[piece], "y": y[piece], "label": [_text(one.label)] * len(piece)}
                pieces.append(self._glyph("Line", columns, ("x", "y"), line_color=one.colour, line_width=2, **dash))
        return pieces

    def _markers(self, one: Series, kind: str) -> Object:
        """Draw the points of a series; the best of them as a star."""
        known = np.flatnonzero(np.isfinite(one.x) & np.isfinite(one.y))
        few = len(one.x) <= _FEW_DOTS
        size = 4 if not few else 5 if one.style == "dashed" else 7
        names = one.named() or [one.label] * len(one.x)
        columns: Object = {"x": one.x[known], "y": one.y[known], "label": [_text(names[i]) for i in known]}
        look: Object = {"marker": _value(kind), "size": _value(size)}
        if any(BEST in label for label in one.point_labels):
            best = [BEST in one.point_labels[i] for i in known]
            columns |= {"marker": ["star" if is_best else kind for is_best in best],
                        "size": [15 if is_best else size for is_best in best]}  # fmt: skip
            look = _fields("marker", "size")
        style = {"fill_color": one.colour, "line_color": None, "fill_alpha": 1.0 if few else 0.6}
        return self._glyph("Scatter", columns, ("x", "y"), **look, **style, hit_dilation=2.5)

    def _readout(self, curves: list[Series], x_label: str) -> None:
        """Say what all curves are at the x nearest to the pointer, which an unseen line along the highest finds."""
        x, every = curves[0].x, np.stack([one.y for one in curves])
        rows = np.flatnonzero(np.isfinite(every).any(axis=0))
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _READOUT_ROWS)).astype(np.int64)]
        if len(rows):
            texts = {f"s{i}": _numbers(one.y[rows]) for i, one in enumerate(curves)}
            columns = {"x": x[rows], "y": np.nanmax(every[:, rows], axis=0), "at": _numbers(x[rows]), **texts}
            unseen = self._glyph("Line", columns, ("x", "y"), line_alpha=0.0)
            self._hover([unseen], [(x_label, "@at"), *((one.label, f"@s{i}") for i, one in enumerate(curves))], "vline")

    def _names(self, chart: LineChart) -> None:
        """Write the names of points beside them, each where it covers nothing."""
        names = point_names(chart)
        if names:
            columns = {
                "x": [one.x for one in names], "y": [one.y for one in names],
                "text": [_text(one.text) for one in names],
                "x_offset": [7 * one.right for one in names], "y_offset": [4 * one.above for one in names],
                "text_align": [("center", "left", "right")[one.right] for one in names],
                "text_baseline": ["bottom" if one.above > 0 else "top" for one in names],
            }  # fmt: skip
            source = self._new("ColumnDataSource", data=_map(columns))
            style = {"text_font_size": _value("11px"), "text_color": _value(INK)}
            self._center.append(self._new("LabelSet", source=source, **_fields(*columns), **style))

    def _bars(self, chart: BarChart) -> Object:
        bars = len(chart.values)
        details = {f"d{i}": _texts(cells) for i, cells in enumerate(chart.details.values())}
        columns = {"x": np.arange(bars), "top": np.nan_to_num(chart.values), "label": _texts(chart.labels),
                   "said": _numbers(chart.values), **details}  # fmt: skip
        width = {"width": _value(0.8)} if bars <= 80 else {}
        drawn = self._glyph("VBar", columns, ("x", "top"), **width, fill_color=chart.colour, line_color=None)
        if width:  # the pointer finds an unseen bar that leaves no gap
            shared = _same(drawn["attributes"]["data_source"])
            drawn = self._over(shared, "VBar", ("x", "top"), fill_alpha=0.0, line_color=None)
        named = [(name, f"@d{i}") for i, name in enumerate(chart.details)]
        self._hover([drawn], [(chart.x_label, "@label"), (chart.y_label, "@said"), *named], "vline")
        self._levels(chart.marks)
        height = scale_of([chart.values, np.array([mark.value for mark in chart.marks])], zero=True)
        ticks = {i: _text(chart.labels[i], 8) for i in _every(bars, 12)}
        return self._plot((Scale(-0.7, bars - 0.3), height), (chart.x_label, chart.y_label), (ticks, None), "y")

    def _dots(self, chart: DotChart) -> Object:
        n_rows = len(chart.rows)
        y = np.arange(n_rows)[::-1].astype(np.float64)
        every = np.stack([np.full(n_rows, np.nan), *(filled(values) for values in chart.groups.values())])
        bars = (filled(end) for span in chart.spans.values() for end in span)
        x = scale_of([every, *bars, np.zeros(int(chart.zero))])
        self._spans([0.0] * chart.zero, "height", line_color=MARK)
        if not chart.spans:
            known = np.flatnonzero(np.isfinite(every).any(axis=0))
            low, high = (end(every[:, known], axis=0) for end in (np.nanmin, np.nanmax))
            self._segments(low, high, y[known], line_color=GRID, line_width=3)
        for i, (group, values) in enumerate(chart.groups.items()):
            # A little apart, so that equal values do not hide each other.
            apart = y - 0.2 * (i - (len(chart.groups) - 1) / 2)
            if group in chart.spans:
                least, most = (filled(end) for end in chart.spans[group])
                style = {"line_color": series_colour(i), "line_width": 4, "line_alpha": 0.45}
                known = np.flatnonzero(np.isfinite(least) & np.isfinite(most))
                self._segments(least[known], most[known], apart[known], **style)
            known = np.flatnonzero(np.isfinite(values))
            look = {"marker": _value(_MARKERS[i % len(_MARKERS)]), "size": _value(8)}
            columns = {"x": filled(values)[known], "y": apart[known]}
            self._glyph("Scatter", columns, ("x", "y"), **look, fill_color=series_colour(i), line_color=None)
        said = {f"g{i}": _numbers(values) for i, values in enumerate(chart.groups.values())}
        ends = {"y": y, "left": np.full(n_rows, x.low), "right": np.full(n_rows, x.high)}
        rows: Object = ends | {"row": _texts(chart.rows)} | said
        unseen = {"height": _value(1.0), "fill_alpha": 0.0, "line_color": None}
        band = self._glyph("HBar", rows, ("y", "left", "right"), **unseen)
        self._hover([band], [("", "@row"), *((group, f"@g{i}") for i, group in enumerate(chart.groups))], "hline")
        ticks = {n_rows - 1 - i: _text(row, _LABEL_LENGTH) for i, row in enumerate(chart.rows)}
        return self._plot((x, Scale(-0.7, n_rows - 0.3)), (chart.x_label, ""), (None, ticks), "x")

    def _segments(self, x0: Floats, x1: Floats, y: Floats, **style: Any) -> None:
        columns = {"x0": x0, "y0": y, "x1": x1, "y1": y}
        self._glyph("Segment", columns, tuple(columns), **style)

    def _gantt(self, chart: Gantt) -> Object:
        phase = np.array(chart.phase)
        drawn = []
        for name, colour in chart.colours.items():
            chosen = np.flatnonzero(phase == name)
            if len(chosen):
                slim, middle = chart.slim[chosen], chart.row[chosen].astype(np.float64)
                columns = {
                    "left": chart.start[chosen], "right": chart.end[chosen],
                    "top": middle + np.where(slim, 0.26, -0.44), "bottom": middle + np.where(slim, 0.46, 0.2),
                    "name": [_text(chart.rows[row]) for row in chart.row[chosen]],
                    "note": [_text(chart.note[i]) for i in chosen], "phase": [name.replace("_", " ")] * len(chosen),
                }  # fmt: skip
                sides = ("left", "right", "top", "bottom")
                drawn.append(self._glyph("Quad", columns, sides, fill_color=colour, line_color=None))
        times = f"@left{_NUMBER} to @right{_NUMBER}"
        self._hover(drawn, [(chart.row_label, "@name"), ("", "@phase"), (chart.x_label, times), ("", "@note")])
        n_rows, node = len(chart.rows), chart.grid_every
        self._spans(np.arange(node, n_rows, node) - 0.5 if node else (), "width", line_color=GRID)
        ticks = {row: _text(chart.rows[row], _LABEL_LENGTH) for row in _every(n_rows, 16, node)}
        scales = Scale(0.0, 1.01 * float(chart.end.max()) if len(chart.end) else 1.0), Scale(n_rows - 0.4, -0.6)
        return self._plot(scales, (chart.x_label, chart.row_label), (None, ticks), "x")

    def _heat_map(self, chart: HeatMap, matrix: Floats) -> Object:
        cells, (n_rows, n_columns), node = rounded(matrix), matrix.shape, chart.grid_every
        known = cells[np.isfinite(cells) & ((cells > 0) | (not chart.log))]
        low = float(known.min()) if known.size else float(chart.log)
        high = float(known.max()) if known.size else low
        colours = Scale(low, high if high > low else 2 * low or 1.0, chart.log)
        # Numbers as text: how bytes are packed differs between the versions of Bokeh.
        flat: list[Any] = [cell if np.isfinite(cell) else _NAN for cell in cells.ravel().tolist()]
        image = {"type": "ndarray", "array": flat, "shape": [n_rows, n_columns], "dtype": "float64", "order": "little"}
        whole = _NAN not in flat
        columns = {"image": [image]} | ({} if whole else {"said": [_numbers(cells.ravel())]})
        mapper = self._new(
            "LogColorMapper" if chart.log else "LinearColorMapper", palette=list(cividis()), low=low,
            high=colours.high, nan_color=_CLEAR, **({"low_color": _CLEAR} if chart.log else {}),
        )  # fmt: skip
        place = {"x": _value(-0.5), "y": _value(-0.5), "dw": _value(n_columns), "dh": _value(n_rows)}
        drawn = self._glyph("Image", columns, ("image",), color_mapper=mapper, **place)
        number = "@image{0,0.[000]}" if whole else "@said"
        self._hover([drawn], [(chart.row_label, "$y{0}"), (chart.column_label, "$x{0}"), (chart.value_label, number)])
        white: Object = {"line_color": "#ffffff", "line_width": 0.8, "line_alpha": 0.7}
        for dimension, size in (("height", n_columns), ("width", n_rows)):
            self._spans(np.arange(node, size, node) - 0.5 if node else (), dimension, **white)
        self._below.append(self._new(
            "ColorBar", color_mapper=_same(mapper), title=_text(chart.value_label), height=10, padding=2,
            **({} if chart.log else {"ticker": self._new("BasicTicker", desired_num_ticks=6)}),
            formatter=self._formatter(colours), background_fill_color=None, title_text_color=INK,
            title_text_font_size="11px", title_text_font_style="normal", major_label_text_color=INK,
        ))  # fmt: skip
        scales = Scale(-0.5, n_columns - 0.5), Scale(n_rows - 0.5, -0.5)
        ticks = _every(n_columns, 16, node), _every(n_rows, 16, node)
        return self._plot(scales, (chart.column_label, chart.row_label), ticks, "")

"""Heat maps of a sweep's objective over its axes: cells one can press, in small multiples over a third axis.

Rows and columns are two axes, panels the values of a third; further axes are held, each at a value that the reader
picks. A cell's colour is the objective's, on one scale for all panels.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np

from moesim.report.named_numbers import in_words
from moesim.report.palette import GRID, MARK, cividis, ink_on
from moesim.report.static import drawn_files, plain_text
from moesim.report.sweep_data import SweepData

# Cells of all panels together, so that the page stays light.
MOST_CELLS = 3000
# Labels longer than this stand at the side of a map rather than above its columns.
_LONG_LABEL = 7
# On a scale over more than this factor most cells would have one colour.
_LOG_FROM = 6.0


class MapCell(NamedTuple):
    """One point in a map; ``kind`` is ok, over (breaks a limit), failed, impossible or none (not drawn)."""

    point: int
    kind: str
    text: str
    style: str
    words: str


class MapPanel(NamedTuple):
    """One map: its values of the held axes, what it is of, and rows of a label with cells."""

    held: str
    title: str
    shown: bool
    rows: list[tuple[str, list[MapCell]]]


class HeldAxis(NamedTuple):
    """An axis whose value the reader picks."""

    name: str
    labels: tuple[str, ...]
    chosen: int


class HeatMaps(NamedTuple):
    """All maps with what is written around them."""

    row_name: str
    column_name: str
    columns: tuple[str, ...]
    panels: list[MapPanel]
    held: list[HeldAxis]
    low: str
    high: str
    unit: str
    gradient: str
    kinds: set[str]
    note: str


def heat_maps(data: SweepData) -> HeatMaps | None:
    """Arrange the points in maps; None where even one map has too many cells or no point has a number."""
    values, unit = data.scaled(data.key)
    known = values[np.isfinite(values)]
    chosen = _layout(data)
    if chosen is None or not known.size:
        return None
    rows, columns, panels, held, note = chosen
    anchor = data.places[data.anchor]
    axes = data.axes
    low, high = float(known.min()), float(known.max())
    log = low > 0 and high / low > _LOG_FROM
    at = {tuple(int(place) for place in places): point for point, places in enumerate(data.places)}
    colours = cividis()

    def cell(places: tuple[int, ...]) -> MapCell:
        point = at.get(places)
        if point is None:
            return MapCell(-1, "none", "", "", "")
        value = values[point]
        if not np.isfinite(value):
            kind = data.status[point] if data.status[point] != "ok" else "failed"
            return MapCell(point, kind, "", "", f"{data.label(point)}: {kind}")
        share = (
            0.0 if high <= low else (np.log(value / low) / np.log(high / low) if log else (value - low) / (high - low))
        )
        shade = round(255 * float(share))
        kind = "ok" if data.within[point] else "over"
        text, style = cell_text(float(value)), f"background:{colours[shade]};color:{ink_on(colours[shade])}"
        words = f"{data.label(point)}: {text} {unit}".strip() + ("" if kind == "ok" else ", outside the limits")
        return MapCell(point, kind, text, style, words)

    every = [range(len(axis.values)) for axis in axes]
    picked = [every[a] if a in held else [int(anchor[a])] for a in range(len(axes))]
    made = []
    for places in product(
        *(every[a] if a == panels else picked[a] for a in range(len(axes)) if a not in (rows, columns))
    ):
        fixed = dict(zip((a for a in range(len(axes)) if a not in (rows, columns)), places, strict=True))
        body = []
        for r in every[rows] if rows is not None else [0]:
            line = []
            for c in every[columns] if columns is not None else [0]:
                line.append(cell(tuple(fixed.get(a, r if a == rows else c) for a in range(len(axes)))))
            body.append((axes[rows].labels[r] if rows is not None else "", line))
        made.append(
            MapPanel(
                held=",".join(str(fixed[a]) for a in held),
                title=axes[panels].label(fixed[panels]) if panels is not None else "",
                shown=all(fixed[a] == anchor[a] for a in held),
                rows=body,
            )
        )
    return HeatMaps(
        row_name=axes[rows].short if rows is not None else "",
        column_name=axes[columns].short if columns is not None else "",
        columns=axes[columns].labels if columns is not None else (in_words(data.key),),
        panels=made,
        held=[HeldAxis(axes[a].short, axes[a].labels, int(anchor[a])) for a in held],
        low=cell_text(low),
        high=cell_text(high),
        unit=unit,
        gradient=", ".join(colours[i] for i in range(0, 256, 15)),
        kinds={cell.kind for panel in made for _, line in panel.rows for cell in line},
        note=note + (" Colours are on a log scale." if log else ""),
    )


def cell_text(value: float) -> str:
    """Write a number in the little room of a cell: three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:#.3g}".rstrip(".")


def _layout(data: SweepData) -> tuple[int | None, int | None, int | None, list[int], str] | None:
    """Choose the axes of rows, columns and panels and those whose value the reader picks; the strongest get a place."""
    size = [len(axis.values) for axis in data.axes]
    strength = {effect.axis: place for place, effect in enumerate(data.effects)}
    free = [a for a in range(len(size)) if size[a] > 1] or [0]
    free.sort(key=lambda a: (strength.get(data.axes[a].name, len(size)), a))
    main, held = sorted(free[:3]), sorted(free[3:])
    note = ""
    panels = min(main, key=lambda a: size[a]) if len(main) == 3 else None
    plane = [a for a in main if a != panels]
    cells = int(np.prod([size[a] for a in plane]))
    if cells > MOST_CELLS:
        return None
    if int(np.prod([size[a] for a in main + held])) > MOST_CELLS:
        fixed_at = ", ".join(data.axes[a].label(int(data.places[data.anchor, a])) for a in held)
        note, held = f" Held at {fixed_at}." if fixed_at else "", []
        if panels is not None and cells * size[panels] > MOST_CELLS:
            note += f" Shown only for {data.axes[panels].label(int(data.places[data.anchor, panels]))}."
            panels = None
    long = {a: max(map(len, data.axes[a].labels)) > _LONG_LABEL for a in plane}
    plane.sort(key=lambda a: (not long[a], size[a], a))
    if len(plane) == 2:
        return plane[0], plane[1], panels, held, note
    only = plane[0]
    return (only, None, panels, held, note) if long[only] else (None, only, panels, held, note)


_CELL = (0.62, 0.36)
"""Width and height of a cell in inches."""
_MOST_CELLS_WITH_TEXT = 400
_LONGEST_LABEL = 32
_HATCH = {"impossible": "////", "failed": "xxxx"}


def map_files(data: SweepData) -> dict[str, bytes]:
    """Draw the maps that the page shows first, as ``figures/map.svg`` and ``.png``; nothing where it has none."""
    maps = heat_maps(data)
    if maps is None:
        return {}
    return drawn_files("map", lambda figure: _draw(figure, data, maps))


def _draw(figure: Any, data: SweepData, maps: HeatMaps) -> None:
    panels = [panel for panel in maps.panels if panel.shown]
    rows, columns = len(panels[0].rows), len(maps.columns)
    labels = max(len(label) for label, _ in panels[0].rows)
    width = len(panels) * (columns * _CELL[0] + 0.6 + 0.08 * min(labels, _LONGEST_LABEL))
    figure.set_size_inches(max(width, 4.0), rows * _CELL[1] + 1.9)
    title = f"{data.title}: {in_words(data.key)}" + (f" ({maps.unit})" if maps.unit else "")
    figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=11)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        _panel(axes, panel, data, rows * columns <= _MOST_CELLS_WITH_TEXT)
        axes.set_title(plain_text(panel.title), fontsize=9)
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xticks(range(columns), [plain_text(label)[:_LONGEST_LABEL] for label in maps.columns])
        axes.set_yticks(range(rows), [plain_text(label)[:_LONGEST_LABEL] for label, _ in panel.rows])
        axes.set_xlabel(plain_text(maps.column_name))
        axes.set_ylabel(plain_text(maps.row_name) if i == 0 else "")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    over = "; pale: outside the limits" if "over" in maps.kinds else ""
    figure.supxlabel(f"★ best{over}", fontsize=8, color=MARK)


def _panel(axes: Any, panel: MapPanel, data: SweepData, with_text: bool) -> None:
    """Draw the cells in the colours of the page."""
    from matplotlib.patches import Rectangle

    cells = [(row, column, one) for row, (_, line) in enumerate(panel.rows) for column, one in enumerate(line)]
    for row, column, one in cells:
        if one.kind == "none":
            continue
        style = dict(part.split(":") for part in one.style.split(";")) if one.style else {}
        box: dict[str, Any] = {"facecolor": style.get("background", "white"), "edgecolor": "white", "linewidth": 1.5}
        if one.kind in _HATCH:
            box |= {"hatch": _HATCH[one.kind], "edgecolor": GRID}
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, alpha=0.35 if one.kind == "over" else 1.0, **box))
        if with_text:
            star = "★" if one.point in data.starred else ""
            ink = "black" if one.kind == "over" else style.get("color", "black")
            axes.text(column, row, star + one.text, ha="center", va="center", fontsize=8, color=ink)

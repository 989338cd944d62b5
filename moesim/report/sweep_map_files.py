"""The heat maps of a sweep as files: the cells of the page with their numbers, stars and hatchings."""

from typing import Any

from moesim.report.named_numbers import in_words
from moesim.report.palette import GRID, MARK
from moesim.report.static import drawn_files, plain_text
from moesim.report.sweep_data import SweepData
from moesim.report.sweep_maps import HeatMaps, MapPanel, heat_maps

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

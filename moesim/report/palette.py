"""Colours that colour-blind readers can tell apart (Okabe and Ito; cividis), one meaning each on every page."""

from functools import cache
from pathlib import Path

from moesim.stages import BESIDE, MIGRATION, STAGES, STEP

INK = "#1c2733"
"""Text and axes of charts; the page swaps it for a light one in dark mode."""
GRID = "#d9dee5"
"""Grid lines of charts, swapped too."""
BLANK = "#fffffe"
"""Behind the cells of a map, where there are none; swapped too, so that none looks like the darkest cell."""
MARK = "#6b7785"
"""Levels to compare with; swapped too."""

# Blues compute, oranges move bytes, greys wait.
PHASES = {"arrival": "#a9b2bd", **{stage.label: stage.colour for stage in (*STAGES, *STEP)}, "wait": "#87909b"}
WEIGHTS = {stage.label: stage.colour for stage in (MIGRATION, BESIDE)}
"""Of moves of weights, which few runs have."""

_LINK_CLASSES = {"nvlink": "#009e73", "nic": "#d55e00", "leaf-spine": "#cc79a7"}

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6bb3", "#8c6d46", "#87909b")
"""Colours of series without a meaning of their own, in order."""

LINK_WORDS = {"nvlink": "NVLink", "nic": "NIC"}


def link_colour(link_class: str, position: int) -> str:
    """Colour of a link class; ``position`` picks one for a class that a topology adds."""
    return _LINK_CLASSES.get(link_class, SERIES[(position + 4) % len(SERIES)])


def series_colour(position: int) -> str:
    """Colour of the n-th series."""
    return SERIES[position % len(SERIES)]


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour: at least 4.5 to 1 on any."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"  # WCAG 2.2, contrast ratio


@cache
def cividis() -> tuple[str, ...]:
    """The 256 colours of cividis, dark to light (Nunez, Anderton and Renslow 2018)."""
    file = Path(__file__).parent / "templates" / "cividis.txt"
    return tuple(f"#{colour}" for colour in file.read_text(encoding="utf-8").split())

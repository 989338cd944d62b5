"""Colours that colour-blind readers can tell apart (Okabe and Ito; cividis), one meaning each on every page."""

from moesim.stages import STAGES

INK = "#1c2733"
"""Text and axes of charts; the page swaps it for a light one in dark mode."""
GRID = "#d9dee5"
"""Grid lines of charts, swapped too."""
PAPER = "#fffffe"
"""What charts lie on, behind the names of levels; swapped too."""
MARK = "#6b7785"
"""Levels to compare with; swapped too."""

# Blues compute, oranges move bytes, greys wait.
PHASES = {"arrival": "#a9b2bd", **{stage.label: stage.colour for stage in STAGES}, "wait": "#87909b"}

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


def cividis() -> tuple[str, ...]:
    """The 256 colours of cividis, dark to light."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colour) for colour in colormaps["cividis"](range(256)))

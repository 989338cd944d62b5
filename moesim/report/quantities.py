"""Numbers as the report prints them: four significant digits with a unit for people, five for data.

The unit of a summary value comes from ``moesim.results.definitions``; what is a share of something is printed in
percent. Values that do not apply are a dash.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.results import DEFINITIONS
from moesim.units import format_bandwidth, format_bytes, format_duration, parse_quantity

Floats = NDArray[np.float64]

ABSENT = "–"
_SHARES = {"bottleneck_utilisation", "gate_mass_lost", "utilisation"}
# Ladder of (factor, unit) for axes: one unit for all values of an axis.
_AXES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "B/s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")),
}


def is_share(key: str) -> bool:
    """Return whether a value of this name is a part of a whole, printed in percent."""
    return key in _SHARES or key.endswith("_share")


def unit_of(key: str) -> str:
    """Return the unit of a summary value or a table's column: ``s``, ``B``, ``B/s``, ``%`` or nothing."""
    if is_share(key):
        return "%"
    if key in DEFINITIONS:
        return DEFINITIONS[key].unit
    if key.endswith("_bytes_per_s"):
        return "B/s"
    if key.endswith("_s"):
        return "s"
    return "B" if key.endswith("_bytes") else ""


def si_of(unit: str) -> tuple[float, str] | None:
    """Return what a unit is in SI units, ``µs`` or ``Gb/s``: factor and name; None where it is no unit."""
    return (0.01, "fraction") if unit == "%" else parse_quantity(f"1{unit}")


def quantity(value: Any, unit: str) -> str:
    """Write a number for people in its unit.

    Args:
        value: a number (True and False are words), text as it is, or None or NaN for what does not apply.
        unit: ``s``, ``B``, ``B/s``, ``%`` (the value is a fraction of 1) or nothing.
    """
    if value is None or value is np.ma.masked:
        return ABSENT
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    number = float(value)
    if not math.isfinite(number):
        return ABSENT
    if unit == "s":
        return format_duration(number).replace("us", "µs")
    if unit == "B":
        return format_bytes(number)
    if unit == "B/s":
        return format_bandwidth(number)
    if unit == "%":
        return f"{float(f'{100 * number:.3g}'):g} %"
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:.4g}"


def named_quantity(key: str, value: Any) -> str:
    """Write a summary value, or one of a column named like one, in the unit that goes with its name."""
    return quantity(value, unit_of(key))


def axis_scale(values: Floats, unit: str) -> tuple[float, str]:
    """Choose the one prefix in which the largest of the values reads well.

    Returns:
        What to divide by and the unit's name: ``(1e-6, "µs")``.
    """
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    ladder = _AXES[unit]
    # A few of a unit read better as thousands of the next: 2.5 ms of 2-digit steps are fine, 0.9 ms are not.
    return next((step for step in ladder if largest >= step[0]), ladder[-1])


def rounded(values: Any) -> Floats:
    """Round to five significant digits: what a chart or its table needs, at half the bytes."""
    array = filled(values)
    magnitude = np.zeros_like(array)
    known = np.isfinite(array) & (array != 0)
    magnitude[known] = np.floor(np.log10(np.abs(array[known])))
    factor = 10.0 ** np.abs(4 - magnitude)
    # Multiplying by a whole power of ten and dividing by it again gives the shortest decimal; 1e-4 would not.
    small = magnitude <= 4
    up = np.where(small, array * factor, array / factor)
    whole = np.where(known, np.rint(up), array)
    return np.where(known, np.where(small, whole / factor, whole * factor), array)


def filled(values: Any) -> Floats:
    """Return a column as floats, NaN where a value does not apply."""
    if np.ma.isMaskedArray(values):
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan), np.float64)
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array([np.nan if value is None else value for value in array])
    return array.astype(np.float64)


def decimated(x: Floats, y: Floats, limit: int = 2000) -> tuple[Floats, Floats]:
    """Thin a curve to at most ``limit`` points that still touch its extremes.

    The points, in the order given, are cut into ``limit // 2`` runs of which the lowest and the highest stay.
    """
    if len(x) <= limit:
        return x, y
    runs = np.array_split(np.arange(len(x)), limit // 2)
    known = np.where(np.isfinite(y), y, 0.0)
    kept = [(int(run[np.argmin(known[run])]), int(run[np.argmax(known[run])])) for run in runs]
    index = np.unique(np.array(kept).ravel())
    return x[index], y[index]

"""Numbers of the summary in words, and which of them share a chart wherever several results stand side by side."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moesim.report.charts import page_words, worded
from moesim.report.quantities import Floats, axis_scale, unit_of

WORDS: dict[str, str] = page_words("numbers.toml")
"""Numbers that pages show of every run or point, by their names in the summary."""


def in_words(key: str) -> str:
    """Name a number of the summary in words where it has some."""
    return WORDS.get(key, key)


class Drawn(NamedTuple):
    """Numbers of one chart: what they are of, and their names there."""

    key: str
    title: str
    caption: str
    label: str
    numbers: dict[str, str]


DRAWN = tuple(
    Drawn(**worded(key)) for key in ("imbalance", "dispatch_bandwidth", "combine_bandwidth", "bytes", "gate_mass")
)
"""Charts of numbers, in the order in which pages show them."""

LOSSES = Drawn(**worded("losses"))
"""The balance losses, which are drawn over their values in balance."""


def scaled(drawn: Drawn, column: Callable[[str], Floats]) -> tuple[dict[str, Floats], str]:
    """Return the numbers of a chart on one scale, by their names there, and the label of its axis.

    Numbers that apply nowhere, and chart for which nothing is left, give an empty dictionary.

    Args:
        drawn: the chart.
        column: values of a number of the summary, NaN where it does not apply.
    """
    found = {words: column(key) for key, words in drawn.numbers.items()}
    found = {words: values for words, values in found.items() if np.isfinite(values).any()}
    unit = unit_of(next(iter(drawn.numbers)))
    if not found or (unit == "%" and not any(np.nan_to_num(values).any() for values in found.values())):
        return {}, drawn.label
    if not unit:
        return found, drawn.label
    scale, name = (0.01, "%") if unit == "%" else axis_scale(np.concatenate(list(found.values())), unit)
    return {words: values / scale for words, values in found.items()}, f"{drawn.label} ({name})"

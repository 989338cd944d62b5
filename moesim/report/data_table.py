"""Tables of the pages: words for people, and beside each number what a spreadsheet takes of it.

A page sorts and copies numbers in SI units, shares as fractions of 1; the copied heading names the unit. Numbers that
share a prefix have it in their heading, ``wait (µs)``; others are a ``Quantity``, which is shown with its own prefix.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup, escape

from moesim.report.quantities import ABSENT, quantity, si_of
from moesim.results import Value

_NUMERIC = re.compile(r"[-+]?[0-9.,]+(e[-+]?[0-9]+)?( ?[A-Za-zµ%/]+)?|–|")
# Where a long name may be broken; a number is kept beside its unit.
_JOINT = re.compile(r"[._](?=[A-Za-z0-9]{3})")
# Words up to this length are a name, which is not broken.
_NAME = 32
UNIT_AT_END = re.compile(r" \(([^()]+)\)$")
"""Where a heading or the label of an axis has its unit: ``wait (µs)``."""


class Quantity(NamedTuple):
    """A number with its unit (as of ``quantity``), SI; with the interval that it lies in, where that is known.

    ``text`` stands for what would be shown, where something else says it better.
    """

    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    text: str = ""

    def words(self) -> str:
        """What people read."""
        return self.text or Value(self.value, self.low, self.high).words(lambda number: quantity(number, self.unit))


Cell = str | float | int | None | Quantity


class Heading(NamedTuple):
    """A column's heading on the page.

    Attributes:
        name: what it says.
        words: whether the column holds words rather than numbers.
        copied: what the copied heading says, with the unit.
        scale: what turns the plain numbers shown into SI units.
        mixed: whether the units differ from row to row; the copied table has a column of units then.
        hint: what the column means.
    """

    name: str
    words: bool
    copied: str
    scale: float = 1.0
    mixed: bool = False
    hint: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table of the page: header, rows of numbers or text, and where the rest is if rows were left out."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    left_out: str = ""
    hints: tuple[str, ...] = ()

    def headings(self) -> list[Heading]:
        """The heading of every column, with what its cells have in common."""
        hints = self.hints or ("",) * len(self.columns)
        return [self._heading(i, name, hint) for i, (name, hint) in enumerate(zip(self.columns, hints, strict=True))]

    def _heading(self, place: int, name: str, hint: str) -> Heading:
        cells = [row[place] for row in self.rows]
        words = any(isinstance(cell, str) and not _NUMERIC.fullmatch(cell) for cell in cells)
        units = {cell.unit for cell in cells if isinstance(cell, Quantity) and cell.value is not None}
        if len(units) == 1:
            unit = _si_name(units.pop())
            return Heading(name, words, f"{name} ({unit})" if unit else name, hint=hint)
        match = UNIT_AT_END.search(name)
        prefixed = None if units or match is None else si_of(match[1])
        if match is None or prefixed is None:
            return Heading(name, words, name, mixed=len(units) > 1, hint=hint)
        scale, unit = prefixed
        return Heading(name, words, f"{name[: match.start()]} ({unit})", scale, hint=hint)


def _si_name(unit: str) -> str:
    return "fraction" if unit == "%" else unit


def shown(cell: Cell) -> str:
    """What people read in a cell."""
    if isinstance(cell, float):
        return f"{cell:.5g}"
    if isinstance(cell, Quantity):
        return cell.words()
    return ABSENT if cell is None else str(cell)


def cell_html(cell: Cell, heading: Heading, marks: str = "") -> Markup:
    """One ``td``, with the number behind its words; ``marks`` are further classes."""
    return Markup(_td(cell, heading, marks))  # noqa: S704 - escaped


def row_html(row: Sequence[Cell], headings: Sequence[Heading]) -> Markup:
    """The cells of one row."""
    return Markup("".join(map(_td, row, headings)))  # noqa: S704 - escaped


def _td(cell: Cell, heading: Heading, marks: str = "") -> str:
    text = shown(cell)
    if isinstance(cell, float | int) and not (heading.words or marks):
        return f"<td>{text}</td>"
    words = ("text name " if len(text) <= _NAME else "text ") if heading.words else ""
    classes = f"{words}{marks}".strip()
    attributes = f' class="{classes}"' if classes else ""
    if isinstance(cell, Quantity):
        for name, number in (("value", cell.value), ("low", cell.low), ("high", cell.high)):
            known = "" if number is None or number != number else f"{number:.10g}"
            if known != text and (known or name == "value"):
                attributes += f' data-{name}="{known}"'
        if heading.mixed and cell.unit:
            attributes += f' data-unit="{_si_name(cell.unit)}"'
    html = str(escape(text))
    html = _JOINT.sub(r"\g<0><wbr>", html) if heading.words else html.replace(" ", "\u00a0", 1)
    return f"<td{attributes}>{html}</td>"

"""Numbers, JSON and CSV of a user's file, within limits.

A number is plain ASCII digits: Python's own readers also take ``1_0``, Arabic digits, ``nan`` and thousands of digits.
JSON is neither endlessly nested nor holds numbers that no float or 64-bit integer can be. Mistakes name their place.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from moesim.errors import InputError

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MOST_CHARACTERS = 60
_LONGEST_CELL = 100_000


def number(text: str | float) -> float:
    """Return a finite number, written plainly.

    Raises:
        ValueError: it is none.
    """
    plain = not isinstance(text, str) or (len(text) <= _MOST_CHARACTERS and _DECIMAL.fullmatch(text.strip()))
    value = float(text) if plain and not isinstance(text, bool) else math.nan
    if not math.isfinite(value):
        raise ValueError("a finite number is needed")
    return value


def whole(text: str | float, least: int, most: int) -> int:
    """Return a whole number between bounds (``1e3`` too).

    Raises:
        ValueError: it is none; the text says what would be.
    """
    needed = f"a whole number from {least} to {most} is needed"
    try:
        value = number(text)
    except (ValueError, OverflowError):
        raise ValueError(needed) from None
    if value != int(value) or not least <= value <= most:
        raise ValueError(needed)
    return int(value)


class _NoNumber(ValueError):
    """A number of a JSON text that nothing can hold, as it is written there."""


class _Twice(ValueError):
    """A key that a JSON object has twice: readers take the last, people see the first."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def read_json(text: str, where: str, infinite: bool = False, line: int = 1) -> Any:
    """Return the data of a JSON text.

    ``infinite``: NaN and Infinity are let through, which configurations of models hold; their readers check.
    ``line``: of the file, on which the text begins.

    Raises:
        InputError: with line and column: no JSON, nested too deeply, NaN, a number beyond 64 bits or any float.
    """

    def refused(literal: str) -> Any:
        if not infinite:
            raise _NoNumber(literal)
        return float(literal.replace("Infinity", "inf"))

    def whole_number(literal: str) -> int:
        if len(literal) > 20 or not -(1 << 63) <= int(literal) < 1 << 64:
            raise _NoNumber(literal)
        return int(literal)

    def real_number(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            raise _NoNumber(literal)
        return value

    try:
        return json.loads(
            text, parse_constant=refused, parse_int=whole_number, parse_float=real_number, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        what, at = f"not valid JSON: {error.msg}", error.pos
    except RecursionError:
        what, at = "nested too deeply", next((found.start() for found in re.finditer(r"(?:[\[{]\s*){99}", text)), 0)
    except _Twice as error:
        what, name = f"key {error.args[0]!r:.60} appears twice in one object; keep one of them", error.args[0]
        at = text.rfind(json.dumps(name, ensure_ascii=False))
    except _NoNumber as error:
        what, at = f"{error.args[0]!r:.40} is no number that can be read", text.find(error.args[0])
    raise InputError(what, f"{where}:{text.count(chr(10), 0, at) + line}:{at - text.rfind(chr(10), 0, at)}")


def csv_rows(text: str, where: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line on which each row ends, and its cells; empty lines are none.

    Raises:
        InputError: with the line: no CSV, or a cell of more than 100,000 characters.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        for cells in reader:
            if len(longest := max(cells, key=len, default="")) > _LONGEST_CELL:
                raise csv.Error(f"a cell of {len(longest)} characters")
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(
            f"not a CSV file: {error}", f"{where}:{max(reader.line_num, 1)}:1", "is a quote missing?"
        ) from None

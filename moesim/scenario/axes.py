"""Values given as text: ``-o key=value`` overrides and the axes of a sweep (``1..8``, ``2,4,8``)."""

import re
from dataclasses import dataclass
from typing import Any

from moesim.errors import InputError
from moesim.located_yaml import parse_yaml

_RANGE = re.compile(r"\s*(-?[0-9]{1,9})\.\.(-?[0-9]{1,9})\s*")
MAX_AXIS = 10_000


@dataclass(frozen=True)
class Override:
    """One value set from outside the file: where it goes, what it is, and how it was written."""

    loc: tuple[str, ...]
    value: Any
    origin: str


def parse_override(text: str) -> Override:
    """Read ``routing.top_k=6``: a dotted key and a value, written as in YAML (``[1, 2]``, ``null``, ``2us``).

    Raises:
        InputError: no ``=``, an empty key or value, or a value that is not YAML.
    """
    origin = f"-o {' '.join(text.split())[:100]}"
    key, equals, value = text.partition("=")
    loc = tuple(key.strip().split("."))
    if not equals or not all(loc):
        raise InputError(f"{text!r:.80} is not an override", origin, "write -o key=value, such as routing.top_k=6")
    if not value.strip():
        raise InputError("no value after '='", origin, "write null to unset it")
    try:
        return Override(loc, parse_yaml(value, origin).data, origin)
    except InputError as error:
        raise InputError(error.what, origin, error.fix) from None


def parse_axis(values: Any) -> tuple[Any, ...]:
    """Return the values of a sweep axis: a list as it is, ``1..8`` both ends included, ``2,4,8`` as in YAML.

    Raises:
        InputError: no value, a range that runs backwards, or more than 10,000 values.
    """
    if isinstance(values, str):
        span = _RANGE.fullmatch(values)
        if span:
            low, high = int(span[1]), int(span[2])
            if high < low or high - low >= MAX_AXIS:
                raise InputError(f"the range {values} holds no value or more than {MAX_AXIS}")
            return tuple(range(low, high + 1))
        values = parse_yaml(f"[{values}]", "axis").data if values.strip() else []
    values = list(values) if isinstance(values, list | tuple) else [values]
    if not 0 < len(values) <= MAX_AXIS:
        raise InputError(f"an axis holds 1 to {MAX_AXIS} values, got {len(values)}", fix="write [2, 4, 8] or 1..8")
    return tuple(values)

"""Quantities as people write them: ``400Gb/s``, ``1.5us``, ``64KiB``.

Inside moesim every number is SI: seconds, bytes, bytes per second. At the border a quantity is text with
its unit, because a bare number invites the classic mistake of bits for bytes. ``b`` is a bit, ``B`` a
byte; ``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` of 1024. The case of a letter matters.

``format_*`` write four significant digits for people; ``exact_*`` write what parses back to the same float.
The pydantic types ``Bandwidth``, ``Duration`` and ``ByteSize`` read text and write the exact text back;
``Count`` and ``Number`` are whole and real numbers that refuse ``true`` and quoted digits; ``Share`` is a number or a
percentage.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from moesim.errors import InputError

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*([^\s\d].*?)?\s*")
_PERCENTAGE = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*%\s*")
_PREFIXES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_BYTES = {f"{prefix}B": Decimal(factor) for prefix, factor in _PREFIXES.items()}
_RATES = {f"{unit}/s": factor for unit, factor in _BYTES.items()} | {
    f"{prefix}b/s": Decimal(factor) / 8 for prefix, factor in _PREFIXES.items()
}
_SECONDS = {
    "s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"), "ns": Decimal("1e-9"), "ps": Decimal("1e-12"),
}  # fmt: skip


def _parse(text: object, units: Mapping[str, Decimal], noun: str, example: str, positive: bool) -> float:
    fix = f"write {noun} with its unit, such as {example}"
    if isinstance(text, bool) or not isinstance(text, str):
        is_number = isinstance(text, int | float) and not isinstance(text, bool)
        raise InputError(f"{text!r:.60} {'has no unit' if is_number else f'is not {noun}'}", fix=fix)
    match = _QUANTITY.fullmatch(text)
    if match is None or len(text) > 60:
        raise InputError(f"{text!r:.60} is not {noun}", fix=fix)
    number, unit = match.groups()
    if unit is None:
        raise InputError(f"{text!r} has no unit", fix=fix)
    if unit not in units:
        raise InputError(f"{text!r} is not {noun}: unknown unit {unit!r}", fix=_unit_fix(number, unit, units) or fix)
    value = float(Decimal(number) * units[unit])
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise InputError(f"{text!r} must be {'more than 0' if positive else '0 or more'} and finite")
    return value


def _unit_fix(number: str, unit: str, units: Mapping[str, Decimal]) -> str:
    """List the units that may be meant: another case, ``Gbps`` or ``Gbit/s`` for ``Gb/s``, no ``/s``."""
    spelt = unit.lower().replace("bps", "b/s").replace("bits", "b").replace("bit", "b").replace("bytes", "b")
    meant = [name for name in units if name.lower() in (spelt, f"{spelt}/s")]
    if "bps" in unit or "bit" in unit.lower():
        meant = [name for name in meant if "b" in name]
    if not meant:
        return ""
    bits = " (b is a bit, B a byte)" if "b" in spelt else ""
    return "did you mean " + " or ".join(f"{number}{name}" for name in meant[:3]) + f"?{bits}"


def parse_bandwidth(text: object) -> float:
    """Read a bandwidth such as ``400Gb/s``, ``50GB/s`` or ``100MiB/s``; return bytes per second, more than 0.

    Raises InputError: no unit, an unknown unit, not finite, 0 or negative.
    """
    return _parse(text, _RATES, "a bandwidth", "400Gb/s (bits) or 50GB/s (bytes)", positive=True)


def parse_duration(text: object) -> float:
    """Read a duration such as ``2us``, ``1.5ms`` or ``0us``; return seconds, 0 or more.

    Raises InputError: no unit (a bare 0 too), an unknown unit, not finite or negative.
    """
    return _parse(text, _SECONDS, "a duration", "2us, 1.5ms or 0us", positive=False)


def parse_bytes(text: object) -> float:
    """Read a size such as ``64KiB`` or ``20MB``; return bytes, 0 or more.

    Raises InputError: no unit, an unknown unit, not finite or negative.
    """
    return _parse(text, _BYTES, "a size", "64KiB or 20MB", positive=False)


def parse_share(text: object) -> float:
    """Read a share: a plain number such as ``0.001``, or a percentage as text such as ``0.1%``; return the number.

    Raises InputError: text that is not a percentage, anything else that is not a number, not finite or negative.
    """
    fix = "write a percentage such as 0.1% or a plain number such as 0.001"
    value: float
    if isinstance(text, str):
        match = _PERCENTAGE.fullmatch(text)
        if match is None or len(text) > 60:
            raise InputError(f"{text!r:.60} is not a share", fix=fix)
        value = float(Decimal(match[1]) / 100)
    elif isinstance(text, bool) or not isinstance(text, int | float):
        raise InputError(f"{text!r:.60} is not a share", fix=fix)
    else:
        value = float(text)
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{text!r} must be 0 or more and finite")
    return value


def _scaled(value: float, units: Mapping[str, Decimal], ladder: tuple[str, ...]) -> tuple[Decimal, str]:
    """Return the value in the largest unit of the ladder (descending) that it fills at least once."""
    exact = Decimal(repr(float(value)))
    unit = next((name for name in ladder if abs(exact) >= units[name]), ladder[-1])
    return exact / units[unit], unit


_BYTE_LADDER = ("TB", "GB", "MB", "kB", "B")
_RATE_LADDER = ("TB/s", "GB/s", "MB/s", "kB/s", "B/s")
_SECOND_LADDER = ("s", "ms", "us", "ns")


def _for_people(value: float, units: Mapping[str, Decimal], ladder: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        return f"{value} {ladder[-1]}"
    scaled, unit = _scaled(float(f"{value:.4g}"), units, ladder)  # rounded first: 999.96 GB is 1 TB
    return f"{scaled.normalize():f} {unit}"


def _exactly(value: float, units: Mapping[str, Decimal], ladder: tuple[str, ...]) -> str:
    scaled, unit = _scaled(value, units, ladder)
    return f"{scaled.normalize():f}{unit}"


def format_bandwidth(bytes_per_s: float) -> str:
    """Write bytes per second for people, four significant digits: ``50 GB/s``."""
    return _for_people(bytes_per_s, _RATES, _RATE_LADDER)


def format_duration(seconds: float) -> str:
    """Write seconds for people, four significant digits: ``12.35 us``; 0 is ``0 us``."""
    return _for_people(seconds, _SECONDS, _SECOND_LADDER) if seconds else "0 us"


def format_bytes(size: float) -> str:
    """Write bytes for people, decimal prefixes, four significant digits: ``65.54 kB``."""
    return _for_people(size, _BYTES, _BYTE_LADDER)


def exact_bandwidth(bytes_per_s: float) -> str:
    """Write bytes per second so that ``parse_bandwidth`` returns the very same float."""
    return _exactly(bytes_per_s, _RATES, _RATE_LADDER)


def exact_duration(seconds: float) -> str:
    """Write seconds so that ``parse_duration`` returns the very same float."""
    return _exactly(seconds, _SECONDS, _SECOND_LADDER) if seconds else "0us"


def exact_bytes(size: float) -> str:
    """Write bytes so that ``parse_bytes`` returns the very same float."""
    return _exactly(size, _BYTES, _BYTE_LADDER)


def _whole(value: object) -> object:
    """Let whole numbers through (1e9 too); refuse ``true`` and quoted digits, which pydantic takes."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"expected a whole number, got {value!r:.60}")
    return value


def _real(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"expected a number, got {value!r:.60}")
    return value


def _schema(example: str, units: Mapping[str, Decimal]) -> WithJsonSchema:
    ascii_units = "|".join(re.escape(name) for name in units if name.isascii())
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^\s*[0-9.]+([eE][+-]?[0-9]+)?\s*({ascii_units})\s*$",
            "examples": [example],
        }
    )


Bandwidth = Annotated[
    float,
    BeforeValidator(parse_bandwidth),
    PlainSerializer(exact_bandwidth, return_type=str),
    _schema("400Gb/s", _RATES),
]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(exact_duration, return_type=str),
    _schema("2us", _SECONDS),
]
ByteSize = Annotated[
    float,
    BeforeValidator(parse_bytes),
    PlainSerializer(exact_bytes, return_type=str),
    _schema("64KiB", _BYTES),
]
Count = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_real)]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\s*[0-9.]+([eE][+-]?[0-9]+)?\s*%\s*$"},
            ],
            "examples": ["0.1%"],
        }
    ),
]

"""Quantities as people write them: ``400Gb/s``, ``1.5us``, ``64KiB``.

Inside moesim every number is SI: seconds, bytes, bytes per second. At the border a quantity is text with
its unit, because a bare number invites the classic mistake of bits for bytes. ``b`` is a bit, ``B`` a
byte; ``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` of 1024. The case of a letter matters.

A ``Quantity`` is a kind of them: bandwidths, durations and sizes are its three rows. ``parse_*`` read text,
``format_*`` write four significant digits for people, ``exact_*`` write what parses back to the same float.
The pydantic types ``Bandwidth``, ``Duration`` and ``ByteSize`` read text and write the exact text back;
``Count`` and ``Number`` are whole and real numbers that refuse ``true`` and quoted digits; ``Share`` is a number or a
percentage. A quantity that no cluster comes near is refused with a question: mostly it was bits for bytes.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from moesim.errors import InputError

_QUANTITY = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([^\s0-9].*?)?\s*", re.ASCII)
_PERCENTAGE = re.compile(r"\s*((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*%\s*", re.ASCII)
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


@dataclass(frozen=True)
class Quantity:
    """A kind of quantity: its SI unit, what each unit is worth, and the units that moesim writes, descending.

    ``bounds``: of what is no mistake, where the place where it stands has none of its own; 0 is none.
    """

    si: str
    noun: str
    example: str
    units: Mapping[str, Decimal]
    ladder: tuple[str, ...]
    bounds: tuple[float, float]
    positive: bool = False

    def parse(self, text: object, bounds: tuple[float, float] | None = None) -> float:
        """Read text with its unit; return SI units.

        Raises InputError: no unit (a bare 0 too), an unknown unit, not finite, negative, 0 where it must be more, or
        outside the bounds.
        """
        fix = f"write {self.noun} with its unit, such as {self.example}"
        if isinstance(text, bool) or not isinstance(text, str):
            is_number = isinstance(text, int | float) and not isinstance(text, bool)
            raise InputError(f"{text!r:.60} {'has no unit' if is_number else f'is not {self.noun}'}", fix=fix)
        match = _QUANTITY.fullmatch(text)
        if match is None or len(text) > 60:
            raise InputError(f"{text!r:.60} is not {self.noun}", fix=fix)
        number, unit = match.groups()
        if unit is None:
            raise InputError(f"{text!r} has no unit", fix=fix)
        if unit not in self.units:
            raise InputError(
                f"{text!r} is not {self.noun}: unknown unit {unit!r}", fix=_unit_fix(number, unit, self.units) or fix
            )
        value = float(Decimal(number) * self.units[unit])
        if not math.isfinite(value) or value < 0 or (self.positive and value == 0):
            raise InputError(f"{text!r} must be {'more than 0' if self.positive else '0 or more'} and finite")
        least, most = bounds or self.bounds
        if value and not least <= value <= most:
            limit = f"more than {self.for_people(most)}" if value > most else f"less than {self.for_people(least)}"
            raise InputError(f"{text!r} is {limit}, which no {self.noun.split()[-1]} here can be",
                             fix=self._meant(number, unit, least, most))  # fmt: skip
        return value

    def _meant(self, number: str, unit: str, least: float, most: float) -> str:
        """Ask for bits instead of bytes, or the other way round; else for another prefix."""
        worth = {name: float(Decimal(number) * size) for name, size in self.units.items() if name.isascii()}
        fits = [name for name, value in worth.items() if least <= value <= most]
        swapped = [name for name in fits if name.lower() == unit.lower()]
        near = sorted((name for name in fits if name[-3:] == unit[-3:] or self.si != "B/s"),
                      key=lambda name: abs(self.units[name].log10() - self.units[unit].log10()))  # fmt: skip
        found = swapped or near[:1]
        return f"did you mean {number}{found[0]}?" if found else ""

    def for_people(self, value: float) -> str:
        """Write a number in SI units for people, four significant digits: ``12.35 us``."""
        if not math.isfinite(value):
            return f"{value} {self.ladder[-1]}"
        scaled, unit = self._scaled(float(f"{value:.4g}"))  # rounded first: 999.96 GB is 1 TB
        return f"{scaled.normalize():f} {unit}"

    def exactly(self, value: float) -> str:
        """Write a number in SI units so that ``parse`` returns the very same float."""
        scaled, unit = self._scaled(value)
        return f"{scaled.normalize():f}{unit}"

    def _scaled(self, value: float) -> tuple[Decimal, str]:
        """Return the value in the largest unit of the ladder that it fills at least once; 0 in microseconds."""
        exact = Decimal(repr(float(value)))
        unit = next((name for name in self.ladder if abs(exact) >= self.units[name]), self.ladder[-1])
        unit = unit if exact or self.si != "s" else "us"
        return exact / self.units[unit], unit

    def annotated(self, least: float, most: float) -> tuple[BeforeValidator, PlainSerializer, WithJsonSchema]:
        """What makes a pydantic field read the text, between these bounds, and write the exact text."""
        ascii_units = "|".join(re.escape(name) for name in self.units if name.isascii())
        pattern = rf"^\s*[0-9.]+([eE][+-]?[0-9]+)?\s*({ascii_units})\s*$"
        schema = {"type": "string", "pattern": pattern, "examples": [self.example.split(" ")[0].rstrip(",")]}
        read = BeforeValidator(functools.partial(self.parse, bounds=(least, most)))
        return read, PlainSerializer(self.exactly, return_type=str), WithJsonSchema(schema)


_RATE = Quantity(
    "B/s", "a bandwidth", "400Gb/s (bits) or 50GB/s (bytes)", _RATES, ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    (1.0, 1e18), True,
)  # fmt: skip
_DURATION = Quantity("s", "a duration", "2us, 1.5ms or 0us", _SECONDS, ("s", "ms", "us", "ns"), (1e-15, 1e9))
_SIZE = Quantity("B", "a size", "64KiB or 20MB", _BYTES, ("TB", "GB", "MB", "kB", "B"), (1.0, 1e18))
parse_bandwidth, format_bandwidth, exact_bandwidth = _RATE.parse, _RATE.for_people, _RATE.exactly
parse_duration, format_duration, exact_duration = _DURATION.parse, _DURATION.for_people, _DURATION.exactly
parse_bytes, format_bytes, exact_bytes = _SIZE.parse, _SIZE.for_people, _SIZE.exactly


def parse_nic_bandwidth(text: object) -> float:
    """Read the bandwidth of a NIC: as ``parse_bandwidth``, within what a NIC can be."""
    return _RATE.parse(text, _NIC)


def parse_quantity(text: object) -> tuple[float, str] | None:
    """Read a quantity of any kind; return it in SI units, and that unit; None for anything else."""
    for kind in (_RATE, _DURATION, _SIZE):
        try:
            return kind.parse(text), kind.si
        except InputError:
            continue
    return None


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


# Of a port: the fastest NVLink to come is far below, a NIC of 10 Mb/s above. Of a NIC 8 Tb/s, five times the fastest.
_NIC = (1e6, 1e12)
Bandwidth = Annotated[float, *_RATE.annotated(1e3, 1e14)]
NicBandwidth = Annotated[float, *_RATE.annotated(*_NIC)]
# Nothing that is simulated lasts an hour.
Duration = Annotated[float, *_DURATION.annotated(1e-15, 3600.0)]
ByteSize = Annotated[float, *_SIZE.annotated(1.0, 1e18)]
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

"""Which shapes the coefficients are fitted on and which are held out, frozen before the first fit.

The rule, for each family and GPU: take the shapes in the order of the SHA-256 of "family/shape" and hold out a third
of them (rounded to the nearest), passing over a shape without which the others would no longer reach as far on every
axis (batch, length, tokens, ranks, experts, sizes): what is held out lies inside the range of what is fitted.
The same shape falls on the same side on every GPU where the
tables hold the same shapes. ``data/kernels/split.csv`` holds the outcome; nothing is drawn again when rows are added.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from functools import cache

from moesim.compute.gpus import DATA

FILE = DATA / "kernels" / "split.csv"


def held_out(family: str, shapes: Iterable[str]) -> set[str]:
    """Return the shapes of ``family`` that the rule holds out."""
    names = sorted(set(shapes))
    numbers = {name: tuple(int(part.partition("=")[2]) for part in name.split()) for name in names}
    wanted = (len(names) + 1) // 3
    fitted, held = set(names), set[str]()
    for name in sorted(names, key=lambda name: hashlib.sha256(f"{family}/{name}".encode()).hexdigest()):
        rest = [numbers[other] for other in fitted - {name}]
        if len(held) < wanted and rest and _span(rest) == _span(list(numbers.values())):
            fitted.remove(name)
            held.add(name)
    return held


def _span(numbers: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    return [(min(axis), max(axis)) for axis in zip(*numbers, strict=True)]


@cache
def frozen() -> dict[tuple[str, str, str], str]:
    """Return the role, fit or held_out, by (family, gpu, shape)."""
    with FILE.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {(row["family"], row["gpu"], row["shape"]): row["role"] for row in rows}

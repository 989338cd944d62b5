"""What a number of the summary is made of: terms from which its value follows again.

A term is plain data, as ``explanation.json`` holds it. The terms of a time, a bound or a number of bytes sum to its
value; those of anything else say how they ``combine``. Each comes from inputs of its own, none is what the others
leave. ``explain``, the report and the audit of every run read the same terms.
"""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict


class Share(TypedDict):
    """What one rank or link contributes to a term, averaged over all layers: the shares of a term sum to it.

    ``layers`` are those that it is from, ``bytes`` and ``bytes_per_s`` what it moved and how fast.
    """

    layers: list[int]
    value: float
    rank: NotRequired[int]
    link: NotRequired[str]
    bytes: NotRequired[float]
    bytes_per_s: NotRequired[float]


class Term(TypedDict):
    """One part of a number.

    ``combine`` says what gives the value of the whole list: ``ratio`` (the first over the second), ``product``, ``max``
    or ``mean``; absent: the sum. ``terms`` are what this term is made of in turn, ``of`` the ranks and links.
    """

    name: str
    value: float
    unit: str
    formula: str
    source: str
    combine: NotRequired[str]
    of: NotRequired[list[Share]]
    terms: NotRequired[list["Term"]]


def ratio(above: tuple[str, float], below: tuple[str, float], unit_above: str = "", unit_below: str = "") -> list[Term]:
    """Terms of a quotient."""
    return [
        Term(name=name, value=value, unit=unit, formula="", source="simulated", combine="ratio")
        for (name, value), unit in ((above, unit_above), (below, unit_below))
    ]


def combined(terms: Sequence[Term]) -> float:
    """Return the value that follows from a list of terms; 0 from none."""
    values = [term["value"] for term in terms]
    match terms[0].get("combine") if terms else None:
        case "ratio":
            first, second = values
            return first / second
        case "product":
            return math.prod(values)
        case "max":
            return max(values)
        case "mean":
            return math.fsum(values) / len(values)
    return math.fsum(values)

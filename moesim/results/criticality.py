"""What breaks a cluster, as plain data: every single fault with its cost, and the worst pair that was found."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from moesim.results.placement import percent
from moesim.units import format_duration

How = Literal["simulated", "alike", "bound only", "stops", "failed"]
MANY = 0.1
"""Share of the time from which on a fault counts as costly in the verdict."""


@dataclass(frozen=True)
class RankedFault:
    """Faults that are alike, and what one of them costs.

    Attributes:
        what: it is: ``dead NIC``.
        places: where, of all that are alike; the first was simulated.
        entry: of the scenario's ``faults``, at that place.
        how: ``simulated``; ``alike``: for all its places at two of them, ``time_s`` is the longer one; ``bound only``:
            no more is known than the lower bound's change; ``stops``: nothing runs any more; ``failed``.
        time_s: with the fault; ``cost_s`` beyond the time without; ``other_s`` at the second place.
        bound_change_s: how much the lower bound of the layers rises, in all.
        bottleneck: with the fault.
        error: why it stops or failed.
        marks: devices and links of the map at each of the places.
    """

    what: str
    places: tuple[str, ...]
    entry: Mapping[str, Any]
    how: How
    time_s: float | None
    cost_s: float | None
    other_s: float | None
    bound_change_s: float | None
    bottleneck: str
    error: str
    marks: tuple[tuple[str, ...], ...]

    @property
    def place(self) -> str:
        """The place, and how many more are alike."""
        more = len(self.places) - 1
        return self.places[0] + (f" and {more:,} {'more' if self.how == 'stops' else 'alike'}" if more else "")

    @property
    def order(self) -> tuple[float, float]:
        """The worst is the least: what stops all, then what was simulated by cost, then the rest by the bound."""
        if self.how == "stops":
            return (0.0, 0.0)
        if self.cost_s is not None:
            return (1.0, -self.cost_s)
        return (2.0, -(self.bound_change_s or 0.0))


@dataclass(frozen=True)
class PairCost:
    """Two faults at once: as ``what at place`` each, their time, and what they cost beyond the time without."""

    first: str
    second: str
    time_s: float | None
    cost_s: float | None
    sum_s: float
    error: str


@dataclass(frozen=True)
class WhatBreaks:
    """Every single fault of a scenario, ranked.

    Attributes:
        subject: what is timed, in words: ``the layer``, ``the step of 58 layers``.
        base_s: its time without a further fault.
        faults: the worst first.
        n_faults, n_simulated: single faults, and how many of these were put on the clock.
        idle: faults left out, of links that carry nothing.
        pairs: those tried, the worst first.
        severities: how bad each fault is, in words.
        notes: what the numbers rest on.
        command: runs the scenario with the worst fault.
    """

    scenario: str
    subject: str
    base_s: float
    faults: tuple[RankedFault, ...]
    n_faults: int
    n_simulated: int
    idle: int
    pairs: tuple[PairCost, ...]
    severities: str
    notes: tuple[str, ...]
    command: str

    @property
    def known(self) -> tuple[RankedFault, ...]:
        """Those whose cost was simulated, the worst first."""
        return tuple(one for one in self.faults if one.cost_s is not None)

    def share(self, seconds: float) -> float:
        """Return a cost as a share of the time without the fault."""
        return seconds / self.base_s

    def sentence(self) -> str:
        """The answer in words."""
        stops = [one for one in self.faults if one.how == "stops"]
        words = []
        if stops:
            some = ", ".join(f"{one.what} ({one.place})" for one in stops[:3])
            words.append(f"Nothing runs any more with a {some}{' and others' if len(stops) > 3 else ''}.")
        if not self.known:
            return " ".join([*words, "No other fault was simulated."])
        worst = self.known[0]
        if self.share(worst.cost_s or 0.0) < 1e-3:
            return " ".join([*words, f"No single fault that was simulated makes {self.subject} 0.1 % longer."])
        times = f"{format_duration(self.base_s)} become {format_duration(worst.time_s or 0.0)}"
        words.append(f"Worst: {worst.what} at {worst.place}, {self.subject} {self._more(worst.cost_s)} ({times}).")
        many = sum(len(one.places) for one in self.known if self.share(one.cost_s or 0.0) >= MANY)
        of = sum(len(one.places) for one in self.known)
        words.append(f"{many:,} of {of:,} single faults cost {100 * MANY:g} % or more.")
        if self.pairs and self.pairs[0].cost_s is not None:
            pair = self.pairs[0]
            words.append(f"Worst pair tried: {pair.first} and {pair.second}, {self._more(pair.cost_s)}.")
        return " ".join(words)

    def _more(self, cost_s: float | None) -> str:
        return f"{percent(self.share(cost_s or 0.0))} longer"

    def heat(self) -> dict[str, float]:
        """Return the worst cost at each device and link of the map, as a share; infinite where nothing runs."""
        found: dict[str, float] = {}
        for one in self.faults:
            if one.how != "stops" and one.cost_s is None:
                continue
            share = math.inf if one.cost_s is None else self.share(one.cost_s)
            for name in (name for marks in one.marks for name in marks):
                found[name] = max(found.get(name, -math.inf), share)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain data: times in seconds, null where something is not known."""
        plain = asdict(self) | {"sentence": self.sentence()}
        for row, one in zip(plain["faults"], self.faults, strict=True):
            del row["marks"]
            row["cost_share"] = None if one.cost_s is None else self.share(one.cost_s)
        plain["map"] = {name: None if math.isinf(share) else share for name, share in self.heat().items()}
        return plain

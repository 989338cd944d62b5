"""Max-min fair flows in exact rational arithmetic, by progressive filling from scratch at every event."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

Route = Sequence[tuple[int, float]]
"""(link, weight) pairs; a link named twice counts twice."""


def csr(routes: Sequence[Route]) -> dict[str, Any]:
    """Return routes as the arrays that the flow engine takes."""
    return {
        "route_ptr": np.cumsum([0] + [len(route) for route in routes]),
        "route_links": np.array([link for route in routes for link, _ in route], np.int32),
        "weight": np.array([float(weight) for route in routes for _, weight in route]),
    }


def fair_rates(
    capacity: Sequence[Fraction], loads: Sequence[dict[int, Fraction]], caps: Sequence[Fraction | None]
) -> list[Fraction]:
    """Raise all rates together; stop a flow where a link of its is full or its cap is reached."""
    rates = [Fraction(0)] * len(loads)
    growing = set(range(len(loads)))
    while growing:
        levels = {}
        for link, room in enumerate(capacity):
            slope = sum((loads[f].get(link, Fraction(0)) for f in growing), Fraction(0))
            if slope > 0:
                used = sum(
                    (loads[f].get(link, 0) * rates[f] for f in range(len(loads)) if f not in growing), Fraction(0)
                )
                levels["link", link] = (room - used) / slope
        for f in growing:
            if caps[f] is not None:
                levels["cap", f] = caps[f]
        level = min(levels.values())
        full = {key for key, value in levels.items() if value == level}
        reached = {f for f in growing if ("cap", f) in full or any(("link", link) in full for link in loads[f])}
        for f in reached:
            rates[f] = level
        growing -= reached
    return rates


def finish_times(
    capacity: Sequence[float],
    routes: Sequence[Route],
    size: Sequence[float],
    start: Sequence[float],
    rate_cap: Sequence[float] | None = None,
    capacity_events: Sequence[tuple[float, int, float]] = (),
) -> list[Fraction | None]:
    """Return each flow's finish time, None where it never finishes."""
    room = [Fraction(c) for c in capacity]
    caps = [None if c == np.inf else Fraction(c) for c in rate_cap] if rate_cap is not None else [None] * len(size)
    loads: list[dict[int, Fraction]] = []
    for route in routes:
        load: dict[int, Fraction] = {}
        for link, weight in route:
            if weight:
                load[link] = load.get(link, Fraction(0)) + Fraction(weight)
        loads.append(load)
    left = [Fraction(s) for s in size]
    begin = [Fraction(s) for s in start]
    events = sorted(
        (Fraction(time), order, link, Fraction(value)) for order, (time, link, value) in enumerate(capacity_events)
    )
    finish: list[Fraction | None] = [None] * len(size)
    now = min([*begin, *(event[0] for event in events)], default=Fraction(0))
    while True:
        while events and events[0][0] <= now:
            _, _, link, value = events.pop(0)
            room[link] = value
        for f in range(len(size)):
            if finish[f] is None and begin[f] <= now and (left[f] == 0 or not loads[f]):
                finish[f] = now
        live = [f for f in range(len(size)) if finish[f] is None and begin[f] <= now]
        rates = fair_rates(room, [loads[f] for f in live], [caps[f] for f in live])
        upcoming = [begin[f] for f in range(len(size)) if finish[f] is None and begin[f] > now]
        upcoming += [event[0] for event in events]
        upcoming += [now + left[f] / rate for f, rate in zip(live, rates, strict=True) if rate > 0]
        if not upcoming:
            return finish
        after = min(upcoming)
        for f, rate in zip(live, rates, strict=True):
            left[f] -= rate * (after - now)
        now = after

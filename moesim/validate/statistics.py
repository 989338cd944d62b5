"""Medians and deciles of the errors, by table and pooled, and the bars that they are held to."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from moesim.validate.benches import is_transfer
from moesim.validate.error_spread import Spread
from moesim.validate.evaluate_rows import Outcome
from moesim.validate.ledger import FIT

LARGE, SMALL = "large messages", "small messages"
# Median and ninth decile of the absolute relative error that the simulation is held to.
POOLED_BAR = (0.04, 0.10)
TABLE_BARS = {LARGE: (0.04, 0.10), SMALL: (0.05, 0.13)}
FIT_BAR = (0.03, math.inf)
FIT_TABLE_BAR = 0.045


def by_table(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by table, in their order."""
    tables: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        tables.setdefault(outcome.row.table, []).append(outcome)
    return tables


def fitted(outcome: Outcome) -> bool:
    """Whether constants were fitted to the row, or to its twin."""
    return outcome.entry.role == FIT


def counts(outcome: Outcome) -> bool:
    """Whether the row is a transfer, held out and not suspect, so that it says how good the simulation is."""
    return is_transfer(outcome.row) and outcome.entry.role != FIT and not outcome.entry.suspect


def groups(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by what they say: fitted rows, held-out ones of large and of small messages, suspects."""
    found: dict[str, list[Outcome]] = {name: [] for name in ("fitted", LARGE, SMALL, "suspect")}
    for outcome in outcomes:
        if fitted(outcome):
            found["fitted"].append(outcome)
        if counts(outcome):
            found[SMALL if outcome.small else LARGE].append(outcome)
        if outcome.entry.suspect:
            found["suspect"].append(outcome)
    return found


def mean_over_tables(outcomes: Sequence[Outcome], chosen: Callable[[Outcome], bool]) -> tuple[float, float] | None:
    """Unweighted mean over the tables of their median and ninth decile."""
    spreads = [Spread.of(filter(chosen, rows)) for rows in by_table(outcomes).values()]
    found = [(spread.median, spread.p90) for spread in spreads if spread is not None]
    if not found:
        return None
    median, p90 = np.mean(found, axis=0)
    return float(median), float(p90)


def misses(outcomes: Sequence[Outcome]) -> list[tuple[str, str, Spread]]:
    """Tables that miss a bar: name, which bar, and how far they are off."""
    found = []
    for name, rows in by_table(outcomes).items():
        of_kind = groups(rows)
        for regime, bar in TABLE_BARS.items():
            spread = Spread.of(of_kind[regime])
            if spread is not None and not spread.within(bar):
                found.append((name, regime, spread))
        spread = Spread.of(of_kind["fitted"])
        if spread is not None and spread.median > FIT_TABLE_BAR:
            found.append((name, "fitted rows", spread))
    return found

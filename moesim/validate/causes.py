"""Why rows are off where they are: what is known of each table, in words; where nothing is known it says so."""

from functools import cache
from typing import Any

from moesim.validate.evaluate_rows import Outcome
from moesim.validate.shipped_files import shipped_yaml

UNEXPLAINED = "unexplained"


@cache
def _causes() -> Any:
    return shipped_yaml("causes.yaml")


def cause_of(table: str) -> str:
    """What is known of why a table misses a bar."""
    return str(_causes()["tables"].get(table, UNEXPLAINED))


def cause_after_four(what: str) -> str:
    """What is known of why a source misses the bar after calibration on four of its rows."""
    return str(_causes()["four_rows"].get(what, UNEXPLAINED))


def reason(outcome: Outcome, far: float = 0.10) -> str:
    """Why one row is off: its rule if it is suspect, its table's cause if it is far off, nothing if it is close."""
    if outcome.entry.suspect:
        return f"suspect: {outcome.entry.rule}"
    if outcome.simulated is None:
        return cause_of(outcome.row.table)
    return cause_of(outcome.row.table) if abs(outcome.error or 0.0) > far else ""

"""Why rows are off where they are: what is known of each table, in words; where nothing is known it says so."""

from moesim.validate.evaluate_rows import Outcome

UNEXPLAINED = "unexplained"

# Table -> cause. A cause is something seen in the source or in its neighbours, not a guess.
_CAUSES = {
    "deepep-v1-h800-first": (
        "first release: its 32 and 64 ranks lie 10 to 24 % below the same rows of the final one, two months later"
    ),
    "deepep-v1-h100-cx7": "the prefill table does not fit its own neighbours (8 ranks slower than others' 32)",
    "aic-normal-8-nodes": "this cluster was congested on eight nodes: the time does not fall with more SMs",
    "aic-ll-8-nodes": "dispatch on eight nodes starts 3 us later than on four, here 5",
    "nccl-h100": (
        "below 1 MiB rows of equal bytes differ: even the median of each four would be 16.6 % off at the 90th "
        "percentile"
    ),
    "nccl-h200": (
        "below 1 MiB rows of equal bytes differ: even the median of each four would be 21.6 % off at the 90th "
        "percentile; and four ranks, held out, begin as soon as two"
    ),
    "aic-two-sided-dispatch": "one and two tokens take 5 to 8 % longer than the four that were fitted",
    "balance": "what balance a language model reaches after training is not simulated",
}
# The same for what calibration on four rows leaves of a source.
_FOUR_ROWS = {
    "deepep-ll-h100-cx7": "the other source starts sooner on two nodes than on four, this one does not",
    "aic-ll dispatch": "two nodes start 5 us sooner than four, which one row of each does not show",
    "aic-ll combine": "inside a node its rows of 8 tokens or more lie 7 to 12 % below the line through its 4 and 1,024",
    "nvl72-one-sided-dispatch": "the fill of the other source is not there: 32 to 128 tokens come out 5 to 12 % long",
    "aic-one-sided-dispatch": "four ranks with 128 to 512 tokens: none of the rows is of four ranks or of their sizes",
}


def cause_of(table: str) -> str:
    """What is known of why a table misses a bar."""
    return _CAUSES.get(table, UNEXPLAINED)


def cause_after_four(what: str) -> str:
    """What is known of why a source misses the bar after calibration on four of its rows."""
    return _FOUR_ROWS.get(what, UNEXPLAINED)


def reason(outcome: Outcome, far: float = 0.10) -> str:
    """Why one row is off: its rule if it is suspect, its table's cause if it is far off, nothing if it is close."""
    if outcome.entry.suspect:
        return f"suspect: {outcome.entry.rule}"
    if outcome.simulated is None:
        return cause_of(outcome.row.table)
    return cause_of(outcome.row.table) if abs(outcome.error or 0.0) > far else ""

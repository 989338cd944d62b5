"""Simulating many published rows, in worker processes where there are several jobs; the order of rows is kept.

Rows that share their routing go to one worker together, so that it is drawn once. A row's value follows from the row
alone: the number of jobs changes no byte.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from moesim.spawn import map_in_processes
from moesim.validate.arithmetic import computed
from moesim.validate.benches import is_transfer
from moesim.validate.ledger import Entry
from moesim.validate.published_row import Row
from moesim.validate.row_simulation import simulate_row

# Rows that one task takes at most, so that the last task does not keep the others waiting.
_TASK_ROWS = 40
_SMALL_TOKENS, _SMALL_BYTES = 32, 1 << 20


@dataclass(frozen=True)
class Outcome:
    """A row, its place in the ledger, and what was simulated; ``error`` is relative, None where nothing was."""

    row: Row
    entry: Entry
    simulated: float | None

    @property
    def error(self) -> float | None:
        """Simulated over published, less one."""
        return None if self.simulated is None else self.simulated / self.row.published - 1

    @property
    def small(self) -> bool:
        """Whether the set-up time governs: under 32 tokens per rank, or 1 MiB of an all-to-all of equal messages."""
        return self.row.tokens < (_SMALL_BYTES if self.row.op == "alltoall" else _SMALL_TOKENS)


def evaluate(
    rows: Sequence[Row],
    ledger: dict[tuple[str, str], Entry],
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Simulate rows with the shipped constants of their sources.

    Args:
        rows: published rows, all in the ledger.
        ledger: entries by table and key.
        jobs: worker processes; 1 works in this one.
        progress: called with the rows done and all rows.
    """
    tasks = _tasks(rows)
    rows_done = [0, *accumulate(map(len, tasks))]
    found = map_in_processes(simulate_rows, tasks, jobs, lambda done: progress(rows_done[done], len(rows)))
    values = dict(zip((row.name for task in tasks for row in task), chain.from_iterable(found), strict=True))
    return [Outcome(row, ledger[row.name], values[row.name]) for row in rows]


def simulate_rows(rows: Sequence[Row]) -> list[float | None]:
    """Simulate rows one after the other; None for what is not simulated."""
    return [_value(row) for row in rows]


def _value(row: Row) -> float | None:
    if is_transfer(row):
        return simulate_row(row)
    return computed(row) if row.library == "arithmetic" else None


def _tasks(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows in tasks, those of one library and size together; the largest groups of ranks first."""
    groups: dict[tuple[str, int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.library, row.ranks, row.nodes), []).append(row)
    tasks = []
    for (_, ranks, _), group in groups.items():
        pieces = math.ceil(len(group) / _TASK_ROWS)
        size = math.ceil(len(group) / pieces)
        tasks += [(ranks, group[at : at + size]) for at in range(0, len(group), size)]
    tasks.sort(key=lambda task: -task[0])
    return [task for _, task in tasks]

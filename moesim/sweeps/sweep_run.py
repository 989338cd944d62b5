"""A sweep from beginning to end: plan, journal, workers, table. Run again, it resumes where it stopped.

The folder holds ``journal.sqlite`` and, once every point is done, ``points.parquet``. One sweep at a time has it: an
advisory lock that the system itself drops when its holder dies.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moesim.files import LEFTOVER, telling, write_files
from moesim.output_folder import SWEEP, check_ours, held
from moesim.scenario import Scenario, ScenarioTemplate
from moesim.sweeps.drive import Record, drive
from moesim.sweeps.journal import JOURNAL_FILE, Journal, Outcome, open_journal
from moesim.sweeps.point_plan import Plan, identity, make_plan, refusal
from moesim.sweeps.points_table import TABLE_FILE, arrow_table, parquet_bytes
from moesim.sweeps.space import Space
from moesim.sweeps.workers import Workers

if TYPE_CHECKING:
    import pyarrow as pa

LOCK_FILE = ".lock"


Watch = Callable[[str, int, int], None]
"""Called with what is going on (``planning`` or ``points``), how much of it is done and how much there is."""


@dataclass(frozen=True)
class Swept:
    """A finished sweep: its points by status, and its table."""

    counts: dict[str, int]
    table: "pa.Table"


def run_sweep(
    scenario: Scenario,
    space: Space,
    workers: Callable[[int], AbstractContextManager[Workers]],
    *,
    impossible: Literal["refuse", "skip"] = "refuse",
    folder: Path | None = None,
    retry_failed: bool = False,
    watch: Watch = lambda *_: None,
    fits: Callable[[Scenario], None] = lambda _: None,
) -> Swept:
    """Run every point that the folder does not hold yet.

    Args:
        scenario: what the points have in common.
        space: the points.
        workers: makes the workers, given how many points there are to run; not called where nothing is left to do.
        impossible: whether points that no scenario can be made of stop the sweep before the first one runs, or become
            rows of their own.
        folder: journal and table; None to keep them in memory.
        retry_failed: run points again that failed before.
        watch: called with the progress.
        fits: raises InputError for a point that this machine cannot run.

    Raises:
        InputError: impossible points (all of them named), or the folder holds another sweep.
        ResourceError: the folder is in use or cannot be written, or the workers are gone.
    """
    template, total = ScenarioTemplate.of(scenario), len(space)

    def planned(points: Iterable[int], number: int) -> Plan:
        plan = make_plan(template, space, points, lambda seen: watch("planning", seen, number), fits)
        if plan.impossible and impossible == "refuse":
            raise refusal(plan)
        return plan

    # A new sweep is planned before its folder is touched: one that is refused leaves nothing behind.
    fresh = folder is None or not (folder / JOURNAL_FILE).exists()
    plan = planned(range(total), total) if fresh else None
    with held_folder(folder), open_journal(folder) as journal:
        journal.begin(identity(scenario, template, space))
        if retry_failed:
            journal.forget("failed")
        done = journal.done()
        todo = [point for point in range(total) if point not in done]
        if todo:
            plan = plan or planned(todo, len(todo))
            _run(plan, [point for point in todo if point in plan.possible], workers, journal, watch, total)
        return finished(space, journal, folder)


def finished(space: Space, journal: Journal, folder: Path | None) -> Swept:
    """Return what a journal holds once its sweep is over; the folder gets the table."""
    table = arrow_table(space, journal.outcomes())
    if folder is not None:
        write_files(folder, {TABLE_FILE: parquet_bytes(table)})
    return Swept(journal.counts(), table)


def _run(
    plan: Plan,
    todo: list[int],
    workers: Callable[[int], AbstractContextManager[Workers]],
    journal: Journal,
    watch: Watch,
    total: int,
) -> None:
    skipped = [(point, Outcome("impossible", why)) for point, why in plan.impossible.items()]
    journal.add(skipped)
    watch("points", total - len(todo), total)
    if todo:
        with workers(len(todo)) as crew:
            drive(plan, todo, crew, counted(journal.add, watch, "points", total - len(todo), total))


def counted(keep: Record, watch: Watch, what: str, done: int, total: int) -> Record:
    """Return what receives points, keeps them and says how many there are now."""

    def record(outcomes: Iterable[tuple[int, Outcome]]) -> None:
        nonlocal done
        rows = list(outcomes)
        keep(rows)
        done += len(rows)
        watch(what, done, total)

    return record


@contextmanager
def held_folder(folder: Path | None) -> Iterator[None]:
    """Hold the folder, made if it is not there.

    Raises:
        ResourceError: it holds something else, is in use, or cannot be written.
    """
    if folder is None:
        yield
        return
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
        check_ours(folder, SWEEP)
    with held(folder, folder / LOCK_FILE):
        for left in folder.rglob(".*"):
            if LEFTOVER.fullmatch(left.name):
                left.unlink(missing_ok=True)
        yield

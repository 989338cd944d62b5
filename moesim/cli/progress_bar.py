"""A bar with the time left on stderr, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Watch = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much; 0: not known yet."""


@contextmanager
def progress_bar(quiet: bool, after_s: float = 0.0) -> Iterator[Watch]:
    """Show the bar once so many seconds have gone by, and take it away at the end."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    state: tuple[str, int, int] = ("", 0, 0)
    bars: list[Progress] = []

    def watch(what: str, done: int, total: int) -> None:
        nonlocal state
        state = what, done, total
        for bar in bars:
            speed = bar.tasks[0].speed
            rate = f"{speed:.3g}/s" if speed else ""
            bar.update(bar.task_ids[0], description=what, completed=done, total=total or None, rate=rate)

    def show() -> None:
        bars.append(_bar())
        watch(*state)
        bars[0].start()

    timer = Timer(after_s, show)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        timer.join()
        for bar in bars:
            bar.stop()


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=None, rate="")
    return bar

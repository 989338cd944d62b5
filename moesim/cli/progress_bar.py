"""A bar with the time left on stderr, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer


@contextmanager
def progress_bar(quiet: bool, after_s: float = 0.0) -> Iterator[Callable[[str, int, int], None]]:
    """Show the bar once so many seconds have gone by, and take it away at the end.

    Yields what is to be called with what is counted, how much is done and of how much.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich import progress
    from rich.console import Console

    from moesim.cli.outlet import styled

    columns = (
        *("{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), "{task.fields[rate]}"),
        *(progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn()),
    )
    bar = progress.Progress(*columns, console=Console(file=styled(sys.stderr)), transient=True)
    task = bar.add_task("", total=None, rate="")

    def watch(what: str, done: int, total: int) -> None:
        speed = bar.tasks[0].speed
        rate = f"{speed:.3g}/s" if speed else ""
        bar.update(task, description=what, completed=done, total=total, rate=rate)

    timer = Timer(after_s, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        timer.join()
        bar.stop()

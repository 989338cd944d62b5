"""One run of the profiler: points from coarse to fine, each on disk before the next, until done or out of time."""

import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch

import moesim
from moesim.errors import ResourceError
from moesim.files import check_replaceable
from moesim.profile import grid as grids
from moesim.profile.budget import ANCHORS_S, caches, point_seconds, total_seconds
from moesim.profile.machine import Machine
from moesim.profile.meta import META, check_continues, meta_path, write_meta
from moesim.profile.point_measurement import Timer, by_status, row, rows_of
from moesim.profile.points import Point
from moesim.profile.timing import ClockTimer, CudaTimer
from moesim.profile.timing_journal import Attempts, Journal, key_of
from moesim.profile.work import peaks_of

UNKNOWN_POINT_S = 0.2  # assumed for a point on a device whose peaks are not known

Progress = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


class Outcome(NamedTuple):
    """Why a run ended, and how many of the points asked for are left."""

    ended: str
    left: int


def profile(
    path: Path, device: str, budget: float, began: float, quick: bool, wanted: Sequence[str], progress: Progress
) -> Outcome:
    """Measure the kernels on ``device`` and append them to the table at ``path``.

    A table that is there is continued: what it has is not measured again. A point that would not end within
    ``budget`` seconds of ``began`` (on the monotonic clock) is not started. ``quick`` takes the coarsest points of
    the largest model; ``wanted`` are names of families.

    Raises:
        InputError: the device is not here, or the table is another device's, driver's or grid's.
        ResourceError: the table cannot be written, or the device fails for good.
    """
    with _one_thread(device):
        return _profile(path, device, budget, began, quick, wanted, progress)


def _profile(
    path: Path, device: str, budget: float, began: float, quick: bool, wanted: Sequence[str], progress: Progress
) -> Outcome:
    machine = Machine(device)
    sizes = grids.cpu_sizes() if device == "cpu" else grids.gpu_sizes(machine.triton)
    points = grids.grid(sizes, wanted, quick)
    identity = machine.identity | {"grid": grids.digest(sizes)}
    command = ["moesim", "profile", "--device", device, "--budget", f"{budget:g}", "--out", path.name]
    command += ["--quick"] if quick else []
    command += ["--families", ",".join(wanted)] if set(wanted) != set(grids.FAMILIES) else []
    check_replaceable(meta_path(path), META)
    Attempts(path)  # is the place its own?
    journal = Journal(path)
    try:
        before = check_continues(journal, identity)
        run = Run(journal, machine, sizes, identity, before, budget, began, progress)
        return run.through(points, shlex.join(command))
    finally:
        journal.close()


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Keep a CPU run on one thread: small kernels wait longer for a second one than it helps them."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Run:
    """The state of one session: its clock, its table, and what it has to say in the file beside it."""

    def __init__(
        self,
        journal: Journal,
        machine: Machine,
        sizes: grids.Sizes,
        identity: Mapping[str, Any],
        before: Mapping[str, Any],
        budget: float,
        began: float,
        progress: Progress,
    ) -> None:
        """Take a table that is open, and what stood beside it ``before``; ``began`` is on the monotonic clock."""
        self.journal, self.machine, self.sizes, self.identity = journal, machine, sizes, identity
        self.budget, self.began, self.progress = budget, began, progress
        self.peaks = peaks_of(machine.name)
        self.timer: Timer = ClockTimer() if machine.kind == "cpu" else CudaTimer(machine.cache_bytes)
        self.sessions: list[dict[str, Any]] = list(before.get("sessions", []))
        self.session: dict[str, Any] = {}
        self.attempts = Attempts(journal.path)
        self.first_row = len(journal.rows)

    def through(self, points: list[Point], command: str) -> Outcome:
        """Measure what is not done yet. However this ends, table and side file agree."""
        todo = [point for point in points if self._missing(point)]
        self.session = {
            "number": len(self.sessions) + 1,
            "utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "budget_s": self.budget,
            "ended": "cut off",  # what stands there if nothing can be written any more
            "readings": [],
        }
        if todo:
            self.sessions.append(self.session)
            self._announce(points, todo)
            self._save()
            try:
                self.session["ended"] = self._blocks(todo)
            finally:
                self.attempts.end()
                self._save()
        left = sum(1 for point in points if self._missing(point))
        return Outcome(self.session["ended"] if todo else "finished", left)

    def _blocks(self, todo: list[Point]) -> str:
        """Go through level after level, family after family; return why it ended."""
        self._anchors("start")
        count, middle_due = 0, True
        for (level, family), block in groupby(todo, key=lambda point: (point.level, point.family)):
            self._read(f"before {family}, level {level}")
            for point in block:
                if self._elapsed() + self._expected(point) + ANCHORS_S > self.budget:
                    self._anchors("end")
                    return "budget"
                if middle_due and (2 * count >= len(todo) or 2 * self._elapsed() >= self.budget):
                    middle_due = False
                    self._anchors("middle")
                self._measure(point)
                count += 1
            self._read(f"after {family}, level {level}")
            self._save()
            self.progress(f"{self._elapsed():4.0f} s  {count:4d} of {len(todo)} points: {family}, level {level}")
        self._anchors("end")
        return "finished"

    def _measure(self, point: Point) -> None:
        """Write the rows of ``point`` that are missing. Raises ResourceError if the device did not survive it."""
        machine = self.machine
        attempt = "|".join(point.fields("").values())
        if self.attempts.hopeless(attempt):
            states = caches(point, machine.cache_bytes)
            rows = [row(point, state, machine.name, self.peaks, "failed: the process died here") for state in states]
        else:
            self.attempts.begin(attempt)
            rows = rows_of(point, machine.kind, machine.name, machine.cache_bytes, self.timer, self.peaks)
        for one in rows:
            if key_of(one) not in self.journal.done:
                self.journal.append(one)
        if rows[0]["status"].startswith(("unsupported", "failed")) and not machine.context_works():
            raise ResourceError(
                f"the device failed for good in {point.kernel} ({rows[0]['status']}): run the same command again, "
                "it goes on after this point"
            )

    def _anchors(self, when: str) -> None:
        for point in grids.anchors(self.sizes, when, self.session["number"]):
            self._measure(point)

    def _missing(self, point: Point) -> bool:
        return any(
            key_of(point.fields(cache)) not in self.journal.done for cache in caches(point, self.machine.cache_bytes)
        )

    def _expected(self, point: Point) -> float:
        if self.peaks is None:
            return UNKNOWN_POINT_S
        return point_seconds(point, self.peaks, self.machine.cache_bytes)

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _announce(self, points: list[Point], todo: list[Point]) -> None:
        text = f"{self.machine.name}: {len(todo)} of {len(points)} points to measure within {self.budget:g} s"
        if self.peaks is not None:
            text += f", {total_seconds(todo, self.peaks, self.machine.cache_bytes):.0f} s expected"
        self.progress(text)

    def _read(self, moment: str) -> None:
        reading = self.machine.reading()
        if reading is not None:
            self.session["readings"].append({"when": moment, "s": round(self._elapsed(), 1), **reading})

    def _save(self) -> None:
        self.session["wall_s"] = round(self._elapsed(), 1)
        self.session["rows"] = by_status(self.journal.rows[self.first_row :])
        content = {
            "facts": self.machine.facts,
            "provenance": {
                "moesim": moesim.__version__,
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
            },
            "sessions": self.sessions,
        }
        write_meta(self.journal, self.identity, content)

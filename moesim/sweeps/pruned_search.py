"""The best points of a sweep without simulating all: a closed form looks at every point, the engine at the promising.

Each point's time is first estimated without events (``timeline/quick_clock``). A point is left out once a simulated one
within the limits is at least as good in rate and latency as it can be at best: as its estimate, less ``MARGIN`` of the
time. It is also left out where it breaks a limit at best. The rest is simulated, the front of the estimates first,
until nothing is left. Then the same for the best point of another kind.

The estimate is no proven bound: a link that ends with its last byte lets all its flows wait for it. Of 200 drawn
scenarios it was more than 3 % too slow in one (docs/plan.md). So the search looks at what it has simulated: where an
estimate was too slow by more than half the margin, the margin becomes twice that, and what was left out is judged anew.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from moesim.scenario import Scenario, ScenarioTemplate, Threshold
from moesim.sweeps.answers import pareto
from moesim.sweeps.deployments import LATENCY, RATE, kind_of
from moesim.sweeps.drive import drive
from moesim.sweeps.journal import Journal, Outcome, open_journal
from moesim.sweeps.point_plan import Plan, identity, make_plan
from moesim.sweeps.space import Space
from moesim.sweeps.sweep_run import Swept, Watch, counted, finished, held_folder
from moesim.sweeps.workers import Workers

MARGIN = 0.03
"""Share of its estimate by which a step may turn out shorter; widened where a simulated one did."""
_TIMES = ("tpot_s", "step_time_s", "layer_time_s")


@dataclass
class Search:
    """What is known of the points: summaries of those estimated and of those simulated, and how far to trust them.

    Attributes:
        limits, latency: what a point must keep; what the rate is traded for.
        kind: of each point; the best one of another kind than the best one's is looked for, too.
        worst: by what share of its estimate the time of a simulated point was shorter at most.
    """

    limits: tuple[Threshold, ...]
    latency: str
    kind: Callable[[int], Any]
    estimated: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    simulated: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    worst: float = 0.0

    @property
    def margin(self) -> float:
        """Share of an estimate by which a step is taken to be shorter at most."""
        return max(MARGIN, 2 * self.worst)

    def add(self, point: int, outcome: Outcome) -> None:
        """Take in what came of a point."""
        if outcome.summary is None:
            self.estimated.pop(point, None)
            return
        (self.estimated if outcome.status == "estimated" else self.simulated)[point] = outcome.summary
        if (before := outcome.summary.get("estimated_step_time_s")) is not None:
            self.worst = max(self.worst, 1 - outcome.summary["step_time_s"] / before)

    def next(self) -> list[int]:
        """Return points to simulate next, none once front, best point and best of another kind are found."""
        left = [point for point in self.estimated if point not in self.simulated and self._may_keep_limits(point)]
        kept = self.within()
        known = np.array([self._goodness(self.simulated[point]) for point in kept]).reshape(-1, 2)
        hoped = {point: self._goodness(self.estimated[point], self.margin) for point in left}
        open_points = [point for point in left if not (known >= hoped[point]).all(axis=1).any()]
        if open_points:
            goodness = [self._goodness(self.estimated[point]) for point in open_points]
            return [open_points[i] for i in pareto([(-rate, -early) for rate, early in goodness])]
        best, second = self.best(), self.second()
        reached = 0.0 if second is None else self.simulated[second][RATE]
        others = [p for p in left if best is not None and self.kind(p) != self.kind(best) and hoped[p][0] > reached]
        return sorted(others, key=lambda point: -hoped[point][0])[:2]

    def within(self) -> list[int]:
        """Simulated points that keep all limits."""
        return [p for p, summary in self.simulated.items() if all(limit.holds(summary) for limit in self.limits)]

    def best(self, points: Iterable[int] | None = None) -> int | None:
        """The simulated point of the highest rate within the limits, of equal ones the earliest and the first."""
        points = self.within() if points is None else points
        return max(points, key=lambda point: (*self._goodness(self.simulated[point]), -point), default=None)

    def second(self) -> int | None:
        """The best simulated point of another kind than the best one's."""
        best = self.best()
        return None if best is None else self.best([p for p in self.within() if self.kind(p) != self.kind(best)])

    def _goodness(self, summary: Mapping[str, Any], margin: float = 0.0) -> tuple[float, float]:
        """Rate and negative latency, both to be large: at best, if the time is shorter by the margin."""
        return summary[RATE] / (1 - margin), -summary[self.latency] * (1 - margin)

    def _may_keep_limits(self, point: int) -> bool:
        summary, shorter = dict(self.estimated[point]), 1 - self.margin
        for limit in self.limits:
            upper, timed = limit.operator.startswith("<"), limit.key in _TIMES
            rate = limit.key.startswith("tokens_per_second")
            if (timed and upper) or (rate and not upper):
                summary[limit.key] = summary[limit.key] * shorter if timed else summary[limit.key] / shorter
            elif limit.key != "memory_free_bytes":
                continue  # what the estimate does not bound is seen once simulated
            if not limit.holds(summary):
                return False
        return True


def search(
    scenario: Scenario,
    space: Space,
    limits: tuple[Threshold, ...],
    workers: Callable[[int], AbstractContextManager[Workers]],
    *,
    every: bool = False,
    folder: Path | None = None,
    watch: Watch = lambda *_: None,
    fits: Callable[[Scenario], None] = lambda _: None,
) -> tuple[Search, Swept]:
    """Find front, best point and the best of another kind. Arguments and errors as of ``run_sweep``, and beside them:

    Args:
        limits: what a point must keep.
        every: simulate all points.

    Returns:
        What is known of the points, and their table: ``ok`` simulated, ``estimated`` only that.
    """
    template, total, phase = ScenarioTemplate.of(scenario), len(space), scenario.schedule.phase
    found = Search(limits, LATENCY[phase], lambda point: kind_of(space.values(point), phase))
    with held_folder(folder), open_journal(folder) as journal:
        journal.begin(identity(scenario, template, space) | {"search": "pruned"})
        for point, outcome in journal.outcomes():
            found.add(point, outcome)
        plan = make_plan(template, space, range(total), lambda seen: watch("planning", seen, total), fits, True)
        plan = replace(plan, routed={})
        journal.add((point, Outcome("impossible", why)) for point, why in plan.impossible.items())
        if plan.possible:
            with workers(len(plan.possible)) as crew:
                _Rounds(plan, crew, journal, found, watch).run(every)
        return found, finished(space, journal, folder)


@dataclass
class _Rounds:
    plan: Plan
    crew: Workers
    journal: Journal
    found: Search
    watch: Watch

    def run(self, every: bool) -> None:
        done, found = self.journal.done(), self.found
        self._drive(replace(self.plan, estimate=True), [point for point in self.plan.possible if point not in done])
        if every:
            self._drive(self.plan, [point for point in found.estimated if point not in found.simulated])
        while points := found.next():
            self._drive(self.plan, points)
        if found.estimated and not found.simulated:  # none can keep the limits: say what the quickest has
            self._drive(self.plan, [min(found.estimated, key=lambda point: found.estimated[point][found.latency])])

    def _drive(self, plan: Plan, points: list[int]) -> None:
        what = "estimates" if plan.estimate else "points"
        drive(plan, points, self.crew, counted(self._keep, self.watch, what, 0, len(points)))

    def _keep(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        rows = [self._beside_estimate(*outcome) for outcome in outcomes]
        self.journal.add(rows)
        for row in rows:
            self.found.add(*row)

    def _beside_estimate(self, point: int, outcome: Outcome) -> tuple[int, Outcome]:
        """A simulated point with what was estimated of it: its row has place for one status alone."""
        before = self.found.estimated.get(point)
        if outcome.summary is None or before is None:
            return point, outcome
        return point, replace(outcome, summary={**outcome.summary, "estimated_step_time_s": before["step_time_s"]})

"""What a plan says: the best deployment, what binds it, what is as good, and the best of another kind."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from moesim.report import SweepData
from moesim.scenario import Objective, Scenario, Threshold
from moesim.sweeps.answers import Answer
from moesim.sweeps.deployments import ALGORITHM, BATCH, EP, LATENCY, OVERLAP, POLICY, RATE, REDUNDANT
from moesim.sweeps.pruned_search import Search
from moesim.sweeps.report import SCHEMA_VERSION, Command, answered, as_plain, points_as_plain
from moesim.sweeps.space import Space, axis_label
from moesim.units import format_bytes, format_duration

if TYPE_CHECKING:
    import pyarrow as pa

BAND = 0.05
"""Rates closer than this are told as equal: of published pairs within one source that differ by more, most come out in
the right order (docs/plan.md)."""
_LATENCY_WORDS = {
    "tpot_s": ("time per output token", "waiting for each token"),
    "step_time_s": ("step time", "waiting for the step"),
}
_WORDS = {
    EP: "EP{}",
    ALGORITHM: "{}",
    OVERLAP: "overlap {}",
    POLICY: "{}",
    REDUNDANT: "{} redundant experts",
    BATCH["decode"]: "{:,} requests a GPU",
    BATCH["prefill"]: "{:,} tokens a GPU",
}


class PlanAnswer(NamedTuple):
    """A finished plan, points by their numbers.

    Attributes:
        answer, data: the sweep's answer for the plan's objective, and what its page is made from.
        second: best point of another kind than the best one's; None where there is none.
        equal: simulated points within the limits whose rate is within ``BAND`` of the best, the best first.
    """

    found: Search
    answer: Answer
    data: SweepData
    second: int | None
    equal: list[int]

    def to_json(self, space: Space, table: "pa.Table") -> dict[str, Any]:
        """Return the plan as plain data."""
        found, points = self.found, points_as_plain(self.data, space, table)
        return (
            {"schema": SCHEMA_VERSION}
            | as_plain(self.answer, self.data, space, table)
            | {
                "text": (self.data.said or ("", ""))[1],
                "best_of_another_kind": next((row for row in points if row["point"] == self.second), None),
                "equal_within": BAND,
                "equal": self.equal,
                "margin": found.margin,
                "estimate_too_slow_by_at_most": found.worst,
                "table": points,
            }
        )


def plan_answer(
    scenario: Scenario, space: Space, limits: tuple[Threshold, ...], found: Search, table: "pa.Table", command: Command
) -> PlanAnswer:
    """Put a finished search into words and into what its page takes."""
    phase = scenario.schedule.phase
    text = f"max {RATE}" + (f" where {' and '.join(limit.text for limit in limits)}" if limits else "")
    latency = LATENCY[phase]
    objective = Objective(text, RATE, True, limits)
    answer, data = answered(scenario, space, objective, table, (), command, (latency,))
    best, second = answer.best, found.second()
    equal = [p for p in found.within() if best is not None and _rate(found, p) >= _rate(found, best) * (1 - BAND)]
    equal.sort(key=lambda p: (-_rate(found, p), p))
    if best is None:
        said = _none(found, space, data), ""
    else:
        bound = found.simulated[best]["bottleneck"]
        said = (
            f"Best is {deployment(space.values(best))}: {_figures(found, best)}, bound by {bound}.",
            " ".join(_text(found, space, data, best, second, len(equal) - 1, BATCH[phase])),
        )
    data = replace(data, traded={latency: _LATENCY_WORDS[latency]}, said=said)
    return PlanAnswer(found, answer, data, second, equal)


def deployment(values: Mapping[str, Any]) -> str:
    """Name a point in an engineer's words: ``EP32, deepep-low-latency, overlap two-batch, 96 requests a GPU``."""
    words = [form.format(values[key]) for key, form in _WORDS.items() if values.get(key)]
    words += [f"{key} {axis_label(value)}" for key, value in values.items() if key not in _WORDS]
    return ", ".join(words).replace("overlap none", "no overlap")


def _rate(found: Search, point: int) -> float:
    return float(found.simulated[point][RATE])


def _figures(found: Search, point: int) -> str:
    summary = found.simulated[point]
    free = summary["memory_free_bytes"]
    held = "" if free is None else f" with {format_bytes(free)} of memory free"
    word = _LATENCY_WORDS[found.latency][0]
    return f"{summary[RATE]:,.0f} tokens/s per GPU at a {word} of {format_duration(summary[found.latency])}{held}"


def _none(found: Search, space: Space, data: SweepData) -> str:
    if not found.simulated:
        return f"No deployment is possible: {data.columns['error'][0]}."
    nearest = min(found.simulated, key=lambda point: (found.simulated[point][found.latency], point))
    limits, quickest = " and ".join(limit.text for limit in found.limits), deployment(space.values(nearest))
    return f"No deployment keeps {limits}: the quickest is {quickest}, {_figures(found, nearest)}."


def _text(
    found: Search, space: Space, data: SweepData, best: int, second: int | None, alike: int, batch: str
) -> Iterator[str]:
    yield _binds(space, found, best, data, batch)
    if alike:
        yield (
            f"{alike} more simulated {'is' if alike == 1 else 'are'} within {100 * BAND:.0f} % of it, which the model "
            "does not tell apart: take the simplest."
        )
    if second is not None:
        less = 1 - _rate(found, second) / _rate(found, best)
        told = "as good within the model's error" if less <= BAND else f"{100 * less:.1f} % less"
        name = deployment(space.values(second))
        yield f"The best of another kind is {name}: {_figures(found, second)}, {told}."
    possible = len(found.estimated.keys() | found.simulated.keys())
    yield (
        f"{len(found.simulated):,} of {possible:,} possible points were simulated; their estimates left out the rest, "
        f"{100 * found.margin:.1f} % allowed for."
    )


def _binds(space: Space, found: Search, best: int, data: SweepData, batch: str) -> str:
    """Say why the next larger batch of the best point is out: memory, a limit, or its rate."""
    here, noun = list(space.places(best)), batch.rpartition(".")[2].partition("_")[0]
    index = next(a for a, one in enumerate(space.axes) if one.keys == (batch,))
    sizes = [value for (value,) in space.axes[index].values]
    size = min((size for size in sizes if size > sizes[here[index]]), default=None)
    if size is None:
        return "No larger batch was asked for."
    here[index] = sizes.index(size)
    point = space.point_at(here)
    known = None if point is None else found.simulated.get(point) or found.estimated.get(point)
    if known is None:
        return f"With {size:,} {noun}: {'not drawn' if point is None else data.columns['error'][point]}."
    said = "" if point in found.simulated else ", by the estimate"
    for limit in found.limits:
        if not limit.holds(known):
            value = known[limit.key]
            written = format_duration(value) if limit.key.endswith("_s") else f"{value:.4g}"
            return f"With {size:,} {noun} it breaks {limit.text} ({written}{said})."
    return f"With {size:,} {noun} the rate is {known[RATE]:,.0f}{said}."

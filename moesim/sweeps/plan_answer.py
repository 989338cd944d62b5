"""What a plan says: the best deployment, what binds it, what is as good, and the best of another kind."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from moesim.report import SweepData
from moesim.scenario import Objective, Scenario, Threshold
from moesim.sweeps.answers import Answer
from moesim.sweeps.deployments import ALGORITHM, BATCH, EP, LATENCY, OVERLAP, POLICY, RATE, REDUNDANT
from moesim.sweeps.pruned_search import Search
from moesim.sweeps.report import Command, answered, as_plain, points_as_plain
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


@dataclass(frozen=True)
class PlanAnswer:
    """A finished plan, points by their numbers.

    Attributes:
        answer, data: the sweep's answer for the plan's objective, and what its page is made from.
        second: best point of another kind than the best one's; None where there is none.
        equal: simulated points within the limits whose rate is within ``BAND`` of the best, the best first.
        binds: what keeps the next larger batch out, in words; empty where nothing does.
    """

    found: Search
    answer: Answer
    data: SweepData
    second: int | None
    equal: tuple[int, ...]
    binds: str

    def sentences(self) -> tuple[str, str]:
        """Return the answer in one sentence, and the rest."""
        return self.data.said or ("", "")

    def to_json(self, space: Space, table: "pa.Table") -> dict[str, Any]:
        """Return the plan as plain data."""
        found = self.found
        plain = as_plain(self.answer, self.data, space, table)
        points = points_as_plain(self.data, space, table)
        by_number = {row["point"]: row for row in points}
        return plain | {
            "text": self.sentences()[1],
            "best_of_another_kind": None if self.second is None else by_number[self.second],
            "equal_within": BAND,
            "equal": list(self.equal),
            "binds": self.binds or None,
            "simulated": len(found.simulated),
            "estimated_only": len(found.estimated.keys() - found.simulated),
            "margin": found.margin,
            "estimate_too_slow_by_at_most": found.worst,
            "table": points,
        }


def plan_answer(
    scenario: Scenario, space: Space, limits: tuple[Threshold, ...], found: Search, table: "pa.Table", command: Command
) -> PlanAnswer:
    """Put a finished search into words and into what its page takes."""
    phase = scenario.schedule.phase
    text = f"max {RATE}" + (f" where {' and '.join(limit.text for limit in limits)}" if limits else "")
    objective = Objective(text, RATE, True, limits)
    answer, data = answered(scenario, space, objective, table, (), command, (LATENCY[phase],))
    best, second = answer.best, found.second()
    equal = [p for p in found.within() if best is not None and _rate(found, p) >= _rate(found, best) * (1 - BAND)]
    equal.sort(key=lambda p: (-_rate(found, p), p))
    binds = "" if best is None else _binds(space, found, best, data, BATCH[phase])
    data = replace(data, traded={LATENCY[phase]: _LATENCY_WORDS[LATENCY[phase]]})
    made = PlanAnswer(found, answer, data, second, tuple(equal), binds)
    return replace(made, data=replace(data, said=(_headline(made, space), _text(made, space))))


def deployment(values: Mapping[str, Any]) -> str:
    """Name a point in an engineer's words: ``EP32, deepep-low-latency, two-batch, 96 requests a GPU``."""
    words, rest = [], dict(values)
    if EP in rest:
        words.append(f"EP{rest.pop(EP)}")
    if ALGORITHM in rest:
        words.append(str(rest.pop(ALGORITHM)))
    if OVERLAP in rest:
        overlap = rest.pop(OVERLAP)
        words.append("no overlap" if overlap == "none" else f"overlap {overlap}")
    policy, redundant = rest.pop(POLICY, None), rest.pop(REDUNDANT, 0)
    if policy is not None:
        words.append(f"{policy} with {redundant} redundant experts" if redundant else str(policy))
    for key, unit in zip(BATCH.values(), ("requests", "tokens"), strict=True):
        if key in rest:
            words.append(f"{rest.pop(key):,} {unit} a GPU")
    return ", ".join([*words, *(f"{key} {axis_label(value)}" for key, value in rest.items())])


def _rate(found: Search, point: int) -> float:
    return float(found.simulated[point][RATE])


def _figures(found: Search, point: int) -> str:
    summary = found.simulated[point]
    free = summary["memory_free_bytes"]
    held = "" if free is None else f" with {format_bytes(free)} of memory free"
    word = _LATENCY_WORDS[found.latency][0]
    return f"{summary[RATE]:,.0f} tokens/s per GPU at a {word} of {format_duration(summary[found.latency])}{held}"


def _headline(made: PlanAnswer, space: Space) -> str:
    found, best = made.found, made.answer.best
    if best is not None:
        name, bound = deployment(space.values(best)), found.simulated[best]["bottleneck"]
        return f"Best is {name}: {_figures(found, best)}, bound by {bound}."
    if not found.simulated:
        why = made.data.columns["error"][0] if made.data.status else ""
        return f"No deployment is possible: {why}."
    nearest = min(found.simulated, key=lambda point: (found.simulated[point][found.latency], point))
    limits = " and ".join(limit.text for limit in found.limits)
    quickest = deployment(space.values(nearest))
    return f"No deployment keeps {limits}: the quickest is {quickest}, {_figures(found, nearest)}."


def _text(made: PlanAnswer, space: Space) -> str:
    found, best, parts = made.found, made.answer.best, []
    if best is not None:
        parts += [made.binds] if made.binds else []
        alike = len(made.equal) - 1
        if alike:
            parts.append(
                f"{alike} more simulated {'is' if alike == 1 else 'are'} within {BAND:.0%} of it, "
                "which the model does not tell apart: take the simplest."
            )
        if made.second is not None:
            less = 1 - _rate(found, made.second) / _rate(found, best)
            told = "as good within the model's error" if less <= BAND else f"{less:.1%} less"
            name = deployment(space.values(made.second))
            parts.append(f"The best of another kind is {name}: {_figures(found, made.second)}, {told}.")
    possible = len(found.estimated.keys() | found.simulated.keys())
    parts.append(
        f"{len(found.simulated):,} of {possible:,} possible points were simulated; their estimates left out the rest, "
        f"{found.margin:.1%} allowed for."
    )
    return " ".join(parts)


def _binds(space: Space, found: Search, best: int, data: SweepData, batch: str) -> str:
    """Say why the next larger batch of the best point is out: memory, a limit, or its rate."""
    axis = next((a for a, one in enumerate(space.axes) if one.keys == (batch,)), None)
    if axis is None:
        return ""
    here, sizes = space.places(best), [value for (value,) in space.axes[axis].values]
    larger = sorted((size, place) for place, size in enumerate(sizes) if size > sizes[here[axis]])
    if not larger:
        return "No larger batch was asked for."
    size, place = larger[0]
    point = space.point_at([*here[:axis], place, *here[axis + 1 :]])
    if point is None:
        return ""
    noun, known = batch.rpartition(".")[2].partition("_")[0], found.simulated.get(point) or found.estimated.get(point)
    if known is None:
        return f"With {size:,} {noun}: {data.columns['error'][point]}."
    broken = [limit for limit in found.limits if not limit.holds(known)]
    said = "" if point in found.simulated else ", by the estimate"
    if not broken:
        return f"With {size:,} {noun} the rate is {known[RATE]:,.0f}{said}."
    written = format_duration if broken[0].key.endswith("_s") else (lambda value: f"{value:.4g}")
    return f"With {size:,} {noun} it breaks {broken[0].text} ({written(known[broken[0].key])}{said})."

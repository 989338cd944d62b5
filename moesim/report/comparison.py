"""Two results side by side: what changed, by how much, whether for the better, and whether beyond noise and error.

The noise of a number is the band from its least to its most over runs that differ in their seed alone. A difference is
within the noise where the bands of the two sides touch. It is within the model's error where constants of a cluster
that nobody measured may make it as large: what both runs share of these cancels.

What differs beyond that is not judged by itself alone:

- A number that tells of one rank or one link class is judged where it tells of the same in both runs. Else another
  rank was the last to end (``other rank``), or another class holds the layer back (``other class``). Where that is not
  known, as of a sweep's points, it is ``neutral``. Means over the ranks and the slowest rank's times are always judged.
- Nothing that the clock measures (times and bandwidths) is better unless the layer or the step takes less time, and
  neither takes more. What it gained something else has lost (``traded``): flows that start late have the wires to
  themselves, and ranks that drift apart make one layer shorter and the next longer.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal, NamedTuple

from moesim.report.quantities import is_share, unit_of
from moesim.results import BANDED, COMPONENTS, DEFINITIONS, Result, told_apart
from moesim.stages import OVER_RANKS, PHASES

Verdict = Literal[
    "better", "worse", "same", "neutral", "within noise", "traded", "other rank", "other class",
    "within the model's error"]  # fmt: skip

# Numbers of which less is better, though no suffix says so.
_LESS = {
    "sequence_imbalance_p50", "sequence_imbalance_p99", "max_violation", "rank_max_violation",
    "node_max_violation", "link_max_violation", "copies_per_token", "rank_copies_per_token", "node_copies_per_token",
    "gate_mass_lost", "source_extrapolated_share", "tpot_s", "layer_period_s", "pipeline_bubble_share",
    "group_layer_time_mean_s", "group_layer_time_max_s", "alone_layer_time_mean_s", "alone_layer_time_max_s",
    "contention_cost",
}  # fmt: skip
# Rates of a whole step: more is better, and they move with what is not known of the cluster as its time does.
_RATES_OF_STEP = {
    "tokens_per_second", "tokens_per_second_per_node", "tokens_per_second_per_gpu", "tokens_per_day",
    "model_flops_per_second_per_gpu", "mfu", "mfu_non_causal",
}  # fmt: skip
OF_CRITICAL_RANK = {*COMPONENTS, "dispatch_kernel_time_s", "combine_kernel_time_s"}
"""Numbers that tell of the critical rank alone."""
_OF_LINK_CLASS = {"link_load_max_over_mean", "link_load_mean_over_max", "link_max_violation"}
# Parts trade against each other: their sum, the layer time, is what counts as a regression.
_PARTS = OF_CRITICAL_RANK | {f"{name}_time_{over}_s" for name in OVER_RANKS for over in ("mean", "max")}
_NOT_COMPARED = ("seed", "counterfactual")
# The critical ranks of so many layers are listed.
_FEW_LAYERS = 4
# Relative differences below this are rounding.
_SAME = 1e-9


@dataclass(frozen=True)
class Band:
    """Where a number lies over ``runs`` runs that differ in their seed alone."""

    low: float
    median: float
    high: float
    runs: int

    @property
    def is_one_value(self) -> bool:
        """Whether all values are the same, up to rounding."""
        return self.high - self.low <= _SAME * max(abs(self.high), abs(self.low))

    def touches(self, other: "Band") -> bool:
        """Whether two bands have a value in common, up to rounding."""
        slack = _SAME * max(abs(self.high), abs(other.high))
        return self.low <= other.high + slack and other.low <= self.high + slack


Interval = tuple[float, float]

Bands = Mapping[str, Band]
"""Bands by the number's name in the summary."""


def bands_over(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Band]:
    """Return the band of every number over summaries; a number that does not apply to one of them has none."""
    bands = {}
    for key in DEFINITIONS:
        found = [_number(summary.get(key)) for summary in summaries]
        values = [value for value in found if value is not None]
        if values and len(values) == len(found) and key not in _NOT_COMPARED:
            bands[key] = Band(min(values), float(median(values)), max(values), len(values))
    return bands


class Subjects(NamedTuple):
    """Whom a run's numbers tell of: the critical rank of each layer, and the link class of its link figures."""

    critical_ranks: tuple[int, ...]
    link_class: str | None


def subjects_of(result: Result) -> Subjects:
    """Return whom a run's numbers tell of."""
    explained = result.explanation
    return Subjects(tuple(explained["critical_ranks"]), explained.get("bottleneck_class"))


def critical_words(ranks: Sequence[int]) -> str:
    """Name the critical rank of each layer, of many the most frequent: ``ranks 3, 0``, ``rank 3 in 9 of 16 layers``."""
    rank, layers = min(Counter(ranks).items(), key=lambda one: (-one[1], one[0]))
    if layers == len(ranks):
        return f"rank {rank}"
    if len(ranks) <= _FEW_LAYERS:
        return f"ranks {', '.join(map(str, ranks))}"
    return f"rank {rank} in {layers} of {len(ranks)} layers"


@dataclass(frozen=True)
class ComparisonRow:
    """One number of two summaries.

    Attributes:
        key: name in the summary.
        unit: ``s``, ``B``, ``B/s``, ``%`` (values are fractions of 1) or nothing.
        a: of the first run; None where it does not apply.
        b: of the second.
        delta_percent: (b - a) / |a| in percent; None where a is 0 or either is missing.
        verdict: whether b is better or worse; neutral where neither direction is good; within noise where the bands
            of the two touch; within the model's error, traded, other rank and other class as above.
        a_band: of the first run over seeds; None where no other seeds were run.
        b_band: of the second.
        a_interval: (low, high) of the first run on a cluster like its own; None where that is not known.
        b_interval: of the second.
    """

    key: str
    unit: str
    a: float | None
    b: float | None
    delta_percent: float | None
    verdict: Verdict
    a_band: Band | None = None
    b_band: Band | None = None
    a_interval: Interval | None = None
    b_interval: Interval | None = None

    def regression_percent(self) -> float:
        """By how much the number got worse, in percent of a; 0 where it did not, infinite from 0."""
        if self.verdict != "worse" or self.key in _PARTS:
            return 0.0
        return float("inf") if self.delta_percent is None else abs(self.delta_percent)


@dataclass(frozen=True)
class Comparison:
    """Two runs compared number by number, in the order of the summary; and the critical rank of each layer in both."""

    labels: tuple[str, str]
    rows: tuple[ComparisonRow, ...]
    critical_ranks: tuple[tuple[int, ...], tuple[int, ...]]

    def _repr_html_(self) -> str:
        from moesim.report.notebook import comparison_in_notebook

        return comparison_in_notebook(self)

    def worst_regression(self, percent: float = 0.0) -> ComparisonRow | None:
        """The row that got worse most, if by more than ``percent``; parts of the layer time do not count."""
        worst = max(self.rows, key=lambda row: row.regression_percent(), default=None)
        return worst if worst is not None and worst.regression_percent() > percent else None


def compare(
    a: Result, b: Result, labels: Sequence[str] = ("a", "b"), bands: tuple[Bands, Bands] | None = None
) -> Comparison:
    """Compare the numbers of two summaries.

    Args:
        a: the run to compare with.
        b: the run in question.
        labels: names of the two.
        bands: of the two over seeds; None where no other seeds were run.
    """
    subjects = subjects_of(a), subjects_of(b)
    rows = compare_summaries(a.summary, b.summary, bands, subjects, lambda key: apart(a, b, key))
    rows = tuple(replace(row, a_interval=a.intervals.get(row.key), b_interval=b.intervals.get(row.key)) for row in rows)
    return Comparison((labels[0], labels[1]), rows, (subjects[0].critical_ranks, subjects[1].critical_ranks))


def apart(a: Result, b: Result, key: str) -> bool:
    """Whether two runs differ in a number by more than what is not known of their clusters; equal ones do not."""
    first, second, name = a.explanation.get("band"), b.explanation.get("band"), _moves_like(key)
    if name is None or first is None or second is None or not (name in first["moves"] and name in second["moves"]):
        return True
    return told_apart(first, second, name, b.summary[key] / a.summary[key])


def _moves_like(key: str) -> str | None:
    """The time whose moves a number has: its own, or those of the phase on the critical rank; None for no such."""
    for phase in PHASES:
        if key.startswith(f"{phase}_"):
            return f"{phase}_kernel_time_s" if "kernel" in key or key.endswith("_bytes_per_s") else f"{phase}_time_s"
    return "step_time_s" if key == "tpot_s" or key in _RATES_OF_STEP else key if key in BANDED else None


def compare_summaries(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    bands: tuple[Bands, Bands] | None = None,
    subjects: tuple[Subjects, Subjects] | None = None,
    apart: Callable[[str], bool] = lambda _: True,
) -> tuple[ComparisonRow, ...]:
    """Compare two summaries number by number; see ``compare``.

    ``subjects`` is None where they are not known; ``apart`` says of which numbers the two differ beyond the model's
    error.
    """
    keys = [key for key in DEFINITIONS if key not in _NOT_COMPARED]
    rows = {key: row for key in keys if (row := _compared(key, a, b, bands)) is not None}
    for key, row in rows.items():
        if row.verdict in ("better", "worse") and row.a and row.b and not apart(key):
            rows[key] = replace(row, verdict="within the model's error")
    whole = {rows[key].verdict for key in ("layer_time_s", "step_time_s") if key in rows}
    faster = "better" in whole and "worse" not in whole
    return tuple(replace(row, verdict=_in_context(row, subjects, faster)) for row in rows.values())


def _compared(
    key: str, a: Mapping[str, Any], b: Mapping[str, Any], bands: tuple[Bands, Bands] | None
) -> ComparisonRow | None:
    """Compare a number by itself; None where it applies to neither summary."""
    left, right = _number(a.get(key)), _number(b.get(key))
    if left is None and right is None:
        return None
    delta = None
    if left is not None and right is not None and left != 0:
        delta = 100 * (right - left) / abs(left)
    a_band, b_band = (None, None) if bands is None else (bands[0].get(key), bands[1].get(key))
    verdict = _verdict(key, left, right)
    if verdict != "same" and left != right and a_band is not None and b_band is not None and a_band.touches(b_band):
        verdict = "within noise"
    return ComparisonRow(key, unit_of(key), left, right, delta, verdict, a_band, b_band)


def _in_context(row: ComparisonRow, subjects: tuple[Subjects, Subjects] | None, faster: bool) -> Verdict:
    """Judge a number that differs by whom it tells of, and by whether the run is faster."""
    if row.verdict not in ("better", "worse"):
        return row.verdict
    if row.key in OF_CRITICAL_RANK | _OF_LINK_CLASS:
        if subjects is None:
            return "neutral"
        a, b = subjects
        if row.key in OF_CRITICAL_RANK and a.critical_ranks != b.critical_ranks:
            return "other rank"
        if row.key in _OF_LINK_CLASS and a.link_class != b.link_class:
            return "other class"
    return "traded" if row.verdict == "better" and is_timed(row.key) and not faster else row.verdict


def is_timed(key: str) -> bool:
    """Whether the clock measures a number: a time, or bytes over a time."""
    return unit_of(key) in ("s", "B/s")


def direction(key: str) -> int:
    """-1 where less of a summary value is better, 1 where more is, 0 where neither."""
    if key in _LESS | _PARTS or key.endswith(("_time_s", "_load_max_over_mean", "_wire_bytes", "_loss")):
        return -1
    if key.endswith(("_mean_over_max", "_bytes_per_s")) or key in _RATES_OF_STEP | {"source_measured_share"}:
        return 1
    return 0


def _verdict(key: str, left: float | None, right: float | None) -> Verdict:
    way = direction(key)
    if left is None or right is None or way == 0:
        return "neutral"
    slack = 1e-12 if is_share(key) else 0.0
    if abs(right - left) <= max(_SAME * abs(left), slack):
        return "same"
    return "better" if (right - left) * way > 0 else "worse"


def _number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)

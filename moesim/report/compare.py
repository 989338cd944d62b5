"""Two results side by side: what changed, by how much, whether for the better, and whether beyond the noise of seeds.

The noise of a number is the band from its least to its most over runs that differ in their seed alone. A difference is
within the noise where the bands of the two sides touch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from moesim.report.quantities import is_share, unit_of
from moesim.results import Result
from moesim.results.definitions import COMPONENTS, SUMMARY

Verdict = Literal["better", "worse", "same", "neutral", "within noise"]

# Numbers of which less is better, though no suffix says so.
_LESS = {
    "sequence_imbalance_p50", "sequence_imbalance_p99", "max_violation", "rank_max_violation",
    "node_max_violation", "link_max_violation", "copies_per_token", "rank_copies_per_token", "node_copies_per_token",
    "gate_mass_lost", "source_extrapolated_share",
}  # fmt: skip
# Parts trade against each other: their sum, the layer time, is what counts as a regression.
_PARTS = {*COMPONENTS, "dispatch_kernel_time_s", "combine_kernel_time_s"}
_NOT_COMPARED = ("seed", "counterfactual")
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


Bands = Mapping[str, Band]
"""Bands by the number's name in the summary."""


def bands_over(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Band]:
    """Return the band of every number over summaries; a number that does not apply to one of them has none."""
    bands = {}
    for key in SUMMARY:
        found = [_number(summary.get(key)) for summary in summaries]
        values = [value for value in found if value is not None]
        if values and len(values) == len(found) and key not in _NOT_COMPARED:
            bands[key] = Band(min(values), float(median(values)), max(values), len(values))
    return bands


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
            of the two touch.
        a_band: of the first run over seeds; None where no other seeds were run.
        b_band: of the second.
    """

    key: str
    unit: str
    a: float | None
    b: float | None
    delta_percent: float | None
    verdict: Verdict
    a_band: Band | None = None
    b_band: Band | None = None

    def regression_percent(self) -> float:
        """By how much the number got worse, in percent of a; 0 where it did not, infinite from 0."""
        if self.verdict != "worse" or self.key in _PARTS:
            return 0.0
        return float("inf") if self.delta_percent is None else abs(self.delta_percent)


@dataclass(frozen=True)
class Comparison:
    """Two runs compared number by number, in the order of the summary."""

    labels: tuple[str, str]
    rows: tuple[ComparisonRow, ...]

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
    return Comparison((labels[0], labels[1]), compare_summaries(a.summary, b.summary, bands))


def compare_summaries(
    a: Mapping[str, Any], b: Mapping[str, Any], bands: tuple[Bands, Bands] | None = None
) -> tuple[ComparisonRow, ...]:
    """Compare two summaries number by number; see ``compare``."""
    rows = []
    for key in SUMMARY:
        left, right = _number(a.get(key)), _number(b.get(key))
        if key in _NOT_COMPARED or (left is None and right is None):
            continue
        delta = None
        if left is not None and right is not None and left != 0:
            delta = 100 * (right - left) / abs(left)
        a_band, b_band = (None, None) if bands is None else (bands[0].get(key), bands[1].get(key))
        verdict = _verdict(key, left, right)
        if verdict != "same" and left != right and a_band is not None and b_band is not None and a_band.touches(b_band):
            verdict = "within noise"
        rows.append(ComparisonRow(key, unit_of(key), left, right, delta, verdict, a_band, b_band))
    return tuple(rows)


def direction(key: str) -> int:
    """-1 where less of a summary value is better, 1 where more is, 0 where neither."""
    if key in _LESS or key.endswith(("_time_s", "_load_max_over_mean", "_wire_bytes", "_loss")):
        return -1
    if key.endswith(("_mean_over_max", "_bytes_per_s")) or key == "source_measured_share":
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

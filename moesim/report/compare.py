"""Two results side by side: what changed, by how much, and whether for the better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moesim.report.quantities import is_share, unit_of
from moesim.results import Result
from moesim.results.definitions import COMPONENTS, SUMMARY

Verdict = Literal["better", "worse", "same", "neutral"]

# Numbers of which less is better, though no suffix says so.
_LESS = {
    "sequence_imbalance_p50", "sequence_imbalance_p99", "max_violation", "rank_max_violation",
    "node_max_violation", "link_max_violation", "copies_per_token", "rank_copies_per_token", "node_copies_per_token",
    "gate_mass_lost", "source_extrapolated_share",
}  # fmt: skip
# Parts trade against each other: their sum, the layer time, is what counts as a regression.
_PARTS = {*COMPONENTS, "dispatch_kernel_time_s", "combine_kernel_time_s"}
# Relative differences below this are rounding.
_SAME = 1e-9


@dataclass(frozen=True)
class ComparisonRow:
    """One number of two summaries.

    Attributes:
        key: name in the summary.
        unit: ``s``, ``B``, ``B/s``, ``%`` (values are fractions of 1) or nothing.
        a: of the first run; None where it does not apply.
        b: of the second.
        delta_percent: (b - a) / |a| in percent; None where a is 0 or either is missing.
        verdict: whether b is better or worse; neutral where neither direction is good.
    """

    key: str
    unit: str
    a: float | None
    b: float | None
    delta_percent: float | None
    verdict: Verdict

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


def compare(a: Result, b: Result, labels: Sequence[str] = ("a", "b")) -> Comparison:
    """Compare the numbers of two summaries.

    Args:
        a: the run to compare with.
        b: the run in question.
        labels: names of the two.
    """
    rows = []
    for key in SUMMARY:
        left, right = _number(a.summary.get(key)), _number(b.summary.get(key))
        if key in ("seed", "counterfactual") or (left is None and right is None):
            continue
        delta = None
        if left is not None and right is not None and left != 0:
            delta = 100 * (right - left) / abs(left)
        rows.append(ComparisonRow(key, unit_of(key), left, right, delta, _verdict(key, left, right)))
    return Comparison((labels[0], labels[1]), tuple(rows))


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

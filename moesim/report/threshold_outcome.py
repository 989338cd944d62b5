"""How a run did against one of its scenario's thresholds, as the report shows it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ThresholdOutcome:
    """One threshold, judged by the caller.

    ``text``: as the scenario states it: ``layer_time_s < 2ms``; ``value``: what the run gave, in SI units; None where
    the number does not apply; ``passed``: whether the limit was kept.
    """

    text: str
    value: float | None
    passed: bool

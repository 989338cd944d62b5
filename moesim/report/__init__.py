"""Results as pages people read: one per run, one comparing several, and the charts of both as files."""

from moesim.report.compare import Comparison, ComparisonRow, compare
from moesim.report.comparison_page import comparison_figures, render_comparison
from moesim.report.run_page import render_run, run_figures
from moesim.report.thresholds import ThresholdOutcome

__all__ = [
    "Comparison",
    "ComparisonRow",
    "ThresholdOutcome",
    "compare",
    "comparison_figures",
    "render_comparison",
    "render_run",
    "run_figures",
]

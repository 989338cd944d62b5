"""Results as pages people read: one per run, one comparing several, one per sweep; and the charts as files."""

from moesim.report.charts import DotChart, LineChart, Mark, Series
from moesim.report.comparison import Comparison, ComparisonRow, compare
from moesim.report.comparison_page import comparison_figures, render_comparison
from moesim.report.data_table import Cell, DataTable, Quantity, shown
from moesim.report.notebook import placement_in_notebook, run_in_notebook, sweep_in_notebook
from moesim.report.page import ChartView, render, view_of
from moesim.report.placement_page import render_placement
from moesim.report.run_page import ThresholdOutcome, render_run, run_figures
from moesim.report.sweep_answer import answer_sentence
from moesim.report.sweep_data import AxisEffect, SweepAxis, SweepData
from moesim.report.sweep_page import render_sweep, sweep_figures
from moesim.report.what_breaks_page import faults_table, render_what_breaks

__all__ = [
    "AxisEffect",
    "Cell",
    "ChartView",
    "Comparison",
    "ComparisonRow",
    "DataTable",
    "DotChart",
    "LineChart",
    "Mark",
    "Quantity",
    "Series",
    "SweepAxis",
    "SweepData",
    "ThresholdOutcome",
    "answer_sentence",
    "compare",
    "comparison_figures",
    "faults_table",
    "placement_in_notebook",
    "render",
    "render_comparison",
    "render_placement",
    "render_run",
    "render_sweep",
    "render_what_breaks",
    "run_figures",
    "run_in_notebook",
    "shown",
    "sweep_figures",
    "sweep_in_notebook",
    "view_of",
]

"""Measurements of all-to-alls: the logs of benchmarks and tables of rows, read into rows of one form."""

from moesim.logs.given_facts import rack_scale
from moesim.logs.log_reader import FORMS, read_log
from moesim.logs.measured_row import BOUNDS, COLUMNS, PHASES, TIME, Log, MeasuredRow

__all__ = ["BOUNDS", "COLUMNS", "FORMS", "PHASES", "TIME", "Log", "MeasuredRow", "rack_scale", "read_log"]

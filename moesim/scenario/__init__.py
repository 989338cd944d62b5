"""The scenario: schema, defaults, overrides, variants and thresholds.

Imports no array library: a wrong scenario is refused before anything heavy is loaded.
"""

from moesim.scenario.axes import Override, parse_axis, parse_override
from moesim.scenario.named_files import is_path, shipped_names
from moesim.scenario.objective import Objective, parse_objective
from moesim.scenario.scenario_reader import ScenarioTemplate, from_here, load_scenario, name_from
from moesim.scenario.schema import Scenario, json_schema
from moesim.scenario.thresholds import SUMMARY_KEYS, Threshold, parse_threshold

__all__ = [
    "SUMMARY_KEYS",
    "Objective",
    "Override",
    "Scenario",
    "ScenarioTemplate",
    "Threshold",
    "from_here",
    "is_path",
    "json_schema",
    "load_scenario",
    "name_from",
    "parse_axis",
    "parse_objective",
    "parse_override",
    "parse_threshold",
    "shipped_names",
]

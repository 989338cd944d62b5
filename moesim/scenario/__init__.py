"""The scenario: schema, defaults, overrides, variants and thresholds.

Imports no array library: a wrong scenario is refused before anything heavy is loaded.
"""

from moesim.scenario.arrivals import (
    ExponentialOffset,
    LognormalOffset,
    NormalOffset,
    Offset,
    Schedule,
    UniformOffset,
    Workload,
)
from moesim.scenario.axes import Override, parse_axis, parse_override
from moesim.scenario.breaches import check_axis
from moesim.scenario.cluster_section import Cluster
from moesim.scenario.fault_section import Fault
from moesim.scenario.named_files import is_path, shipped_names
from moesim.scenario.scenario_reader import (
    PATH_FIELDS,
    ScenarioTemplate,
    from_here,
    load_scenario,
    name_from,
    named_files,
)
from moesim.scenario.schema import Scenario, json_schema, to_yaml
from moesim.scenario.sections import Losses, Model, PlacementBlock, Rebalance
from moesim.scenario.sweep_section import RandomPoints, Sweep
from moesim.scenario.thresholds import SUMMARY_KEYS, Objective, Threshold, parse_objective, parse_threshold

__all__ = [
    "PATH_FIELDS",
    "SUMMARY_KEYS",
    "Cluster",
    "ExponentialOffset",
    "Fault",
    "LognormalOffset",
    "Losses",
    "Model",
    "NormalOffset",
    "Objective",
    "Offset",
    "Override",
    "PlacementBlock",
    "RandomPoints",
    "Rebalance",
    "Scenario",
    "ScenarioTemplate",
    "Schedule",
    "Sweep",
    "Threshold",
    "UniformOffset",
    "Workload",
    "check_axis",
    "from_here",
    "is_path",
    "json_schema",
    "load_scenario",
    "name_from",
    "named_files",
    "parse_axis",
    "parse_objective",
    "parse_override",
    "parse_threshold",
    "shipped_names",
    "to_yaml",
]

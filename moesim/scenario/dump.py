"""A resolved scenario as YAML text that loads to the same scenario."""

import io

from ruamel.yaml import YAML

from moesim.scenario.schema import Scenario


def to_yaml(scenario: Scenario) -> str:
    """Return the scenario with every default written out, in the order of the schema."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 110
    text = io.StringIO()
    yaml.dump(scenario.resolved(), text)
    return text.getvalue()

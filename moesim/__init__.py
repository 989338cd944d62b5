"""moesim: what happens when a Mixture-of-Experts layer meets a GPU cluster.

The names below are imported when they are first used, so that ``import moesim`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from moesim.errors import InputError, InvariantError, ResourceError
    from moesim.report import placement_in_notebook, run_in_notebook
    from moesim.results import Result, load_result
    from moesim.run.simulate import simulate  # the package has function and module of this name
    from moesim.scenario import Scenario, load_scenario
    from moesim.sweeps import sweep

_HOME = {
    "InputError": "moesim.errors",
    "InvariantError": "moesim.errors",
    "ResourceError": "moesim.errors",
    "Result": "moesim.results",
    "Scenario": "moesim.scenario",
    "load_result": "moesim.results",
    "load_scenario": "moesim.scenario",
    "placement_in_notebook": "moesim.report",  # how results show themselves; they know no report
    "run_in_notebook": "moesim.report",
    "simulate": "moesim.run",
    "sweep": "moesim.sweeps",
}

__all__ = [
    "InputError",
    "InvariantError",
    "ResourceError",
    "Result",
    "Scenario",
    "__version__",
    "load_result",
    "load_scenario",
    "placement_in_notebook",
    "run_in_notebook",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'moesim' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)

"""From a scenario to a result."""

from moesim.simulation.simulate import simulate

__all__ = ["simulate"]

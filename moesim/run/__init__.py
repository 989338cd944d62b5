"""From a scenario to a result: the one loop over steps and layers, audited."""

from moesim.run.simulate import simulate

__all__ = ["simulate"]

"""From a scenario to a result: the one loop over steps and layers, audited."""

from moesim.run.routed_steps import RoutedStep, initial_state, route_step, route_steps
from moesim.run.simulate import simulate
from moesim.run.steps import TimedLayer, run_steps, simulated_layers, summed_up

__all__ = [
    "RoutedStep",
    "TimedLayer",
    "initial_state",
    "route_step",
    "route_steps",
    "run_steps",
    "simulate",
    "simulated_layers",
    "summed_up",
]

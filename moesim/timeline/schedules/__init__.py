"""Schedules of a whole step: functions that yield a program's operations.

Common to those of inference: host, dense layers as one piece, then attention and MoE layers, the output matrix at the
end. Those of training are of MoE layers with their attention alone.
"""

from collections.abc import Callable, Iterator

from moesim.timeline.program import Operation
from moesim.timeline.schedules.hooks import hooks, single_batch
from moesim.timeline.schedules.in_turn import in_turn
from moesim.timeline.schedules.two_batch_decode import two_batch_decode
from moesim.timeline.schedules.two_batch_prefill import two_batch_prefill
from moesim.timeline.schedules.two_passes import BACKWARD, FORWARD, WEIGHTS, overlapped, passes_in_turn

Schedule = Callable[[int, bool], Iterator[Operation]]
"""The operations of so many MoE layers; whether tokens are sorted before dispatch."""

SCHEDULES: dict[tuple[str, str], Schedule] = {
    ("prefill", "none"): in_turn,
    ("prefill", "two-batch"): two_batch_prefill,
    ("decode", "none"): in_turn,
    ("decode", "two-batch"): two_batch_decode,
    ("decode", "single-batch"): single_batch,
    ("decode", "hooks"): hooks,
    ("training", "none"): passes_in_turn,
    ("training", "two-batch"): overlapped,
}
"""By phase and overlap; in training of a forward and a backward pass."""

__all__ = ["BACKWARD", "FORWARD", "SCHEDULES", "WEIGHTS", "Schedule"]

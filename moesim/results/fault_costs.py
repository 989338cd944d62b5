"""What a run's faults cost, in rows for the terminal, ``explain`` and the page."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class FaultCost(NamedTuple):
    """One clock of a run with faults.

    Attributes:
        name: ``without faults``, ``with them`` (or ``with all``), or one fault alone in words.
        layer_s, step_s: mean times.
        more: by which share a layer takes longer than without.
        held: the bottleneck in words.
        waited_on, wait_s: the GPU that ranks wait for most, and how long each does in the mean; None for nobody.
    """

    name: str
    layer_s: float
    step_s: float
    more: float
    held: str
    waited_on: str | None
    wait_s: float


def fault_costs_of(explanation: Mapping[str, Any]) -> Iterator[FaultCost]:
    """Yield the clocks: the healthy one, that of the run, and each fault's alone; nothing for a run without faults."""
    costs = explanation.get("faults")
    if costs is None:
        return
    usual, each = costs["without"]["layer_time_s"], costs["each"]
    clocks = {"without faults": costs["without"]}
    clocks |= {f"{fault_in_words(one)}{' alone' * (len(each) > 1)}": one["alone"] for one in each if one["alone"]}
    clocks["with all" if len(each) > 1 else fault_in_words(each[0])] = costs["with"]
    for name, times in clocks.items():
        layer_s = times["layer_time_s"]
        more = layer_s / usual - 1 if usual else 0.0
        yield FaultCost(
            name, layer_s, times["step_time_s"], more, times["bottleneck"], times["waited_on"], times["waited_on_s"]
        )


def fault_in_words(fault: Mapping[str, Any]) -> str:
    """Return a fault as one would say it: ``slow_nic at n1.gpu2, factor 2, from 100us to 1ms``."""
    where = fault.get("where")
    text = str(fault["kind"])
    if where:
        text += f" at {where if isinstance(where, str) else ' and '.join(where)}"
    for key in sorted(fault.keys() - {"kind", "where", "from", "to", "alone"}):
        text += f", {key} {f'{fault[key]:g}' if isinstance(fault[key], float) else fault[key]}"
    text += f", from {fault['from']}" if "from" in fault else ""
    return text + (f" to {fault['to']}" if "to" in fault else "")

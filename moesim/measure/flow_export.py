"""The flows of a run as ``flows.npz`` holds them: the arguments of ``solve_flows``, for whoever checks the clock."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.network import CapacityEvents
from moesim.results import Note
from moesim.stages import PHASES
from moesim.timeline import LayerTrace, PhaseTrace

# Flows kept at most; past this the file would outgrow everything else.
_FLOW_LIMIT = 2_000_000


GRADIENTS = len(PHASES)
"""Number of the gradients' reduction among the exported phases."""


class FlowExport:
    """Collects the flows of layers.

    Args:
        fabric: of the run, or the view of one of several groups.
        group: its number.
    """

    def __init__(self, fabric: Fabric, group: int = 0) -> None:
        self.fabric, self._group = fabric, group
        self.pieces: list[dict[str, NDArray[Any]]] = []
        self.events = CapacityEvents.none()
        self.n_flows = 0

    def add_layer(self, trace: LayerTrace) -> None:
        """Keep the flows of one layer, as long as there are not too many."""
        for index, name in enumerate(PHASES):
            self.add_phase(trace.phases[name], trace.layer, index)

    def add_phase(self, phase: PhaseTrace, layer: int, index: int) -> None:
        """Keep the flows of a phase, by its number."""
        flows = phase.flows
        self.n_flows += flows.n_flows
        if self.n_flows > _FLOW_LIMIT:
            self.pieces.clear()
            return
        # Each trace has all changes until then: that of the last phase to end has those of the others too.
        self.events = max(self.events, phase.capacity_events, key=lambda events: len(events.time))
        # Kernels of ranks, where flows need them, stand behind the wires.
        ptr, links, weight = flows.resources(self.fabric.n_links + self._group * self.fabric.n_ranks)
        self.pieces.append(
            {
                "lengths": np.diff(ptr),
                "route_links": links,
                "weight": weight,
                "size": flows.size,
                "rate_cap": np.full(flows.n_flows, np.inf) if flows.rate_cap is None else flows.rate_cap,
                "start": phase.start_s,
                "finish": phase.finish_s,
                "layer": np.full(flows.n_flows, layer, np.int32),
                "phase": np.full(flows.n_flows, index, np.int8),
                "source": flows.source,
                "target": flows.target,
                "group": np.full(flows.n_flows, self._group, np.int32),
            }
        )


def joint_flows(groups: Sequence[FlowExport]) -> tuple[dict[str, NDArray[Any]], list[Note]]:
    """Return the flows of all groups on a cluster, one or more, as the arguments of ``solve_flows``.

    Latencies are already in ``start``; ranks are numbered within each group.
    """
    n_flows = sum(group.n_flows for group in groups)
    if n_flows > _FLOW_LIMIT:
        return {}, [Note("info", f"{n_flows:,} flows are too many to export: flows.npz is empty")]
    pieces = [piece for group in groups for piece in group.pieces]
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    lengths = joined.pop("lengths")
    route_ptr = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=route_ptr[1:])
    if np.isinf(joined["rate_cap"]).all():
        del joined["rate_cap"]
    if len(groups) == 1:
        del joined["group"]
    fabric, highest = groups[0].fabric, int(joined["route_links"].max(initial=-1))
    ranks = sum(group.fabric.n_ranks for group in groups)
    kernels = np.ones(ranks if highest >= fabric.n_links else 0)
    capacity = np.concatenate([fabric.capacity, kernels])
    arrays = {"capacity": capacity, "latency": np.zeros(len(capacity)), "route_ptr": route_ptr, **joined}
    events = max((group.events for group in groups), key=lambda events: len(events.time))
    return arrays | _changes(events, fabric.n_links, ranks, len(capacity)), []


def _changes(events: CapacityEvents, wires: int, ranks: int, n_links: int) -> dict[str, NDArray[Any]]:
    """Changes of the exported links' capacities; nothing where there are none."""
    # In the network the ranks' ``sm`` links stand between the wires and the kernels.
    link = np.where(events.link < wires, events.link, events.link - ranks)
    kept = events._replace(link=link).only(link < n_links)
    return {f"event_{name}": column for name, column in kept._asdict().items()} if len(kept.time) else {}

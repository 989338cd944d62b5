"""The flows of a run as ``flows.npz`` holds them: the arguments of ``solve_flows``, for whoever checks the clock."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.network import CapacityEvents
from moesim.results import Note
from moesim.stages import PHASES
from moesim.timeline import LayerTrace

# Flows kept at most; past this the file would outgrow everything else.
_FLOW_LIMIT = 2_000_000


class FlowExport:
    """Collects the flows of layers."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._pieces: list[dict[str, NDArray[Any]]] = []
        self._events = CapacityEvents.none()
        self._n_flows = 0

    def add_layer(self, trace: LayerTrace) -> None:
        """Keep the flows of one layer, as long as there are not too many."""
        self._n_flows += sum(phase.flows.n_flows for phase in trace.phases.values())
        if self._n_flows > _FLOW_LIMIT:
            self._pieces.clear()
            return
        for index, name in enumerate(PHASES):
            phase = trace.phases[name]
            flows = phase.flows
            # Each trace has all changes until then: that of the last phase to end has those of the others too.
            self._events = max(self._events, phase.capacity_events, key=lambda events: len(events.time))
            # Kernels of ranks, where flows need them, stand behind the wires.
            ptr, links, weight = flows.resources(self._fabric.n_links)
            self._pieces.append(
                {
                    "lengths": np.diff(ptr),
                    "route_links": links,
                    "weight": weight,
                    "size": flows.size,
                    "rate_cap": np.full(flows.n_flows, np.inf) if flows.rate_cap is None else flows.rate_cap,
                    "start": phase.start_s,
                    "finish": phase.finish_s,
                    "layer": np.full(flows.n_flows, trace.layer, np.int32),
                    "phase": np.full(flows.n_flows, index, np.int8),
                    "source": flows.source,
                    "target": flows.target,
                }
            )

    def arrays(self) -> tuple[dict[str, NDArray[Any]], list[Note]]:
        """Return all flows as the arguments of ``solve_flows``; latencies are already in ``start``."""
        if self._n_flows > _FLOW_LIMIT:
            return {}, [Note("info", f"{self._n_flows:,} flows are too many to export: flows.npz is empty")]
        joined = {name: np.concatenate([piece[name] for piece in self._pieces]) for name in self._pieces[0]}
        lengths = joined.pop("lengths")
        route_ptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=route_ptr[1:])
        if np.isinf(joined["rate_cap"]).all():
            del joined["rate_cap"]
        fabric, highest = self._fabric, int(joined["route_links"].max(initial=-1))
        kernels = np.ones(fabric.n_ranks if highest >= fabric.n_links else 0)
        capacity = np.concatenate([fabric.capacity, kernels])
        arrays = {"capacity": capacity, "latency": np.zeros(len(capacity)), "route_ptr": route_ptr, **joined}
        return arrays | self._changes(len(capacity)), []

    def _changes(self, n_links: int) -> dict[str, NDArray[Any]]:
        """Changes of the exported links' capacities; nothing where there are none."""
        events = self._events
        # In the network the ranks' ``sm`` links stand between the wires and the kernels.
        link = np.where(events.link < self._fabric.n_links, events.link, events.link - self._fabric.n_ranks)
        kept = events._replace(link=link).only(link < n_links)
        return {f"event_{name}": column for name, column in kept._asdict().items()} if len(kept.time) else {}

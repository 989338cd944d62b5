"""The flat summary: averages over the layers simulated, and the sentence that names the bottleneck."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.balance import imbalance
from moesim.results.definitions import COMPONENTS, SOURCES, SUMMARY
from moesim.simulation.critical import CriticalRank, critical_rank, describe_bottleneck, lower_bound_s
from moesim.simulation.load import LayerLoad
from moesim.simulation.parts import PHASES, Parts
from moesim.timeline import LayerTrace
from moesim.traffic.flows import Floats
from moesim.traffic.messages import payload_bytes

_GB_NAMES = ("algbw", "busbw", "deepep_rdma", "deepep_nvl")


@dataclass
class SummaryBuilder:
    """Collects what each layer contributes to the summary."""

    parts: Parts
    layers: list[dict[str, float | None]] = field(default_factory=list)
    critical: list[CriticalRank] = field(default_factory=list)
    wire: dict[str, Floats] = field(default_factory=dict)
    busy: dict[str, Floats] = field(default_factory=dict)
    step_s: list[float] = field(default_factory=list)
    first_entry_s: float = np.inf
    last_end_s: float = 0.0

    def add_layer(self, load: LayerLoad, trace: LayerTrace, wire: dict[str, Floats]) -> dict[str, float | None]:
        """Take in one layer; returns its row of the ``steps`` table."""
        fabric = self.parts.fabric
        critical = critical_rank(trace, fabric)
        layer_time = float(trace.end_s_of_layer.max() - trace.entry_s.min())
        row: dict[str, float | None] = {
            "layer_time_s": layer_time,
            **critical.components,
            **load.figures,
            "lower_bound_s": lower_bound_s(trace, fabric, load.kernels.experts_floor_s),
        }
        for phase in PHASES:
            row[f"{phase}_kernel_time_s"] = critical.kernel_s[phase]
            row |= _bandwidths(self.parts, load, trace, phase)
        total = wire["dispatch"] + wire["combine"]
        for link_class in ("nvlink", "nic"):
            ports = fabric.is_class(link_class) & fabric.sender_port
            row[f"{link_class}_wire_bytes"] = float(total[ports].sum())
        self.layers.append(row)
        self.critical.append(critical)
        for phase, its_trace in (("dispatch", trace.dispatch), ("combine", trace.combine)):
            moving = len(its_trace.start_s) > 0
            span = float(its_trace.finish_s.max() - its_trace.start_s.min()) if moving else 0.0
            self.wire[phase] = self.wire.get(phase, 0.0) + wire[phase]
            efficiency = np.ones(fabric.n_links)
            efficiency[its_trace.flows.route_links] = its_trace.flows.efficiency
            self.busy[phase] = self.busy.get(phase, 0.0) + fabric.capacity * efficiency * span
        self.first_entry_s = min(self.first_entry_s, float(trace.entry_s.min()))
        self.last_end_s = max(self.last_end_s, float(trace.end_s_of_layer.max()))
        return row

    def end_step(self) -> None:
        """Close a step: each runs on a clock of its own that begins at 0."""
        self.step_s.append(self.last_end_s - self.first_entry_s)
        self.first_entry_s, self.last_end_s = np.inf, 0.0

    def build(self, shares: dict[str, float], tokens: int, distinct: int, counterfactual: bool) -> dict[str, Any]:
        """Average over the layers and name the bottleneck."""
        mean = {key: _mean([row[key] for row in self.layers]) for key in self.layers[0]}
        held: dict[tuple[str, str], float] = {}
        for critical in self.critical:
            for key, seconds in critical.held_by.items():
                held[key] = held.get(key, 0.0) + seconds
        total = sum(row["layer_time_s"] or 0.0 for row in self.layers)
        sentence, kind, what = describe_bottleneck(held, total)
        values: dict[str, Any] = {
            **mean,
            **self._link_figures(what if kind == "link" else None),
            "name": self.parts.scenario.name,
            "bottleneck": sentence,
            "step_time_s": float(np.mean(self.step_s)),
            "tokens": tokens,
            "distinct_tokens": distinct,
            "ranks": self.parts.fabric.n_ranks,
            "layers": len(self.layers),
            "seed": self.parts.scenario.seed,
            "counterfactual": counterfactual,
            **{f"source_{source}_share": shares.get(source, 0.0) for source in SOURCES},
        }
        # The mean of the parts, not the mean of the sums: rounding may not part them.
        values["layer_time_s"] = float(sum(values[name] for name in COMPONENTS))
        return {key: values[key] for key in SUMMARY}

    def held_by(self) -> dict[str, float]:
        """Seconds of the critical ranks by what held them back, over all layers, largest first."""
        held: dict[str, float] = {}
        for critical in self.critical:
            for (kind, what), seconds in critical.held_by.items():
                name = f"{kind} {what}".strip()
                held[name] = held.get(name, 0.0) + seconds
        return dict(sorted(held.items(), key=lambda item: (-item[1], item[0])))

    def _link_figures(self, link_class: str | None) -> dict[str, float | None]:
        """Load spread and utilisation of the bottleneck's link class, or of the busiest class where it is no link."""
        fabric = self.parts.fabric
        utilisation = {
            phase: np.divide(
                self.wire[phase], self.busy[phase], out=np.zeros(fabric.n_links), where=self.busy[phase] > 0
            )
            for phase in self.wire
        }
        busiest = np.maximum(utilisation["dispatch"], utilisation["combine"])
        if link_class not in fabric.link_classes:
            link_class = fabric.link_class[int(np.argmax(busiest))] if busiest.any() else None
        if link_class is None:
            names = ("link_load_max_over_mean", "link_load_mean_over_max", "link_max_violation")
            return dict.fromkeys((*names, "bottleneck_utilisation"))
        of_class = fabric.is_class(link_class)
        spread = imbalance((self.wire["dispatch"] + self.wire["combine"])[of_class])
        return {
            "link_load_max_over_mean": spread.max_over_mean,
            "link_load_mean_over_max": spread.mean_over_max,
            "link_max_violation": spread.max_violation,
            "bottleneck_utilisation": float(busiest[of_class].max()),
        }


def _bandwidths(parts: Parts, load: LayerLoad, trace: LayerTrace, phase: str) -> dict[str, float | None]:
    """The bandwidths that the libraries' own benchmarks would print for this phase, by their definitions."""
    copies, its_trace = load.copies, trace.dispatch if phase == "dispatch" else trace.combine
    seconds = float(its_trace.kernel_s.max())
    names = tuple(f"{phase}_{name}_bytes_per_s" for name in _GB_NAMES)
    if seconds <= 0:
        return dict.fromkeys(names)
    payload = payload_bytes(parts.scenario.model.hidden, parts.message_dtype[phase])
    ranks = parts.fabric.n_ranks
    # What the busiest rank sends: its tokens' copies out, and what its experts computed back.
    sent = copies.selections.sum(axis=1 if phase == "dispatch" else 0)
    algbw = float(sent.max()) * payload / seconds
    logical = parts.published_bytes[phase]
    if load.hierarchical:
        rdma = float(copies.node_copies.sum()) / ranks * logical / seconds if parts.fabric.n_nodes > 1 else None
        nvl: float | None = float(copies.rank_copies.sum()) / ranks * logical / seconds
    elif parts.scenario.alltoall.algorithm == "deepep-low-latency":
        rdma, nvl = float(copies.selections.sum()) / ranks * logical / seconds, None
    else:
        rdma = nvl = None
    return dict(zip(names, (algbw, algbw * (ranks - 1) / ranks, rdma, nvl), strict=True))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

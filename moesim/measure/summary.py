"""The flat summary: averages over the layers simulated, and the sentence that names the bottleneck."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.balance import imbalance
from moesim.cluster import Fabric
from moesim.layer import LayerLoad, Parts
from moesim.measure.critical import CriticalRank, critical_rank, describe_bottleneck, longest_held
from moesim.measure.inference_step import StepTime
from moesim.measure.lower_bound import LowerBound, lower_bound
from moesim.measure.times_moved import TimesMoved
from moesim.measure.training_step import TrainingTime
from moesim.network import speed_integral
from moesim.results import COMPONENTS, DEFINITIONS, SOURCES, SUMMARY
from moesim.stages import OVER_RANKS, PHASES
from moesim.timeline import LayerTrace, MigrationTrace, phase_use
from moesim.traffic import Floats, Ints, payload_bytes

_LINK_FIGURES = ("link_load_max_over_mean", "link_load_mean_over_max", "link_max_violation", "bottleneck_utilisation")
_GB_NAMES = ("algbw", "busbw", "deepep_rdma", "deepep_nvl")
# Attention that takes more of a step than this is its bottleneck, whatever holds its MoE layers.
_MOST_OF_A_STEP = 0.5
PORT_CLASSES = ("nvlink", "nic")
"""Link classes of which the summary has numbers of their own; a topology may have more."""


@dataclass
class SummaryBuilder:
    """Collects what each layer contributes to the summary."""

    parts: Parts
    layers: list[dict[str, float | None]] = field(default_factory=list)
    critical: list[CriticalRank] = field(default_factory=list)
    bounds: list[LowerBound] = field(default_factory=list)
    wire: dict[str, Floats] = field(default_factory=dict)
    link_figures: list[dict[str, dict[str, float]]] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    waited_on_s: Floats = field(init=False)
    # The link, slowed by a fault or slower than its class, that held a flow back longest without a break, and how long.
    held_longest: tuple[int, float] = (-1, 0.0)
    gpu_speed: Floats = field(init=False)
    tokens: int = 0
    distinct_tokens: int = 0
    first_entry_s: float = np.inf
    last_end_s: float = 0.0
    moved: TimesMoved = field(init=False)
    _slow: Ints = field(init=False)
    step: StepTime | TrainingTime | None = field(init=False)

    def __post_init__(self) -> None:
        self.moved = TimesMoved(self.parts)
        self.waited_on_s = np.zeros(self.parts.fabric.n_ranks)
        fabric, always = self.parts.fabric, [one for one in self.parts.throttles if one.whole_run]
        sm, second = fabric.n_links + np.arange(fabric.n_ranks, dtype=np.int32), np.ones(fabric.n_ranks)
        self.gpu_speed = speed_integral(always, sm, 0 * second, second)
        usual = {name: np.median(fabric.capacity[fabric.is_class(name)]) for name in fabric.link_classes}
        slow = np.flatnonzero(fabric.capacity < np.array([usual[name] for name in fabric.link_class]))
        slowed = np.concatenate([slow, *(one.links for one in self.parts.throttles)])
        self._slow = np.unique(slowed[slowed < fabric.n_links]).astype(np.int32)
        whole = self.parts.inference
        if whole is None:
            self.step = None
        elif whole.training is None:
            self.step = StepTime(self.parts, whole)
        else:
            self.step = TrainingTime(self.parts, whole, whole.training)

    def add_layer(self, load: LayerLoad, trace: LayerTrace, wire: dict[str, Floats]) -> dict[str, float | None]:
        """Take in one layer; returns its row of the ``steps`` table."""
        fabric = self.parts.fabric
        critical = critical_rank(trace, fabric)
        bound = lower_bound(trace, fabric, load.kernels.experts_floor_s / self.gpu_speed)
        row: dict[str, float | None] = {
            "layer_time_s": trace.length_s,
            **critical.components,
            **load.figures,
            "rank_wait_mean_s": float(trace.wait_s.mean()),
            "lower_bound_s": bound.seconds,
        }
        for name in OVER_RANKS:
            seconds = critical.of_ranks[f"{name}_time_s"]
            row |= {f"{name}_time_mean_s": float(seconds.mean()), f"{name}_time_max_s": float(seconds.max())}
        for phase in PHASES:
            row[f"{phase}_kernel_time_s"] = critical.kernel_s[phase]
            row |= _bandwidths(self.parts, load, trace, phase)
            moved = busiest_wires(fabric, trace, phase, wire[phase])
            for link_class in dict.fromkeys((*PORT_CLASSES, *fabric.link_classes)):
                most = moved.get(link_class)
                row[f"{phase}_{link_class}_wire_bytes_per_s"] = None if most is None else most[1] / most[2]
        total = wire["dispatch"] + wire["combine"]
        for link_class in PORT_CLASSES:
            ports = fabric.is_class(link_class) & fabric.sender_port
            row[f"{link_class}_wire_bytes"] = float(total[ports].sum())
        self.layers.append(row)
        self.critical.append(critical)
        self.moved.add_layer(trace, critical.rank, wire)
        self.bounds.append(bound)
        for phase in PHASES:
            self.wire[phase] = self.wire.get(phase, 0.0) + wire[phase]
        self.link_figures.append(_link_figures(fabric, trace, wire))
        for phase_trace in trace.phases.values():
            blamed = phase_trace.waited_on >= 0
            np.add.at(self.waited_on_s, phase_trace.waited_on[blamed], phase_trace.wait_s[blamed])
            if len(self._slow):
                self.held_longest = max(self.held_longest, longest_held(phase_trace, self._slow), key=lambda it: it[1])
        self.first_entry_s = min(self.first_entry_s, float(trace.entry_s.min()))
        self.last_end_s = max(self.last_end_s, float(trace.end_s_of_layer.max()))
        if isinstance(self.step, TrainingTime):
            self.step.tokens = load.tokens
        if self.step is not None:
            self.step.add_layer(trace)
        return row

    def add_migration(self, trace: MigrationTrace) -> None:
        """Take in a layer's move of weights: it makes its step longer."""
        if not trace.beside:
            self.first_entry_s = min(self.first_entry_s, float(trace.phase.enter_s.min()))
        self.last_end_s = max(self.last_end_s, float(trace.phase.leave_s.max()))

    def end_step(self, tokens: int, distinct_tokens: int, recorded: int = 1) -> None:
        """Close a step of so many tokens and recorded layers: each runs on a clock of its own that begins at 0."""
        self.tokens, self.distinct_tokens = max(self.tokens, tokens), max(self.distinct_tokens, distinct_tokens)
        step_s = self.last_end_s - self.first_entry_s if self.step is None else self.step.end_step(recorded)
        self.step_s.append(step_s)
        self.moved.end_step()
        self.first_entry_s, self.last_end_s = np.inf, 0.0

    def build(self, shares: dict[str, float], counterfactual: bool) -> dict[str, Any]:
        """Average over the layers and name the bottleneck."""
        mean = {key: _mean([row[key] for row in self.layers]) for key in self.layers[0]}
        sentence, link_class = self.bottleneck()
        values: dict[str, Any] = {
            **mean,
            **self._bottleneck_figures(link_class),
            "name": self.parts.name,
            "bottleneck": sentence,
            "step_time_s": float(np.mean(self.step_s)),
            "tokens": self.tokens,
            "distinct_tokens": self.distinct_tokens,
            "ranks": self.parts.fabric.n_ranks,
            "layers": len(self.layers) // (self.step.step.passes if self.step else 1),
            "seed": self.parts.seed,
            "counterfactual": counterfactual,
            **{f"source_{source}_share": shares.get(source, 0.0) for source in SOURCES},
        }
        # The mean of the parts, not the mean of the sums: rounding may not part them.
        values["layer_time_s"] = float(sum(values[name] for name in COMPONENTS))
        if self.step is None:
            return {key: values[key] for key in SUMMARY}
        self.moved.weight = self.step.band_weight(values["layers"])
        values |= self.step.numbers(values["step_time_s"], self.tokens)
        return {key: values[key] for key in DEFINITIONS if key in values}

    def held_by(self) -> dict[str, float]:
        """Seconds of the critical ranks by what held them back, over all layers, largest first."""
        held: dict[str, float] = {}
        for critical in self.critical:
            for (kind, what), seconds in critical.held_by.items():
                name = f"{kind} {what}".strip()
                held[name] = held.get(name, 0.0) + seconds
        return dict(sorted(held.items(), key=lambda item: (-item[1], item[0])))

    def bottleneck(self) -> tuple[str, str | None]:
        """Name the bottleneck in a sentence; and the link class that the link figures tell of.

        That is the bottleneck's class, or where it is no link the class of the busiest; None where nothing moves.
        """
        held: dict[tuple[str, str], float] = {}
        for critical in self.critical:
            for key, seconds in critical.held_by.items():
                held[key] = held.get(key, 0.0) + seconds
        total = sum(row["layer_time_s"] or 0.0 for row in self.layers)
        sentence, kind, what = describe_bottleneck(held, total)
        if isinstance(self.step, StepTime) and (share := self.step.attention_share) > _MOST_OF_A_STEP:
            sentence = f"attention: {100 * share:.0f} % of the step; in its MoE layers {sentence}"
        use = {
            name: float(np.mean([layer[name]["bottleneck_utilisation"] for layer in self.link_figures]))
            for name in self.parts.fabric.link_classes
        }
        link_class = what if kind == "link" and what in use else max(use, key=lambda name: use[name], default=None)
        return sentence, link_class if link_class is not None and use[link_class] > 0 else None

    def _bottleneck_figures(self, link_class: str | None) -> dict[str, float | None]:
        """Layer means of a link class's figures."""
        if link_class is None:
            return dict.fromkeys(_LINK_FIGURES)
        return {
            name: float(np.mean([layer[link_class][name] for layer in self.link_figures])) for name in _LINK_FIGURES
        }


def _link_figures(fabric: Fabric, trace: LayerTrace, wire: dict[str, Floats]) -> dict[str, dict[str, float]]:
    """By link class: how busy its busiest link is while its phase moves bytes, and how evenly its links are loaded."""
    busiest = np.zeros(fabric.n_links)
    for name, phase in trace.phases.items():
        busiest = np.maximum(busiest, phase_use(fabric, phase, wire[name]))
    figures = {}
    for link_class in fabric.link_classes:
        of_class = fabric.is_class(link_class)
        spread = imbalance((wire["dispatch"] + wire["combine"])[of_class])
        values = (spread.max_over_mean, spread.mean_over_max, spread.max_violation, float(busiest[of_class].max()))
        figures[link_class] = dict(zip(_LINK_FIGURES, values, strict=True))
    return figures


def counted_bytes(parts: Parts, load: LayerLoad, phase: str) -> dict[str, float | None]:
    """Bytes per rank that the libraries' own benchmarks count in this phase, by the name of their bandwidth.

    ``algbw`` counts what the busiest rank sends, its own part included; None where no benchmark of that name is run.
    """
    totals, ranks, logical = load.totals, parts.fabric.n_ranks, parts.published_bytes[phase]
    # What the busiest rank sends: its tokens' copies out, and what its experts computed back.
    sent = totals.selections_sent if phase == "dispatch" else totals.selections_received
    payload = payload_bytes(parts.model.sent, parts.message_dtype[phase])
    rdma = nvl = None
    if load.hierarchical:
        per_node = parts.algorithm.copies == "node" and parts.fabric.n_nodes > 1
        rdma = float(totals.nodes_sent.sum()) / ranks * logical if per_node else None
        nvl = float(totals.ranks_sent.sum()) / ranks * logical
    elif parts.algorithm.counts_selections:
        rdma = float(totals.selections_sent.sum()) / ranks * logical
    return {"algbw": float(sent.max()) * payload, "deepep_rdma": rdma, "deepep_nvl": nvl}


def _bandwidths(parts: Parts, load: LayerLoad, trace: LayerTrace, phase: str) -> dict[str, float | None]:
    """The bandwidths that the libraries' own benchmarks would print for this phase, by their definitions."""
    seconds, ranks = float(trace.phases[phase].kernel_s.max()), parts.fabric.n_ranks
    found: dict[str, float | None] = dict.fromkeys(_GB_NAMES)
    if seconds > 0:
        counted = counted_bytes(parts, load, phase).items()
        found |= {name: moved / seconds for name, moved in counted if moved is not None}
        found["busbw"] = (found["algbw"] or 0.0) * (ranks - 1) / ranks
    return {f"{phase}_{name}_bytes_per_s": value for name, value in found.items()}


def busiest_wires(
    fabric: Fabric, trace: LayerTrace, phase: str, wire_bytes: Floats
) -> dict[str, tuple[int, float, float]]:
    """Return by link class the link with most bytes, these, and the seconds from the phase's first byte to its last.

    Classes that carry nothing are left out.
    """
    timed = trace.phases[phase]
    moves = timed.flows.size > 0
    seconds = float(timed.finish_s[moves].max() - timed.start_s[moves].min()) if moves.any() else 0.0
    found = {}
    for link_class in fabric.link_classes:
        links = np.flatnonzero(fabric.is_class(link_class))
        link = int(links[np.argmax(wire_bytes[links])])
        if seconds > 0 and wire_bytes[link] > 0:
            found[link_class] = (link, float(wire_bytes[link]), seconds)
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

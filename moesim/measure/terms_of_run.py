"""The book of a run's terms: what every number of its summary is made of, layer by layer, then averaged.

Sums are averaged part by part, with the rank and the link that each part is from. Ratios are averaged as ratios: one
term per layer, made of its numerator and denominator. ``moesim.results.terms`` says how a list gives its value,
``layer_terms`` takes the single layer apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.balance import reach
from moesim.layer import KernelLedger, LayerLoad, Parts
from moesim.measure.critical import CriticalRank
from moesim.measure.layer_terms import LayerTerms, Part, Ratio
from moesim.measure.lower_bound import LowerBound
from moesim.results import COMPONENTS, SOURCES, SUMMARY, Share, Term, ratio
from moesim.timeline import LayerTrace, MigrationTrace
from moesim.traffic import Floats, weight_transfer

_LOSS_SUMS = {
    "expert_loss": "sum over experts of (share of the selections) x (mean affinity)",
    "device_loss": "sum over devices of f'_d P'_d: mean of N_r / (K T) x selections, sum of affinities",
    "communication_loss": "sum over devices of f''_d P''_d: D / (M T) x tokens sent to the device, sum of affinities",
    "sequence_loss": "mean over sequences of sum over experts of f_i P_i within the sequence",
    "z_loss": "mean over tokens of logsumexp(logits) squared",
}


@dataclass
class _Sum:
    unit: str
    # Name of the part -> (first of its name, its value, and what each rank and link of it contributes).
    parts: dict[str, tuple[Part, list[tuple[int, Part]]]] = field(default_factory=dict)


@dataclass
class TermBook:
    """Collects the parts of every number over the layers."""

    _sums: dict[str, _Sum] = field(default_factory=dict)
    _means: dict[str, list[Term]] = field(default_factory=dict)

    def add_sum(self, key: str, unit: str, layer: int, parts: Iterable[Part]) -> None:
        """Enter the parts of a number that is their sum, of one layer."""
        entry = self._sums.setdefault(key, _Sum(unit))
        for part in parts:
            entry.parts.setdefault(part.name, (part, []))[1].append((layer, part))

    def add_mean(self, key: str, unit: str, layer: int, value: float, formula: str, parts: Sequence[Term] = ()) -> None:
        """Enter the value of one layer of a number that is averaged as it stands, and what that is made of."""
        term = Term(name=f"layer {layer}", value=value, unit=unit, formula=formula, source="simulated", combine="mean")
        if parts:
            term["terms"] = list(parts)
        self._means.setdefault(key, []).append(term)

    def build(self, n_layers: int) -> dict[str, list[Term]]:
        """Return the terms of every number, averaged over the layers."""
        summed = {
            key: [_averaged(entry.unit, first, found, n_layers) for first, found in entry.parts.values()]
            for key, entry in self._sums.items()
        }
        return summed | self._means


def _averaged(unit: str, first: Part, found: list[tuple[int, Part]], n_layers: int) -> Term:
    shares: dict[tuple[int | None, str | None], Share] = {}
    for layer, part in found:
        share = shares.get((part.rank, part.link))
        if share is None:
            share = shares[part.rank, part.link] = Share(layers=[], value=0.0)
            if part.rank is not None:
                share["rank"] = part.rank
            if part.link is not None:
                share["link"] = part.link
            if np.isfinite(part.bytes_per_s):
                share |= {"bytes": 0.0, "bytes_per_s": part.bytes_per_s}
        if layer not in share["layers"]:
            share["layers"].append(layer)
        share["value"] += part.value / n_layers
        if "bytes" in share:
            share["bytes"] += part.value * part.bytes_per_s / n_layers
    return Term(
        name=first.name,
        value=sum(part.value for _, part in found) / n_layers,
        unit=unit,
        formula=first.formula,
        source=first.source,
        of=sorted(shares.values(), key=lambda share: -abs(share["value"])),
    )


@dataclass
class RunTerms:
    """The terms of a whole run: each layer's as it ends, then what spans layers and steps."""

    parts: Parts
    book: TermBook = field(default_factory=TermBook)
    _n_layers: int = 0
    # Of each layer of the step at hand: when each rank entered and left, and what its time went to, [ranks] each.
    _step: list[tuple[int, Floats, Floats, dict[str, Floats]]] = field(default_factory=list)
    _moves: list[MigrationTrace] = field(default_factory=list)
    _moving_s: list[tuple[float, float, float]] = field(default_factory=list)
    _step_s: list[dict[str, float]] = field(default_factory=list)
    # Of each layer: the figures of the links of each class, of which the bottleneck's is known at the end.
    _links: list[tuple[int, dict[str, dict[str, Ratio]]]] = field(default_factory=list)
    # Of each layer with a router: what its losses are the products of.
    _losses: list[tuple[int, dict[str, dict[str, float]]]] = field(default_factory=list)

    def add_layer(
        self, load: LayerLoad, trace: LayerTrace, wire: Mapping[str, Floats], critical: CriticalRank, bound: LowerBound
    ) -> None:
        """Take one layer apart, in the order of the layers; ``wire`` are bytes on each link by phase, [links]."""
        layer = LayerTerms(self.parts, load, trace, critical.of_ranks, critical.rank)
        self.book.add_sum("lower_bound_s", "s", trace.layer, self._bound(bound))
        for key, parts in layer.times().items():
            self.book.add_sum(key, "s", trace.layer, parts)
        for key, parts in layer.bytes_on_ports(wire).items():
            self.book.add_sum(key, "B", trace.layer, parts)
        for key, (value, formula, terms) in (layer.ratios() | layer.wire_rates(wire)).items():
            self.book.add_mean(key, SUMMARY[key].unit, trace.layer, value, formula, terms)
        self._links.append((trace.layer, layer.links(wire)))
        if load.loss_products:
            self._losses.append((trace.layer, load.loss_products))
        self._n_layers += 1
        self._step.append((trace.layer, trace.entry_s, trace.end_s_of_layer, critical.of_ranks))

    def add_migration(self, trace: MigrationTrace) -> None:
        """Take in a layer's move of weights."""
        self._moves.append(trace)

    def _bound(self, bound: LowerBound) -> Iterator[Part]:
        fabric = self.parts.fabric
        for part in bound.parts:
            peak = np.nan if part.link is None else float(fabric.capacity[fabric.link_names.index(part.link)])
            source = "kernel roofline" if part.link is None else f"topology {fabric.name}"
            yield Part(part.name, part.seconds, part.formula, source, part.rank, part.link, peak)

    def end_step(self) -> None:
        """Take the step apart along the rank that ends it: its own time in every layer, and what lies between."""
        _, entry, _, _ = self._step[0]
        stops = [trace.phase for trace in self._moves if not trace.beside]
        begin = np.minimum.reduce([entry, *(phase.enter_s for phase in stops)])
        rank = int(np.argmax(self._step[-1][2]))
        seconds = {"arrival_time_s": float(begin[rank] - begin.min())}
        for _, _, _, components in self._step:
            for name, each in components.items():
                if name != "arrival_time_s":
                    seconds[name] = seconds.get(name, 0.0) + float(each[rank])
        between = zip(self._step[:-1], self._step[1:], strict=True)
        seconds["between layers"] = sum(float(after[1][rank] - before[2][rank]) for before, after in between)
        if self._moves and self.parts.placement.rebalance:
            fixed_s = sum(phase.flows.entry_setup_s for phase in stops)
            carried = [phase for phase in stops if phase.flows.n_flows]  # the others take the fixed time alone
            moving_s = sum(float(phase.leave_s[rank] - phase.enter_s[rank]) for phase in carried)
            moving_s -= sum(phase.flows.entry_setup_s for phase in carried)
            left_s = max(float(trace.phase.leave_s.max()) for trace in self._moves) - float(self._step[-1][2][rank])
            seconds["between layers"] += float(entry[rank] - begin[rank]) - fixed_s - moving_s
            seconds["migration"] = fixed_s + moving_s + max(left_s, 0.0)
            self._moving_s.append((fixed_s, moving_s, max(left_s, 0.0)))
        self._step_s.append(seconds)
        self._step.clear()
        self._moves.clear()

    def build(self, summary: Mapping[str, Any], link_class: str | None, ledger: KernelLedger) -> dict[str, list[Term]]:
        """Return the terms of every number of the summary that has a value.

        Args:
            summary: of the run.
            link_class: that its link figures tell of.
            ledger: the kernels' seconds by source.
        """
        if link_class is not None:
            for layer, classes in self._links:
                for key, (value, formula, terms) in classes[link_class].items():
                    self.book.add_mean(key, "", layer, value, formula, terms)
        found = self.book.build(self._n_layers)
        all_s = sum(ledger.seconds.values())
        for source in SOURCES:
            own_s = sum(seconds for (_, its), seconds in ledger.seconds.items() if its == source)
            above, below = (f"seconds of kernels that are {source}", own_s), ("seconds of all kernels", all_s)
            found[f"source_{source}_share"] = ratio(above, below, "s", "s")
        found["layer_time_s"] = [
            Term(name=name, value=summary[name], unit="s", formula=f"see {name}", source="simulated")
            for name in COMPONENTS
        ]
        found["step_time_s"] = [
            Term(
                name=name,
                value=sum(seconds.get(name, 0.0) for seconds in self._step_s) / len(self._step_s),
                unit="s",
                formula="of the rank that ends the step, over its layers",
                source="simulated" if name != "between layers" else "scenario: schedule.other_time",
            )
            for name in dict.fromkeys(name for seconds in self._step_s for name in seconds)
        ]
        if self._moving_s:
            found["step_time_s"][-1] |= {"formula": "ranks stop for weights of experts", "terms": self._migration()}
        if self._losses:
            found |= {key: self._loss(key) for key in _LOSS_SUMS}
        return {key: found[key] for key in SUMMARY if key in found and summary[key] is not None}

    def _migration(self) -> list[Term]:
        """What the migrations of a step take, mean over all steps."""
        asked = self.parts.placement.rebalance
        assert asked is not None  # noqa: S101 - weights moved
        said = (
            ("fixed time", "for each layer that moves", weight_transfer(asked.mode, asked.fixed_time).source),
            ("weights on the wires", "until the rank's own have come and gone, waiting included", "simulated"),
            ("weights after the last layer", "those that travel beside the tokens and come later", "simulated"),
        )
        sums = [sum(seconds) / len(self._step_s) for seconds in zip(*self._moving_s, strict=True)]
        return [
            Term(name=name, value=value, unit="s", formula=formula, source=source)
            for (name, formula, source), value in zip(said, sums, strict=True)
        ]

    def _loss(self, key: str) -> list[Term]:
        """Alpha, the paper's constant and the sum of its equation, which alone differs between layers."""
        name, router = key.removesuffix("_loss"), self.parts.router
        devices = len(np.unique(self.parts.loss_device))
        sizes = f"N_r {router.n_experts}, K {router.top_k}, D {devices}, M {reach(router, devices)}"
        layers = [
            Term(
                name=f"layer {layer}", value=losses[key]["sum"], unit="", formula="", source="simulated", combine="mean"
            )
            for layer, losses in self._losses
        ]
        first = self._losses[0][1][key]
        factors = {
            "alpha": (f"losses.{name}", "scenario"),
            "N_r": (f"number of experts, form {self._form}", "scenario"),
        }
        terms = [
            Term(name=what, value=first[what], unit="", formula=how, source=source, combine="product")
            for what, (how, source) in factors.items()
            if what in first
        ]
        mean = sum(term["value"] for term in layers) / len(layers)
        formula = f"{_LOSS_SUMS[key]} ({sizes})"
        sums = Term(
            name="sum", value=mean, unit="", formula=formula, source="simulated", combine="product", terms=layers
        )
        return [*terms, sums]

    @property
    def _form(self) -> str:
        return self.parts.losses.form

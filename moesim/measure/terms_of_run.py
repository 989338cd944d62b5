"""What every time, bound, load and loss of a run's summary is made of: its terms, layer by layer, then averaged.

Sums are averaged part by part, with the rank and the link that each part is from. Ratios are averaged as ratios: one
term per layer, made of its numerator and denominator. ``moesim.results.terms`` says how a list gives its value.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.balance import reach
from moesim.cluster import Fabric
from moesim.layer import KernelLedger, LayerLoad, Parts, PricedKernel
from moesim.measure.critical import rank_components
from moesim.measure.lower_bound import LowerBound
from moesim.measure.phase_path import Piece, path_of_rank, shares_of_ranks
from moesim.measure.summary import counted_bytes
from moesim.results import COMPONENTS, SOURCES, SUMMARY, Share, Term
from moesim.stages import KERNEL_COMPONENTS, KERNELS, OVER_RANKS, PHASES
from moesim.timeline import LayerTrace, phase_could_carry
from moesim.traffic import Floats

LINK_WORDS = {"nvlink": "NVLink", "nic": "NIC"}
_FORMULAS = {
    "layout": "the rank's own work on entry, before its tokens are known to others",
    "notify": "exchange of counts once the last rank has entered, barriers included",
    "CPU synchronisation": "the CPU waits for the counts",
    "prepare": "exchange of counts once the last rank has entered",
    "route latency": "sum over the links of the last flow's route",
    "set-up": "before the first byte: max(0, set-up - longest route latency)",
    "fill": "first chunks through the two hops of the pipeline",
    "floor": "the kernel takes no less: what is left of it after the last byte",
    "epilogue": "after the last byte, per token of the rank",
    "sum of the answers": "reads the K answers of each token, writes their sum",
    "sum of what was fetched": "adds up the copies that it fetched",
}


_OF_THE_ROUTER = {
    "uniform_router_expert_max_over_mean": "expected max / mean of T K selections drawn evenly over E experts",
    "sequence_imbalance_p50": "median over the sequences of max / mean load of an expert within one",
    "sequence_imbalance_p99": "99th percentile over the sequences of the same",
    "gate_mass_lost": "1 - scores of the experts selected / scores of the unrestricted top-k, mean over the tokens",
}
_LOSS_SUMS = {
    "expert_loss": "sum over experts of (share of the selections) x (mean affinity)",
    "device_loss": "sum over devices of f'_d P'_d: mean of N_r / (K T) x selections, sum of affinities",
    "communication_loss": "sum over devices of f''_d P''_d: D / (M T) x tokens sent to the device, sum of affinities",
    "sequence_loss": "mean over sequences of sum over experts of f_i P_i within the sequence",
    "z_loss": "mean over tokens of logsumexp(logits) squared",
}


@dataclass(frozen=True)
class Part:
    """One part of a number in one layer; ``link`` by name, ``bytes_per_s`` what it can carry of this all-to-all."""

    name: str
    value: float
    formula: str
    source: str
    rank: int | None = None
    link: str | None = None
    bytes_per_s: float = np.nan


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


def ratio(above: tuple[str, float], below: tuple[str, float], unit_above: str = "", unit_below: str = "") -> list[Term]:
    """Terms of a quotient."""
    return [
        Term(name=name, value=value, unit=unit, formula="", source="simulated", combine="ratio")
        for (name, value), unit in ((above, unit_above), (below, unit_below))
    ]


Ratio = tuple[float, str, list[Term]]
"""A number of one layer that is no sum: its value, formula and terms."""


@dataclass(frozen=True)
class LayerTerms:
    """Takes one layer apart.

    Attributes:
        parts: of the scenario.
        load, trace: of the layer.
        spent: seconds of every rank by the names of ``COMPONENTS``, [ranks] each.
        critical_rank: the last to end.
    """

    parts: Parts
    load: LayerLoad
    trace: LayerTrace
    spent: Mapping[str, Floats]
    critical_rank: int

    def times(self) -> dict[str, list[Part]]:
        """Parts of the times of the critical rank and of the slowest, by the summary's names."""
        rank, trace = self.critical_rank, self.trace
        first = int(np.argmin(trace.entry_s))
        found = {
            "arrival_time_s": [
                Part("entry of the critical rank", float(trace.entry_s[rank]), "its clock", "simulated", rank),
                Part("entry of the first rank", -float(trace.entry_s[first]), "its clock", "simulated", first),
            ],
            "wait_time_s": list(self._waits(rank)),
            "rank_wait_mean_s": [
                Part(f"wait in {name}", float(phase.wait_s.mean()), "mean over the ranks", "simulated")
                for name, phase in self.trace.phases.items()
            ],
            **{f"{name}_time_s": self._compute(name, rank) for name in KERNEL_COMPONENTS},
        }  # fmt: skip
        for name, phase in self.trace.phases.items():
            path = self._phase(name, rank)
            found[f"{name}_time_s"] = path
            before = ("layout", *phase.flows.group_setup)
            found[f"{name}_kernel_time_s"] = [part for part in path if part.name not in before]
        for name in OVER_RANKS:
            slowest = int(np.argmax(self.spent[f"{name}_time_s"]))
            of_slowest = self._phase(name, slowest) if name in trace.phases else self._compute(name, slowest)
            mean = self._mean_of_phase(name) if name in trace.phases else self._mean_of_compute(name)
            found |= {f"{name}_time_max_s": of_slowest, f"{name}_time_mean_s": mean}
        return found

    def _waits(self, rank: int) -> Iterator[Part]:
        for name, phase in self.trace.phases.items():
            if phase.wait_s[rank] > 0:
                how, last = "none of the rank's own flows is in progress", int(phase.waited_on[rank])
                yield Part(f"wait in {name}", float(phase.wait_s[rank]), how, f"simulated: rank {last} came last", rank)
        if self.trace.idle_s[rank] > 0:
            how = "between its stages of this layer"
            yield Part("busy with another micro-batch", float(self.trace.idle_s[rank]), how, "simulated", rank)

    def _phase(self, name: str, rank: int) -> list[Part]:
        constants, fabric = self.parts.constants[name].source, self.parts.fabric
        return [
            _part(piece, rank, constants, fabric)
            for piece in path_of_rank(self.trace.phases[name], rank, fabric.capacity)
        ]

    def _mean_of_phase(self, name: str) -> list[Part]:
        shares, constants = shares_of_ranks(self.trace.phases[name]), self.parts.constants[name].source
        named = (
            ("layout", shares.layout_s, _FORMULAS["layout"], constants),
            ("own flows in progress", shares.in_progress_s, "from gate to end, set-up included", "simulated"),
            ("floor", shares.floor_s, _FORMULAS["floor"], constants),
            ("after the last byte", shares.exit_s, "the rank's own work", constants),
        )
        return [Part(what, float(s.mean()), how, where) for what, s, how, where in named if s.any()]

    def _compute(self, component: str, rank: int) -> list[Part]:
        stages = [stage for stage in KERNELS if stage.component == component]
        parts = [self._beside(stage.name, rank) if stage.beside else self._stage(stage.name, rank) for stage in stages]
        return [part for of_stage in parts for part in of_stage]

    def _stage(self, stage: str, rank: int) -> list[Part]:
        """The kernels of a stage on a rank, and what SMs that a communication kernel held meanwhile cost them."""
        parts = [
            Part(one.kernel, float(one.seconds[rank]), "kernel time on that rank's tokens", one.source, rank)
            for one in self._kernels(stage)
        ]
        lost = sum(self._lost_to_held_sms(stage, name, rank) for name in self.trace.phases)
        if lost > 0:
            parts.append(self._held(lost, rank))
        return [part for part in parts if part.value > 0]

    def _kernels(self, stage: str) -> Sequence[PricedKernel]:
        return self.load.kernels.kernels.get(stage, ())

    def _held(self, lost: float, rank: int | None) -> Part:
        how = "SMs that a communication kernel holds / all SMs, while the kernel ran beside it"
        return Part("SMs held by communication", lost, how, self.parts.constants["dispatch"].source, rank)

    def _lost_to_held_sms(self, stage: str, phase_name: str, rank: int) -> float:
        phase = self.trace.phases[phase_name]
        if not phase.flows.sms:
            return 0.0
        begin = float(phase.enter_s[rank] + phase.flows.entry_setup_s)
        if phase.flows.all_ranks_gate and phase.flows.n_flows:
            begin = float(phase.launch_s[0])
        begin = max(begin, float(self.trace.start_s[stage][rank]))
        end = min(float(phase.leave_s[rank]), float(self.trace.end_s[stage][rank]))
        return max(end - begin, 0.0) * phase.flows.sms / phase.flows.total_sms

    def _beside(self, stage: str, rank: int) -> list[Part]:
        """What of a stage outlasts the phase that it runs beside: all of it, less the time that is hidden."""
        trace = self.trace
        exposed = float(trace.exposed_s(stage)[rank])
        if exposed <= 0:
            return []
        began = trace.start_s[stage][rank]
        inside = [min(phase.leave_s[rank], trace.end_s[stage][rank]) - max(phase.enter_s[rank], began)
                  for phase in trace.phases.values()]  # fmt: skip
        hidden = sum(float(seconds) for seconds in inside if seconds > 0)
        how = "while a phase was in progress beside it"
        return [*self._stage(stage, rank), Part(f"{stage} beside a phase", -hidden, how, "simulated", rank)]

    def _mean_of_compute(self, component: str) -> list[Part]:
        trace, ranks, parts = self.trace, range(self.parts.fabric.n_ranks), list[Part]()
        for stage in (stage for stage in KERNELS if stage.component == component):
            if stage.beside:
                exposed = float(trace.exposed_s(stage.name).mean())
                parts.append(Part(f"{stage.name} past its phase", exposed, "mean over the ranks", "simulated"))
                continue
            parts += (
                Part(one.kernel, float(one.seconds.mean()), "mean over the ranks", one.source)
                for one in self._kernels(stage.name)
            )
            lost = [sum(self._lost_to_held_sms(stage.name, name, rank) for name in trace.phases) for rank in ranks]
            parts.append(self._held(float(np.mean(lost)), None))
        return [part for part in parts if part.value > 0]

    def ratios(self) -> dict[str, Ratio]:
        """Value, formula and terms of the loads, by the summary's names."""
        load, fabric = self.load, self.parts.fabric
        by_rank = np.bincount(load.placement.slot_rank, weights=load.slot_tokens, minlength=fabric.n_ranks)
        loads: dict[str, Floats] = {
            "expert": load.expert_tokens.astype(np.float64),
            "rank": by_rank.astype(np.float64),
            "node": np.bincount(fabric.rank_node, weights=by_rank).astype(np.float64),
        }
        found: dict[str, Ratio] = {}
        for noun, tokens in loads.items():
            found |= spread_terms(noun, tokens, "selections", lambda index, noun=noun: f"{noun} {index}")  # type: ignore[misc]
        totals, tokens_in = load.totals, float(load.tokens.sum())
        for key, sent, what in (
            ("copies_per_token", totals.selections_sent, "selections that were dispatched"),
            ("rank_copies_per_token", totals.ranks_sent, "distinct (token, rank) pairs"),
            ("node_copies_per_token", totals.nodes_sent, "distinct (token, node) pairs"),
        ):
            number = float(sent.sum())
            found[key] = (number / tokens_in, f"{what} / tokens", ratio((what, number), ("tokens", tokens_in)))
        for key, formula in _OF_THE_ROUTER.items():
            value = load.figures[key]
            if value is not None:
                found[key] = (value, formula, [])
        for phase in PHASES:
            found |= self._bandwidths(phase)
        return found

    def _bandwidths(self, phase: str) -> dict[str, Ratio]:
        seconds, ranks = float(self.trace.phases[phase].kernel_s.max()), self.parts.fabric.n_ranks
        if seconds <= 0:
            return {}
        found: dict[str, Ratio] = {}
        slowest = ("kernel time of the slowest rank", seconds)
        for name, moved in counted_bytes(self.parts, self.load, phase).items():
            if moved is not None:
                terms = ratio((f"bytes per rank as {name} counts them", moved), slowest, "B", "s")
                found[f"{phase}_{name}_bytes_per_s"] = (moved / seconds, "bytes / time", terms)
        algbw = found[f"{phase}_algbw_bytes_per_s"][0]
        factors = (("algbw", algbw, "B/s"), ("(ranks - 1) / ranks", (ranks - 1) / ranks, ""))
        terms = [
            Term(name=name, value=value, unit=unit, formula="", source="simulated", combine="product")
            for name, value, unit in factors
        ]
        found[f"{phase}_busbw_bytes_per_s"] = (algbw * (ranks - 1) / ranks, "algbw x (ranks - 1) / ranks", terms)
        return found

    def bytes_on_ports(self, wire: Mapping[str, Floats]) -> dict[str, list[Part]]:
        """Parts of the bytes on sender ports, by the summary's names; ``wire`` bytes on each link by phase, [links]."""
        fabric, how = self.parts.fabric, "over the sender ports: bytes of a copy x copies that cross it"
        return {
            f"{name}_wire_bytes": [
                Part(phase, float(moved[fabric.is_class(name) & fabric.sender_port].sum()), how, "simulated")
                for phase, moved in wire.items()
            ]
            for name in ("nvlink", "nic")
        }

    def links(self, wire: Mapping[str, Floats]) -> dict[str, dict[str, Ratio]]:
        """By link class, value, formula and terms of the figures that tell of the bottleneck's class."""
        fabric = self.parts.fabric
        total = sum(wire.values(), np.zeros(fabric.n_links))
        could = {name: phase_could_carry(fabric, phase) for name, phase in self.trace.phases.items()}
        found = {}
        for link_class in fabric.link_classes:
            links = np.flatnonzero(fabric.is_class(link_class))
            names = [fabric.link_names[link] for link in links]
            figures = spread_terms("link", total[links], "bytes", names.__getitem__, "B")
            use = {phase: wire[phase][links] / np.where(could[phase][links] > 0, could[phase][links], np.inf)
                   for phase in PHASES}  # fmt: skip
            phase = max(PHASES, key=lambda name: float(use[name].max()))
            at = int(np.argmax(use[phase]))
            carried, most = float(wire[phase][links[at]]), float(could[phase][links[at]])
            if most > 0:
                above = (f"bytes on {names[at]} in {phase}", carried)
                terms = ratio(above, ("bytes that it could carry meanwhile", most), "B", "B")
                figures["bottleneck_utilisation"] = (carried / most, "bytes / (capacity x efficiency x time)", terms)
            found[link_class] = figures
        return found


def spread_terms(noun: str, load: Floats, what: str, name: Callable[[int], str], unit: str = "") -> dict[str, Ratio]:
    """The three ratios of an imbalance with their terms; none where nothing is loaded, which counts as balanced."""
    most, mean = float(load.max()), float(load.mean())
    violation = "max_violation" if noun == "expert" else f"{noun}_max_violation"
    if not most:
        return {
            f"{noun}_load_max_over_mean": (1.0, "nothing is loaded", []),
            f"{noun}_load_mean_over_max": (1.0, "nothing is loaded", []),
            violation: (0.0, "nothing is loaded", []),
        }
    top, middle = (f"{what} of {name(int(np.argmax(load)))}", most), (f"mean over the {noun}s", mean)
    above = (f"{what} of {name(int(np.argmax(load)))} above the mean", most - mean)
    units = {"unit_above": unit, "unit_below": unit}
    return {
        f"{noun}_load_max_over_mean": (most / mean, "max / mean", ratio(top, middle, **units)),
        f"{noun}_load_mean_over_max": (mean / most, "mean / max", ratio(middle, top, **units)),
        violation: ((most - mean) / mean, "(max - mean) / mean", ratio(above, middle, **units)),
    }


def _part(piece: Piece, rank: int, constants: str, fabric: Fabric) -> Part:
    if piece.link is None:
        source = f"topology {fabric.name}" if piece.name == "route latency" else constants
        return Part(piece.name, piece.seconds, _FORMULAS.get(piece.name, ""), source, rank)
    if 0 <= piece.link < fabric.n_links:
        word = LINK_WORDS.get(fabric.link_class[piece.link], fabric.link_class[piece.link])
        how = "bytes on the link while it holds the last flow back / (peak x efficiency)"
        name = fabric.link_names[piece.link]
        return Part(
            f"held by {word}", piece.seconds, how, f"simulated at rates of {constants}", rank, name, piece.bytes_per_s
        )
    if piece.link < 0:
        how = "the last flow is as fast as one pair of GPUs gets"
        return Part("the rate limit of one pair of GPUs", piece.seconds, how, constants, rank)
    how = "the rank's communication kernel is busy while the last flow waits for it"
    return Part("communication kernel", piece.seconds, how, constants, rank)


@dataclass
class RunTerms:
    """The terms of a whole run: each layer's as it ends, then what spans layers and steps."""

    parts: Parts
    book: TermBook = field(default_factory=TermBook)
    _n_layers: int = 0
    # Of each layer of the step at hand: when each rank entered and left, and what its time went to, [ranks] each.
    _step: list[tuple[int, Floats, Floats, dict[str, Floats]]] = field(default_factory=list)
    _step_s: list[dict[str, float]] = field(default_factory=list)
    # Of each layer: the figures of the links of each class, of which the bottleneck's is known at the end.
    _links: list[tuple[int, dict[str, dict[str, Ratio]]]] = field(default_factory=list)
    # Of each layer with a router: what its losses are the products of.
    _losses: list[tuple[int, dict[str, dict[str, float]]]] = field(default_factory=list)

    def add_layer(
        self, load: LayerLoad, trace: LayerTrace, wire: Mapping[str, Floats], critical_rank: int, bound: LowerBound
    ) -> None:
        """Take one layer apart, in the order of the layers; ``wire`` are bytes on each link by phase, [links]."""
        spent = rank_components(trace)
        layer = LayerTerms(self.parts, load, trace, spent, critical_rank)
        self.book.add_sum("lower_bound_s", "s", trace.layer, self._bound(bound))
        for key, parts in layer.times().items():
            self.book.add_sum(key, "s", trace.layer, parts)
        for key, parts in layer.bytes_on_ports(wire).items():
            self.book.add_sum(key, "B", trace.layer, parts)
        for key, (value, formula, terms) in layer.ratios().items():
            self.book.add_mean(key, SUMMARY[key].unit, trace.layer, value, formula, terms)
        self._links.append((trace.layer, layer.links(wire)))
        if load.loss_products:
            self._losses.append((trace.layer, load.loss_products))
        self._n_layers += 1
        self._step.append((trace.layer, trace.entry_s, trace.end_s_of_layer, spent))

    def _bound(self, bound: LowerBound) -> Iterator[Part]:
        fabric = self.parts.fabric
        for part in bound.parts:
            peak = np.nan if part.link is None else float(fabric.capacity[fabric.link_names.index(part.link)])
            source = "kernel roofline" if part.link is None else f"topology {fabric.name}"
            yield Part(part.name, part.seconds, part.formula, source, part.rank, part.link, peak)

    def end_step(self) -> None:
        """Take the step apart along the rank that ends it: its own time in every layer, and what lies between."""
        _, entry, _, _ = self._step[0]
        rank = int(np.argmax(self._step[-1][2]))
        seconds = {"arrival_time_s": float(entry[rank] - entry.min())}
        for _, _, _, components in self._step:
            for name, each in components.items():
                if name != "arrival_time_s":
                    seconds[name] = seconds.get(name, 0.0) + float(each[rank])
        between = zip(self._step[:-1], self._step[1:], strict=True)
        seconds["between layers"] = sum(float(after[1][rank] - before[2][rank]) for before, after in between)
        self._step_s.append(seconds)
        self._step.clear()

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
                value=sum(seconds[name] for seconds in self._step_s) / len(self._step_s),
                unit="s",
                formula="of the rank that ends the step, over its layers",
                source="simulated" if name != "between layers" else "scenario: schedule.other_time",
            )
            for name in self._step_s[0]
        ]
        if self._losses:
            found |= {key: self._loss(key) for key in _LOSS_SUMS}
        return {key: found[key] for key in SUMMARY if key in found and summary[key] is not None}

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

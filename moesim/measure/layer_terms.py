"""One layer taken apart: the parts of its times and bytes, and numerator and denominator of its ratios.

Sums come as parts, each with the rank and the link that it is from; ratios as their value and their two terms.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.cluster import Fabric
from moesim.layer import LayerLoad, Parts, PricedKernel
from moesim.measure.phase_path import Piece, path_of_rank, shares_of_ranks
from moesim.measure.summary import PORT_CLASSES, busiest_wires, counted_bytes
from moesim.network import speed_integral
from moesim.results import Term, ratio
from moesim.stages import KERNEL_COMPONENTS, KERNELS, OVER_RANKS, PHASES
from moesim.timeline import LayerTrace, phase_could_carry
from moesim.traffic import QUEUES, Floats

_LINK_WORDS = {"nvlink": "NVLink", "nic": "NIC"}
_FORMULAS = {
    "layout": "the rank's own work on entry, before its tokens are known to others",
    "notify": "exchange of counts once the last rank has entered, barriers included",
    "CPU synchronisation": "the CPU waits for the counts",
    "prepare": "exchange of counts once the last rank has entered",
    "route latency": "sum over the links of the last flow's route",
    "set-up": "before the first byte: max(0, set-up - longest route latency)",
    "fill": "first chunks through the two hops of the pipeline",
    "floor": "the kernel takes no less: what is left of it after the last byte",
    QUEUES: "packets that wait where many paths meet, once, ahead of the rank's last bytes",
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
            yield Part(
                "waiting for weights, or busy with another micro-batch",
                float(self.trace.idle_s[rank]),
                how,
                "simulated",
                rank,
            )

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
            ("after the last byte", shares.exit_s, "the rank's own work, and queues of packets", constants),
        )
        return [Part(what, float(s.mean()), how, where) for what, s, how, where in named if s.any()]

    def _compute(self, component: str, rank: int) -> list[Part]:
        stages = [stage for stage in KERNELS if stage.component == component]
        parts = [self._beside(stage.name, rank) if stage.beside else self._stage(stage.name, rank) for stage in stages]
        return [part for of_stage in parts for part in of_stage]

    def _stage(self, stage: str, rank: int) -> list[Part]:
        """The kernels of a stage on a rank, and what SMs held by communication and a slow GPU cost them."""
        parts = [
            Part(one.kernel, float(one.seconds[rank]), "kernel time on that rank's tokens", one.source, rank)
            for one in self._kernels(stage)
        ]
        lost = float(self._lost_to_held_sms(stage)[rank])
        if lost > 0:
            parts.append(self._held(lost, rank))
        parts.append(self._slow(float(self._lost_to_slow_gpu(stage)[rank]), rank))
        return [part for part in parts if part.value > 0]

    def _kernels(self, stage: str) -> Sequence[PricedKernel]:
        return self.load.kernels.kernels.get(stage, ())

    def _held(self, lost: float, rank: int | None) -> Part:
        how = "SMs that a communication kernel holds / all SMs, while the kernel ran beside it"
        return Part("SMs held by communication", lost, how, self.parts.constants["dispatch"].source, rank)

    def _slow(self, lost: float, rank: int | None) -> Part:
        return Part(
            "a slow GPU", lost, "(1 - 1 / factor) x the time that it ran while the GPU was slow", "faults", rank
        )

    def _lost_to_slow_gpu(self, stage: str) -> Floats:
        """Seconds that a stage's kernels lost to faults of their GPUs, [ranks]."""
        start, end = self.trace.start_s[stage], self.trace.end_s[stage]
        return np.maximum(end - start, 0.0) - self._at_full_speed(start, end)

    def _at_full_speed(self, begin: Floats, end: Floats) -> Floats:
        """What each GPU does between two instants, in seconds of a healthy one, [ranks]."""
        if not self.trace.throttles:
            return np.maximum(end - begin, 0.0)
        sm = self.parts.fabric.n_links + np.arange(len(begin), dtype=np.int32)
        return speed_integral(self.trace.throttles, sm, begin, end)

    def _lost_to_held_sms(self, stage: str) -> Floats:
        """Seconds that a stage's kernels lost to SMs that communication kernels held meanwhile, [ranks]."""
        trace = self.trace
        lost = np.zeros(self.parts.fabric.n_ranks)
        for phase in trace.phases.values():
            flows = phase.flows
            held = phase.enter_s + flows.entry_setup_s
            if flows.all_ranks_gate and flows.n_flows:
                held = np.full_like(held, phase.launch_s[0])
            both = np.maximum(held, trace.start_s[stage]), np.minimum(phase.leave_s, trace.end_s[stage])
            lost += self._at_full_speed(*both) * (flows.sms / flows.total_sms if flows.sms else 0.0)
        return lost

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
        trace, parts = self.trace, list[Part]()
        for stage in (stage for stage in KERNELS if stage.component == component):
            if stage.beside:
                exposed = float(trace.exposed_s(stage.name).mean())
                parts.append(Part(f"{stage.name} past its phase", exposed, "mean over the ranks", "simulated"))
                continue
            parts += (
                Part(one.kernel, float(one.seconds.mean()), "mean over the ranks", one.source)
                for one in self._kernels(stage.name)
            )
            parts.append(self._held(float(self._lost_to_held_sms(stage.name).mean()), None))
            parts.append(self._slow(float(self._lost_to_slow_gpu(stage.name).mean()), None))
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

    def wire_rates(self, wire: Mapping[str, Floats]) -> dict[str, Ratio]:
        """Value, formula and terms of the bandwidths on the busiest wires; ``wire`` as for ``bytes_on_ports``."""
        found: dict[str, Ratio] = {}
        for phase in PHASES:
            busiest = busiest_wires(self.parts.fabric, self.trace, phase, wire[phase])
            for link_class in PORT_CLASSES:
                if link_class in busiest:
                    link, moved, seconds = busiest[link_class]
                    above = (f"bytes on {self.parts.fabric.link_names[link]}", moved)
                    terms = ratio(above, ("from the first byte to the last", seconds), "B", "s")
                    found[f"{phase}_{link_class}_wire_bytes_per_s"] = (moved / seconds, "bytes / time", terms)
        return found

    def bytes_on_ports(self, wire: Mapping[str, Floats]) -> dict[str, list[Part]]:
        """Parts of the bytes on sender ports, by the summary's names; ``wire`` bytes on each link by phase, [links]."""
        fabric, how = self.parts.fabric, "over the sender ports: bytes of a copy x copies that cross it"
        return {
            f"{name}_wire_bytes": [
                Part(phase, float(moved[fabric.is_class(name) & fabric.sender_port].sum()), how, "simulated")
                for phase, moved in wire.items()
            ]
            for name in PORT_CLASSES
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
            else:
                figures["bottleneck_utilisation"] = (0.0, "nothing moves", [])
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
        of_fabric = {"route latency": f"topology {fabric.name}", QUEUES: fabric.packets and fabric.packets.source}
        source = of_fabric.get(piece.name) or constants
        return Part(piece.name, piece.seconds, _FORMULAS.get(piece.name, ""), source, rank)
    if 0 <= piece.link < fabric.n_links:
        word = _LINK_WORDS.get(fabric.link_class[piece.link], fabric.link_class[piece.link])
        how = "bytes on the link while it holds the last flow back / (peak x efficiency)"
        name = fabric.link_names[piece.link]
        if piece.name == "down":
            how = "the link that the last flow waits for is down, up to the next attempt to send"
            return Part(f"{word} down", piece.seconds, how, "faults", rank, name)
        return Part(
            f"held by {word}", piece.seconds, how, f"simulated at rates of {constants}", rank, name, piece.bytes_per_s
        )
    if piece.link < 0:
        how = "the last flow is as fast as one pair of GPUs gets"
        return Part("the rate limit of one pair of GPUs", piece.seconds, how, constants, rank)
    how = "the rank's communication kernel is busy while the last flow waits for it"
    return Part("communication kernel", piece.seconds, how, constants, rank)

"""How the times of a run move with what is not known of its cluster, to first order, from the path of each phase.

Constants that are slower by a factor lengthen the seconds that they are responsible for by it, and nothing else. These
are read from the pieces that the critical rank passed through in dispatch and combine (``phase_path``). Not counted,
since somebody else's constants decide: waiting, and flows that were in progress only until the one that made the rank
stay was launched. Times of kernels are taken as known, and how long a link is down.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moesim.cluster import Fabric, Packets
from moesim.layer import Parts
from moesim.measure.phase_path import Piece, path_of_rank
from moesim.results import BANDED, Z80, Moves, Note
from moesim.stages import PHASES, STAGES
from moesim.timeline import LayerTrace, PhaseTrace
from moesim.traffic import QUEUES, Floats, Spread, over_switches, room, spread_of
from moesim.units import format_duration

# Unknown of a phase beside the kinds of constants: what the model leaves there.
_LEFT = "left in {}"
# Of a time, what a faster cluster leaves at least.
_LEAST = 1e-9


def spreads(parts: Parts) -> dict[str, Spread]:
    """Return how far the constants of each phase may be off."""
    own = Path(parts.calibration).suffix in (".yaml", ".yml")
    return {phase: spread_of(parts.constants[phase], own) for phase in PHASES}


def seconds_by_kind(phase: PhaseTrace, rank: int, fabric: Fabric) -> tuple[dict[str, float], dict[str, float], float]:
    """Return for how many seconds of a rank's time each kind of constants is responsible: before its kernel, and in it.

    Third for how many none is, since a link was down.

    Args:
        phase: what became of the phase.
        rank: whose time.
        fabric: the cluster.
    """
    before, inside = defaultdict[str, float](float), defaultdict[str, float](float)
    path = path_of_rank(phase, rank, fabric.capacity)
    down_s = sum(piece.seconds for piece in path if piece.name == "down")
    pieces = [piece for piece in path if not (piece.overtaken or piece.name == "down")]
    names = {piece.name for piece in pieces}
    for piece in pieces:
        if piece.name in ("layout", *phase.flows.group_setup):
            before["host"] += piece.seconds
        elif piece.name in phase.flows.exits:
            inside["work" if piece.name != QUEUES else QUEUES] += piece.seconds
        elif "floor" in names:  # up to a floor nothing else decides
            inside["setup"] += piece.seconds
        elif piece.name != "route latency" or "set-up" in names:  # a set-up was measured with its latency
            inside[_kind(piece, fabric)] += piece.seconds
    return before, inside, down_s


def _kind(piece: Piece, fabric: Fabric) -> str:
    if piece.link is None:
        return "fill" if piece.name == "fill" else "setup"
    if 0 <= piece.link < fabric.n_links:
        return "nvlink" if fabric.link_class[piece.link] == "nvlink" else "nic"
    return "work"


@dataclass
class TimesMoved:
    """Collects what moves the times of a run over its layers."""

    parts: Parts
    # By number and unknown: seconds less at the fast end of its interval, and more at the slow end, over all layers.
    _moved: dict[str, dict[str, tuple[float, float]]] = field(default_factory=lambda: {key: {} for key in BANDED})
    # Kinds of which another may be the busiest on the real cluster.
    _contended: set[str] = field(default_factory=set)
    # What packets add, where flows went over spines.
    _packets: Packets | None = None
    _steps: int = 0
    _layers: int = 0
    # Of what phases take in a whole step: the share that shows, times the layers that each simulated one stands for.
    weight: float = 1.0
    _spreads: dict[str, Spread] = field(init=False)

    def __post_init__(self) -> None:
        self._spreads = spreads(self.parts)

    @property
    def widen(self) -> float:
        """What intervals are multiplied by."""
        return max(spread.widen for spread in self._spreads.values())

    @property
    def _sigmas(self) -> float:
        """Standard deviations from the middle of an interval to its ends."""
        return Z80 * self.widen

    def contended(self) -> list[str]:
        """Kinds of constants between which it is open, inside the band, which link or kernel is the busiest."""
        return sorted(self._contended)

    def add_layer(self, trace: LayerTrace, rank: int, wire: Mapping[str, Floats]) -> None:
        """Take in a layer, along its critical rank; ``wire`` are bytes on each link by phase, [links]."""
        self._layers += 1
        for name, phase in trace.phases.items():
            spread = self._spreads[name]
            self._contended |= self._close(phase, wire[name], spread)
            before, inside, down_s = seconds_by_kind(phase, rank, self.parts.fabric)
            keys = [f"{name}_time_s", *([] if _hidden(trace, name, rank) else ("layer_time_s", "step_time_s"))]
            of_kernel = [f"{name}_kernel_time_s", *keys]
            if (packets := self.parts.fabric.packets) and over_switches(phase.flows, self.parts.fabric).any():
                self._packets = packets
                # Rows of clusters widen the rest; this is how far packet simulations went.
                self._add(
                    of_kernel, f"packets over {packets.kind}", inside["nic"], 0.0, self._per_sigma(packets.slower)
                )
            for seconds, of in ((inside, of_kernel), (before, keys)):
                for kind, each in seconds.items():
                    self._add(of, kind, each, *self._deviations(name, kind))
            whole_s = float(phase.leave_s[rank] - phase.enter_s[rank] - phase.wait_s[rank]) - down_s
            left, both = _LEFT.format(name), (spread.row_spread, spread.row_spread)
            self._add([f"{name}_kernel_time_s"], left, float(phase.kernel_s[rank]) - down_s, *both)
            self._add(keys, left, whole_s, *both)

    def _deviations(self, name: str, kind: str) -> tuple[float, float]:
        """Standard deviation of a phase's constants of a kind towards faster, where a peak may end it, and slower."""
        if kind == QUEUES and self._packets:
            queues_s, (least_s, most_s) = self._packets.queues_s, self._packets.queues_range_s
            return self._per_sigma(queues_s / least_s), self._per_sigma(most_s / queues_s)
        deviation = self._spreads[name].deviations.get(kind, 0.0)
        most = room(self.parts.constants[name], kind, self.parts.fabric.n_ranks)
        return min(deviation, most / self._sigmas), deviation

    def _per_sigma(self, factor: float) -> float:
        """What makes a factor the end of an interval."""
        return math.log(factor) / self._sigmas

    def _add(self, keys: Iterable[str], unknown: str, seconds: float, faster: float, slower: float) -> None:
        less_s = -seconds * math.expm1(-faster * self._sigmas)
        more_s = seconds * math.expm1(slower * self._sigmas)
        for key in keys:
            less, more = self._moved[key].get(unknown, (0.0, 0.0))
            self._moved[key][unknown] = (less + less_s, more + more_s)

    def _close(self, phase: PhaseTrace, wire: Floats, spread: Spread) -> set[str]:
        """The two kinds whose busiest link or kernel takes longest in a phase, where either may; else none."""
        fabric, flows = self.parts.fabric, phase.flows
        seconds = wire / (fabric.capacity * flows.link_efficiency(fabric.n_links))
        nvlink = fabric.is_class("nvlink")
        longest = {
            "nvlink": float(seconds[nvlink].max(initial=0.0)),
            "nic": float(seconds[~nvlink].max(initial=0.0)),
            "work": float(flows.kernel_seconds(fabric.n_ranks).max()),
        }
        first, second, _ = sorted(longest, key=lambda kind: -longest[kind])
        apart = Z80 * spread.widen * math.hypot(*(spread.deviations.get(kind, 0.0) for kind in (first, second)))
        return {first, second} if longest[second] * math.exp(apart) > longest[first] > 0 else set()

    def notes(self) -> Iterator[Note]:
        """Say what packets add where flows went over spines."""
        if packets := self._packets:
            queues = f"; queues add {format_duration(packets.queues_s)}" if packets.queues_s else ""
            text = f"flows cross spines of {packets.kind}: packets may take up to {packets.slower:g} times as long"
            text += f", which is in the intervals{queues}: {packets.source}"
            yield Note("estimated", text)

    def end_step(self) -> None:
        """Close a step."""
        self._steps += 1

    def band(self, summary: Mapping[str, Any], resimulated: Mapping[str, Moves] | None = None) -> dict[str, Any]:
        """Return what is not known of the cluster and how it moves the times, JSON-able.

        Args:
            summary: of the run.
            resimulated: moves of its times that are better known than to first order, by number and unknown.

        Returns:
            ``cell``: whose constants these are; two runs of one cell share their unknowns. ``source``: of the spread.
            ``resimulated``: unknowns whose moves are not first order; ``contended``: those whose moves should not be.
            ``widen``, ``moves``: see ``moesim.results``.
        """
        parts, constants, better = self.parts, self.parts.constants["dispatch"], resimulated or {}
        again = {unknown for of_time in better.values() for unknown in of_time}
        moves = {key: dict(self._of(key, summary)) | dict(better.get(key, {})) for key in BANDED if summary[key]}
        return {
            "cell": [
                constants.algorithm,
                constants.name,
                constants.gpu,
                parts.transport,
                "several nodes" if parts.fabric.n_nodes > 1 else "one node",
            ],
            "source": self._spreads["dispatch"].source,
            "resimulated": sorted(again),
            "contended": sorted(self._contended - again),
            "widen": self.widen,
            "moves": moves,
        }

    def _of(self, key: str, summary: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
        total = summary[key] * (self._steps if key == "step_time_s" else self._layers)
        weight = self.weight if key == "step_time_s" else 1.0
        for unknown, (less, more) in sorted(self._moved[key].items()):
            less, more = less * weight, more * weight
            if more:
                ends = (max(1.0 - less / total, _LEAST), 1.0 + more / total)
                yield unknown, [math.log(end) / self._sigmas for end in ends]


def _hidden(trace: LayerTrace, name: str, rank: int) -> bool:
    """Whether a kernel beside the phase outlasts it on a rank: the layer is as long whatever the phase takes."""
    order = [stage.name for stage in STAGES]
    following = STAGES[order.index(name) + 1 :]
    beside = itertools.takewhile(lambda stage: stage.beside, following)
    return any(float(trace.exposed_s(stage.name)[rank]) > 0 for stage in beside)

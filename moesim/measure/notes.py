"""What the reader of a result must not take at face value, and by how much flows that took steps may be off."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moesim.cluster import Fabric, ShortestPaths, beyond_today
from moesim.layer import PORTS_NOTE, KernelLedger, Parts, RoutedLayer, uses_ports
from moesim.measure.layer_tables import RANK_PAIR_LIMIT
from moesim.measure.times_moved import spreads
from moesim.model import not_counted
from moesim.results import Note
from moesim.stages import PHASES
from moesim.timeline import LayerTrace, PhaseTrace
from moesim.traffic import Calibration, PhaseFlows, error_left_out, way_between
from moesim.units import format_bandwidth
from moesim.workload import Batch

STEPS_PAY = 250_000
"""Flows of a phase from which steps are faster than following every event: measured, for steps of 1 %."""


def steps_pay(*groups: Mapping[str, PhaseFlows]) -> bool:
    """Whether a layer's flows, by phase, of all groups, are so many that steps within a tolerance pay."""
    return max(sum(flows[phase].n_flows for flows in groups) for phase in groups[0]) >= STEPS_PAY


@dataclass
class ToleranceLedger:
    """Collects the limits of each layer's phases; the widest count.

    ``tolerance``: of the scenario; 0 for exact sharing, for which nothing is reported; ``stepped``: whether flows of
    any phase took steps.
    """

    tolerance: float
    stepped: bool = False
    _estimated: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PHASES, "layer"), 0.0))
    _earlier: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    _later: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def add_layer(self, trace: LayerTrace) -> None:
        """Take in one layer."""
        off_s = 0.0
        for name, phase in trace.phases.items():
            off_s += self._add_phase(name, phase)
        layer_s = trace.length_s
        self._estimated["layer"] = max(self._estimated["layer"], off_s / layer_s if layer_s else 0.0)

    def _add_phase(self, name: str, phase: PhaseTrace) -> float:
        limits, moved = phase.limits, phase.flows.size > 0
        if limits is None or not moved.any():
            return 0.0
        self.stepped = True
        end = float(phase.finish_s[moved].max())
        length = end - float(phase.start_s[moved].min())
        self._estimated[name] = max(self._estimated[name], limits.estimated_s / length)
        self._earlier[name] = max(self._earlier[name], (end - limits.earliest_s) / length)
        self._later[name] = max(self._later[name], (limits.latest_s - end) / length)
        return limits.estimated_s

    def notes(self) -> list[Note]:
        """Say it for the reader of the result."""
        if not self.tolerance:
            return []
        if not self.stepped:
            few = f"phases of fewer than {STEPS_PAY:,} flows follow every event, exactly"
            return [Note("info", f"network.tolerance of {100 * self.tolerance:g} % is not used: {few}")]
        estimated = ", ".join(f"{name} {_percent(self._estimated[name])}" for name in ("layer", *PHASES))
        proven = ", ".join(
            f"{_percent(self._earlier[name])} earlier to {_percent(self._later[name])} later in {name}"
            for name in PHASES
        )
        text = (
            f"flows took steps of up to {100 * self.tolerance:g} % of the busiest link's time (network.tolerance). "
            f"Estimated error of times, to either side: {estimated}. Proven, given when flows start: exact sharing "
            f"ends a phase's last flow at most {proven}"
        )
        return [Note("estimated", text)]

    def explanation(self) -> dict[str, Any]:
        """Return the same as numbers: shares of the phase's or the layer's length."""
        return {
            "tolerance": self.tolerance,
            "estimated_error": dict(self._estimated),
            "proven_earlier": dict(self._earlier),
            "proven_later": dict(self._later),
        }


def _percent(share: float) -> str:
    return "less than 0.01 %" if share < 1e-4 else f"{100 * share:.2g} %"


def degraded(parts: Parts, ledger: KernelLedger, tolerance: ToleranceLedger, batch: Batch) -> list[Note]:
    """Return the caveats, the most important first.

    Args:
        parts: of the scenario.
        ledger: the kernels' seconds by source.
        tolerance: how far off flows that took steps may be.
        batch: of the first step.
    """
    notes, shares = [Note("degraded", text) for text in beyond_today(parts.fabric)], ledger.shares()
    for source in ("extrapolated", "estimated"):
        if shares.get(source, 0.0) > 0:
            kernels = sorted({row["kernel"] for row in ledger.rows() if row["source"] == source})
            text = f"{100 * shares[source]:.0f} % of compute time is {source}: {', '.join(kernels)}"
            notes.append(Note("degraded" if source == "extrapolated" else "estimated", text))
    notes += (Note("estimated", f"model: {text}") for text in parts.model_notes)
    if parts.inference is not None:
        notes += (Note("degraded", f"attention: {text}") for text in not_counted(parts.inference.spec.attentions))
    if parts.memory is not None and parts.memory.free < 0:
        held = parts.memory
        text = f"it does not fit: {held.in_words()}"
        fit = f"; {held.requests_that_fit:,} requests fit"
        text += fit if held.kv_cache else " (moesim model --context tells more)"
        notes.append(Note("degraded", text))
    constants = parts.constants["dispatch"]
    own = Path(parts.calibration)
    mine = f"those of your file {own.name}" if own.suffix in (".yaml", ".yml") else ""
    left_out = _left_out(parts) if constants.clusters and not mine else ""
    rates = mine or rates_from(constants, left_out)
    notes.append(Note("estimated", f"all-to-all rates are {rates}: {constants.source}"))
    sure = spreads(parts)["dispatch"]
    text = f"intervals of times hold 80 %: {sure.source}; kernel times and waiting are taken as known"
    notes.append(Note("info", text))
    notes += (Note("estimated", text) for text in _scaled(parts))
    notes += tolerance.notes()
    if uses_ports(parts):
        notes.append(Note("estimated", PORTS_NOTE))
    elif parts.fabric.n_ranks > RANK_PAIR_LIMIT:
        notes.append(Note("info", f"more than {RANK_PAIR_LIMIT} ranks: the transfers table is per node pair"))
    if isinstance(parts.fabric.paths, ShortestPaths):
        notes += [Note("info", text) for text in _ways_inside(parts.fabric)]
    layers = parts.workload.layers_simulated
    if layers and layers > len(batch.layers):
        notes.append(Note("info", f"{layers} layers simulated by cycling {len(batch.layers)} recorded ones"))
    return notes


def idle_ranks(layers: Mapping[int, RoutedLayer]) -> Iterator[Note]:
    """Say which ranks no token goes to, as happens with few tokens and with what engines deal in benchmarks."""
    for number, layer in layers.items():
        idle = np.flatnonzero(layer.totals.selections_received == 0)
        if len(idle):
            which = ", ".join(map(str, idle[:8])) + ", ..." * (len(idle) > 8)
            yield Note("info", f"layer {number}: {len(idle)} of {len(layer.tokens)} ranks are sent no token: {which}")


def rates_from(constants: Calibration, left_out: str = "") -> str:
    """What an all-to-all's rates were fitted on; ``left_out`` is how far off a cluster was that was not fitted on."""
    if constants.clusters:
        return f"fitted over {constants.clusters} clusters, not of your cluster{left_out}"
    rates = f"fitted on {len(constants.rows)} published figures" if constants.rows else "defaults"
    if held_out := dict(constants.held_out):
        rates += f" ({held_out['rows']:.0f} others are {100 * held_out['median']:.1f} % off in the median)"
    return f"{rates}, not of your cluster"


def _left_out(parts: Parts) -> str:
    """How far off the set is on a cluster left out: over the run's transport, or pooled where none shows it."""
    constants = parts.constants["dispatch"]
    transport = way_between(parts.fabric.gpu, parts.transport, parts.fabric.n_nodes)
    where = f"{constants.algorithm} over {'NVLink' if transport == 'nvlink' else transport}"
    found = error_left_out(constants.algorithm, transport)
    off = found or dict(constants.held_out)
    if not off:
        return ""
    rows = f"{off['rows']:.0f} rows over all transports, since no cluster shows {where}"
    if found:
        rows = f"{found['rows']} rows of {found['clusters']} cluster{'s' if found['clusters'] > 1 else ''}, {where}"
    return (
        f" (one left out is {100 * off['median']:.0f} % off in the median, one time in ten by more than "
        f"{100 * off['p90']:.0f} %: {rows})"
    )


def _scaled(parts: Parts) -> Iterator[str]:
    """Say where rates were measured on ports of another speed than this cluster's."""
    constants, fabric = parts.constants["dispatch"], parts.fabric
    for name, word, fitted in (("nvlink", "NVLink", constants.nvlink_peak), ("nic", "NIC", constants.nic_peak)):
        peaks = fabric.capacity[fabric.is_class(name)]
        used = fabric.n_ranks > 1 if name == "nvlink" else fabric.n_nodes > 1
        if used and len(peaks) and not np.isclose(peaks, fitted).all():
            here = " to ".join(dict.fromkeys(format_bandwidth(float(peak)) for peak in (peaks.min(), peaks.max())))
            yield (
                f"{word} rates were measured on ports of {format_bandwidth(fitted)}; here they are {here}, and the "
                f"all-to-all is taken to reach the same share of them"
            )


def _ways_inside(fabric: Fabric) -> Iterator[str]:
    """Say over which link classes the GPUs of a node reach each other, where that is not NVLink alone."""
    over = fabric.pairs_inside()
    if set(over) - {("nvlink",)}:
        ways = ", ".join(f"{count} over {' and '.join(classes)}" for classes, count in over.items())
        yield f"pairs of GPUs inside a node: {ways}"

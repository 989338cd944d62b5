"""By how much a run whose flows took steps may be off, on both sides: what is proven, and what is estimated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moesim.results import Note
from moesim.stages import PHASES
from moesim.timeline import LayerTrace, PhaseTrace
from moesim.traffic import PhaseFlows

STEPS_PAY = 250_000
"""Flows of a phase from which steps are faster than following every event: measured, for steps of 1 %."""


def steps_pay(flows: Mapping[str, PhaseFlows]) -> bool:
    """Whether a layer's flows, by phase, are so many that steps within a tolerance are worth their error."""
    return max(phase.n_flows for phase in flows.values()) >= STEPS_PAY


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

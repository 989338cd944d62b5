"""A set of constants as a value: its terms by phase, how far clusters differ in each, and what moves it to a cell.

A *cell* is a GPU and a transport. A set that was fitted over many clusters holds the terms of one reference cell; for
another one, constants move by factors, rates keep their share of the GPU's port, and the spread is that of the cell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from moesim.errors import InputError
from moesim.traffic.constants import Protocol
from moesim.traffic.spread import BORROWED, BORROWED_ROW_SPREAD, kind_of

Place = tuple[str, ...]
"""Of a constant: ``(phase, term)``, ``("across", phase, term)``, a protocol's ``(phase, protocol, term)``."""

Block = Mapping[str, Any]
# The spread of a GPU or transport that no cluster of a library had: of the logarithm, as such steps commonly are.
UNSEEN = {"gpu": 0.5, "transport": 0.7}
_NVLINK_RATES = ("nvlink_rate", "two_ranks_nvlink_rate")


@dataclass(frozen=True)
class Step:
    """By what factor a constant differs from the reference on one GPU or transport, and its spread there."""

    factor: float
    deviation: float
    clusters: int = 1


@dataclass(frozen=True)
class Uncertain:
    """A constant that differs from cluster to cluster.

    Attributes:
        places: that move together.
        kind: what it is a constant of: ``nvlink``, ``nic``, ``setup``, ``work``, ``fill`` or ``host``.
        deviation: standard deviation of its logarithm on a cluster that nobody measured, at the reference cell.
        gpu, transport: steps away from the reference, by GPU family and by transport.
        answers: whether the constant can differ by GPU, by transport at all.
    """

    places: tuple[Place, ...]
    kind: str
    deviation: float
    gpu: Mapping[str, Step]
    transport: Mapping[str, Step]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibrationSet:
    """Constants of one library, on one GPU from one source, or over clusters.

    Attributes:
        name: the file's, without suffix; ``algorithm``, ``gpu`` and ``transport`` that it was measured with.
        library, source: release, and where the figures come from.
        nvlink_peak, nic_peak, sms: the ports and the GPU that the rates were measured on.
        rates_count: whether rates are of bytes on the wire or of the payload that the library's benchmark counts.
        rows: ledger rows that the set was fitted on; error: what it leaves there, by name; empty for defaults.
        held_out: number of ``rows`` of the same library and GPU that it was not fitted on, and how far it is off there.
        notes: what to know.
        phases: terms of ``dispatch`` and ``combine`` by the names of ``Calibration``, SI.
        across: the same of the kernel that spans nodes, empty where it is no other.
        clusters: rows of each cluster that it was fitted over; empty for a set of one source.
        uncertain: constants that differ between clusters, and how far; row_spread: what is left inside a cluster.
        widen: what the intervals are multiplied by, so that they cover what they say of clusters left out.
    """

    name: str
    algorithm: str
    gpu: str
    library: str
    source: str
    nvlink_peak: float
    nic_peak: float
    sms: int
    rates_count: str
    rows: tuple[str, ...]
    error: dict[str, float]
    held_out: dict[str, float]
    notes: tuple[str, ...]
    phases: dict[str, dict[str, Any]]
    across: dict[str, dict[str, Any]]
    transport: str = "ibgda"
    clusters: Mapping[str, int] = field(default_factory=dict)
    uncertain: tuple[Uncertain, ...] = ()
    row_spread: float = 0.0
    widen: float = 1.0

    def with_ports(self, nvlink_peak: float, nic_peak: float) -> "CalibrationSet":
        """Return the set for ports of other speeds, of which the library reaches the same share."""
        nvlink, nic = nvlink_peak / self.nvlink_peak, nic_peak / self.nic_peak
        if nvlink == nic == 1.0:
            return self

        def protocol(one: Protocol) -> Protocol:
            rates = {name: getattr(one, name) * nvlink for name in _NVLINK_RATES}
            return replace(one, **rates, nic_rate=one.nic_rate * nic)

        def block(terms: dict[str, Any]) -> dict[str, Any]:
            changed = {"nvlink_rate": terms["nvlink_rate"] * nvlink, "nic_rate": terms["nic_rate"] * nic}
            return terms | changed | {"protocols": tuple(protocol(one) for one in terms["protocols"])}

        return replace(
            self,
            nvlink_peak=nvlink_peak,
            nic_peak=nic_peak,
            phases={phase: block(terms) for phase, terms in self.phases.items()},
            across={phase: block(terms) for phase, terms in self.across.items()},
        )

    def on(self, gpu: str, steps_of: Sequence[str], transports: Sequence[str], sms: int) -> "CalibrationSet":
        """Return the set of a cell, its ports as they are.

        Args:
            gpu: lower-case name; steps_of: the GPUs whose steps it takes, one after the other.
            transports: whose steps it takes; the first of ``moesim.alltoall_library``.
            sms: of the GPU.
        """
        made = self
        cell: list[Uncertain] = []
        for one in self.uncertain:
            steps = []
            for axis, levels in (("gpu", steps_of), ("transport", transports)):
                for level in levels:
                    if axis in one.answers and level not in (self.gpu, self.transport):
                        steps.append(
                            getattr(one, axis).get(level) or Step(1.0, math.hypot(one.deviation, UNSEEN[axis]), 0)
                        )
            for step in steps:
                for place in one.places:
                    made = with_value(made, place, value_at(made, place) * step.factor)
            deviation = max([one.deviation, *(step.deviation for step in steps)])
            cell.append(Uncertain(one.places, one.kind, deviation, {}, {}))
        return replace(made, gpu=gpu, transport=transports[0], sms=sms, uncertain=tuple(cell))

    @property
    def spread(self) -> "CalibrationSet":
        """The set with a spread: its own, or that of others where it is of one source."""
        if self.uncertain:
            return self
        blocks: list[tuple[Place, Block]] = [((phase,), terms) for phase, terms in self.phases.items()]
        blocks += [(("across", phase), terms) for phase, terms in self.across.items()]
        found: dict[tuple[str, str], list[Place]] = {}
        for block, terms in blocks:
            for one in terms["protocols"]:
                for field_ in fields(one):
                    if kind_of(field_.name) and getattr(one, field_.name):
                        found.setdefault((one.name, kind_of(field_.name)), []).append((*block, one.name, field_.name))
            for name, value in terms.items():
                if kind_of(name) and value:
                    found.setdefault((name, kind_of(name)), []).append((*block, name))
        borrowed = tuple(Uncertain(tuple(places), kind, BORROWED[kind], {}, {}) for (_, kind), places in found.items())
        return replace(self, uncertain=borrowed, row_spread=BORROWED_ROW_SPREAD)

    def deviations_of(self, block: Place) -> dict[str, float]:
        """How far constants of each kind deviate in a block, ``(phase,)`` or ``("across", phase)``.

        Of several the one that is known best: it is what rows answered to, the others lay hidden beneath it. What moves
        a constant beyond others adds to them.
        """
        at: dict[Place, tuple[str, float]] = {}
        for one in self.uncertain:
            for place in one.places:
                if place[: len(block)] == block:
                    at[place] = one.kind, math.hypot(one.deviation, at.get(place, ("", 0.0))[1])
        found: dict[str, float] = {}
        for kind, deviation in at.values():
            found[kind] = min(found.get(kind, deviation), deviation)
        return found


def value_at(constants: CalibrationSet, place: Place) -> float:
    """Read a constant of a set."""
    terms, rest = _block(constants, place)
    if len(rest) == 1:
        return float(terms[rest[0]])
    return float(getattr(_protocol(terms, rest[0]), rest[1]))


def with_value(constants: CalibrationSet, place: Place, value: float) -> CalibrationSet:
    """Return the set with another value of one constant; a port's rate cannot pass its peak."""
    value = min(value, most_of(constants, place))
    terms, rest = _block(constants, place)
    if len(rest) == 1:
        changed = {**terms, rest[0]: value}
    else:
        protocols = tuple(
            replace(one, **{rest[1]: value}) if one.name == rest[0] else one for one in terms["protocols"]
        )
        changed = {**terms, "protocols": protocols}
    if place[0] == "across":
        return replace(constants, across=constants.across | {place[1]: changed})
    return replace(constants, phases=constants.phases | {place[0]: changed})


def most_of(constants: CalibrationSet, place: Place) -> float:
    """What a constant cannot pass: a rate its port's peak; nothing else is bounded from above."""
    if place[-1] in _NVLINK_RATES:
        return constants.nvlink_peak
    return constants.nic_peak if place[-1] == "nic_rate" else float("inf")


def _block(constants: CalibrationSet, place: Place) -> tuple[Block, Place]:
    if place[0] == "across":
        return constants.across[place[1]], place[2:]
    return constants.phases[place[0]], place[1:]


def _protocol(terms: Block, name: str) -> Protocol:
    for one in terms["protocols"]:
        if isinstance(one, Protocol) and one.name == name:
            return one
    raise InputError(f"the set has no protocol {name!r}")

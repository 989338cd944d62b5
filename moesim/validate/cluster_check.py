"""Is a cluster as others of its kind? Its measurements against what moesim expects, with the interval, per wire.

What is expected comes from sets fitted over clusters: the cell of the row's GPU and transport, on the row's own ports.
The interval is the spread between clusters, to first order: each constant that may differ is moved a little, the
logarithm of the time follows.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.traffic import CalibrationSet, Place, find_set, gpu_ports, most_of, value_at, with_value
from moesim.validate.benches import bench_of
from moesim.validate.published_row import TIME, Row
from moesim.validate.row_simulation import constants_from, seconds_of, simulated_seconds

# Of 80 % of a normal distribution.
EIGHTY = 1.2815515655446004
_STEP = 0.02
# A row speaks of a wire if its time follows the wire's rate at least this closely.
_SPEAKS = 0.5
# How much slower a wire is at half its rate, give or take, and over PCIe at the least.
_HALF, _PCIE = (1.6, 2.5), 4.0
# Set-ups this much longer than expected are another way to post, not a slow one.
_LATE = 1.8


@dataclass(frozen=True)
class Expected:
    """What is expected of a row.

    Attributes:
        row: measured.
        seconds: measured; ``simulated``, ``low`` and ``high``: expected, with the bounds of its 80 % interval.
        shares: of the time that follow each kind of constant (``nvlink``, ``nic``, ``setup``, ``work``): how much
            longer it gets, relative to how much slower they get.
        clusters: how many the constants were fitted over; 0: they are of one source.
    """

    row: Row
    seconds: float
    simulated: float
    low: float
    high: float
    shares: dict[str, float]
    clusters: int

    @property
    def error(self) -> float:
        """Relative error of the simulated quantity."""
        ratio = self.simulated / self.seconds
        return (ratio if self.row.quantity == TIME else 1 / ratio) - 1


@dataclass(frozen=True)
class Wire:
    """A kind of constant of one cluster, over the rows whose time follows it.

    Attributes:
        kind: ``nic``, ``nvlink``, ``work`` of the communication kernel, or ``setup``.
        term: the constant of that kind that counts most, by its name.
        expected: its value, a rate in bytes/s or seconds; measured: what the rows say it is.
        low, high: 80 % of clusters lie between.
        rows: how many say so.
        cause: what is likely where it lies outside; empty inside.
    """

    kind: str
    term: str
    expected: float
    measured: float
    low: float
    high: float
    rows: int
    cause: str


def set_for(row: Row, transport: str | None = None) -> CalibrationSet:
    """The constants expected of a row's machine, on its own ports."""
    algorithm = bench_of(row).algorithm
    found = find_set(algorithm, row.gpu, "auto", transport or row.transport)
    nvlink, nic, _ = gpu_ports(row.gpu)
    return found.with_ports(nvlink, row.nic_peak or nic)


def expect(row: Row, found: CalibrationSet | None = None) -> Expected:
    """Simulate a row with the constants that are expected of its machine, and their spread."""
    found = found or set_for(row)
    simulated = simulated_seconds(row, constants_from(found, row))
    variance, shares = found.spread.row_spread**2, dict[str, float]()
    for one in found.spread.uncertain:
        share = _share(row, found, one.places)
        shares[one.kind] = shares.get(one.kind, 0.0) + share
        variance += (share * one.deviation) ** 2
    factor = math.exp(EIGHTY * found.widen * math.sqrt(variance))
    return Expected(
        row, seconds_of(row), simulated, simulated / factor, simulated * factor, shares, len(found.clusters)
    )


def wires(expected: Sequence[Expected]) -> list[Wire]:
    """What the rows of one cluster, of one library, say of its wires.

    A constant's factor is the weighted median over the rows of how far the time is off, divided by how closely it
    follows that constant.
    """
    found = []
    for kind in ("nic", "nvlink", "work", "setup"):
        speaking = [one for one in expected if one.shares.get(kind, 0.0) >= _SPEAKS]
        if not speaking:
            continue
        slower = float(np.median([math.log(one.seconds / one.simulated) / one.shares[kind] for one in speaking]))
        constants = set_for(speaking[0].row)
        uncertain = [one for one in constants.spread.uncertain if one.kind == kind]
        shares = [_share(speaking[0].row, constants, one.places) for one in uncertain]
        leading = uncertain[int(np.argmax(shares))]
        value = value_at(constants, leading.places[0])
        band = math.exp(EIGHTY * constants.widen * leading.deviation)
        low, high = value / band, min(value * band, most_of(constants, leading.places[0]))
        measured = value * math.exp(-slower if _is_rate(leading.places[0]) else slower)
        cause = "" if low <= measured <= high else _cause(kind, math.exp(slower), speaking)
        found.append(Wire(kind, leading.places[0][-1], value, measured, low, high, len(speaking), cause))
    return found


def _cause(kind: str, slower: float, rows: Sequence[Expected]) -> str:
    """What is likely where a wire is ``slower`` times as slow as its peers', as specific as the rows support."""
    by_gpu = rows[0].row.transport in ("ibgda", "efa-gda") and rows[0].row.nodes > 1
    if kind == "setup":
        if slower < 1:
            return "quicker than its peers: another release, or a CUDA graph where they had none"
        if by_gpu and slower > _LATE and _closer_by_proxy(rows):
            return "set-ups of a CPU proxy: is IBGDA (GPU-initiated) on, and peer memory loaded?"
        return "late to start: CPU pinning, a busy proxy thread, or clocks that are down"
    if slower < 1:
        return "faster than its peers: are the ports those that were given?"
    if kind != "nic":
        if slower > _PCIE:
            return "PCIe instead of NVLink?"
        return "below its peers: NVLinks down, clocks down, or SMs that something else holds"
    if _HALF[0] <= slower <= _HALF[1]:
        return "about half of its peers': one port of two, a card shared by two GPUs, or NUMA binding across sockets"
    if by_gpu and _closer_by_proxy(rows):
        return "as over a CPU proxy: is IBGDA (GPU-initiated) on?"
    return "below its peers': NUMA binding, hashed paths that collide, congestion, or PCIe below the card's speed"


def _closer_by_proxy(rows: Iterable[Expected]) -> bool:
    """Whether a proxy's constants would have been nearer to the measurements."""
    better = 0.0
    for one in rows:
        proxy = "efa-proxy" if one.row.transport.startswith("efa") else "proxy"
        by_proxy = simulated_seconds(one.row, constants_from(set_for(one.row, proxy), one.row))
        better += abs(math.log(one.simulated / one.seconds)) - abs(math.log(by_proxy / one.seconds))
    return better > 0


def _share(row: Row, found: CalibrationSet, places: Sequence[Place]) -> float:
    """How much longer a row takes relative to how much slower the constants at some places get."""

    def log_time(slower: float) -> float:
        made = found
        for place in places:
            factor = math.exp(-slower if _is_rate(place) else slower)
            made = with_value(made, place, value_at(found, place) * factor)
        return math.log(simulated_seconds(row, constants_from(made, row)))

    # A rate may stand at its port's peak: it shows where it falls.
    return (log_time(_STEP) - log_time(0.0)) / _STEP


def _is_rate(place: Place) -> bool:
    return "rate" in place[-1]


def of_clusters(expected: Iterable[Expected]) -> dict[tuple[str, str], list[Expected]]:
    """Rows by cluster and library."""
    found: dict[tuple[str, str], list[Expected]] = {}
    for one in expected:
        found.setdefault((one.row.cluster, one.row.library), []).append(one)
    return found

"""What links carried of what they could: the one denominator of every utilisation.

A link can carry the integral of its capacity over the span looked at, times what the all-to-all reaches of it. The
capacity is that of the fabric until it changes: while a fault halves a link, it could carry half.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moesim.cluster import Fabric
from moesim.network import CapacityEvents
from moesim.timeline.phase import PhaseTrace
from moesim.traffic import Floats


@dataclass(frozen=True)
class LinkUse:
    """Capacity of links over time.

    Attributes:
        capacity: bytes/s when the clock begins, [links].
        events: later changes, in order; those of links beyond these do not count.
    """

    capacity: Floats
    events: CapacityEvents

    def share(
        self, carried: Floats, begin_s: float | Floats, length_s: float, efficiency: float | Floats = 1.0
    ) -> Floats:
        """Return the share of what each link could carry that it did, 0 where it could carry nothing.

        Args:
            carried: bytes, [links], or [spans, links] for several spans.
            begin_s: when the span begins, or spans of equal length, [spans].
            length_s: how long it is.
            efficiency: share of the capacity that can be reached, [links].
        """
        return _share(carried, self.could_carry(np.asarray(begin_s, np.float64), length_s, efficiency))

    def could_carry(self, begin: Floats, length_s: float, efficiency: float | Floats) -> Floats:
        """Return the bytes that each link could carry over the span, [links] or [spans, links]; as ``share``."""
        could: Floats = self.capacity * efficiency * length_s
        links = np.unique(self.events.link[self.events.link < len(self.capacity)])
        if not len(links):
            return could
        reached = np.broadcast_to(efficiency, could.shape)
        could = np.broadcast_to(could, (*begin.shape, len(could))).copy()
        for link in links:
            could[..., link] = reached[link] * self._integral(link, begin, begin + length_s)
        return could

    def mean(self, link: int, begin_s: float, end_s: float) -> float:
        """Return the mean capacity of a link between two instants, bytes/s."""
        if end_s <= begin_s or not (self.events.link == link).any():
            return float(self.capacity[link])
        return float(self._integral(link, np.asarray(begin_s), np.asarray(end_s))) / (end_s - begin_s)

    def down_s(self, link: int, begin_s: float, end_s: float) -> float:
        """Return for how long a link carries nothing at all between two instants."""
        spans = self._spans(link, np.asarray(begin_s), np.asarray(end_s))
        return sum(float(length) for capacity, length in spans if capacity == 0)

    def _integral(self, link: int, begin: Floats, end: Floats) -> Floats:
        """Bytes at full capacity from ``begin`` to ``end``."""
        return sum((level * length for level, length in self._spans(link, begin, end)), np.zeros(np.shape(begin)))

    def _spans(self, link: int, begin: Floats, end: Floats) -> Iterator[tuple[float, Floats]]:
        """Each capacity that the link has in turn, and how much of each span it has it."""
        own = self.events.only(self.events.link == link)
        since, until = np.append(-np.inf, own.time), np.append(own.time, np.inf)
        for level, first, last in zip(np.append(self.capacity[link], own.capacity), since, until, strict=True):
            yield float(level), np.maximum(np.minimum(end, last) - np.maximum(begin, first), 0.0)


def _share(carried: Floats, could: Floats) -> Floats:
    share: Floats = np.divide(carried, could, out=np.zeros_like(carried), where=could > 0)
    return share


def phase_use(fabric: Fabric, phase: PhaseTrace, wire_bytes: Floats) -> Floats:
    """Return the use of each link by a phase, from its first byte to its last, [links].

    Args:
        fabric: of the run.
        phase: as it happened.
        wire_bytes: what it moved over each link, [links].
    """
    return _share(wire_bytes, phase_could_carry(fabric, phase))


def phase_could_carry(fabric: Fabric, phase: PhaseTrace) -> Floats:
    """Return the bytes that each link could carry from a phase's first byte to its last, [links]."""
    if not len(phase.start_s):
        return np.zeros(fabric.n_links)
    begin, end = float(phase.start_s.min()), float(phase.finish_s.max())
    use = LinkUse(fabric.capacity, phase.capacity_events)
    return use.could_carry(np.asarray(begin), end - begin, phase.flows.link_efficiency(fabric.n_links))

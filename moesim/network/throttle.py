"""Factors of links' capacities that come and go on the clock: what a fault does to wires and GPUs."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import simpy

from moesim.network.clock import NetworkClock
from moesim.network.exact.state import Floats, Ints


@dataclass(frozen=True)
class Throttle:
    """``links``, as the network numbers them, have ``factor`` of their capacity from ``from_s`` to ``to_s``."""

    links: Ints
    factor: float
    from_s: float = 0.0
    to_s: float = np.inf

    @property
    def whole_run(self) -> bool:
        """Whether it lasts from the beginning on and does not end."""
        return self.from_s <= 0 and self.to_s == np.inf

    def since(self, begin_s: float) -> "Throttle":
        """Return it on a clock that begins at ``begin_s`` of this one."""
        return replace(self, from_s=self.from_s - begin_s, to_s=self.to_s - begin_s)

    def renumbered(self, wires: int, number: Ints, n_ranks: int) -> "Throttle":
        """Return it with other numbers of ranks, [ranks], -1 for none, of ``n_ranks``, links behind the wires."""
        behind = self.links[self.links >= wires] - wires
        kind, rank = np.divmod(behind, len(number))
        links = (wires + kind * n_ranks + number[rank])[number[rank] >= 0]
        return replace(self, links=np.concatenate([self.links[self.links < wires], links]).astype(np.int32))


def hold(clock: NetworkClock, throttles: Sequence[Throttle]) -> None:
    """Let throttles act on a clock at 0; what is over then does nothing."""
    for owner, one in enumerate(throttles):
        if one.to_s > 0 and one.factor != 1.0:
            clock.env.process(_hold(clock, one, ("throttle", owner)))


def _hold(clock: NetworkClock, one: Throttle, owner: tuple[str, int]) -> Generator[simpy.Event, object, None]:
    if one.from_s > 0:
        yield clock.env.timeout(one.from_s)
    for link in one.links.tolist():
        clock.scale(link, owner, one.factor)
    if one.to_s < np.inf:
        yield clock.env.timeout(one.to_s - clock.env.now)
        for link in one.links.tolist():
            clock.scale(link, owner, 1.0)


def speed_integral(throttles: Sequence[Throttle], links: Ints, begin: Floats, end: Floats) -> Floats:
    """Return the integral of each link's factor from ``begin`` to ``end`` [links], seconds at full capacity."""
    edges = np.unique([edge for one in throttles for edge in (one.from_s, one.to_s)])
    edges = np.concatenate([[-np.inf], edges[np.isfinite(edges)], [np.inf]])
    total = np.zeros(len(links))
    for since, until in pairwise(edges.tolist()):
        factor = np.ones(len(links))
        for one in throttles:
            if one.from_s <= since and until <= one.to_s:
                factor[np.isin(links, one.links)] *= one.factor
        total += factor * np.maximum(np.minimum(end, until) - np.maximum(begin, since), 0.0)
    return total

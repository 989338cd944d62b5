"""Routes where some links are dead: what is left of the equal ways first, then a detour over another GPU's NIC.

A flow that no dead link is on keeps its way. Another takes another spine, or whatever way of the same length is left.
Where its own NIC, its peer's or their leaf is dead, it goes over NVLink to the next GPU of the node that has a way, and
from the NIC there; or it arrives at the next GPU of the peer's node and goes on over NVLink, as NCCL's PXN does (its
``NCCL_CROSS_NIC=0`` keeps rails, and so does this: a detour crosses switches only where the normal way did, or where
nothing else is left). A GPU's traffic takes one detour, not all of them in turns.

A rank that uses another's NIC by mistake takes the other's ways, NVLink left out: it reaches that NIC through the host.

Not modelled: the host's share of that way, the time until a library has noticed, and the SMs of the GPU that forwards.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moesim.cluster.paths import Ids, ShortestPaths, TwoTierPaths
from moesim.errors import InputError


@dataclass(frozen=True, eq=False)
class FaultyPaths:
    """The routes of ``normal`` without its dead links.

    Attributes:
        normal: the routes of the healthy cluster.
        dead, between_switches: bool[links].
        node: NVLink domain of each rank, ascending, [ranks].
        nic_of: the rank whose NIC each uses: its own but where wrongly mapped, [ranks].
        names: of the ranks.
    """

    normal: TwoTierPaths | ShortestPaths
    dead: npt.NDArray[np.bool_]
    between_switches: npt.NDArray[np.bool_]
    node: Ids
    nic_of: Ids
    names: tuple[str, ...]

    def hops(self, source: Ids, target: Ids, seed: int) -> Ids:
        """Return the links of each flow, int64[flows, longest], -1 where a route is shorter.

        Raises:
            InputError: two ranks that nothing joins any more.
        """
        far = self.node[source] != self.node[target]
        source, target = np.where(far, self.nic_of[source], source), np.where(far, self.nic_of[target], target)
        hops = self.normal.hops(source, target, seed)
        cut = np.flatnonzero(self._on_any(self.dead, hops))
        if not len(cut):
            return hops
        crosses = self._on_any(self.between_switches, hops[cut])
        found: list[tuple[Ids, Ids]] = []
        for may_cross in (False, True):
            for at_source, at_target in self._detours():
                if not len(cut):
                    break
                s, t = source[cut], target[cut]
                by, to = self._neighbour(s, at_source), self._neighbour(t, at_target)
                ways, alive = self._way(s, by, to, t, seed)
                over = self._on_any(self.between_switches, ways)
                taken = alive & (crosses | may_cross | ~over)
                found.append((cut[taken], ways[taken]))
                cut, crosses = cut[~taken], crosses[~taken]
        if len(cut):
            ends = self.names[source[cut[0]]], self.names[target[cut[0]]]
            more = f" (and {len(cut) - 1} more pairs)" if len(cut) > 1 else ""
            raise InputError(f"the faults leave no way from {ends[0]} to {ends[1]}{more}", "faults", "leave one out")
        longest = max(hops.shape[1], *(ways.shape[1] for _, ways in found))
        full = np.full((len(hops), longest), -1, np.int64)
        full[:, : hops.shape[1]] = hops
        for rows, ways in found:
            full[rows] = -1
            full[rows, : ways.shape[1]] = ways
        return full

    @cached_property
    def _left(self) -> TwoTierPaths | ShortestPaths:
        return self.normal.without(self.dead)

    @staticmethod
    def _on_any(links: npt.NDArray[np.bool_], hops: Ids) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = np.asarray((links[hops] & (hops >= 0)).any(1))
        return found

    def _detours(self) -> list[tuple[int, int]]:
        """How many GPUs on from the flow's own it leaves and arrives: those with fewest hops over NVLink first."""
        most = int(np.bincount(self.node).max())
        pairs = [(a, b) for a in range(most) for b in range(most)]
        return sorted(pairs, key=lambda pair: ((pair[0] > 0) + (pair[1] > 0), sum(pair), pair))

    def _neighbour(self, rank: Ids, places: int) -> Ids:
        first = np.searchsorted(self.node, self.node[rank])
        size = np.searchsorted(self.node, self.node[rank], side="right") - first
        return np.asarray(first + (rank - first + places) % size, np.int64)

    def _way(self, source: Ids, by: Ids, to: Ids, target: Ids, seed: int) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Ways source -> by -> to -> target, and which of them are alive."""
        ends = ((source, by), (by, to), (to, target))
        alive = np.logical_and.reduce([self._left.reaches(*pair) for pair in ends])
        legs = []
        for one, other in ends:
            leg = np.full((len(source), 0), -1, np.int64)
            if alive.any():
                some = self._left.hops(one[alive], other[alive], seed)
                leg = np.full((len(source), some.shape[1]), -1, np.int64)
                leg[alive] = some
            legs.append(leg)
        ways = np.concatenate(legs, 1)
        return ways, alive & ~self._on_any(self.dead, ways)

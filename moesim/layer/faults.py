"""Faults of a scenario on its cluster: what each kind holds back, takes away or adds.

A kind is a function of one fault and the fabric that returns its ``Effect``; ``moesim.fault_kinds`` says which keys it
takes. What lasts for the whole run and slows wires is a wire of less capacity; what comes and goes, or slows a GPU, is
a throttle on the run's clock; what is dead is a route.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moesim.cluster import Fabric, FaultyPaths, links_of, ranks_at
from moesim.errors import InputError
from moesim.mistakes import Loc
from moesim.network import Throttle
from moesim.scenario import Fault
from moesim.traffic import Floats, Ints

_NIC = "nic"
_NO_LINKS = np.zeros(0, np.int32)
# Of a time over another: a whole number of attempts stays one.
_ROUNDING = 1e-12
_LEAST_LEFT = 1e-6 * (1 - 1e-9)


@dataclass(frozen=True)
class Late:
    """Ranks that begin steps late: by ``mean_s``, drawn from an exponential distribution unless ``fixed``."""

    ranks: Ints
    mean_s: float
    fixed: bool
    from_s: float
    to_s: float

    def drawn(self, n_ranks: int, begin_s: float, rng: np.random.Generator) -> Floats:
        """Return by how much each rank is late in a step that begins at ``begin_s`` of the run's clock, [ranks]."""
        delay, drawn = np.zeros(n_ranks), rng.exponential(self.mean_s, len(self.ranks))
        if self.from_s <= begin_s < self.to_s:
            delay[self.ranks] = self.mean_s if self.fixed else drawn
        return delay


@dataclass(frozen=True)
class Gone:
    """Ranks that are dead for the whole run, and whether replicas elsewhere take over their experts."""

    ranks: tuple[int, ...]
    replaced: bool


@dataclass(frozen=True)
class Effect:
    """What a fault does.

    Attributes:
        throttles: of links.
        dead: links that no route takes.
        nic_of: ranks and those whose NIC they use instead of their own.
        late: how ranks are late.
        gone: dead ranks, without tokens.
    """

    throttles: tuple[Throttle, ...] = ()
    nic_of: tuple[tuple[int, int], ...] = ()
    late: Late | None = None
    gone: Gone | None = None
    dead: Ints = field(default_factory=lambda: _NO_LINKS)

    def of_group(self, cluster: Fabric, view: Fabric) -> "Effect":
        """Return what the fault does to a group's ranks, by their numbers in its view; wires and routes stay."""
        number = np.full(cluster.n_ranks, -1, np.int32)
        number[view.in_cluster(np.arange(view.n_ranks))] = np.arange(view.n_ranks)
        throttles = (one.renumbered(cluster.n_links, number, view.n_ranks) for one in self.throttles)
        late, gone = self.late, self.gone
        return replace(
            self,
            throttles=tuple(one for one in throttles if len(one.links)),
            late=late and replace(late, ranks=number[late.ranks][number[late.ranks] >= 0]),
            gone=gone and replace(gone, ranks=tuple(rank for rank in number[list(gone.ranks)].tolist() if rank >= 0)),
        )

    @property
    def acts(self) -> bool:
        """Whether there is anything that it is at."""
        at_ranks = [one.ranks for one in (self.late, self.gone) if one is not None]
        return any(map(len, (self.dead, self.nic_of, self.throttles, *at_ranks)))


def _throttled(fault: Fault, links: Ints, factor: float) -> Effect:
    return Effect((Throttle(links, factor, fault.from_s, fault.until_s),))


def _slow_gpu(fault: Fault, fabric: Fabric) -> Effect:
    """The rank's kernels, those of communication too."""
    sm = ranks_at(fabric, fault.places) + fabric.n_links
    return _throttled(fault, np.concatenate([sm, sm + fabric.n_ranks]).astype(np.int32), 1 / (fault.factor or 1.0))


def _slow_nic(fault: Fault, fabric: Fabric) -> Effect:
    return _throttled(fault, _nics(fault, fabric), 1 / (fault.factor or 2.0))


def _dead(fault: Fault, fabric: Fabric) -> Effect:
    """NICs, or all of a switch."""
    switch = fault.kind in ("dead_leaf", "dead_plane")
    return Effect(dead=links_of(fabric, fault.places) if switch else _nics(fault, fabric))


def _nics(fault: Fault, fabric: Fabric) -> Ints:
    """The NIC links of the places; where there is none, what may be slow or flap is any link, such as an uplink."""
    links = links_of(fabric, fault.places)
    nics = links[fabric.is_class(_NIC)[links]]
    if not len(nics) and fault.kind not in ("slow_nic", "flap"):
        raise InputError(f"no NIC at {' and '.join(fault.places)!r:.80} in {fabric.name}", "place", "name a GPU's NIC")
    return nics if len(nics) else links


def _flap(fault: Fault, fabric: Fabric) -> Effect:
    """Down until the first attempt, counted from its beginning, that finds the link up again."""
    assert fault.to_s is not None  # noqa: S101 - the kind needs it
    attempts = math.ceil((fault.to_s - fault.from_s) / fault.retry_s * (1 - _ROUNDING))
    up_s = fault.from_s + fault.retry_s * attempts
    return Effect((Throttle(_nics(fault, fabric), 0.0, fault.from_s, up_s),))


def _background(fault: Fault, fabric: Fabric) -> Effect:
    return _throttled(fault, links_of(fabric, fault.places), 1.0 - (fault.share or 0.0))


def _wrong_nic(fault: Fault, fabric: Fabric) -> Effect:
    ranks, pairs = ranks_at(fabric, fault.places).tolist(), []
    for rank in ranks:
        node = np.flatnonzero(fabric.rank_node == fabric.rank_node[rank]).tolist()
        taken = node[(node.index(rank) + 1) % len(node)]
        if fault.nic is not None:
            taken, *others = ranks_at(fabric, fault.nic.removesuffix(f".{_NIC}")).tolist()
            if others or taken not in node:
                raise InputError(f"{fault.nic!r:.60} is not one GPU of the node of {fabric.rank_names[rank]}", "nic")
        pairs.append((rank, taken))
    return Effect(nic_of=tuple(pairs))


def _ecmp_collision(fault: Fault, fabric: Fabric) -> Effect:
    """Every flow of a leaf that goes up takes the first of its uplinks."""
    leaves = {fabric.link_target[link] for link in np.flatnonzero(fabric.is_class(_NIC))}
    up: dict[str, list[int]] = {}
    for link in links_of(fabric, fault.places).tolist():
        if fabric.between_switches[link] and fabric.link_source[link] in leaves:
            up.setdefault(fabric.link_source[link], []).append(link)
    if min(map(len, up.values()), default=0) < 2:
        fix = "name leaves below several spines; where packets are sprayed, flows do not collide"
        raise InputError(f"flows have no choice of uplinks at {', '.join(fault.places)!r:.80}", "place", fix)
    return Effect(dead=np.array([link for links in up.values() for link in links[1:]], np.int32))


def _jitter(fault: Fault, fabric: Fabric) -> Effect:
    ranks = ranks_at(fabric, fault.places) if fault.places else np.arange(fabric.n_ranks, dtype=np.int32)
    return Effect(late=Late(ranks, fault.delay or 0.0, fault.distribution == "fixed", fault.from_s, fault.until_s))


def _rank_death(fault: Fault, fabric: Fabric) -> Effect:
    """Nothing where the job ends: the times are of a run in which they lived, and a note says so."""
    ranks = tuple(ranks_at(fabric, fault.places).tolist())
    return Effect(gone=None if fault.mode == "abort" else Gone(ranks, fault.mode == "replicas"))


KINDS: dict[str, Callable[[Fault, Fabric], Effect]] = {
    "slow_gpu": _slow_gpu,
    "slow_nic": _slow_nic,
    "half_nic": _slow_nic,
    "dead_nic": _dead,
    "dead_rail": _dead,
    "dead_plane": _dead,
    "dead_leaf": _dead,
    "flap": _flap,
    "wrong_nic": _wrong_nic,
    "ecmp_collision": _ecmp_collision,
    "background": _background,
    "jitter": _jitter,
    "rank_death": _rank_death,
}


def effects(
    faults: Sequence[Fault], fabric: Fabric, blame: Callable[[Loc, str, str], InputError]
) -> tuple[Effect, ...]:
    """Return what each fault does.

    Args:
        faults: of the scenario.
        fabric: the cluster, as it is without them or with them.
        blame: makes the error about the value at a path below the list.

    Raises:
        InputError: a place that the cluster does not have.
    """
    found = []
    for i, fault in enumerate(faults):
        try:
            found.append(KINDS[fault.kind](fault, fabric))
        except InputError as error:
            raise blame((i, "nic" if error.where == "nic" else "where"), error.what, error.fix) from None
        if _left(found, fabric) < _LEAST_LEFT:
            what = "what is left of a link or GPU here, of all faults together, is less than a millionth"
            raise blame((i,), what, "leave one out, or make it milder")
    return tuple(found)


def _left(found: Sequence[Effect], fabric: Fabric) -> float:
    """The least share that the last of some faults and those beside it leave of any link or GPU."""
    left = np.ones(fabric.n_links + 2 * fabric.n_ranks)
    for last in found[-1].throttles:
        for one in (one for effect in found for one in effect.throttles):
            if one.factor > 0 and max(one.from_s, last.from_s) < min(one.to_s, last.to_s):
                left[one.links] *= one.factor
    return float(left.min())


def for_the_whole_run(found: Sequence[Effect], fabric: Fabric) -> Fabric:
    """Return the cluster with the wires and the routes that it has from the first step to the last."""
    capacity, dead = fabric.capacity.copy(), np.zeros(fabric.n_links, np.bool_)
    for effect in found:
        dead[effect.dead] = True
        for one in effect.throttles:
            if _for_ever(one, fabric):
                capacity[one.links] *= one.factor
    nic_of, paths = np.arange(fabric.n_ranks), fabric.paths
    for rank, taken in (pair for effect in found for pair in effect.nic_of):
        nic_of[rank] = taken
    if (dead.any() or (nic_of != np.arange(fabric.n_ranks)).any()) and not isinstance(paths, FaultyPaths):
        node = fabric.rank_node.astype(np.int64)
        paths = FaultyPaths(paths, dead, fabric.between_switches, node, nic_of, fabric.rank_names)
    return replace(fabric, capacity=capacity, paths=paths)


def on_the_clock(found: Sequence[Effect], fabric: Fabric) -> tuple[Throttle, ...]:
    """Return the throttles that ``for_the_whole_run`` leaves to the clock: what comes and goes, and slow GPUs."""
    return tuple(one for effect in found for one in effect.throttles if not _for_ever(one, fabric))


def gone(found: Sequence[Effect]) -> Gone | None:
    """Return the ranks that are dead for the whole run; None for none.

    Raises:
        InputError: some are masked and others replaced.
    """
    all_gone = [effect.gone for effect in found if effect.gone is not None]
    if len({one.replaced for one in all_gone}) > 1:
        raise InputError("dead ranks are masked and replaced in one run", "faults", "give them one mode")
    ranks = sorted({rank for one in all_gone for rank in one.ranks})
    return Gone(tuple(ranks), all_gone[0].replaced) if ranks else None


def _for_ever(one: Throttle, fabric: Fabric) -> bool:
    return one.whole_run and int(one.links.max(initial=-1)) < fabric.n_links

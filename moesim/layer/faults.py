"""Faults of a scenario on its cluster: what each kind holds back, takes away or adds.

A kind is a function of one fault and the fabric that returns its ``Effect``; ``moesim.fault_kinds`` says which keys it
takes. What lasts for the whole run and slows wires is a wire of less capacity; what comes and goes, or slows a GPU, is
a throttle on the run's clock; what is dead is a route.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moesim.cluster import Fabric, LivingPaths, links_of, ranks_at
from moesim.cluster.graph import NIC
from moesim.errors import InputError
from moesim.mistakes import Loc
from moesim.network import Throttle
from moesim.scenario import Fault
from moesim.traffic import Ints


@dataclass(frozen=True)
class Effect:
    """What a fault does: ``throttles`` of links, and ``dead`` links."""

    throttles: tuple[Throttle, ...] = ()
    dead: Ints = field(default_factory=lambda: np.zeros(0, np.int32))


def _throttled(fault: Fault, links: Ints, factor: float) -> Effect:
    return Effect((Throttle(links, factor, fault.from_s, np.inf if fault.to_s is None else fault.to_s),))


def _slow_gpu(fault: Fault, fabric: Fabric) -> Effect:
    """The rank's kernels, those of communication too."""
    sm = ranks_at(fabric, fault.places) + fabric.n_links
    return _throttled(fault, np.concatenate([sm, sm + fabric.n_ranks]).astype(np.int32), 1 / (fault.factor or 1.0))


def _slow_nic(fault: Fault, fabric: Fabric) -> Effect:
    return _throttled(fault, _nics(fault, fabric), 1 / (fault.factor or 1.0))


def _half_nic(fault: Fault, fabric: Fabric) -> Effect:
    return _throttled(fault, _nics(fault, fabric), 0.5)


def _dead(fault: Fault, fabric: Fabric) -> Effect:
    return Effect(dead=_nics(fault, fabric))


def _dead_switch(fault: Fault, fabric: Fabric) -> Effect:
    return Effect(dead=links_of(fabric, fault.places))


def _nics(fault: Fault, fabric: Fabric) -> Ints:
    """The NIC links of the places; all links of a place without one, such as a cable between switches."""
    links = links_of(fabric, fault.places)
    nics = links[fabric.is_class(NIC)[links]]
    return nics if len(nics) else links


KINDS: dict[str, Callable[[Fault, Fabric], Effect]] = {
    "slow_gpu": _slow_gpu,
    "slow_nic": _slow_nic,
    "half_nic": _half_nic,
    "dead_nic": _dead,
    "dead_rail": _dead,
    "dead_plane": _dead_switch,
    "dead_leaf": _dead_switch,
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
            raise blame((i, "where"), error.what, error.fix) from None
    return tuple(found)


def for_the_whole_run(found: Sequence[Effect], fabric: Fabric) -> Fabric:
    """Return the cluster with the wires and the routes that it has from the first step to the last."""
    capacity, dead = fabric.capacity.copy(), np.zeros(fabric.n_links, np.bool_)
    for effect in found:
        dead[effect.dead] = True
        for one in effect.throttles:
            if _for_ever(one, fabric):
                capacity[one.links] *= one.factor
    if dead.any() and not isinstance(paths := fabric.paths, LivingPaths):
        node = fabric.rank_node.astype(np.int64)
        fabric = replace(fabric, paths=LivingPaths(paths, dead, fabric.between_switches, node, fabric.rank_names))
    return replace(fabric, capacity=capacity)


def on_the_clock(found: Sequence[Effect], fabric: Fabric) -> tuple[Throttle, ...]:
    """Return the throttles that ``for_the_whole_run`` leaves to the clock: what comes and goes, and slow GPUs."""
    return tuple(one for effect in found for one in effect.throttles if not _for_ever(one, fabric))


def _for_ever(one: Throttle, fabric: Fabric) -> bool:
    return one.whole_run and int(one.links.max(initial=-1)) < fabric.n_links

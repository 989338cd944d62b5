"""Places of a cluster in one grammar, for whatever names a part of it: overrides, faults, explanations.

====================  ================================================================================
``n3``                node 3: every link at one of its GPUs
``n3.gpu2``           GPU 2 of node 3: every link at it, in both directions
``rail2``             the NIC links of GPU 2 of every node; on a rail-optimised cluster those of one leaf
``leaf1``, ``spine0`` a switch: every link at it
``plane0``            a plane of a multi-plane cluster: every link at one of its switches
``tor-a``             any device by the topology's own name (``rail2.leaf``, ``plane0.leaf1``, ``spines``)
``n3.gpu2.nic``       a place and a link class: those of its links that are of this class
``n3.gpu2->leaf2``    one direction: the links from devices of one place to devices of another
====================  ================================================================================

Nodes and GPUs count in the order of ranks, so that these names work on an explicit topology too; a device's own name
comes first. ``leaf1`` stands for ``rail1.leaf`` on a rail-optimised cluster, where GPU 1 of every node is on leaf 1.
Where packets are sprayed, the spines act as one switch, ``spines``, and there is no ``spine0``.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.cluster.fabric import Fabric
from moesim.cluster.graph import NIC, PCIE
from moesim.errors import InputError
from moesim.mistakes import Loc, dotted
from moesim.units import exact_bandwidth, parse_nic_bandwidth

Ids = NDArray[np.int32]


def links_of(fabric: Fabric, places: str | Sequence[str]) -> Ids:
    """Return the links that a place, or any of several, stands for.

    Args:
        fabric: the cluster.
        places: one place or a list, see above.

    Returns:
        Link ids, ascending, each once.

    Raises:
        InputError: a place that the cluster does not have, or at which there is no link.
    """
    found: set[int] = set()
    for place in [places] if isinstance(places, str) else places:
        found.update(_links(fabric, place))
    return np.array(sorted(found), np.int32)


def ranks_at(fabric: Fabric, places: str | Sequence[str]) -> Ids:
    """Return the ranks whose GPUs a place, or any of several, stands for, ascending.

    Raises:
        InputError: a place that the cluster does not have, or at which there is no GPU.
    """
    found: set[int] = set()
    for place in [places] if isinstance(places, str) else places:
        devices = set(_devices(fabric, place)[0])
        ranks = [rank for rank, name in enumerate(fabric.rank_names) if name in devices]
        if not ranks:
            raise InputError(f"no GPU at {place!r:.80} in {fabric.name}", "place", "name GPUs, such as n0.gpu0 or n0")
        found.update(ranks)
    return np.array(sorted(found), np.int32)


def overridden(
    fabric: Fabric,
    overrides: Sequence[tuple[str | Sequence[str], float]],
    blame: Callable[[Loc, str, str], InputError] = lambda loc, what, fix: InputError(what, dotted(loc), fix),
) -> Fabric:
    """Return the cluster with other capacities at some places.

    Args:
        fabric: the cluster as its topology has it.
        overrides: a place or several, and the bytes/s of each of their links in each direction. Where two name one
            link, the later holds, so that an exception may follow a rule.
        blame: makes the error about the value at a path below the list.

    Raises:
        InputError: places that the cluster does not have, or whose links are of several classes; all of them.
    """
    capacity = fabric.capacity.copy()
    mistakes: list[InputError] = []
    for i, (where, bandwidth) in enumerate(overrides):
        for k, place in enumerate([where] if isinstance(where, str) else where):
            try:
                loc: Loc = (i, "where") if isinstance(where, str) else (i, "where", k)
                links = _of_one_class(fabric, place)
                if fabric.link_class[links[0]] == NIC:
                    loc = (i, "bandwidth")
                    parse_nic_bandwidth(exact_bandwidth(bandwidth))
                capacity[links] = bandwidth
            except InputError as error:
                mistakes.append(blame(loc, error.what, error.fix))
    if mistakes:
        first, *others = mistakes
        raise InputError(first.what, first.where, first.fix, tuple(others))
    return replace(fabric, capacity=capacity)


def _of_one_class(fabric: Fabric, place: str) -> Ids:
    """Links of a place that one bandwidth can be meant for: at a GPU it would slow NVLink down to a NIC."""
    links = links_of(fabric, place)
    classes = list(dict.fromkeys(fabric.link_class[link] for link in links))
    if len(classes) > 1:
        fix = f"name one class: {' or '.join(f'{place}.{name}' for name in classes)}"
        what = f"one bandwidth for links of {len(classes)} classes at {place!r}"
        raise InputError(what, "place", fix if "->" not in place else "name links of one class")
    return links


def _links(fabric: Fabric, place: str) -> list[int]:
    source, arrow, target = (part.strip() for part in place.partition("->"))
    devices, classes = _devices(fabric, source)
    links = [link for device in devices for link in _at(fabric, device)[0]]
    if arrow:
        others, more = _devices(fabric, target)
        ends = set(others)
        classes = classes | more
        reached = dict.fromkeys(fabric.link_target[link] for link in links)
        links = [link for link in links if fabric.link_target[link] in ends]
        fix = f"links lead from there to {', '.join(list(reached)[:8]) or 'nowhere'}"
    else:
        links += [link for device in devices for link in _at(fabric, device)[1]]
        fix = f"link classes there: {', '.join(dict.fromkeys(fabric.link_class[link] for link in links)) or 'none'}"
    links = [link for link in links if not classes or fabric.link_class[link] in classes]
    if not links:
        raise InputError(f"no link {'from ' if arrow else 'at '}{place!r:.80} in {fabric.name}", "place", fix)
    return links


def _at(fabric: Fabric, device: str) -> tuple[list[int], list[int]]:
    return fabric.links_at.get(device, ([], []))


def _devices(fabric: Fabric, place: str) -> tuple[list[str], set[str]]:
    """Devices of a place, and the classes that its links are to be of; none for any class."""
    if place in fabric.links_at:
        return [place], set()
    ranks, node = np.arange(fabric.n_ranks), fabric.rank_node
    index = ranks - np.searchsorted(node, node)
    chosen, classes = np.zeros(fabric.n_ranks, np.bool_), set[str]()
    if of_node := re.fullmatch(r"n([0-9]{1,9})(?:\.gpu([0-9]{1,9}))?", place):
        chosen = node == int(of_node[1])
        if of_node[2]:
            chosen &= index == int(of_node[2])
    elif rail := re.fullmatch(r"rail([0-9]{1,9})", place):
        chosen, classes = index == int(rail[1]), {NIC}
    elif re.fullmatch(r"plane[0-9]{1,9}", place):
        devices = [device for device in fabric.links_at if device.startswith(f"{place}.")]
        if devices:
            return devices, classes
    elif leaf := re.fullmatch(r"leaf([0-9]{1,9})", place):
        alias = f"rail{leaf[1]}.leaf"
        if alias in fabric.links_at:
            return [alias], classes
    if chosen.any():
        return _ports_of([fabric.rank_names[rank] for rank in ranks[chosen]], fabric, classes), classes
    base, _, link_class = place.rpartition(".")
    if link_class in fabric.link_classes and base.rpartition(".")[2] not in fabric.link_classes:
        return _ports_of(_devices(fabric, base)[0], fabric, {link_class}), {link_class}
    raise _unknown(fabric, place)


def _ports_of(devices: list[str], fabric: Fabric, classes: set[str]) -> list[str]:
    """Devices whose links of the class are meant: for the NIC of a GPU on a shared card, that card."""
    if classes != {NIC}:
        return devices
    found = list[str]()
    for device in devices:
        out = _at(fabric, device)[0]
        behind = [fabric.link_target[link] for link in out if fabric.link_class[link] == PCIE]
        found += [device] if any(fabric.link_class[link] == NIC for link in out) else behind
    return list(dict.fromkeys(found))


def _unknown(fabric: Fabric, place: str) -> InputError:
    shapes: dict[str, list[str]] = {}
    for device in fabric.links_at:
        shapes.setdefault(_shape(device), []).append(device)
    ends = [("n0", f"n{fabric.n_nodes - 1}"), ("rail0", f"rail{fabric.ranks_per_node - 1}")]
    ends += [(names[0], names[-1]) for names in shapes.values()]
    fix = f"there are {', '.join(first if first == last else f'{first} to {last}' for first, last in ends[:10])}"
    base = place.rpartition(".")[0]
    known = [*fabric.links_at, *(f"{base}.{name}" for name in fabric.link_classes)]
    # A number too large is told by the range, not by a name that looks like it.
    near = [] if _shape(place) in shapes else difflib.get_close_matches(place, known, 1, 0.75)
    if near:
        fix = f"did you mean {near[0]!r}? {fix}"
    return InputError(f"no place {place!r:.80} in {fabric.name}", "place", fix)


def _shape(name: str) -> str:
    return re.sub(r"[0-9]+", "#", name)

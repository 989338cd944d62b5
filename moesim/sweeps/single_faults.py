"""Every single fault of a cluster, and which of them are alike.

GPUs are slow or dead, cables of every link class are slow, those outside the nodes dead, too, as are rails, planes and
switches outside the nodes. A cable that no byte crosses is left out: its fault costs nothing. Faults are alike where
they are of one kind at places that nothing in the traffic tells apart (``moesim.layer.alike_places``).
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import HOST, NIC, NVLINK, PCIE, Fabric, links_of
from moesim.layer import Alike

_INSIDE = {NVLINK, PCIE, HOST}


class SingleFault(NamedTuple):
    """One fault.

    Attributes:
        what: it is, without its place: ``dead NIC``.
        place: as shown.
        entry: of the scenario's list of faults.
        links, ranks: what it is at.
        marks: its devices and links on a map; a dead GPU has none, or all GPUs would have the colour of an end.
    """

    what: str
    place: str
    entry: dict[str, Any]
    links: tuple[int, ...]
    ranks: tuple[int, ...]
    marks: tuple[str, ...]

    def colours(self, alike: Alike) -> tuple[Any, ...]:
        """What faults that are alike have in common."""
        links, ranks = np.sort(alike.link[list(self.links)]), np.sort(alike.rank[list(self.ranks)])
        return self.what, *links.tolist(), "ranks", *ranks.tolist()


class Severities(NamedTuple):
    """How bad faults are.

    Attributes:
        gpu, link: kernels of a slow GPU and bytes on a slow link take times as long.
        death: mode of a dead GPU: its experts' copies are dropped, or replicas take them.
    """

    gpu: float = 1.5
    link: float = 2.0
    death: Literal["mask", "replicas"] = "mask"

    def said(self) -> str:
        """Return them in words."""
        left = "whose experts' copies are dropped" if self.death == "mask" else "whose experts' replicas take over"
        return (
            f"a slow GPU's kernels take {self.gpu:g} times as long; a slow link has 1/{self.link:g} of its rate; a "
            f"dead GPU is one {left} and whose tokens are gone with it (an engine that cannot do that ends the job); "
            "traffic of dead links and switches has found another way"
        )


def single_faults(fabric: Fabric, used: NDArray[np.bool_], severities: Severities) -> list[SingleFault]:
    """Return every single fault of a cluster at what is ``used``, [links]."""
    found = [*_of_gpus(fabric, severities), *_of_cables(fabric, severities.link), *_of_switches(fabric)]
    return [one for one in found if one.ranks or used[list(one.links)].any()]


def _of_gpus(fabric: Fabric, severities: Severities) -> Iterator[SingleFault]:
    slow: dict[str, Any] = {"kind": "slow_gpu", "factor": severities.gpu}
    dead: dict[str, Any] = {"kind": "rank_death", "mode": severities.death}
    for rank, name in enumerate(fabric.rank_names):
        yield SingleFault(f"GPU {severities.gpu:g} x slower", name, {**slow, "where": name}, (), (rank,), (name,))
        if fabric.n_ranks > 1:
            yield SingleFault("dead GPU", name, {**dead, "where": name}, (), (rank,), ())


def _of_cables(fabric: Fabric, factor: float) -> Iterator[SingleFault]:
    """A cable is all links between two devices."""
    cables: dict[tuple[str, str], list[int]] = {}
    for link, ends in enumerate(zip(fabric.link_source, fabric.link_target, strict=True)):
        ends = ends if ends[::-1] not in cables else ends[::-1]
        cables.setdefault(ends, []).append(link)
    words = {NIC: "NIC", NVLINK: "NVLink"}
    slow = "at half rate" if factor == 2 else f"{factor:g} x slower"
    for (one, other), links in cables.items():
        kind = fabric.link_class[links[0]]
        where: str | list[str] = [fabric.link_names[link] for link in links]
        place = f"{one} - {other}"
        for end in (other, one):  # by the port's name where it is the only one
            own = [link for way in fabric.links_at[end] for link in way if fabric.link_class[link] == kind]
            if sorted(own) == links:
                where, place = f"{end}.{kind}", end
        name, at = words.get(kind, f"{kind} link"), (tuple(links), (), tuple(fabric.link_names[link] for link in links))
        yield SingleFault(f"{name} {slow}", place, {"kind": "slow_nic", "where": where, "factor": factor}, *at)
        # Sprayed spines act as one switch: its links stand for several cables each, which do not die together.
        if kind not in _INSIDE and not any(end.endswith("spines") for end in (one, other)):
            dead = "dead_nic" if kind == NIC else "dead_leaf"  # the links of its places, whichever they are
            yield SingleFault(f"dead {name}", place, {"kind": dead, "where": where}, *at)


def _of_switches(fabric: Fabric) -> Iterator[SingleFault]:
    rails = {f"rail{gpu}.leaf": f"rail{gpu}" for gpu in range(fabric.ranks_per_node)}
    planes: dict[str, list[str]] = {}
    for device, (out, into) in fabric.links_at.items():
        classes = {fabric.link_class[link] for link in (*out, *into)}
        if device in fabric.rank_names or classes & _INSIDE or device.endswith("spines"):
            continue
        prefix = device.partition(".")[0]
        if prefix.startswith("plane"):
            planes.setdefault(prefix, []).append(device)
        rail = rails.get(device)
        what, kind, where = ("rail", "dead_rail", rail) if rail else ("switch", "dead_leaf", device)
        yield SingleFault(f"dead {what}", where, {"kind": kind, "where": where}, (*out, *into), (), (device,))
    for plane, devices in planes.items():
        links = tuple(links_of(fabric, devices).tolist())
        yield SingleFault("dead plane", plane, {"kind": "dead_plane", "where": plane}, links, (), ())

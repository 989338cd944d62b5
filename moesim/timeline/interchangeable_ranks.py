"""All-to-alls among interchangeable ranks: one flow represents each class.

Where ranks of one colour send alike and the network treats them alike, their flows have equal rates at all times, and
so do the links of one kind at these ranks. Of all flows from ranks of a colour to ranks of a colour, inside a node or
across, one is kept, and it loads one link of each kind with as much as all of them together load each such link. The
rates stay max-min fair exactly, because fairness counts each flow's own rate. Sixteen million flows become one.

Ranks are alike when every node has equally many, ports of a kind are equal and shared by none, and no route crosses a
spine; whose node holds other colours has another colour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric, TwoTierPaths
from moesim.errors import InputError
from moesim.network import solve_flows
from moesim.timeline.phase import network_capacity
from moesim.traffic import Exchange, Floats, Ints, PhaseFlows, direct_flows

_KINDS = ("nvlink_out", "nvlink_in", "nic_out", "nic_in")


@dataclass(frozen=True)
class AlikeFlows:
    """What became of an all-to-all among ranks that are alike.

    Attributes:
        flows: the flows from one rank of each colour.
        finish_s: end of each of them, all ranks having entered at 0.
        leave_s: when each rank leaves the phase, [ranks].
        port_bytes: bytes on the busiest port out and in of NVLink, then out and in of the NICs, [4].
    """

    flows: PhaseFlows
    finish_s: Floats
    leave_s: Floats
    port_bytes: Floats


def ranks_are_alike(fabric: Fabric) -> bool:
    """Return whether nothing but its traffic distinguishes one rank of the cluster from another."""
    paths, n = fabric.paths, fabric.n_ranks
    if not isinstance(paths, TwoTierPaths) or paths.plane is not None or paths.pcie_out is not None:
        return False
    if len(set(np.bincount(fabric.rank_node).tolist())) > 1 or len(set(paths.leaf[:n].tolist())) > 1:
        return False
    ports = [getattr(paths, kind)[:n] for kind in _KINDS]
    if fabric.n_nodes > 1 and min(port.min() for port in ports[2:]) < 0:
        return False
    return all(
        len(set(values[port[port >= 0]].tolist())) <= 1
        for port in ports
        for values in (fabric.capacity, fabric.latency)
    )


def refined(fabric: Fabric, colour: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinguish ranks by their own colour and by the colours in their node, [ranks]."""
    in_node = np.zeros((fabric.n_nodes, colour.max() + 1), np.int64)
    np.add.at(in_node, (fabric.rank_node, colour), 1)
    seen = np.column_stack([colour, in_node[fabric.rank_node]])
    return np.unique(seen, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def solve_alike(exchange: Exchange, sent: NDArray[np.int64], colour: NDArray[np.int64]) -> AlikeFlows:
    """Run a direct all-to-all among ranks that are alike but for their colour; all enter at 0.

    Args:
        exchange: what is to be moved, on a fabric for which ``ranks_are_alike``.
        sent: copies from each rank to each rank; equal for ranks of equal colours, [ranks, ranks].
        colour: from 0 on, [ranks].
    """
    fabric, paths = exchange.fabric, exchange.fabric.paths
    if not isinstance(paths, TwoTierPaths):
        raise InputError(f"{fabric.name} is not a regular cluster", fix="run every flow by itself")
    colour = refined(fabric, colour)
    n_colours = int(colour.max()) + 1
    count = np.bincount(colour)
    first = np.array([int(np.argmax(colour == each)) for each in range(n_colours)], np.int32)
    flows = direct_flows(exchange, sent, first)

    # A class: from a colour, to a colour, inside a node or across.
    near = fabric.rank_node[flows.source] == fabric.rank_node[flows.target]
    key = (colour[flows.source] * n_colours + colour[flows.target]) * 2 + near
    _, one_of_class, class_of = np.unique(key, return_index=True, return_inverse=True)
    n_classes = len(one_of_class)

    # What the class loads on one link of each kind at each colour.
    kind, owner = _kinds(fabric, paths)
    ptr, links, weight = flows.resources(fabric.n_links + fabric.n_ranks)
    flow = np.repeat(np.arange(flows.n_flows), np.diff(ptr))
    place = kind[links] * n_colours + colour[owner[links]]
    alike = count[colour[flows.source[flow]]] / count[colour[owner[links]]]
    n_places = (len(_KINDS) + 1) * n_colours
    load = np.bincount(class_of[flow] * n_places + place, weights=weight * alike, minlength=n_classes * n_places)
    load = load.reshape(n_classes, n_places)
    used = load > 0
    capacity = np.ones(n_places)
    capacity[place] = network_capacity(fabric)[links]

    launch = flows.entry_setup_s + flows.group_setup_s
    finish = solve_flows(
        capacity,
        np.zeros(n_places),
        np.concatenate([[0], np.cumsum(used.sum(1))]),
        np.nonzero(used)[1],
        flows.size[one_of_class],
        launch + flows.delay_s[one_of_class],
        load[used],
        None if flows.rate_cap is None else flows.rate_cap[one_of_class],
    )
    leave = np.full(n_colours, flows.entry_setup_s)
    waiting_ptr, waiting = flows.waiting
    np.maximum.at(leave, colour[waiting], np.repeat(finish[class_of], np.diff(waiting_ptr)))
    least = flows.delay_s if flows.least_s is None else np.maximum(flows.delay_s, flows.least_s)
    np.maximum.at(leave, colour[flows.member_ranks], np.repeat(launch + least, np.diff(flows.member_ptr)))
    if flows.all_ranks_leave:
        leave[:] = leave.max()
    if flows.exit_s is not None:
        leave += flows.exit_s[first]
    wires = place < len(_KINDS) * n_colours
    on_port = np.bincount(place[wires], weights=(flows.size[flow] * alike)[wires], minlength=n_places)
    return AlikeFlows(flows, finish[class_of], leave[colour], on_port.reshape(-1, n_colours).max(1)[: len(_KINDS)])


def _kinds(fabric: Fabric, paths: TwoTierPaths) -> tuple[Ints, Ints]:
    """Kind and rank of each of the network's links: ports, sm, communication kernels."""
    n = fabric.n_ranks
    kind = np.full(fabric.n_links + 2 * n, -1, np.int32)
    owner = np.zeros(fabric.n_links + 2 * n, np.int32)
    kind[fabric.n_links + n :] = len(_KINDS)
    owner[fabric.n_links :] = np.tile(np.arange(n), 2)
    for number, name in enumerate(_KINDS):
        port = getattr(paths, name)[:n]
        kind[port[port >= 0]] = number
        owner[port[port >= 0]] = np.flatnonzero(port >= 0)
    return kind, owner

"""Which GPUs make up each expert-parallel group of a cluster: placements by name, or from a file.

A piece is the largest block of GPUs that divides both a group and a node: a whole node for groups of whole nodes.

==========  ============================================================================================
packed      group 0 takes the first GPUs of the cluster, group 1 the next, and so on
striped     pieces are dealt to the groups in turn: of four groups, node 5 belongs to group 1
rails       every group takes its share of the GPUs, and so of the rails, of every node
random      pieces drawn from the whole cluster without order, as a scheduler leaves them; a function of the seed
a file      a line for each group, with its nodes and GPUs: ``n0 n1 n2.gpu0``; what follows ``#`` is a comment
==========  ============================================================================================
"""

import math
from pathlib import Path

import numpy as np

from moesim.broken_files import content, reading
from moesim.cluster.fabric import Fabric
from moesim.cluster.paths import Ids
from moesim.cluster.places import ranks_at
from moesim.errors import InputError
from moesim.placement_policies import GROUP_PLACEMENTS

WHERE = "parallel.group_placement"
_MOST_BYTES = 10**7


def group_fabrics(fabric: Fabric, placement: str, n_groups: int, ep: int, seed: int = 0) -> list[Fabric]:
    """Return each group's view of the cluster: its own ranks, in the order of the cluster, on the links of all.

    Args:
        fabric: the whole cluster.
        placement: by name, or the path of a file.
        n_groups: of ``ep`` GPUs each.
        ep: ranks of a group.
        seed: of a random placement.

    Raises:
        InputError: too few GPUs, a placement that does not fit the nodes, or a file with a mistake in it.
    """
    if n_groups * ep > fabric.n_ranks:
        what = f"{n_groups} groups of {ep} GPUs do not fit {fabric.name}, which has {fabric.n_ranks}"
        raise InputError(what, "parallel.dp", "lower dp or choose a larger topology")
    known = placement in GROUP_PLACEMENTS
    ranks = _placed(fabric, placement, n_groups, ep, seed) if known else _read(fabric, Path(placement), n_groups, ep)
    views = [fabric.some_ranks(np.sort(own)) for own in ranks]
    per_node = views[0].ranks_per_node
    for group, view in enumerate(views):
        if (view.rank_node != np.arange(ep) // per_node).any():
            raise InputError(
                f"{placement!r:.80}: group {group} has other numbers of GPUs on its nodes than {per_node} each",
                WHERE,
                "give every group equally many GPUs of each of its nodes (of the last one, fewer)",
            )
    return views


def _placed(fabric: Fabric, placement: str, n_groups: int, ep: int, seed: int) -> list[Ids]:
    gpus, per_node = np.arange(fabric.n_ranks), fabric.ranks_per_node
    if placement == "rails":
        own, nodes = per_node // n_groups, n_groups * ep // per_node
        if per_node % n_groups or ep % max(own, 1):
            what = f"{n_groups} groups of {ep} GPUs cannot share the {per_node} GPUs of every node evenly"
            raise InputError(what, WHERE, "use packed or striped")
        first = gpus[: nodes * per_node].reshape(nodes, n_groups, own)
        return [first[:, group].ravel() for group in range(n_groups)]
    piece = math.gcd(ep, per_node)
    pieces = gpus[: fabric.n_ranks // piece * piece].reshape(-1, piece)
    count = ep // piece
    match placement:
        case "striped":
            return [pieces[group : n_groups * count : n_groups].ravel() for group in range(n_groups)]
        case "random":
            drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,))).permutation(len(pieces))
            pieces = pieces[drawn]
    return [pieces[group * count : (group + 1) * count].ravel() for group in range(n_groups)]


def _read(fabric: Fabric, path: Path, n_groups: int, ep: int) -> list[Ids]:
    """Read a file of groups, every mistake with its line."""
    with reading(path, "give a line of nodes and GPUs for each group"):
        text = content(path, _MOST_BYTES).decode()
    found, owner = list[Ids](), dict[int, int]()
    for number, line in enumerate(text.splitlines(), 1):
        places = line.partition("#")[0].replace(",", " ").split()
        if not places:
            continue
        where = f"{path}:{number}"
        if len(places) > ep:  # a GPU each at least
            raise InputError(f"group {len(found)} has {len(places)} places", where, f"give it parallel.ep = {ep} GPUs")
        try:
            ranks = [rank for place in places for rank in ranks_at(fabric, place).tolist()]
        except InputError as error:
            raise InputError(error.what, where, error.fix) from None
        for rank in ranks:
            if rank in owner:
                what = f"{fabric.rank_names[rank]} is in group {owner[rank]} already"
                raise InputError(what, where, "name every GPU once")
            owner[rank] = len(found)
        if len(ranks) != ep:
            raise InputError(f"group {len(found)} has {len(ranks)} GPUs", where, f"give it parallel.ep = {ep}")
        found.append(np.array(ranks, np.int64))
    if len(found) != n_groups:
        what = f"{len(found)} groups, and dp x tp / ep = {n_groups}"
        raise InputError(what, str(path), f"give {n_groups} lines of nodes and GPUs")
    return found


def places_of_group(cluster: Fabric, view: Fabric) -> str:
    """Return where a group's ranks are in a few words: ``n0 to n7``, ``n0, n4, n8``, or ``gpu0, gpu1 of n0 to n31``.

    Args:
        cluster: the whole.
        view: the group's, of equally many GPUs on each of its nodes.
    """
    ranks = view.in_cluster(np.arange(view.n_ranks))
    node, index = cluster.rank_node[ranks], ranks - np.searchsorted(cluster.rank_node, cluster.rank_node[ranks])
    nodes = np.unique(node).tolist()
    if len(nodes) > 2 and nodes[-1] - nodes[0] == len(nodes) - 1:
        text = f"n{nodes[0]} to n{nodes[-1]}"
    else:
        text = ", ".join(f"n{one}" for one in nodes[:8]) + f" and {len(nodes) - 8} more" * (len(nodes) > 8)
    if view.ranks_per_node == cluster.ranks_per_node:
        return text
    return f"{', '.join(f'gpu{one}' for one in index[node == nodes[0]].tolist())} of {text}"

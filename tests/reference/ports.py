"""What the ports need for a move of weights, counted by hand."""

import numpy as np


def busiest_ports(moves, rank_node):
    """The most moves through one NVLink port and through one NIC, in one direction."""
    inside = np.asarray(rank_node)[moves.source] == np.asarray(rank_node)[moves.target]
    return tuple(
        max(int(np.bincount(ends[kind]).max(initial=0)) for ends in (moves.source, moves.target))
        for kind in (inside, ~inside)
    )


def migration_bound_s(moves, rank_node, n_bytes, nvlink_rate, nic_rate):
    """Seconds of the busiest port for one layer; ``n_bytes`` of an expert, rates in bytes/s."""
    nvlink, nic = busiest_ports(moves, rank_node)
    return n_bytes * max(nvlink / nvlink_rate, nic / nic_rate)

"""The all-to-all algorithms: from copies per pair to flows on links.

Which of them lays an algorithm's flows is in its record (``moesim.alltoall_library``).

``direct`` holds those that send straight to a rank, ``pxn`` NCCL's over a local GPU on the destination's rail, ``tree``
the hierarchical ones, ``ring`` all-gather with reduce-scatter.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.alltoall_library import algorithm_named
from moesim.cluster import Fabric
from moesim.traffic.constants import Calibration
from moesim.traffic.copies import Copies
from moesim.traffic.direct import check_one_domain, direct_flows
from moesim.traffic.exchange import Exchange
from moesim.traffic.flows import PhaseFlows, with_packets
from moesim.traffic.pxn import pxn_flows
from moesim.traffic.ring import ring_flows
from moesim.traffic.tree import tree_flows


def phase_flows(
    fabric: Fabric,
    copies: Copies,
    constants: Calibration,
    phase: str,
    bytes_per_copy: int,
    cached_handle: bool = False,
    ecmp_seed: int = 0,
    tokens: NDArray[np.int64] | None = None,
    n_experts: int = 0,
) -> PhaseFlows:
    """Build the flows of one phase.

    Args:
        fabric: links and routes.
        copies: what each rank sends, per selection, per rank and per node, [ranks, ranks or nodes]; own ones included.
        constants: rates, set-up times and SMs of the algorithm on this GPU.
        phase: ``dispatch`` (tokens to experts) or ``combine`` (the same copies back).
        bytes_per_copy: bytes of one copy on the wire.
        cached_handle: the layout is known already: no layout kernel, no exchange of counts, no CPU wait.
        ecmp_seed: seed of the fabric's path hash.
        tokens: tokens that start on each rank, [ranks]; some constants, and all-gather, need them.
        n_experts: experts of the layer, replicas included, for what depends on them.

    Returns:
        Flows of all pairs, those without bytes included, since a rank waits for them too.

    Raises:
        InputError: the algorithm does not fit the cluster, or needs ``tokens``.
    """
    algorithm = algorithm_named(constants.algorithm)
    exchange = Exchange(
        fabric=fabric,
        copies=copies,
        constants=constants.spanning(fabric.n_nodes),
        phase=phase,
        bytes_per_copy=bytes_per_copy,
        fresh=not cached_handle,
        ecmp_seed=ecmp_seed,
        given_tokens=tokens,
        n_experts=n_experts,
    )
    if algorithm.one_domain:
        check_one_domain(fabric, algorithm.name)
    return with_packets(_flows(exchange), fabric)


def _flows(exchange: Exchange) -> PhaseFlows:
    algorithm, copies = exchange.algorithm, exchange.copies
    match algorithm.flows:
        case "pairs":
            return direct_flows(exchange, copies.selections if algorithm.copies == "selection" else copies.rank_copies)
        case "trees":
            return tree_flows(exchange)
        case "proxies":
            return pxn_flows(exchange)
        case "rings":
            return ring_flows(exchange)

"""The all-to-all algorithms: one record each, with every fact about it that is not a measured constant.

The records are ``data/algorithms.toml``. The scenario takes its names, its checks and its schema from here,
``moesim.traffic`` who waits for whom, which flows carry what, and the bytes of a copy, the summary and
``moesim.validate`` what the library's own benchmark prints. How each kind of flows is laid on links stands in
``moesim.traffic``; measured constants are data (``moesim/data/calibration``). No array library is imported, so that
reading a scenario stays quick.

An algorithm that lays its flows like one that is here needs a record and a set of constants, nothing else.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moesim.errors import InputError

Flows = Literal["pairs", "trees", "proxies", "rings"]
Gate = Literal["source", "ends", "all"]
Layout = Literal["payload", "header", "experts", "packed", "parts"]
Transport = Literal["ibgda", "ibrc", "proxy", "efa-gda", "efa-proxy", "uccl"]
"""Who posts to the NIC: the GPU itself (GPU-initiated: IBGDA on ConnectX, EFA's own), or a proxy thread on the CPU,
NVSHMEM's or UCCL's own."""
PROXIES = ("proxy", "efa-proxy", "uccl")


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What sets one all-to-all apart.

    Attributes:
        name: as in a scenario.
        description: the library and its mode, in a few words.
        flows: what shares bandwidth as one. ``pairs``: every pair of ranks. ``trees``: a token's rank and a node, over
            the rail to the GPU of the same index there, which forwards. ``proxies``: pairs inside a node, and all that
            a node has for one rank elsewhere, over its GPU on that rank's rail. ``rings``: every rank's tokens, from
            GPU to GPU.
        copies: what travels: a copy per ``selection``, per distinct ``rank``, per distinct ``node`` and from there per
            rank, or every token to ``all`` ranks.
        gates: who must have entered before a flow starts, in dispatch and in combine. A put needs its ``source``, send
            and receive need both ``ends`` (of a tree: its source and whoever forwards or contributes); where the kernel
            opens with a barrier or an exchange of counts, ``all``.
        closing_barrier: the phases that end with a barrier: no rank leaves before all flows are done.
        handle: layout and counts can be kept from an earlier dispatch (``cached_handle``). Without them dispatch starts
            with an exchange of counts, for which all ranks must have entered.
        receive_hook: the kernel can leave its SMs while bytes are on the wire (``receive_hook``).
        posted: what goes over the NIC is posted and forgotten: the kernels poll the flags of what they receive, never
            the completion of what they send. DeepEP's ``internode_ll.cu``, dispatch and combine: puts are non-blocking
            and nothing waits for them. Copies over NVLink are loads and stores of the kernel itself.
        nic_only: a GPU of the own node is reached over the NIC too.
        one_domain: all ranks share one NVLink domain.
        permutes_first: tokens are sorted by expert before dispatch and put back after combine, as around a plain
            all-to-all; else received tokens are sorted after dispatch.
        permutes_inside: the communication kernels do that themselves.
        quantises_inside: the dispatch kernel casts to FP8 itself.
        layout: what a copy is on the wire beside its ``payload``: a ``header`` of 16 bytes in dispatch, ids and weights
            of the token's ``experts`` in dispatch, both with source metadata ``packed`` behind it and aligned to 16
            bytes, or channels, scales and metadata in ``parts`` of 32-byte multiples.
        benchmark: the library whose benchmark measures it, as in ``moesim.validate``; None: none is read.
        counts_selections: the RDMA GB/s that this benchmark prints count every selection, those over NVLink and to the
            own rank included. That of trees counts copies per node, own ones included.
    """

    name: str
    description: str
    flows: Flows
    copies: Literal["selection", "rank", "node", "all"]
    gates: tuple[Gate, Gate]
    closing_barrier: tuple[Literal["dispatch", "combine"], ...] = ()
    handle: bool = False
    receive_hook: bool = False
    posted: bool = False
    nic_only: bool = False
    one_domain: bool = False
    permutes_first: bool = False
    permutes_inside: bool = False
    quantises_inside: bool = False
    layout: Layout = "payload"
    benchmark: str | None = None
    counts_selections: bool = False

    def gate(self, phase: str, fresh: bool) -> Gate:
        """Who must have entered before a flow of this phase starts; ``fresh``: without a handle from before."""
        if phase == "dispatch":
            return "all" if fresh and self.handle else self.gates[0]
        return self.gates[1]


def _known() -> dict[str, Algorithm]:
    rows = tomllib.loads((Path(__file__).parent / "data" / "algorithms.toml").read_text(encoding="utf-8"))
    lists = ("gates", "closing_barrier")
    return {
        name: Algorithm(name=name, **row | {key: tuple(row[key]) for key in lists if key in row})
        for name, row in rows.items()
    }


_KNOWN = _known()
ALGORITHMS = tuple(_KNOWN)


def transport_by_card(algorithm: str, card: str) -> Transport:
    """What posts to a NIC of this kind where nothing is said: the GPU on ConnectX, on EFA where the library can."""
    if card == "efa":
        return "efa-gda" if algorithm.startswith("deepep-v2") else "efa-proxy"
    return "ibgda"


def algorithm_named(name: str) -> Algorithm:
    """Return an algorithm.

    Raises:
        InputError: there is none of this name.
    """
    if name not in _KNOWN:
        raise InputError(f"unknown all-to-all algorithm {name!r}", fix=f"use one of {', '.join(ALGORITHMS)}")
    return _KNOWN[name]

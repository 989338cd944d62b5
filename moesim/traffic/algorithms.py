"""The all-to-all algorithms by name, and what sets them apart beside their flows and constants."""

from dataclasses import dataclass
from typing import Literal

from moesim.errors import InputError


@dataclass(frozen=True)
class Algorithm:
    """What other stages must know about an all-to-all.

    Attributes:
        name: as in a scenario.
        copies: what travels: a copy per ``selection``, per distinct ``rank``, per distinct ``node`` and from there per
            rank, or every token to ``all`` ranks.
        permutes_first: tokens are sorted by expert before dispatch and put back after combine, as around a plain
            all-to-all; else received tokens are sorted after dispatch.
        permutes_inside: the communication kernels do that themselves.
        quantises_inside: the dispatch kernel casts to FP8 itself.
        one_domain: all ranks share one NVLink domain.
        posted: what goes over the NIC is posted and forgotten: the kernels poll the flags of what they receive, never
            the completion of what they send. DeepEP's ``internode_ll.cu``, dispatch and combine: puts are non-blocking
            and nothing waits for them. Copies over NVLink are loads and stores of the kernel itself.
    """

    name: str
    copies: Literal["selection", "rank", "node", "all"]
    permutes_first: bool = False
    permutes_inside: bool = False
    quantises_inside: bool = False
    one_domain: bool = False
    posted: bool = False


_KNOWN = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("nccl-direct", "selection", permutes_first=True),
        Algorithm("nccl-pxn", "selection", permutes_first=True),
        Algorithm("deepep-normal", "node"),
        Algorithm("deepep-v2-hybrid", "node"),
        Algorithm("deepep-v2-direct", "rank"),
        Algorithm("hybrid-ep", "node"),
        Algorithm("deepep-low-latency", "selection", permutes_inside=True, quantises_inside=True, posted=True),
        Algorithm("deepep-low-latency-nic", "selection", permutes_inside=True, quantises_inside=True, posted=True),
        Algorithm("nvl-one-sided", "rank", one_domain=True),
        Algorithm("nvl-two-sided", "rank", one_domain=True),
        Algorithm("allgather-reduce-scatter", "all"),
    )
}
ALGORITHMS = tuple(_KNOWN)


def algorithm_named(name: str) -> Algorithm:
    """Return an algorithm.

    Raises:
        InputError: there is none of this name.
    """
    if name not in _KNOWN:
        raise InputError(f"unknown all-to-all algorithm {name!r}", fix=f"use one of {', '.join(ALGORITHMS)}")
    return _KNOWN[name]

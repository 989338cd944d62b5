"""The kinds of faults of a cluster that a scenario can ask for: what each does and which keys it takes.

For the scenario, which imports no arrays. ``moesim.layer.faults`` has the function of each kind; a new kind is a row
here and a function there.
"""

from typing import NamedTuple

RETRY_S = 4.096e-6 * 2**20
"""After so long an InfiniBand or RoCE NIC sends again what was not acknowledged: 4.096 us x 2^time-out (InfiniBand
Architecture Specification, local ACK timeout) with NCCL_IB_TIMEOUT's default of 20; 4.3 s."""

NOTICED_S = 100.0
"""After so long DeepEP's kernels give up waiting for a peer: NUM_CPU_TIMEOUT_SECS of its configs.cuh."""


class FaultKind(NamedTuple):
    """One kind: ``does`` in words; keys that it ``needs`` and ``takes`` beside ``kind``."""

    does: str
    needs: tuple[str, ...] = ("where",)
    takes: tuple[str, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether it may begin and end during a run."""
        return "to" in self.keys

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key beside ``kind``."""
        return self.needs + self.takes


_WINDOW = ("from", "to")

FAULT_KINDS = {
    "slow_gpu": FaultKind("kernels on these GPUs take factor times as long", ("where", "factor"), _WINDOW),
    "slow_nic": FaultKind("these NICs (or other links, where the place has no NIC) are factor times slower",
                          ("where", "factor"), _WINDOW),
    "half_nic": FaultKind("one of two ports of these NICs is down: half the rate", takes=_WINDOW),
    "dead_nic": FaultKind("these NICs are gone: their traffic takes the NIC of the next GPU of the node"),
    "dead_rail": FaultKind("the NICs of one rail are gone, as dead_nic for each"),
    "dead_plane": FaultKind("all NICs of one plane are gone, as dead_nic for each"),
    "dead_leaf": FaultKind("a switch is gone: traffic takes other spines, or other leaves over other GPUs' NICs"),
}  # fmt: skip
"""By name."""

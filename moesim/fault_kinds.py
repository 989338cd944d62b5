"""The kinds of faults of a cluster that a scenario can ask for: what each does and which keys it takes.

For the scenario, which imports no arrays. ``moesim.layer.faults`` has the function of each kind; a new kind is a row
here and a function there.
"""

from typing import NamedTuple

RETRY_S = 4.096e-6 * 2**20
"""After so long an InfiniBand or RoCE NIC sends again what was not acknowledged: 4.096 us x 2^time-out (InfiniBand
Architecture Specification, local ACK timeout) with NCCL_IB_TIMEOUT's default of 20; 4.3 s."""

RETRIES = 7
"""Attempts after which a connection fails: NCCL_IB_RETRY_CNT's default."""

NOTICED_S = 100.0
"""After so long DeepEP's kernels give up waiting for a peer: NUM_CPU_TIMEOUT_SECS of its configs.cuh."""


class FaultKind(NamedTuple):
    """One kind: what it ``does``, keys that it ``needs`` and ``takes`` beside ``kind``, what its times ``rests_on``."""

    does: str
    needs: tuple[str, ...] = ("where",)
    takes: tuple[str, ...] = ()
    rests_on: str = ""

    @property
    def timed(self) -> bool:
        """Whether it may begin and end during a run."""
        return "to" in self.keys

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key beside ``kind``."""
        return self.needs + self.takes


_WINDOW = ("from", "to")
_DETOUR = "detours stand from the first byte on; when libraries notice, and what forwarding costs GPUs, is left out"

FAULT_KINDS = {
    "slow_gpu": FaultKind("kernels on these GPUs take factor times as long", ("where", "factor"), _WINDOW),
    "slow_nic": FaultKind("these NICs (or other links, where the place has no NIC) are factor times slower",
                          ("where", "factor"), _WINDOW),
    "half_nic": FaultKind("one of two ports of these NICs is down: half the rate", takes=_WINDOW),
    "dead_nic": FaultKind("these NICs are gone: their traffic takes the next GPU's of the node", rests_on=_DETOUR),
    "dead_rail": FaultKind("the NICs of one rail are gone, as dead_nic for each", rests_on=_DETOUR),
    "dead_plane": FaultKind("all NICs of one plane are gone, as dead_nic for each", rests_on=_DETOUR),
    "dead_leaf": FaultKind("a switch is gone: traffic takes other spines, or other leaves over other GPUs' NICs",
                           rests_on=_DETOUR),
    "flap": FaultKind("these NICs (or links) are down and come back; traffic goes on at the first retry after that",
                      ("where", "to"), ("from", "retry"),
                      "all flows of the link go on at the same retry, also those that begin after it is up again"),
    "wrong_nic": FaultKind("these GPUs use the NIC of another GPU of their node, by default the next one's",
                           takes=("nic",), rests_on="the way through the host is taken to be as fast as the NIC"),
    "ecmp_collision": FaultKind("all flows that leave these leaves for spines take one of their uplinks",
                                rests_on="the worst that the hash can do, not a probable draw of it"),
    "background": FaultKind("others take a share of these links all the time: a congested uplink",
                            ("where", "share"), _WINDOW,
                            "the others take their share whatever this run asks for; they do not back off"),
    "jitter": FaultKind("these ranks (by default all) begin their steps late, by delay in the mean",
                        ("delay",), ("where", "distribution", *_WINDOW)),
    "rank_death": FaultKind("these GPUs are gone: the job aborts, their experts' copies are masked, or replicas "
                            "elsewhere take them", takes=("mode", "from"),
                            rests_on="dead ranks stay on the clock without tokens, and nobody waits to notice"),
}  # fmt: skip
"""By name."""

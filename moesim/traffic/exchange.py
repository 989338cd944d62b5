"""One all-to-all to be laid on wires: where, what, with which constants; and what every algorithm takes from them.

The terms of ``Calibration`` become arrays here: set-up and fill of each flow, seconds of the ranks' communication
kernels, work after the last byte. The modules of the algorithms add routes, shares and which ranks wait for which.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.alltoall_library import Algorithm, Gate, algorithm_named
from moesim.cluster import Fabric
from moesim.errors import InputError
from moesim.traffic.constants import Calibration
from moesim.traffic.copies import Copies
from moesim.traffic.flows import Floats, Ints, KernelWork
from moesim.traffic.row_merge import merge_rows

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Exchange:
    """One dispatch or combine.

    Attributes:
        fabric: links and routes.
        copies: what each rank's tokens ask for, per selection, per rank and per node; own ones included.
        constants: terms of the algorithm for a group of this many nodes.
        phase: ``dispatch`` (tokens to experts) or ``combine`` (the same copies back).
        bytes_per_copy: bytes of one copy on the wire.
        fresh: nothing is known yet: layout, exchange of counts and CPU synchronisation come first.
        ecmp_seed: seed of the fabric's path hash.
        given_tokens: tokens that start on each rank, [ranks]; None if not given.
        n_experts: experts of the layer, replicas included; 0 if not given.
    """

    fabric: Fabric
    copies: Copies
    constants: Calibration
    phase: str
    bytes_per_copy: int
    fresh: bool
    ecmp_seed: int
    given_tokens: Counts | None
    n_experts: int

    @property
    def algorithm(self) -> Algorithm:
        """What sets the all-to-all apart."""
        return algorithm_named(self.constants.algorithm)

    @property
    def gate(self) -> Gate:
        """Who must have entered before a flow starts."""
        return self.algorithm.gate(self.phase, self.fresh)

    @property
    def is_dispatch(self) -> bool:
        """Whether tokens travel to their experts, rather than back."""
        return self.phase == "dispatch"

    @property
    def tokens(self) -> Counts:
        """Tokens of each rank, [ranks].

        Raises:
            InputError: the number of tokens is not given, but a term of the constants needs it.
        """
        if self.given_tokens is None:
            what = f"the constants {self.constants.name!r} of {self.constants.algorithm} depend on tokens per rank"
            raise InputError(what, fix="choose an algorithm or a set whose terms depend on bytes alone")
        return self.given_tokens

    def terms(self) -> dict[str, Any]:
        """Fields of ``PhaseFlows`` that are the same for every algorithm."""
        constants, fabric = self.constants, self.fabric
        fresh = self.fresh and self.is_dispatch
        most = 0
        if fresh and constants.prepare_token_s:
            most = int(self.tokens.max())
        return {
            "phase": self.phase,
            "all_ranks_gate": self.gate == "all",
            "all_ranks_leave": self.phase in self.algorithm.closing_barrier,
            "entry_setup_s": constants.layout_s if fresh else 0.0,
            "group_setup": constants.exchange(fabric.n_nodes, fabric.n_ranks, most) if fresh else {},
            "sms": constants.sms,
            "total_sms": constants.total_sms,
            "exits": self._exits(),
        }

    def link_efficiency(self) -> Floats:
        """Share of its peak that the algorithm reaches on each link, [links]."""
        names = set(self.fabric.link_class)
        by_class = {name: self.constants.efficiency(name, self.fabric.n_ranks) for name in names}
        return np.array([by_class[name] for name in self.fabric.link_class])

    def delays(self, latency: Floats, same_node: NDArray[np.bool_], home: Ints) -> dict[str, Floats]:
        """Time from each flow's gate to its first byte, by what it waits for: route latency, set-up, fill.

        Args:
            latency: of each flow's route, [flows].
            same_node: whether the flow stays inside a node, [flows].
            home: rank whose tokens the flow carries, [flows].
        """
        constants, fabric = self.constants, self.fabric
        added, reached = np.zeros(len(home)), np.zeros(len(home))
        if constants.setup_peer_doubling_s:
            reached = constants.reached_s((self.copies.rank_copies > 0).sum(axis=1))[home]
        for inside in (True, False):
            of_kind = same_node == inside
            if of_kind.any() and fabric.n_ranks > 1:
                setup = constants.setup_s(inside, fabric.n_nodes, fabric.n_ranks, self.n_experts)
                # The longest route's latency is in the set-up already.
                added[of_kind] = np.maximum(0.0, setup + reached[of_kind] - float(latency[of_kind].max()))
        parts = {"route latency": latency, "set-up": added}
        if constants.fill_s and fabric.n_ranks > 1 and not constants.apart(fabric.n_ranks):
            parts["fill"] = self._fill_s()[home]
        return parts

    def least_s(self, n_flows: int) -> Floats | None:
        """Least stay of the ranks that wait for a flow, [flows]; None where there is no floor."""
        least = self.constants.least_s(self.fabric.n_ranks)
        return np.full(n_flows, least) if least else None

    def kernel(
        self,
        size: Floats,
        home: Ints,
        node_copies: Counts | None,
        rank_copies: Counts,
        at_rank: Ints,
        receiver: Ints | None = None,
    ) -> KernelWork | None:
        """Seconds of the ranks' kernels that each flow needs; None where no term asks for any.

        Args:
            size: bytes of each flow.
            home: rank whose tokens the flow carries; does the work per token and per copy to a node.
            node_copies: copies to a node in the flow; None where there are none.
            rank_copies: copies to ranks in the flow; ``at_rank`` does the work on them.
            at_rank: who handles the copies to ranks.
            receiver: rank that unpacks the flow's bytes; None if no rank has to.
        """
        constants = self.constants
        if self.fabric.n_ranks == 1:
            return None  # a rank of its own sends nothing
        sms = max(constants.sms, 1)
        flow = np.arange(len(size))
        pieces: list[tuple[Ints, Floats]] = []

        def add(rank: Ints, seconds: NDArray[Any]) -> None:
            pieces.append((rank, seconds.astype(np.float64)))

        per_token = self._token_work_s()
        if per_token is not None:
            of_home = np.bincount(home, weights=size, minlength=self.fabric.n_ranks)[home]
            add(home, per_token[home] * size / np.where(of_home > 0, of_home, 1.0))
        if constants.node_copy_sm_s and node_copies is not None:
            add(home, node_copies * (constants.node_copy_sm_s / sms))
        each_copy = constants.rank_copy_sm_s
        if constants.forward_sm_rate:
            each_copy += self.bytes_per_copy / constants.forward_sm_rate
        if each_copy:
            add(at_rank, rank_copies * (each_copy / sms))
        if constants.receive_sm_rate and receiver is not None:
            add(receiver, size / (constants.receive_sm_rate * self._unpacking_sms()))
        if not pieces:
            return None
        ptr, ranks, seconds = merge_rows(
            np.tile(flow, len(pieces)),
            np.concatenate([rank for rank, _ in pieces]),
            np.concatenate([seconds for _, seconds in pieces]),
            len(size),
            self.fabric.n_ranks,
        )
        owner = csr.owners(ptr)
        used = (seconds > 0) & (size[owner] > 0)
        owner = owner[used]
        return KernelWork(csr.pointers(owner, len(size)), ranks[used], seconds[used] / size[owner])

    def _token_work_s(self) -> Floats | None:
        """Kernel seconds of each rank that go with its tokens, [ranks]; None where no term does."""
        constants = self.constants
        sms = max(constants.sms, 1)
        each = constants.token_s + (constants.token_sm_s + constants.token_rank_sm_s * self.fabric.n_ranks) / sms
        if constants.local_rate:
            each += self.bytes_per_copy / constants.local_rate
        return (self.tokens * each).astype(np.float64) if each else None

    def _unpacking_sms(self) -> int:
        """SMs that unpack: as many experts on each as it takes to fit all of them on the GPU."""
        total, experts = self.constants.total_sms, self.n_experts or self.constants.total_sms
        return math.ceil(experts / math.ceil(experts / total))

    def _fill_s(self) -> Floats:
        constants = self.constants
        if constants.fill_tokens_per_sm:
            filled = self.tokens / max(constants.sms, 1) / constants.fill_tokens_per_sm
        else:
            filled = self.tokens / max(constants.fill_tokens, 1e-9)
        return np.asarray(constants.fill_s * -np.expm1(-filled), np.float64)

    def _exits(self) -> dict[str, Floats]:
        constants = self.constants
        seconds: dict[str, Any] = {}
        if constants.epilogue_token_s:
            seconds["epilogue"] = self.tokens * constants.epilogue_token_s
        if constants.reduce_rate:
            moved = (self.copies.selections.sum(axis=1) + self.tokens) * self.bytes_per_copy
            seconds["sum of the answers"] = moved / constants.reduce_rate
        if constants.pull_rate:
            pulled = self.copies.rank_copies.sum(axis=1) - np.diagonal(self.copies.rank_copies)
            seconds["sum of what was fetched"] = pulled * (self.bytes_per_copy / constants.pull_rate)
        return {name: each for name, each in seconds.items() if each.any()}

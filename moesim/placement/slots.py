"""A placement: the expert slots of the ranks, and the choice between an expert's replicas.

A *slot* is room for one expert's weights on one rank. An expert in several slots has several replicas,
and each selection of that expert goes to one of them. Slots are numbered rank by rank by the placements
made here, but any numbering is accepted. Layers may differ in what the slots hold, not in where the slots
are.

Assumption: all weights are in place when a layer starts; how they come there is ``migration``'s.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim import csr
from moesim.errors import InputError
from moesim.placement.replica import drawn_replicas, nearest_replicas, take_nearest, take_turns

ReplicaChoice = Literal["same_node", "round_robin", "hash"]


@dataclass(frozen=True, eq=False)
class Placement:
    """Which expert each slot holds, and on which rank each slot is.

    ``slot_expert``: int32[slots], or int32[layers, slots] where layers differ. ``slot_rank``:
    int32[slots]. ``n_ranks``: ranks of the expert-parallel group; left at 0, the highest rank that holds
    a slot is the last one. Both arrays are copied and read-only. Expert ids are 0 to n_experts - 1 and
    each has a slot on every layer. ``layers``: the model's number of each row, where rows are numbered.
    ``share``: float64 of ``slot_expert``'s shape, the share of its expert's load that each slot takes; None where
    replicas share evenly or by nearness. Raises ``InputError`` where that does not hold or a rank is out of range.
    """

    slot_expert: NDArray[np.int32]
    slot_rank: NDArray[np.int32]
    n_ranks: int = 0
    layers: tuple[int, ...] | None = None
    share: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        slot_expert, slot_rank = _ids(self.slot_expert, "slot_expert"), _ids(self.slot_rank, "slot_rank")
        if slot_expert.ndim not in (1, 2) or slot_expert.size == 0:
            raise InputError(
                f"slot_expert has shape {slot_expert.shape}",
                where="placement",
                fix="give [slots] or [layers, slots]",
            )
        if slot_rank.shape != slot_expert.shape[-1:]:
            raise InputError(
                f"slot_rank has shape {slot_rank.shape} for {slot_expert.shape[-1]} slots",
                where="placement",
                fix="give one rank per slot",
            )
        n_ranks = self.n_ranks or int(slot_rank.max()) + 1
        wrong = np.flatnonzero((slot_rank < 0) | (slot_rank >= n_ranks))
        if wrong.size:
            raise InputError(
                f"slot {wrong[0]} is on rank {slot_rank[wrong[0]]}",
                where="placement",
                fix=f"ranks are 0 to {n_ranks - 1}",
            )
        if slot_expert.min() < 0:
            raise InputError(f"slot_expert holds {slot_expert.min()}", where="placement", fix="expert ids start at 0")
        n_experts = int(slot_expert.max()) + 1
        if n_experts > slot_expert.shape[-1]:
            raise InputError(
                f"{slot_expert.shape[-1]} slots cannot hold experts 0 to {n_experts - 1}",
                where="placement",
                fix="every expert needs a slot",
            )
        for layer, row in enumerate(np.atleast_2d(slot_expert)):
            missing = np.flatnonzero(np.bincount(row, minlength=n_experts) == 0)
            if missing.size:
                raise InputError(
                    f"expert {missing[0]} has no slot on layer {layer}",
                    where="placement",
                    fix="every expert needs at least one",
                )
        arrays: dict[str, NDArray[Any]] = {"slot_expert": slot_expert, "slot_rank": slot_rank}
        if self.share is not None:
            arrays["share"] = share = np.array(self.share, dtype=np.float64)
            if share.shape != slot_expert.shape or not (share >= 0).all():
                raise InputError(f"share has shape {share.shape}", "placement", "give one share of 0 or more per slot")
            for row, its_share in zip(np.atleast_2d(slot_expert), np.atleast_2d(share), strict=True):
                if not np.allclose(np.bincount(row, weights=its_share), 1, rtol=0, atol=1e-6):
                    raise InputError("the shares of an expert's slots do not sum to 1", "placement")
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "n_ranks", n_ranks)

    @property
    def n_experts(self) -> int:
        """Number of experts, replicas not counted."""
        return int(self.slot_expert.max()) + 1

    @property
    def n_slots(self) -> int:
        """Number of slots of a layer: experts and their further replicas."""
        return int(self.slot_expert.shape[-1])

    def layer(self, i: int) -> "Placement":
        """Return the placement of layer ``i`` alone; one without a layer axis serves every layer.

        Raises ``InputError`` if there is no layer ``i``.
        """
        if self.slot_expert.ndim == 1:
            return self
        n_layers = len(self.slot_expert)
        if not 0 <= i < n_layers:
            raise InputError(f"no layer {i}", where="placement", fix=f"it has layers 0 to {n_layers - 1}")
        share = None if self.share is None else self.share[i]
        return Placement(self.slot_expert[i], self.slot_rank, self.n_ranks, share=share)

    def for_layer(self, number: int) -> "Placement":
        """Return the placement of the model's layer ``number``; one without a layer axis serves every layer.

        Raises ``InputError`` if no row has that number.
        """
        if self.slot_expert.ndim == 1 or self.layers is None:
            return self.layer(number)
        if number not in self.layers:
            raise InputError(f"no layer {number}", "placement", f"it has {self.layers[0]} to {self.layers[-1]}")
        return self.layer(self.layers.index(number))

    def without_ranks(self, gone: ArrayLike) -> "tuple[Placement, NDArray[np.int64]]":
        """Return the placement of one layer without the slots of some ranks, and the numbers of those kept.

        Raises ``InputError`` if an expert has a slot on no other rank.
        """
        experts = self._one_layer("without_ranks")
        kept = np.flatnonzero(~np.isin(self.slot_rank, gone))
        lost = np.setdiff1d(experts, experts[kept])
        if lost.size:
            more = f" (nor have {lost.size - 1} others)" if lost.size > 1 else ""
            what = f"expert {lost[0]} has no replica on a living rank{more}"
            raise InputError(what, "faults", "place replicas of every expert of the dead ranks, or use mode: mask")
        share = None
        if self.share is not None:
            left = np.bincount(experts[kept], weights=self.share[kept])[experts[kept]]
            share = np.divide(self.share[kept], left, out=1 / np.bincount(experts[kept])[experts[kept]], where=left > 0)
        return Placement(experts[kept], self.slot_rank[kept], self.n_ranks, share=share), kept

    def replicas(self) -> NDArray[np.int64]:
        """Return the number of slots of each expert: int64[experts]. One layer only."""
        return np.bincount(self._one_layer("replicas"), minlength=self.n_experts)

    def home_rank(self) -> NDArray[np.int32]:
        """Return the rank of each expert's first slot: int32[experts]. One layer only."""
        _, first = np.unique(self._one_layer("home_rank"), return_index=True)
        return self.slot_rank[first]

    def holds(self) -> NDArray[np.bool_]:
        """Return whether each rank holds each expert, bool[ranks, experts]. One layer only."""
        held = np.zeros((self.n_ranks, self.n_experts), np.bool_)
        held[self.slot_rank, self._one_layer("holds")] = True
        return held

    def oddities(self) -> tuple[str, ...]:
        """Return in sentences what is seldom meant: ranks without an expert, replicas of an expert on one rank."""
        said = []
        idle = self.n_ranks - len(np.unique(self.slot_rank))
        if idle:
            fix = "redundant experts (placement.policy: eplb) would give them replicas"
            said.append(f"{idle} of {self.n_ranks} ranks hold no expert: {fix}")
        pairs = self._one_layer("oddities").astype(np.int64) * self.n_ranks + self.slot_rank
        found, times = np.unique(pairs, return_counts=True)
        twice = len(np.unique(found[times > 1] // self.n_ranks))
        if twice:
            said.append(f"{twice} experts have replicas side by side on one rank, which spread nothing")
        return tuple(said)

    def planned_slot_load(self, load: ArrayLike) -> NDArray[np.float64]:
        """Return float64[slots]: the load per slot if replicas share ``load[experts]`` by ``share``, else evenly.

        That is the load a balancer plans with; ``choose`` need not reach it. One layer only.
        Raises ``InputError`` if ``load`` does not have one value per expert.
        """
        slot_expert = self._one_layer("planned_slot_load")
        load = np.asarray(load, dtype=np.float64)
        if load.shape != (self.n_experts,):
            raise InputError(
                f"load has shape {load.shape}",
                where="planned_slot_load",
                fix=f"give one value for each of {self.n_experts} experts",
            )
        shared: NDArray[np.float64] = (
            (load / self.replicas())[slot_expert] if self.share is None else load[slot_expert] * self.share
        )
        return shared

    def planned_rank_load(self, load: ArrayLike) -> NDArray[np.float64]:
        """Return float64[ranks]: the sum of ``planned_slot_load`` on each rank."""
        slot_load = self.planned_slot_load(load)
        return np.asarray(np.bincount(self.slot_rank, slot_load, self.n_ranks), dtype=np.float64)

    def choose(
        self,
        expert_ids: ArrayLike,
        token_rank: ArrayLike,
        ranks_per_node: int,
        policy: ReplicaChoice = "same_node",
        seed: int = 0,
        first_token: int = 0,
    ) -> NDArray[np.int32]:
        """Choose the replica that each selection goes to: slot ids int32[tokens, top_k].

        ``expert_ids``: int[tokens, top_k], -1 for a dropped selection, which stays -1. ``token_rank``:
        int[tokens], the rank that each token starts from. Rank ``r`` is on node ``r // ranks_per_node``.
        With ``share`` a replica is drawn by the shares, as ``hash`` draws, whatever the policy. Policies:

        ``same_node``
            A replica on the token's own rank, else one on its node, else one elsewhere. It depends on the
            expert and the source rank alone: where several replicas are equally near, the source ranks are
            dealt out so that each replica serves as many of them as locality allows, the far ones last.
        ``round_robin``
            Successive tokens take successive replicas of an expert, wherever those are.
        ``hash``
            An even pseudo-random draw per (token, expert).

        ``seed`` shifts the turns and changes the draws. Callers that stream a batch in chunks pass the
        position of each chunk's first token as ``first_token``: the choice then does not depend on the
        size of the chunks. One layer only. Raises ``InputError`` for shapes that do not fit, and ids or
        ranks out of range.
        """
        slot_expert = self._one_layer("choose")
        ids, source = _ids(expert_ids, "expert_ids"), _ids(token_rank, "token_rank")
        if ids.ndim != 2 or source.shape != ids.shape[:1]:
            raise InputError(
                f"expert_ids has shape {ids.shape}, token_rank {source.shape}",
                where="choose",
                fix="give [tokens, top_k] and [tokens]",
            )
        if ranks_per_node < 1:
            raise InputError(f"ranks_per_node is {ranks_per_node}", where="choose", fix="it must be at least 1")
        self._check_range(ids, source)
        # Replicas of expert e are slots[first[e]:first[e + 1]], lowest slot first.
        first, slots = csr.grouped(slot_expert, np.arange(self.n_slots, dtype=np.int32), self.n_experts)
        if policy not in ("same_node", "round_robin", "hash"):
            raise InputError(f"unknown policy {policy!r}", where="choose", fix="use same_node, round_robin or hash")
        if self.n_slots == self.n_experts:
            # No expert has a choice, and a table of ranks x experts would cost more than the tokens.
            only: NDArray[np.int32] = np.append(slots, np.int32(-1))[ids]
            return only
        seed %= 2**31  # a seed of any size fits the kernels' integers
        if self.share is not None:
            in_order = self.share[np.argsort(slot_expert, kind="stable")]
            return drawn_replicas(ids, slots, first, in_order, seed, first_token)
        if policy == "same_node":
            nearest = nearest_replicas(slots, first, self.slot_rank, self.n_ranks, ranks_per_node, seed)
            return take_nearest(ids, source, nearest)
        if policy == "round_robin":
            return take_turns(ids, slots, first, seed, first_token)
        return drawn_replicas(ids, slots, first, np.empty(0), seed, first_token)

    def _one_layer(self, what: str) -> NDArray[np.int32]:
        if self.slot_expert.ndim != 1:
            raise InputError(
                f"the placement has {len(self.slot_expert)} layers", where=what, fix="take one with layer(i)"
            )
        return self.slot_expert

    def _check_range(self, ids: NDArray[np.int32], source: NDArray[np.int32]) -> None:
        if ids.size and not (ids.min() >= -1 and ids.max() < self.n_experts):
            token = int(np.flatnonzero(((ids < -1) | (ids >= self.n_experts)).any(axis=1))[0])
            raise InputError(
                f"token {token} has expert ids {ids[token].tolist()}",
                where="choose",
                fix=f"ids are 0 to {self.n_experts - 1}, or -1 for a dropped selection",
            )
        if source.size and not (source.min() >= 0 and source.max() < self.n_ranks):
            token = int(np.flatnonzero((source < 0) | (source >= self.n_ranks))[0])
            raise InputError(
                f"token {token} is on rank {source[token]}",
                where="choose",
                fix=f"the placement has ranks 0 to {self.n_ranks - 1}",
            )


def _ids(values: ArrayLike, name: str) -> NDArray[np.int32]:
    """Return the ids as a fresh int32 array; refuse what is not a whole number or does not fit."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} has dtype {array.dtype}", where="placement", fix="ids are integers")
    if array.size and array.dtype != np.int32:
        limits = np.iinfo(np.int32)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"{name} does not fit 32 bits", where="placement", fix="ids are small integers")
    return array.astype(np.int32)

"""What moving from one placement to another takes: which weights go where, and from whom.

A (rank, expert) pair that the new placement has and the old one lacks is one move: the weights of that expert travel
to that rank from a rank that held them. A source on the target's own node is taken where there is one, so that the
bytes stay on NVLink; among equally near ones the moves are spread so that no port sends more than it must (an optimal
semi-matching: Harvey, Ladner, Lovasz and Tamir, 2006, whose loads do not depend on how ranks are numbered).

Assumptions: every target fetches its own copy, also where two ranks of a node need the same expert. What a rank
already holds is not copied, whatever its slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.placement.slots import Placement

_BYTES = {"fp8": 1, "bf16": 2}
_MATRICES, _BLOCK, _SCALE_BYTES = 3, 128, 4


@dataclass(frozen=True)
class Moves:
    """Weights that change place: ``expert``, ``source`` and ``target`` rank, int32[moves] each, by target."""

    expert: NDArray[np.int32]
    source: NDArray[np.int32]
    target: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.expert)


def expert_bytes(width: int, expert_hidden: int, dtype: str) -> int:
    """Return the bytes of one expert: gate, up and down of ``width`` x ``expert_hidden``, as ``fp8`` or ``bf16``.

    FP8 weights come with a 4-byte scale for each block of 128 x 128 (DeepSeek-V3, section 3.3).
    """
    matrix = width * expert_hidden * _BYTES[dtype]
    if dtype == "fp8":
        matrix += -(-width // _BLOCK) * -(-expert_hidden // _BLOCK) * _SCALE_BYTES
    return _MATRICES * matrix


def moves_between(old: Placement, new: Placement, rank_node: ArrayLike) -> Moves:
    """Return what has to move so that ``new`` holds where ``old`` did, one layer of each.

    Args:
        old, new: of the same experts and ranks.
        rank_node: node of each rank, int[ranks].

    Raises:
        InputError: other experts or ranks, or a placement of several layers.
    """
    node = np.asarray(rank_node)
    for name in ("n_experts", "n_ranks"):
        if getattr(old, name) != getattr(new, name):
            what = f"{getattr(old, name)} and {getattr(new, name)} {name.removeprefix('n_')}"
            raise InputError(what, "migration", "compare placements of the same model and ranks")
    held, wanted = old.holds(), new.holds()
    target, expert = np.nonzero(wanted & ~held)
    holders = [np.flatnonzero(held[:, one]) for one in range(old.n_experts)]
    near = [holders[e][node[holders[e]] == node[t]].tolist() for t, e in zip(target, expert, strict=True)]
    source = np.full(len(target), -1, np.int32)
    for inside in (True, False):
        which = [move for move, own in enumerate(near) if bool(own) == inside]
        source[which] = _spread([near[move] or holders[expert[move]].tolist() for move in which])
    return Moves(expert.astype(np.int32), source, target.astype(np.int32))


def break_even_steps(cost_s: float, saved_s: float) -> float | None:
    """Return after how many steps a rearrangement has paid what it cost; None where it never does."""
    return None if saved_s <= 0 else cost_s / saved_s


def _spread(candidates: Sequence[Sequence[int]]) -> list[int]:
    """Choose one of its candidates for each move so that the most chosen is chosen least often.

    Each move takes the least loaded source that it can reach, moving others over where that helps.
    """
    chosen = [-1] * len(candidates)
    taken: dict[int, list[int]] = {rank: [] for ranks in candidates for rank in ranks}
    for move, ranks in enumerate(candidates):
        came_from = dict.fromkeys(ranks, move)
        queue = list(came_from)
        for rank in queue:
            for other in taken[rank]:
                for further in candidates[other]:
                    if further not in came_from:
                        came_from[further] = other
                        queue.append(further)
        rank = min(queue, key=lambda one: (len(taken[one]), one))
        while True:
            mover = came_from[rank]
            before, chosen[mover] = chosen[mover], rank
            taken[rank].append(mover)
            if mover == move:
                break
            taken[before].remove(mover)
            rank = before
    return chosen

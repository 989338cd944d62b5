"""More experts than were recorded: each recorded expert is refined into several.

Expert e' of E' has one recorded *parent*, contiguously, so the parent's rank, node and group are its own.
In each token one child, the *carrier*, has the parent's logit; its siblings lie below. Which child carries
is read from the same token's logits of two other recorded experts (drawn once per parent): their standardised
sum is cut into intervals, one per child, such that the children share the tokens that select the parent.
Tokens that mean the same go to the same child, as with experts that were trained finer.

So what the router selects is the recorded selection, refined, as far as siblings do not displace other
parents. A sibling lies below the carrier by the distance to its interval plus a ``gap``, the one knob: the
smallest of a few values at which every figure is within 1 % of the recorded one. Where a bias outweighs all
affinities no value is (siblings are selected whatever their logits): then the best one is taken, and the loads
are steered by an offset per expert.

Siblings share evenly, except that the busiest parent gives each child the load that keeps max / mean while
its tokens last. Where children do not divide evenly among the parents, those with too few for their load are
first steered down.

Consequence to know: a token's experts keep distinct parents, so groups finer than the recorded experts
(more ranks than recorded experts) see K distinct ranks, an upper bound.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moesim.workload.fidelity import Select, bisected, expert_loads, steer_loads

GAPS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""In standard deviations of the recorded logits."""
CLOSE_ENOUGH = 0.01
"""Miss of the worst figure at which no larger gap is tried."""
TIE_BREAK = 0.1
"""Weight of the second opinion: half-precision logits of one expert alone tie too often."""


def parent_of_expert(n_fine: int, n_coarse: int, n_groups: int) -> NDArray[np.int64]:
    """Coarse expert of each fine one [n_fine], non-decreasing, ``n_groups`` groups keep their own."""
    fine = np.array_split(np.arange(n_fine), n_groups)
    coarse = np.array_split(np.arange(n_coarse), n_groups)
    pairs = zip(fine, coarse, strict=True)
    return np.concatenate([own[0] + np.arange(len(part)) * len(own) // len(part) for part, own in pairs])


def refine(
    logits: NDArray[np.float32],
    bias: NDArray[np.float32],
    parent: NDArray[np.int64],
    select: Select,
    weight: NDArray[np.float64],
    rng: np.random.Generator,
    miss: Callable[[NDArray[np.int32]], float],
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return logits [D, E'], bias [E'] and the gap, for E' = len(``parent``) experts with these parents.

    ``miss`` says how far the figures of the ids that the router selects from the new logits are off.
    """
    recorded = logits.shape[1]
    n_experts = len(parent)
    children = np.bincount(parent, minlength=recorded)
    ids = select(logits, bias)
    loads = expert_loads(ids, recorded, weight)
    # The load that the hottest of the new experts has to have: max / mean times their mean load.
    peak = loads.max() / loads.mean() * loads.sum() / n_experts
    if (loads > children * peak).any():
        logits = logits + steer_loads(logits, bias, select, weight, _capped(loads, children * peak))
        ids = select(logits, bias)
        loads = expert_loads(ids, recorded, weight)

    selected = np.zeros(logits.shape, bool)
    np.put_along_axis(selected, ids, True, axis=1)
    spread = np.maximum(logits.std(axis=0), 1e-6)
    standard = (logits - logits.mean(axis=0)) / spread
    opinion = standard[:, _another(recorded, rng)] + TIE_BREAK * standard[:, _another(recorded, rng)]
    fine = np.empty((len(logits), n_experts), np.float32)
    wanted = []
    for above in range(recorded):
        first = int(np.searchsorted(parent, above))
        shares = np.full(children[above], loads[above] / children[above])
        if above == loads.argmax():
            shares = np.clip(loads[above] - np.arange(children[above]) * peak, 0, peak)
        wanted.append(shares)
        cuts = _cuts(opinion[:, above], np.where(selected[:, above], weight, 0), shares)
        below = np.maximum(cuts[:-1] - opinion[:, above, None], opinion[:, above, None] - cuts[1:])
        fine[:, first : first + len(shares)] = -spread[above] * np.maximum(below, 0)
    sibling = fine < 0
    fine += logits[:, parent]
    fine_bias = bias[parent]

    current = best_gap = 0.0
    least = np.inf
    step = spread.mean()
    for gap in GAPS:
        np.subtract(fine, np.float32((gap - current) * step), out=fine, where=sibling)
        current = gap
        missed = miss(select(fine, fine_bias))
        if missed < least:
            least, best_gap = missed, gap
        if missed <= CLOSE_ENOUGH:
            break
    np.add(fine, np.float32((current - best_gap) * step), out=fine, where=sibling)
    if least > CLOSE_ENOUGH:
        offset = steer_loads(fine, fine_bias, select, weight, np.concatenate(wanted))
        if miss(select(fine + offset, fine_bias)) < least:
            fine += offset
    return fine, fine_bias, best_gap


def _another(n_experts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each expert a random other one (itself where there is only one)."""
    return (np.arange(n_experts) + rng.integers(min(1, n_experts - 1), n_experts, n_experts)) % n_experts


def _capped(loads: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cap the loads, scaling those below their cap such that the sum stays (it fits: peak >= mean)."""
    largest, total = float((most / np.maximum(loads, 1)).max()), loads.sum()
    factor = bisected(lambda factor: np.minimum(loads * factor, most).sum() < total, 1.0, largest, 50)[1]
    return np.minimum(loads * factor, most)


def _cuts(
    opinion: NDArray[np.float32], weight: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Cut points [C + 1] on the opinion that give each of C children its share of the tokens' weight."""
    order = np.argsort(opinion, kind="stable")
    ends = np.searchsorted(np.cumsum(weight[order]), np.cumsum(shares)[:-1] - 1e-6)
    ends = np.minimum(ends, len(order) - 2)
    inner = (opinion[order[ends]] + opinion[order[ends + 1]]) / 2
    return np.concatenate([[-np.inf], inner, [np.inf]]).astype(np.float32)

"""Which experts a token goes to, and with which gates.

V1, V2 and V3 are this one function; what differs is the ``RouterSpec``. The bias is explicit state that the
caller holds: it takes part in the selection (of groups and of experts) and never in the gates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.routing.scores import LOGITS_PER_BLOCK, checked_logits, kernel_block, not_finite
from moesim.routing.select import select_and_gate
from moesim.routing.spec import RouterSpec, groups_of


@dataclass(frozen=True, eq=False)
class Assignment:
    """The outcome of routing a batch.

    ``expert_ids`` int32 [T, K]: the experts of each token, by descending selection score, ties by lowest id.
    ``gates`` [T, K]: their weights in the combined output; float64 for float64 logits, else float32.
    """

    expert_ids: NDArray[np.int32]
    gates: NDArray[Any]


def route(logits: ArrayLike, spec: RouterSpec, bias: ArrayLike | None = None, token_offset: int = 0) -> Assignment:
    """Send each token to its top-k experts.

    With affinities s = softmax or sigmoid of the logits and the bias b, a token keeps the M groups with the
    highest sums of their best ``s + b``, then the K experts with the highest ``s + b`` in them; a group left
    out stays out whatever the sign of the bias, and ties go to the lowest id. The gates are the unbiased s of
    the selected experts, divided by their sum if the spec normalises, times its scale.

    A bias of None or of zeros leaves the order to the logits themselves, so that V3 without groups selects
    exactly what V1 selects, also where its sigmoid has saturated.

    Args:
        logits: [T, E], float16, float32 or float64; computed in float64.
        spec: the router.
        bias: [E], added to the scores for selection only.
        token_offset: number of the first token, for error messages of a batch that comes in pieces.

    Raises:
        InputError: wrong shapes or types, or a NaN or infinite logit (the error names the token) or bias.

    Source: DeepSeekMoE eq. 9-11, DeepSeek-V2 eq. 20-22, DeepSeek-V3 eq. 12-16, arXiv:2408.15664 eq. 3.
    """
    x = checked_logits(logits, spec)
    selection_bias = _checked_bias(bias, spec)
    group = groups_of(spec)
    if spec.limited:
        group_experts = np.argsort(group, kind="stable").astype(np.int64)
        group_ptr = np.zeros(spec.n_groups + 1, dtype=np.int64)
        np.cumsum(np.bincount(group, minlength=spec.n_groups), out=group_ptr[1:])
        top_groups = spec.top_groups
    else:
        group_experts = np.arange(spec.n_experts, dtype=np.int64)
        group_ptr = np.array([0, spec.n_experts], dtype=np.int64)
        top_groups = 1
    expert_ids = np.empty((len(x), spec.top_k), dtype=np.int32)
    gates = np.empty((len(x), spec.top_k), dtype=np.float64 if x.dtype == np.float64 else np.float32)
    rows = max(1, LOGITS_PER_BLOCK // spec.n_experts)
    for start in range(0, len(x), rows):
        block = kernel_block(x[start : start + rows])
        bad = select_and_gate(
            block,
            selection_bias,
            spec.score == "sigmoid",
            group_ptr,
            group_experts,
            top_groups,
            spec.scores_per_group,
            spec.normalize,
            spec.scale,
            expert_ids[start : start + rows],
            gates[start : start + rows],
        )
        if bad >= 0:
            raise not_finite(block, bad, token_offset + start + bad)
    return Assignment(expert_ids, gates)


def _checked_bias(bias: ArrayLike | None, spec: RouterSpec) -> NDArray[np.float64]:
    """Return the bias [E] in float64, or an empty array where it changes nothing."""
    if bias is None:
        return np.empty(0)
    array = np.asarray(bias, dtype=np.float64)
    if array.shape != (spec.n_experts,):
        raise InputError(f"a bias of shape {array.shape}", "bias", f"give one value per expert, {spec.n_experts}")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(f"the bias of expert {bad[0]} is {array[bad[0]]}", "bias", "biases must be finite numbers")
    return array if array.any() else np.empty(0)

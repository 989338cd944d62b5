"""Which experts a token goes to, and with which gates.

V1, V2 and V3 are this one function; what differs is the ``RouterSpec``. The bias is explicit state that the
caller holds: it takes part in the selection (of groups and of experts) and never in the gates.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.routing.blocks import Batch, fused_pass_takes, kernel_groups, route_in_blocks
from moesim.routing.router_spec import RouterSpec, kernel_knobs
from moesim.routing.scores import LOGITS_PER_BLOCK, checked_bias, checked_logits, kernel_block, not_finite
from moesim.routing.select import select_and_gate


@dataclass(frozen=True, eq=False)
class Assignment:
    """The outcome of routing a batch.

    ``expert_ids`` int32 [T, K]: the experts of each token, by descending selection score, ties by lowest id.
    ``gates`` [T, K]: their weights in the combined output; float64 for float64 logits, else float32.
    """

    expert_ids: NDArray[np.int32]
    gates: NDArray[Any]


def route(
    logits: ArrayLike,
    spec: RouterSpec,
    bias: ArrayLike | None = None,
    token_offset: int = 0,
    *,
    bfloat16: bool = False,
) -> Assignment:
    """Send each token to its top-k experts.

    With affinities s = softmax or sigmoid of the logits and the bias b, a token keeps the M groups with the
    highest sums of their best ``s + b``, then the K experts with the highest ``s + b`` in them; a group left
    out stays out whatever the sign of the bias, and ties go to the lowest id. The gates are the unbiased s of
    the selected experts, divided by their sum if the spec normalises, times its scale.

    A bias of None or of zeros leaves the order to the logits themselves, so that V3 without groups selects
    exactly what V1 selects, also where its sigmoid has saturated.

    Args:
        logits: [T, E], float16, bfloat16, float32 or float64; the answer is that of float64.
        spec: the router.
        bias: [E], added to the scores for selection only.
        token_offset: number of the first token, for error messages of a batch that comes in pieces.
        bfloat16: the logits are uint16 that hold the bits of bfloat16 (``tensor.view(torch.uint16).numpy()``).

    Raises:
        InputError: wrong shapes or types, or a NaN or infinite logit (the error names the token) or bias.

    Source: DeepSeekMoE eq. 9-11, DeepSeek-V2 eq. 20-22, DeepSeek-V3 eq. 12-16, arXiv:2408.15664 eq. 3.
    """
    x = checked_logits(logits, spec, bfloat16)
    selection_bias = checked_bias(bias, spec)
    expert_ids = np.empty((len(x), spec.top_k), dtype=np.int32)
    gates = np.empty((len(x), spec.top_k), dtype=np.float64 if x.dtype == np.float64 else np.float32)
    if fused_pass_takes(spec, x.dtype, selection_bias.size > 0):
        nothing = np.empty(0), np.empty(0, np.int64)
        batch = Batch(x, spec, selection_bias, expert_ids, gates, *nothing, token_offset=token_offset)
        deque(route_in_blocks(batch), maxlen=0)
        return Assignment(expert_ids, gates)
    groups, knobs = kernel_groups(spec), kernel_knobs(spec)
    rows = max(1, LOGITS_PER_BLOCK // spec.n_experts)
    for start in range(0, len(x), rows):
        block = kernel_block(x[start : start + rows])
        bad = select_and_gate(
            block,
            selection_bias,
            knobs,
            groups.ptr,
            groups.experts,
            expert_ids[start : start + rows],
            gates[start : start + rows],
        )
        if bad >= 0:
            raise not_finite(block, bad, token_offset + start + bad)
    return Assignment(expert_ids, gates)

"""Affinities as the router sees them, and what a restricted selection gives away of them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.routing.router_spec import RouterSpec
from moesim.routing.select import mass_lost

# Tokens are handed to the kernels in blocks of about this many logits: float16 and strided input is converted
# block by block, never as a whole.
LOGITS_PER_BLOCK = 1 << 21


def checked_logits(logits: ArrayLike, spec: RouterSpec, bfloat16: bool = False) -> NDArray[Any]:
    """Return the logits as an array [T, E] of a float type, without copying; whole numbers become float64.

    bfloat16, which NumPy does not know, comes back as the uint16 of its bits: with ``bfloat16`` the logits are those
    already, and an array of a type of that name (``ml_dtypes``) is seen as them.

    Raises:
        InputError: another shape, or values that are not real numbers.
    """
    array = np.asarray(logits)
    if array.dtype.name == "bfloat16":
        array, bfloat16 = array.view(np.uint16), True
    if array.ndim != 2 or array.shape[1] != spec.n_experts:
        raise InputError(
            f"logits have shape {array.shape}",
            "logits",
            f"give [tokens, {spec.n_experts}], one column per expert",
        )
    if bfloat16 and array.dtype != np.uint16:
        raise InputError(f"bfloat16 logits of type {array.dtype}", "logits", "give their bits as uint16")
    if bfloat16 or array.dtype in (np.float16, np.float32, np.float64):
        return array
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"logits of type {array.dtype}", "logits", "give float16, float32 or float64")
    return array.astype(np.float64)


def checked_selection(expert_ids: ArrayLike, n_experts: int, shape: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """Return expert ids as contiguous int32 [T, K]; -1 is a dropped copy.

    Raises:
        InputError: not [T, K] (or not ``shape``), not whole numbers, or an id that no expert has.
    """
    ids = np.asarray(expert_ids)
    if ids.ndim != 2 or (shape is not None and ids.shape != shape) or not np.issubdtype(ids.dtype, np.integer):
        wanted = "[tokens, top_k]" if shape is None else f"[{shape[0]}, {shape[1]}]"
        what = f"expert_ids have shape {ids.shape} and type {ids.dtype}"
        raise InputError(what, "expert_ids", f"give whole numbers {wanted}")
    if ids.size and (ids.min() < -1 or ids.max() >= n_experts):
        fix = f"use 0 to {n_experts - 1}, or -1 for a dropped copy"
        raise InputError(f"expert ids run from {ids.min()} to {ids.max()}", "expert_ids", fix)
    return np.ascontiguousarray(ids, dtype=np.int32)


def checked_bias(bias: ArrayLike | None, spec: RouterSpec) -> NDArray[np.float64]:
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


def not_finite(logits: NDArray[Any], row: int, token: int) -> InputError:
    """Return the error that names the first token with a NaN or infinite logit, and the expert."""
    expert = int(np.flatnonzero(~np.isfinite(logits[row]))[0])
    return InputError(
        f"the logit of token {token} for expert {expert} is {float(logits[row, expert])}",
        "logits",
        "logits must be finite numbers",
    )


def affinity(logits: ArrayLike, spec: RouterSpec, token_offset: int = 0) -> NDArray[np.float64]:
    """Return the unbiased scores s[T, E] in float64: softmax over the experts, or the sigmoid of each logit.

    Args:
        logits: [T, E], float16, float32 or float64.
        spec: the router.
        token_offset: number of the first token, for error messages of a batch that comes in pieces.

    Raises:
        InputError: a wrong shape or type, or a NaN or infinite logit (the error names the token).

    Source: DeepSeekMoE eq. 10 (softmax), DeepSeek-V3 eq. 15 (sigmoid).
    """
    x = checked_logits(logits, spec)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if bad.size:
        raise not_finite(x, int(bad[0]), token_offset + int(bad[0]))
    x = x.astype(np.float64)
    if spec.score == "softmax":
        scores = np.exp(x - x.max(axis=1, keepdims=True))
        return np.asarray(scores / scores.sum(axis=1, keepdims=True), dtype=np.float64)
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small), dtype=np.float64)


def gate_mass_lost(logits: ArrayLike, spec: RouterSpec, expert_ids: ArrayLike) -> NDArray[np.float64]:
    """Return what each token's selection gives away of the affinity that it could have had, float64 [T].

    ``1 - (sum of s over the selected experts) / (sum of s over the unrestricted top-k)``, both of the
    unbiased scores, the unrestricted top-k without groups and without bias. Exactly 0 where the two are the
    same selection, never negative; a dropped copy (-1) counts as lost.

    Args:
        logits: float [T, E].
        spec: the router; its score and sizes matter, its groups do not.
        expert_ids: int [T, K], the selection as ``route`` returns it; distinct within a token.

    Raises:
        InputError: wrong shapes, unknown expert ids, or a NaN or infinite logit (the error names the token).
    """
    x = checked_logits(logits, spec)
    ids = checked_selection(expert_ids, spec.n_experts, (len(x), spec.top_k))
    lost = np.empty(len(x))
    rows = max(1, LOGITS_PER_BLOCK // spec.n_experts)
    for start in range(0, len(x), rows):
        block = kernel_block(x[start : start + rows])
        bad = mass_lost(block, ids[start : start + rows], spec.score == "sigmoid", lost[start : start + rows])
        if bad >= 0:
            raise not_finite(block, bad, start + bad)
    return lost


def kernel_block(block: NDArray[Any]) -> NDArray[Any]:
    """Return a block of logits as the kernels take it: contiguous, 16 bits widened to float32 (exactly)."""
    if block.dtype == np.uint16:
        return (np.ascontiguousarray(block, dtype=np.uint32) << 16).view(np.float32)
    dtype = np.float32 if block.dtype == np.float16 else block.dtype
    return np.ascontiguousarray(block, dtype=dtype)

"""All balance losses of a batch at once, with their gradient by the experts' embeddings.

Logits are ``tokens @ embeddings.T``, so that the gradient is the losses' slopes at the logits times the tokens, which
``moesim.routing`` adds up token by token: no array of tokens x experts beside the logits themselves, and one pass for
any number of losses, since all but the z-loss are linear in the affinities and their coefficients add up. ``losses``
has each loss by itself with its gradient by the logits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.balance.load_spread import expert_load, sequence_load, sum_by_row, tokens_received
from moesim.balance.sums import (
    LossFactors,
    communication_coefficients,
    device_coefficients,
    device_numbers,
    form_factor,
    load_shares,
    sequence_slope,
)
from moesim.balance.token_weights import sequences, token_weight
from moesim.errors import InputError
from moesim.routing import RouterSpec, add_gradient, checked_selection, in_blocks

_BLOCK_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class BalancePull:
    """Values of the losses by name (``expert_loss`` to ``z_loss``) and the gradient of their sum, float64 [E, H]."""

    values: dict[str, float]
    grad: NDArray[np.float64]


def embedding_gradient(
    tokens: ArrayLike,
    logits: ArrayLike,
    expert_ids: ArrayLike,
    spec: RouterSpec,
    device_of_expert: ArrayLike,
    factors: LossFactors,
    *,
    sequence_id: ArrayLike | None = None,
    counted_ids: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> BalancePull:
    """Return the balance losses of a routed batch and the gradient of their sum by the experts' embeddings.

    Args:
        tokens: [T, H], what the router multiplies with the embeddings.
        logits: float [T, E].
        expert_ids: int [T, K], the selection; -1 is a dropped copy and not counted.
        spec: the router.
        device_of_expert: int [E].
        factors: alpha of each loss; one with alpha 0 is left out and its value 0.
        sequence_id: int [T]; needed where the sequence-wise loss has a weight.
        counted_ids: int [T, K], what that loss counts (V3: the unbiased top-k, eq. 18); ``expert_ids`` by default.
        weight: [T], copies of each token in the batch; 1 each by default.

    Raises:
        InputError: wrong shapes, unknown ids or form, no token, or a logit that is NaN or infinite.

    Source: the equations that ``expert_loss`` and its neighbours name.
    """
    x, vectors = np.asarray(logits), np.ascontiguousarray(tokens, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != spec.n_experts or vectors.ndim != 2 or len(vectors) != len(x):
        raise InputError(
            f"logits have shape {x.shape}, tokens {vectors.shape}", "logits", f"give [T, {spec.n_experts}] and [T, H]"
        )
    ids = checked_selection(expert_ids, spec.n_experts, (len(x), spec.top_k))
    copies = token_weight(weight, len(ids))
    total = copies.sum()
    if not total > 0:
        raise InputError("a loss of a batch without tokens", "weight", "give at least one token a weight above 0")
    device = device_numbers(device_of_expert, spec)
    linear: dict[str, NDArray[np.float64]] = {}
    shares = load_shares(expert_load(ids, spec.n_experts, copies), total, spec)
    if factors.expert:
        linear["expert_loss"] = factors.expert * form_factor(factors.form, spec.n_experts) * shares
    if factors.device:
        linear["device_loss"] = factors.device * device_coefficients(shares, device)
    if factors.communication:
        received = tokens_received(ids, device, copies)
        linear["communication_loss"] = factors.communication * communication_coefficients(
            received, total, device, spec, factors.form
        )
    common = np.sum(list(linear.values()), axis=0) if linear else np.zeros(spec.n_experts)
    row, coefficients = np.zeros(len(ids), np.int64), common[None]
    if factors.sequence:
        if sequence_id is None:
            raise InputError("a sequence-wise loss without sequences", "sequence_id", "say each token's sequence")
        counted = ids if counted_ids is None else checked_selection(counted_ids, spec.n_experts, ids.shape)
        found, n_sequences = sequences(sequence_id, len(ids), copies)
        row = np.maximum(found, 0)  # tokens without copies weigh nothing in any row
        mass, held = (sum_by_row(row, values, n_sequences) for values in (copies, copies > 0))
        count = sequence_load(counted, row, copies, (n_sequences, spec.n_experts))
        coefficients = common + (factors.sequence * total * sequence_slope(mass, held, spec))[:, None] * count
    affinity, product, squared, grad = _in_blocks(x, vectors, spec, row, coefficients, copies / total, factors.z)
    values = dict.fromkeys(("expert_loss", "device_loss", "communication_loss"), 0.0)
    values |= {name: float(own @ affinity) for name, own in linear.items()}
    values["sequence_loss"] = float(product - common @ affinity) if factors.sequence else 0.0
    return BalancePull(values | {"z_loss": factors.z * squared}, grad)


def _in_blocks(
    x: NDArray[Any], tokens: NDArray[np.float64], spec: RouterSpec, row: NDArray[np.int64],
    coefficients: NDArray[np.float64], share: NDArray[np.float64], z: float,
) -> tuple[NDArray[np.float64], float, float, NDArray[np.float64]]:  # fmt: skip
    """Return mean affinities [E], the linear losses together, mean squared logsumexp, and the gradient [E, H]."""
    affinity, grad = np.zeros(spec.n_experts), np.zeros((tokens.shape[1], spec.n_experts))
    product, squared = 0.0, 0.0

    def work(block: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
        own = slice(block * _BLOCK_TOKENS, (block + 1) * _BLOCK_TOKENS)
        mean, by_token = np.zeros_like(affinity), np.zeros_like(grad)
        given = x[own], spec.score == "sigmoid", tokens[own], row[own], coefficients, share[own], z
        return mean, by_token, *add_gradient(*given, mean, by_token)

    for more in in_blocks(work, -(-len(x) // _BLOCK_TOKENS)):
        affinity, grad, product, squared = affinity + more[0], grad + more[1], product + more[2], squared + more[3]
    if not np.isfinite(product):
        token = int(np.argmin(np.isfinite(x).all(axis=1)))
        raise InputError(f"token {token}: a logit is NaN or infinite", "logits", "logits must be finite")
    return affinity, product, squared, grad.T

"""The balance losses of DeepSeekMoE, V2 and V3 and the router z-loss, with analytic gradients.

Four of the five have one shape, ``L = alpha * sum_i f_i P_i``: per expert, a coefficient made of counts times
its mean affinity. Counts carry no gradient, affinities do; so the losses differ in their coefficients alone, which
are those of ``sums.py``, and ``gradient.py`` does the rest.

Published constants (``form="paper"``) hold N_r, the number of experts, in f_i and D, the number of devices,
in the communication loss; ``form="document"`` leaves them out, as the source document prints them, which has no device
loss and no z-loss, and the sequence-wise one as published: these three have the form ``paper`` alone.

What all take:
    logits: float [T, E].
    expert_ids: int [T, K], the selection; -1 is a dropped copy and not counted.
    spec: the router; on a sigmoid router s is the sigmoid divided by its sum over the experts (s' of V3).
    device_of_expert: int [E]; devices may hold different numbers of experts, and a number that no expert names is no
        device.
    alpha: factor of the loss.
    weight: [T], how many copies of the token the batch holds; 1 each by default. The gradient is with respect to the
        logits shared by the copies.
    with_grad: False saves the gradient's time and memory.

All raise InputError for wrong shapes, unknown ids or form, no token, or a logit that is NaN or infinite.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.balance.gradient import Loss, affinity_blocks, logsumexp, weighted_affinities
from moesim.balance.load_spread import expert_load, sequence_load, sum_by_row, tokens_received
from moesim.balance.sums import (
    communication_coefficients,
    device_coefficients,
    device_numbers,
    form_factor,
    load_shares,
    sequence_mean,
    sequence_slope,
)
from moesim.balance.token_weights import sequences, token_weight
from moesim.errors import InputError
from moesim.routing import RouterSpec, checked_selection


def expert_loss(
    logits: ArrayLike,
    expert_ids: ArrayLike,
    spec: RouterSpec,
    *,
    alpha: float,
    form: str = "paper",
    weight: ArrayLike | None = None,
    with_grad: bool = True,
) -> Loss:
    """Expert-level balance loss, ``alpha * sum_i f_i P_i``.

    ``f_i = N_r / (K_r T) * (selections of expert i)`` and ``P_i = mean over tokens of s_i``; the document's
    form is without N_r.

    Source: DeepSeekMoE eq. 12-14, DeepSeek-V2 eq. 23-25.
    """
    numerator = form_factor(form, spec.n_experts)
    ids, copies = _batch(logits, expert_ids, spec, weight)
    f = load_shares(expert_load(ids, spec.n_experts, copies), copies.sum(), spec)
    return _linear_loss(logits, spec, f, copies, alpha * numerator, with_grad)


def device_loss(
    logits: ArrayLike,
    expert_ids: ArrayLike,
    spec: RouterSpec,
    device_of_expert: ArrayLike,
    *,
    alpha: float,
    form: str = "paper",
    weight: ArrayLike | None = None,
    with_grad: bool = True,
) -> Loss:
    """Device-level balance loss, ``alpha * sum_d f'_d P'_d``.

    ``f'_d`` is the mean of f_i over the experts of device d, ``P'_d`` the sum of their P_i (f and P as in
    ``expert_loss``).

    Source: DeepSeekMoE eq. 15-17, DeepSeek-V2 eq. 26-28.
    """
    _paper_only(form, "device_loss")
    device = device_numbers(device_of_expert, spec)
    ids, copies = _batch(logits, expert_ids, spec, weight)
    shares = load_shares(expert_load(ids, spec.n_experts, copies), copies.sum(), spec)
    return _linear_loss(logits, spec, device_coefficients(shares, device), copies, alpha, with_grad)


def communication_loss(
    logits: ArrayLike,
    expert_ids: ArrayLike,
    spec: RouterSpec,
    device_of_expert: ArrayLike,
    *,
    alpha: float,
    form: str = "paper",
    weight: ArrayLike | None = None,
    with_grad: bool = True,
) -> Loss:
    """Communication balance loss, ``alpha * sum_d f''_d P''_d``: tokens *received* per device, each once.

    ``f''_d = D / (M T) * (tokens sent to device d)``, D devices of which a token may reach M, and ``P''_d``
    the sum of P_i over the experts of d. The document's form is without D. M is the spec's ``top_groups``; a
    router without groups may reach ``min(K, D)`` devices.

    Source: DeepSeek-V2 eq. 29-31.
    """
    device = device_numbers(device_of_expert, spec)
    ids, copies = _batch(logits, expert_ids, spec, weight)
    c = communication_coefficients(tokens_received(ids, device, copies), copies.sum(), device, spec, form)
    return _linear_loss(logits, spec, c, copies, alpha, with_grad)


def sequence_loss(
    logits: ArrayLike,
    expert_ids: ArrayLike,
    spec: RouterSpec,
    sequence_id: ArrayLike,
    *,
    alpha: float,
    form: str = "paper",
    weight: ArrayLike | None = None,
    with_grad: bool = True,
) -> Loss:
    """Sequence-wise balance loss: the expert-level loss of each sequence by itself, averaged over sequences.

    Every sequence has its own T and counts the same, however long it is. V3 counts the *unbiased* top-k, so
    pass ``route(logits, spec_without_groups).expert_ids`` rather than the experts that the tokens went to.

    With weights, a sequence counts as often as the batch holds it: the mean of its tokens' weights. For
    sequences repeated as a whole this is the batch written out, each occurrence a sequence of its own.

    ``sequence_id``: int [T], any whole numbers in any order.

    Source: DeepSeek-V3 eq. 17-20; on a softmax router this is DeepSeek-V2 eq. 23-25 with T the sequence's.
    """
    _paper_only(form, "sequence_loss")
    ids, copies = _batch(logits, expert_ids, spec, weight)
    row, n_sequences = sequences(sequence_id, len(ids), copies)
    # Tokens without copies have no row; they weigh nothing in any.
    row = np.maximum(row, 0)
    mass, tokens = (sum_by_row(row, values, n_sequences) for values in (copies, copies > 0))
    count = sequence_load(ids, row, copies, (n_sequences, spec.n_experts))
    slope = alpha * copies * sequence_slope(mass, tokens, spec)[row] if with_grad else None
    own, grad = weighted_affinities(logits, spec, count, row, slope)
    product = sum_by_row(row, copies * own, n_sequences)
    return Loss(alpha * sequence_mean(product, mass, tokens, spec), grad)


def z_loss(
    logits: ArrayLike,
    *,
    alpha: float,
    form: str = "paper",
    weight: ArrayLike | None = None,
    with_grad: bool = True,
) -> Loss:
    """Router z-loss, ``alpha * mean over tokens of logsumexp(logits)^2``: keeps logits small.

    Source: ST-MoE, arXiv:2202.08906 eq. 5.
    """
    _paper_only(form, "z_loss")
    x = np.asarray(logits)
    if x.ndim != 2:
        raise InputError(f"logits have shape {x.shape}", "logits", "give [tokens, experts]")
    # The softmax affinity is the gradient of logsumexp; any softmax router has it.
    softmax = RouterSpec("v1", n_experts=x.shape[1], top_k=1)
    share = alpha * _shares(_held_copies(weight, len(x)))
    value, grad = 0.0, np.empty(x.shape) if with_grad else None
    for block, s, _ in affinity_blocks(x, softmax):
        lse = logsumexp(x[block])
        value += float(share[block] @ lse**2)
        if grad is not None:
            grad[block] = (2.0 * share[block] * lse)[:, None] * s
    return Loss(value, grad)


def _linear_loss(
    logits: ArrayLike,
    spec: RouterSpec,
    coefficients: NDArray[np.float64],
    copies: NDArray[np.float64],
    alpha: float,
    with_grad: bool,
) -> Loss:
    """Return ``alpha * sum_i c_i P_i`` for c[E]."""
    share = alpha * _shares(copies)
    one_row = np.zeros(len(copies), dtype=np.int64)
    own, grad = weighted_affinities(logits, spec, coefficients[None], one_row, share if with_grad else None)
    return Loss(float(share @ own), grad)


def _batch(
    logits: ArrayLike, expert_ids: ArrayLike, spec: RouterSpec, weight: ArrayLike | None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Check that logits, selection and weights describe the same tokens; return selection and copies."""
    shape = np.shape(logits)
    if len(shape) != 2 or shape[1] != spec.n_experts:
        raise InputError(f"logits have shape {shape}", "logits", f"give [tokens, {spec.n_experts}]")
    ids = checked_selection(expert_ids, spec.n_experts, (shape[0], spec.top_k))
    return ids, _held_copies(weight, shape[0])


def _held_copies(weight: ArrayLike | None, n_tokens: int) -> NDArray[np.float64]:
    copies = token_weight(weight, n_tokens)
    if not copies.any():
        raise InputError("a loss of a batch without tokens", "weight", "give at least one token a weight above 0")
    return copies


def _shares(copies: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(copies / copies.sum(), dtype=np.float64)


def _paper_only(form: str, name: str) -> None:
    if form != "paper":
        raise InputError(
            f"{name} has no form {form!r}",
            "losses.form",
            "use paper; document is for expert and communication",
        )

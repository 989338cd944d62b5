"""The balance losses from the sums over a batch that they are made of, and those sums in plain NumPy.

Each formula stands here once: ``loss_products`` makes the values of it, ``losses`` values and gradients. Sums come
from ``moesim.routing.measure``, in one pass with the routing, or for any router and logits from ``measure``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.balance.gradient import affinity_blocks, logsumexp
from moesim.balance.load_spread import expert_load, sequence_imbalance, sequence_load, sum_by_row, tokens_received
from moesim.balance.token_weights import sequences, token_weight
from moesim.errors import InputError
from moesim.routing import RouterSpec, RouterSums, SequenceSums, checked_selection, gate_mass_lost


@dataclass(frozen=True)
class LossFactors:
    """Alpha of each loss, and the form of the expert and communication losses (``paper`` or ``document``)."""

    expert: float
    device: float
    communication: float
    sequence: float
    z: float
    form: str = "paper"


def loss_products(
    sums: RouterSums, spec: RouterSpec, device_of_expert: ArrayLike, factors: LossFactors
) -> dict[str, dict[str, float]]:
    """Return the factors of each loss, ``expert_loss`` to ``z_loss``: alpha, and the sum that its equation names.

    Args:
        sums: of the whole batch, measured with sequences and with the devices of ``device_numbers``.
        spec: the router.
        device_of_expert: int [E]; a number that no expert names is no device.
        factors: alpha of each loss.

    Raises:
        InputError: no token, sums without sequences or of other devices, or an unknown form.

    Source: the equations that ``expert_loss`` and its neighbours name.
    """
    device = device_numbers(device_of_expert, spec)
    tokens = sums.weight
    if tokens <= 0:
        raise InputError("a loss of a batch without tokens", "weight", "give at least one token a weight above 0")
    if sums.sequences is None or len(sums.received) != int(device.max()) + 1:
        raise InputError("sums without sequences or of other devices", "sums", "measure with sequences and devices")
    mean_affinity = sums.affinity / tokens
    shares = load_shares(sums.load, tokens, spec)
    per_device = device_coefficients(shares, device)
    received = communication_coefficients(sums.received, tokens, device, spec, factors.form)
    held = sums.sequences.weight > 0
    own, weight, length = (getattr(sums.sequences, name)[held] for name in ("product", "weight", "tokens"))
    return {
        "expert_loss": {
            "alpha": factors.expert,
            "N_r": form_factor(factors.form, spec.n_experts),
            "sum": float(shares @ mean_affinity),
        },
        "device_loss": {"alpha": factors.device, "sum": float(per_device @ mean_affinity)},
        "communication_loss": {"alpha": factors.communication, "sum": float(received @ mean_affinity)},
        "sequence_loss": {"alpha": factors.sequence, "sum": sequence_mean(own, weight, length, spec)},
        "z_loss": {"alpha": factors.z, "sum": sums.logsumexp_squared / tokens},
    }


def losses_in_balance(spec: RouterSpec, device_of_expert: ArrayLike, factors: LossFactors) -> dict[str, float]:
    """Return the value of each loss where all experts and devices are loaded alike, in every sequence too.

    Affinities sum to 1 over the experts, so that each equation's sum is its one coefficient. The communication loss is
    that of tokens which all reach M devices. The z-loss knows no balance.
    """
    devices = len(np.unique(np.asarray(device_of_expert)))
    return {
        "expert_loss": factors.expert * form_factor(factors.form, spec.n_experts) / spec.n_experts,
        "device_loss": factors.device,
        "communication_loss": factors.communication * form_factor(factors.form, devices) / devices,
        "sequence_loss": factors.sequence,
    }


def measure(
    logits: ArrayLike,
    expert_ids: ArrayLike,
    spec: RouterSpec,
    *,
    weight: ArrayLike | None = None,
    device_of_expert: ArrayLike | None = None,
    sequence_id: ArrayLike | None = None,
    counted_ids: ArrayLike | None = None,
) -> RouterSums:
    """Sum up what the losses of a routed batch are made of: any router and logits, in float64, slowly.

    Args:
        logits: float [T, E].
        expert_ids: int [T, K], the selection; -1 is a dropped copy and not counted.
        spec: the router.
        weight: [T], copies of each token in the batch; 1 each by default.
        device_of_expert: int [E], 0 to D - 1, for the tokens received per device.
        sequence_id: int [T], for the figures per sequence.
        counted_ids: int [T, K], the experts that a sequence's loss counts (V3: the unbiased top-k, eq. 18);
            ``expert_ids`` by default.

    Raises:
        InputError: wrong shapes, unknown ids, or a logit that is NaN or infinite.
    """
    x = np.asarray(logits)
    shape = (len(x), spec.top_k)
    ids = checked_selection(expert_ids, spec.n_experts, shape)
    copies = token_weight(weight, len(ids))
    row, n_sequences = np.zeros(len(ids), np.int64), 1
    if sequence_id is not None:
        row, n_sequences = sequences(sequence_id, len(ids), np.ones(len(ids)))
    counted = ids if counted_ids is None else checked_selection(counted_ids, spec.n_experts, shape)
    count = sequence_load(counted, row, copies, (n_sequences, spec.n_experts))
    affinity, squared, own = np.zeros(spec.n_experts), 0.0, np.empty(len(ids))
    for block, _, p in affinity_blocks(x, spec):
        affinity += copies[block] @ p
        squared += float(copies[block] @ logsumexp(x[block]) ** 2)
        own[block] = np.einsum("te,te->t", count[row[block]], p)
    received, of_sequences = np.empty(0), None
    if device_of_expert is not None:
        received = tokens_received(ids, np.asarray(device_of_expert), copies)
    if sequence_id is not None:
        mass, tokens, product = (sum_by_row(row, values, n_sequences) for values in (copies, copies > 0, copies * own))
        ratio = np.ones(n_sequences)
        ratio[mass > 0] = sequence_imbalance(ids, row, spec.n_experts, copies > 0)
        of_sequences = SequenceSums(mass, tokens, product, ratio)
    return RouterSums(
        weight=float(copies.sum()),
        load=expert_load(ids, spec.n_experts, copies),
        affinity=affinity,
        received=received,
        logsumexp_squared=squared,
        gate_mass_lost=float(copies @ gate_mass_lost(x, spec, ids)),
        sequences=of_sequences,
    )


def load_shares(load: NDArray[np.float64], tokens: float, spec: RouterSpec) -> NDArray[np.float64]:
    """Return f_i without its factor N_r, [E]: the share of all selections that went to each expert."""
    return load / (spec.top_k * tokens)


def device_coefficients(shares: NDArray[np.float64], device: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return f'_d of each expert's device, [E]: the mean of f_i over the experts there."""
    per_device = len(shares) * np.bincount(device, weights=shares) / np.bincount(device)
    return np.asarray(per_device[device], dtype=np.float64)


def communication_coefficients(
    received: NDArray[np.float64], tokens: float, device: NDArray[np.int64], spec: RouterSpec, form: str
) -> NDArray[np.float64]:
    """Return f''_d of each expert's device, [E], from the tokens that each device receives."""
    per_device = received * (form_factor(form, len(received)) / (reach(spec, len(received)) * tokens))
    return np.asarray(per_device[device], dtype=np.float64)


def sequence_mean(
    product: NDArray[np.float64], weight: NDArray[np.float64], tokens: NDArray[np.float64], spec: RouterSpec
) -> float:
    """Return the mean of the sequences' own losses; arrays [S] as ``SequenceSums`` has them, all weights above 0.

    A sequence's own loss is E / (K weight) sum_i count_i P_i with P_i over weight; it occurs weight / tokens times.
    """
    own = product * spec.n_experts / (spec.top_k * weight**2)
    occurs = weight / tokens
    return float(own @ occurs / occurs.sum())


def sequence_slope(weight: NDArray[np.float64], tokens: NDArray[np.float64], spec: RouterSpec) -> NDArray[np.float64]:
    """Return the derivative of ``sequence_mean`` by each product, [S]."""
    occurs = weight / tokens
    return np.asarray(spec.n_experts / (spec.top_k * weight**2) * occurs / occurs.sum(), dtype=np.float64)


def device_numbers(device_of_expert: ArrayLike, spec: RouterSpec) -> NDArray[np.int64]:
    """Return the device of each expert, int64 [E], renumbered so that every device holds an expert."""
    devices = np.asarray(device_of_expert)
    if devices.shape != (spec.n_experts,) or not np.issubdtype(devices.dtype, np.integer):
        raise InputError(
            f"device_of_expert has shape {devices.shape} and type {devices.dtype}",
            "device_of_expert",
            f"give one whole number per expert, {spec.n_experts} in all",
        )
    return np.unique(devices, return_inverse=True)[1]


def reach(spec: RouterSpec, n_devices: int) -> int:
    """Return M, the devices that a token may reach: its groups, or without groups as many as it has experts."""
    return spec.top_groups if spec.n_groups > 1 else min(spec.top_k, n_devices)


def form_factor(form: str, paper: int) -> int:
    """Return N_r or D as the paper has it in front of its counts, 1 in the document's form."""
    if form == "paper":
        return paper
    if form == "document":
        return 1
    raise InputError(f"unknown form {form!r} of a loss", "losses.form", "use paper or document")

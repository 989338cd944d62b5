"""The balance losses of a batch that was routed and measured in one pass.

The formulas are those of ``losses``; counts and mean affinities come from ``moesim.routing.measure``. No gradients:
those need the affinities of every token.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.balance.losses import device_numbers, form_factor, reach
from moesim.errors import InputError
from moesim.routing import RouterSpec
from moesim.routing.measure import RouterSums


@dataclass(frozen=True)
class LossFactors:
    """Alpha of each loss, and the form of the expert and communication losses (``paper`` or ``document``)."""

    expert: float
    device: float
    communication: float
    sequence: float
    z: float
    form: str = "paper"


def losses_of_sums(
    sums: RouterSums, spec: RouterSpec, device_of_expert: ArrayLike, factors: LossFactors
) -> dict[str, float]:
    """Return the value of each loss by name, ``expert_loss`` to ``z_loss``.

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
    n_devices, tokens = int(device.max()) + 1, sums.weight
    if tokens <= 0:
        raise InputError("a loss of a batch without tokens", "weight", "give at least one token a weight above 0")
    if sums.sequences is None or len(sums.received) != n_devices:
        raise InputError("sums without sequences or of other devices", "sums", "measure with sequences and devices")
    mean_affinity = sums.affinity / tokens
    load = sums.load / (spec.top_k * tokens)
    per_device = spec.n_experts * np.bincount(device, weights=load) / np.bincount(device)
    received = sums.received * (form_factor(factors.form, n_devices) / (reach(spec, n_devices) * tokens))
    held = sums.sequences.weight > 0
    weight, length = sums.sequences.weight[held], sums.sequences.tokens[held]
    # A sequence occurs weight / length times; its own loss is E / (K weight) sum_i count_i P_i with P_i over weight.
    own: NDArray[np.float64] = sums.sequences.product[held] * spec.n_experts / (spec.top_k * weight**2)
    occurs = weight / length
    return {
        "expert_loss": factors.expert * form_factor(factors.form, spec.n_experts) * float(load @ mean_affinity),
        "device_loss": factors.device * float(per_device[device] @ mean_affinity),
        "communication_loss": factors.communication * float(received[device] @ mean_affinity),
        "sequence_loss": factors.sequence * float(own @ occurs / occurs.sum()),
        "z_loss": factors.z * sums.logsumexp_squared / tokens,
    }

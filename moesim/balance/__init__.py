"""How evenly experts, devices and sequences are loaded: balance losses, the bias, and imbalance figures."""

from moesim.balance.bias import update_bias
from moesim.balance.embedding_gradient import BalancePull, embedding_gradient
from moesim.balance.gradient import Loss
from moesim.balance.load_spread import Imbalance, expert_load, imbalance, max_violation, sequence_imbalance
from moesim.balance.losses import communication_loss, device_loss, expert_loss, sequence_loss, z_loss
from moesim.balance.noise_floor import uniform_router_max_over_mean
from moesim.balance.sums import (
    LossFactors,
    device_numbers,
    loss_products,
    losses_in_balance,
    losses_of_sums,
    measure,
    reach,
)

__all__ = [
    "BalancePull",
    "Imbalance",
    "Loss",
    "LossFactors",
    "communication_loss",
    "device_loss",
    "device_numbers",
    "embedding_gradient",
    "expert_load",
    "expert_loss",
    "imbalance",
    "loss_products",
    "losses_in_balance",
    "losses_of_sums",
    "max_violation",
    "measure",
    "reach",
    "sequence_imbalance",
    "sequence_loss",
    "uniform_router_max_over_mean",
    "update_bias",
    "z_loss",
]

"""How evenly experts, devices and sequences are loaded: balance losses, the bias, and imbalance figures."""

from moesim.balance.bias import update_bias
from moesim.balance.dynamics import NO_LOSS, Balancing, DynamicsConstants, shipped_constants
from moesim.balance.embedding_gradient import embedding_gradient
from moesim.balance.load_spread import Imbalance, expert_load, imbalance, max_violation, sequence_imbalance
from moesim.balance.losses import communication_loss, device_loss, expert_loss, sequence_loss, z_loss
from moesim.balance.noise_floor import uniform_router_max_over_mean
from moesim.balance.offset_form import OffsetForm, loads_of_offsets
from moesim.balance.sums import (
    LossFactors,
    device_numbers,
    loss_products,
    losses_in_balance,
    measure,
    reach,
)
from moesim.balance.token_dropping import drop_over_capacity
from moesim.balance.token_form import Routed, Text, TokenForm

__all__ = [
    "NO_LOSS",
    "Balancing",
    "DynamicsConstants",
    "Imbalance",
    "LossFactors",
    "OffsetForm",
    "Routed",
    "Text",
    "TokenForm",
    "communication_loss",
    "device_loss",
    "device_numbers",
    "drop_over_capacity",
    "embedding_gradient",
    "expert_load",
    "expert_loss",
    "imbalance",
    "loads_of_offsets",
    "loss_products",
    "losses_in_balance",
    "max_violation",
    "measure",
    "reach",
    "sequence_imbalance",
    "sequence_loss",
    "shipped_constants",
    "uniform_router_max_over_mean",
    "update_bias",
    "z_loss",
]

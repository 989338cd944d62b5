"""What both forms of the balance dynamics share: their constants, the learning rate, and a way of balancing.

An expert's logit is an offset, its popularity, and a part that differs by token. A language model in training pushes
popularity about: a drift that turns slowly stands for it, since the gradients of balance losses alone never unbalance
anything. Losses pull against it, or a bias steers around it.
"""

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance.bias import update_bias
from moesim.balance.sums import LossFactors
from moesim.routing import RouterSpec

_DATA = Path(__file__).resolve().parent.parent / "data" / "balance_dynamics.toml"
Floats = NDArray[np.float64]
NO_LOSS = LossFactors(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class DynamicsConstants:
    """Constants of the dynamics; ``data/balance_dynamics.toml`` says what each is.

    ``sources``: for each name what it was fitted on or read from.
    """

    early_drift: float
    early_steps: float
    late_drift: float
    turn_steps: float
    gain: float
    sequence_variance: float
    sequence_share: float
    domain_share: float
    limit: float
    weight_decay: float
    start_spread: float
    directions: int
    spread_steps: tuple[float, ...]
    spread: tuple[float, ...]
    learning_rate: float
    warm_up_share: float
    final_share: float
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def spread_at(self, step: int) -> float:
        """Return the spread of a logit over tokens, between its snapshots by the logarithm of the step."""
        return float(np.interp(math.log1p(step), np.log1p(self.spread_steps), self.spread))

    def drift_at(self, step: int) -> Any:
        """Return how hard the language model drives popularity."""
        return self.early_drift * np.exp(-step / self.early_steps) + self.late_drift

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step of a run: linear warm-up, then cosine decay."""
        warm_up = max(1, int(steps * self.warm_up_share))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        progress = min(1.0, (step - warm_up) / max(1, steps - warm_up))
        cosine = (1.0 + math.cos(math.pi * progress)) / 2.0
        return self.learning_rate * (self.final_share + (1.0 - self.final_share) * cosine)


@functools.cache
def shipped_constants() -> DynamicsConstants:
    """Return the constants that ship: those of the small model that ``moesim record`` trains."""
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    values = {one.name: data[one.name]["value"] for one in fields(DynamicsConstants) if one.name != "sources"}
    values |= {name: tuple(map(float, values[name])) for name in ("spread_steps", "spread")}
    return DynamicsConstants(**values, sources={name: entry["source"] for name, entry in data.items()})


@dataclass(frozen=True, eq=False)
class Balancing:
    """A router and how its load is kept even in training.

    Attributes:
        name: of the method, in words.
        spec: the router.
        device: of each expert, in the losses and for dropping, int [E].
        factors: alpha of each loss whose gradient moves the embeddings.
        bias_rate: step of the bias; 0 for a router without.
        magnitude: the bias moves by how far a load is from the mean, not by one step whatever the distance.
        multiplicative: the bias multiplies the affinity, starting from 1, instead of being added.
        capacity_factor: copies that a device takes in training, over its even share; None drops none.
    """

    name: str
    spec: RouterSpec
    device: NDArray[np.int64]
    factors: LossFactors = NO_LOSS
    bias_rate: float = 0.0
    magnitude: bool = False
    multiplicative: bool = False
    capacity_factor: float | None = None

    def first_bias(self) -> Floats:
        """Return the bias that selects as if there were none, [E]."""
        return np.full(self.spec.n_experts, float(self.multiplicative))

    def moved(self, bias: Floats, load: Floats) -> Floats:
        """Return the bias after a batch with these loads, both [..., E]."""
        if not self.bias_rate:
            return bias
        if self.magnitude:
            mean = load.mean(axis=-1, keepdims=True)
            return np.asarray(bias + self.bias_rate * (mean - load) / mean, dtype=np.float64)
        return update_bias(bias, load, self.bias_rate)


def pushed(constants: DynamicsConstants, rate: float, value: Floats, push: Floats, decay: bool = True) -> Floats:
    """Return weights after an optimiser's step: a bounded push, and weight decay."""
    bounded = np.clip(push, -constants.limit, constants.limit)
    return np.asarray(value + rate * (bounded - decay * constants.weight_decay * value), dtype=np.float64)


def turned(drift: Floats, steps: Any, noise: Floats) -> Floats:
    """Return a drift of unit variance one step on, correlated over so many steps."""
    return np.asarray((1.0 - 1.0 / steps) * drift + np.sqrt(2.0 / steps) * noise, dtype=np.float64)

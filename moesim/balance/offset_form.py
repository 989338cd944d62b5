"""The closed form of the dynamics: loads from the experts' offsets alone, without a token.

Token logits are Gaussian around the offsets o with one spread tau, so that expert e is chosen with the probability
``P(o_e + tau z > threshold)``, the threshold such that they sum to K; on a sigmoid router
``P(sigmoid(o_e + tau z) + b_e > threshold)``. Any number of layers go side by side. What tokens of a sequence have in
common is noise of a batch's loads, ``sqrt(psi f / sequences)``. Not modelled: limits on groups, which need tokens, and
the sequence-wise loss.
"""

import math

import numpy as np

from moesim.balance.dynamics import Balancing, DynamicsConstants, Floats, pushed, turned
from moesim.errors import InputError

_SOLVED = 1e-10


def loads_of_offsets(
    offset: Floats, spread: float | Floats, top_k: int, bias: Floats | None = None, multiplicative: bool = False
) -> Floats:
    """Return the load of each expert over the mean, [..., E].

    Args:
        offset: [..., E], mean logits.
        spread: of a logit over tokens; one number, or [..., 1].
        top_k: experts per token.
        bias: [..., E] on the sigmoid of the logits; None for a selection by the logits themselves.
        multiplicative: the bias multiplies.
    """
    from scipy.special import ndtr  # a run does not come here and need not load it

    tau = np.maximum(np.asarray(spread, np.float64), 1e-9)

    def chance(threshold: Floats) -> tuple[Floats, Floats]:
        """Share of the tokens that each expert gets, and its derivative by the threshold."""
        if bias is None:
            z = (offset - threshold) / tau
            return ndtr(z), -_density(z) / tau
        score = threshold / np.maximum(bias, 1e-9) if multiplicative else threshold - bias
        inside = np.clip(score, 1e-12, 1.0 - 1e-12)
        z = (offset - np.log(inside / (1.0 - inside))) / tau
        slope = -_density(z) / (tau * inside * (1.0 - inside))
        if multiplicative:
            slope = slope / np.maximum(bias, 1e-9)
        return np.where(score <= 0, 1.0, np.where(score >= 1, 0.0, ndtr(z))), slope

    if bias is None:
        low = (offset - 12 * tau).min(axis=-1, keepdims=True)
        high = (offset + 12 * tau).max(axis=-1, keepdims=True)
    elif multiplicative:
        low, high = np.zeros_like(offset[..., :1]), bias.max(axis=-1, keepdims=True) + 1e-9
    else:
        low, high = bias.min(axis=-1, keepdims=True), bias.max(axis=-1, keepdims=True) + 1.0
    threshold = (low + high) / 2
    # Newton's step where it stays between the bounds, else halving them.
    for _ in range(100):
        share, slope = chance(threshold)
        over = share.sum(axis=-1, keepdims=True) - top_k
        if np.abs(over).max() < _SOLVED * top_k:
            break
        low, high = np.where(over > 0, threshold, low), np.where(over > 0, high, threshold)
        total = slope.sum(axis=-1, keepdims=True)
        step = threshold - over / np.where(total < 0, total, -1e-300)
        threshold = np.where((step > low) & (step < high), step, (low + high) / 2)
    return np.asarray(share * (offset.shape[-1] / top_k), dtype=np.float64)


def _density(z: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))


class OffsetForm:
    """Offsets, drift and bias of several layers at once, [..., E], a step at a time.

    ``constants`` may hold arrays [..., 1] in the place of numbers, for one set of constants per layer.
    """

    def __init__(
        self, constants: DynamicsConstants, balancing: Balancing, steps: int, layers: tuple[int, ...], seed: int
    ) -> None:
        """Begin before the first of ``steps``; layers [..., L] have random numbers of their own along L alone.

        Raises:
            InputError: a router that needs tokens.
        """
        spec = balancing.spec
        if spec.limited or balancing.factors.sequence or balancing.factors.communication:
            raise InputError("the offset form knows no groups and no sequences", "offset form", "use the token form")
        self.constants, self.balancing, self.steps, self.step = constants, balancing, steps, 0
        self._rng = np.random.default_rng(seed)
        same = balancing.device[:, None] == balancing.device
        self._of_device = same / same.sum(axis=0)
        self._shape = (*layers, spec.n_experts)
        self.offset = constants.start_spread * self._drawn()
        self.drift = self._drawn()
        self.bias = np.broadcast_to(balancing.first_bias(), self._shape)

    def _drawn(self) -> Floats:
        return np.broadcast_to(self._rng.standard_normal(self._shape[-2:]), self._shape)

    def loads(self) -> Floats:
        """Return the loads over the mean, without a batch's noise, [..., E]."""
        balancing = self.balancing
        biased = self.bias if balancing.bias_rate else None
        spread = self.constants.spread_at(self.step)
        return loads_of_offsets(self.offset, spread, balancing.spec.top_k, biased, balancing.multiplicative)

    def seen(self, sequences: int) -> Floats:
        """Return the loads over the mean in a batch of so many sequences, [..., E]."""
        f = self.loads()
        noise = np.sqrt(self.constants.sequence_variance * f / sequences) * self._drawn()
        return np.asarray(np.maximum(f + noise, 0.0), dtype=np.float64)

    def advance(self, sequences: int) -> None:
        """Take a training step on a batch of so many sequences."""
        constants, balancing = self.constants, self.balancing
        factors, n_experts = balancing.factors, self._shape[-1]
        pull: Floats | float = 0.0
        if balancing.bias_rate or factors.expert or factors.device:
            f = self.seen(sequences)
            self.bias = balancing.moved(self.bias, f)
            if factors.expert or factors.device:
                popular = np.exp(self.offset - self.offset.max(axis=-1, keepdims=True))
                p = popular / popular.sum(axis=-1, keepdims=True)
                c = factors.expert * f + factors.device * (f @ self._of_device)
                pull = constants.gain * n_experts * p * (c - (c * p).sum(axis=-1, keepdims=True))
        self.drift = turned(self.drift, constants.turn_steps, self._drawn())
        push = constants.drift_at(self.step) * self.drift - pull
        self.offset = pushed(constants, constants.rate_at(self.step, self.steps), self.offset, push)
        self.offset = self.offset - self.offset.mean(axis=-1, keepdims=True)
        self.step += 1

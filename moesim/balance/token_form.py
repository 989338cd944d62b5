"""The dynamics with tokens: experts as vectors, moved by the losses' gradients and a drift, chosen by the true router.

A token is ``x = 1, spread(step) (sqrt(1 - rho) z + sqrt(rho) y)``: z its own, y what its sequence, and in part the
sequence's domain, have in common, Gaussian both. An expert is an offset and a unit direction, so that a logit is the
offset and a part of the stated spread. Limits on groups, the bias, dropping and the sequence-wise loss act as they do
in a model. Domains may turn: their y then changes slowly from step to step. Tokens depend on seed, layer and step
alone: methods are compared on the same ones.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.balance.dynamics import Balancing, DynamicsConstants, Floats, pushed, turned
from moesim.balance.embedding_gradient import embedding_gradient
from moesim.balance.load_spread import expert_load
from moesim.errors import InputError
from moesim.routing import RouterSpec, route

_START, _DRIFT, _TRAINING, _EVALUATION, _DOMAINS = range(5)


@dataclass(frozen=True)
class Text:
    """What a batch is made of.

    Attributes:
        sequences: per training step; ``length`` of each in tokens.
        domains: that sequences are from, evenly; 0: none, every sequence is its own.
        domain_steps: steps over which a domain turns; infinite: it stays as it is.
    """

    sequences: int
    length: int
    domains: int = 0
    domain_steps: float = math.inf


@dataclass(frozen=True, eq=False)
class Routed:
    """A routed batch.

    ``tokens`` [T, 1 + directions], ``logits`` float32 [T, E], ``sequence`` [T], ``expert_ids`` [T, K].
    """

    tokens: Floats
    logits: NDArray[np.float32]
    sequence: NDArray[np.int64]
    expert_ids: NDArray[np.int32]


class TokenForm:
    """One layer's experts over the steps of a training run."""

    def __init__(
        self, constants: DynamicsConstants, balancing: Balancing, steps: int, text: Text, seed: int, layer: int = 0
    ) -> None:
        """Begin before the first of ``steps``.

        Raises:
            InputError: a multiplicative bias on a router with groups.
        """
        if balancing.multiplicative and balancing.spec.limited:
            raise InputError("a multiplicative bias on a router with groups", "bias", "use one without, or add it")
        self.constants, self.balancing, self.text, self.steps, self.step = constants, balancing, text, steps, 0
        self._seed, self._layer = seed, layer
        rng = self._rng(_START)
        direction = rng.standard_normal((balancing.spec.n_experts, constants.directions))
        offset = constants.start_spread * rng.standard_normal(balancing.spec.n_experts)
        self.experts: Floats = np.column_stack([offset, _unit(direction)])
        self.drift: Floats = rng.standard_normal(balancing.spec.n_experts)
        self.bias = balancing.first_bias()
        self._domain = self._rng(_DOMAINS).standard_normal((text.domains, constants.directions))

    def _rng(self, what: int, step: int = 0) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(what, self._layer, step)))

    def batch(self) -> Routed:
        """Draw and route the training batch of this step."""
        return self._routed(self._rng(_TRAINING, self.step), self.text.sequences, self.text.length)

    def evaluated(self, sequences: int, length: int) -> Routed:
        """Draw and route an evaluation batch at this step."""
        return self._routed(self._rng(_EVALUATION, self.step), sequences, length)

    def _routed(self, rng: np.random.Generator, sequences: int, length: int) -> Routed:
        constants, directions = self.constants, self.constants.directions
        common = rng.standard_normal((sequences, directions), dtype=np.float32)
        if self.text.domains:
            of = self._domain[np.arange(sequences) % self.text.domains]
            common = math.sqrt(constants.domain_share) * of + math.sqrt(1 - constants.domain_share) * common
        own = rng.standard_normal((sequences, length, directions), dtype=np.float32)
        tokens = np.ones((sequences * length, directions + 1))
        share, spread = constants.sequence_share, constants.spread_at(self.step)
        mixed = math.sqrt(1 - share) * own + math.sqrt(share) * common[:, None]
        tokens[:, 1:] = spread * mixed.reshape(-1, directions)
        logits = (tokens @ self.experts.T).astype(np.float32)
        sequence = np.repeat(np.arange(sequences), length)
        return Routed(tokens, logits, sequence, self.select(logits))

    def select(self, logits: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the experts [T, K] of logits [T, E] with the bias as it stands."""
        balancing = self.balancing
        if balancing.multiplicative:
            biased = np.log(np.maximum(self.bias, 1e-9)) - np.logaddexp(0.0, -logits.astype(np.float64))
            return route(biased, _plain(balancing.spec)).expert_ids
        return route(logits, balancing.spec, self.bias if balancing.bias_rate else None).expert_ids

    def advance(self, routed: Routed) -> dict[str, float]:
        """Take the training step of this batch; return the losses that pulled, by name."""
        constants, balancing, spec = self.constants, self.balancing, self.balancing.spec
        factors, values = balancing.factors, {}
        push = constants.drift_at(self.step) * self.drift
        experts, rate = self.experts, constants.rate_at(self.step, self.steps)
        if any(getattr(factors, name) for name in ("expert", "device", "communication", "sequence", "z")):
            counted = None
            if factors.sequence and spec.kind == "v3":
                counted = route(routed.logits, _plain(spec)).expert_ids
            pull = embedding_gradient(
                routed.tokens, routed.logits, routed.expert_ids, spec, balancing.device, factors,
                sequence_id=routed.sequence, counted_ids=counted,
            )  # fmt: skip
            values, grad = pull.values, constants.gain * spec.n_experts * pull.grad
            push = push - grad[:, 0]
            experts[:, 1:] = _unit(pushed(constants, rate, experts[:, 1:], -grad[:, 1:], decay=False))
        offset = pushed(constants, rate, experts[:, 0], push)
        experts[:, 0] = offset - offset.mean()
        self.bias = balancing.moved(self.bias, expert_load(routed.expert_ids, spec.n_experts))
        rng = self._rng(_DRIFT, self.step)
        self.drift = turned(self.drift, constants.turn_steps, rng.standard_normal(spec.n_experts))
        if math.isfinite(self.text.domain_steps):
            self._domain = turned(self._domain, self.text.domain_steps, rng.standard_normal(self._domain.shape))
        self.step += 1
        return values


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float64)


def _plain(spec: RouterSpec) -> RouterSpec:
    """The router's unbiased choice without groups: by the logits themselves."""
    return RouterSpec("v1", n_experts=spec.n_experts, top_k=spec.top_k)

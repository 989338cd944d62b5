"""How popular each expert is: the distributions that synthetic logits are drawn from, over layers and over steps.

Behind every distribution stands one standard normal number z of each expert (or, where whole ranks differ, of each
rank). It is autoregressive twice: the z of a layer has the correlation ``layer_correlation`` with that of the layer
before, the z of a step ``step_correlation`` with that of the step before. Log-normal popularity is exp(sigma z); Zipf's
law gives the k-th largest z the popularity k ** -exponent.

Popularity w and the chance p that one of a token's K experts is this one go together closely by p = 1 - exp(-t w), with
one t for all experts: K draws without replacement, in continuous time.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

Floats = NDArray[np.float64]


def latent(
    rng: np.random.Generator, layers: int, n: int, step: int = 0, layer_correlation: float = 0.0,
    step_correlation: float = 1.0,
) -> Floats:  # fmt: skip
    """Return z [layers, n] of a step, from a generator in the same state for every step."""
    z = np.zeros((layers, n))
    for turn in range(step + 1 if step_correlation < 1 else 1):
        # The permutation is no statistical need: a seed keeps the log-normal popularity that it always had.
        fresh = np.stack([rng.permutation(rng.standard_normal(n)) for _ in range(layers)])
        for layer in range(1, layers):
            fresh[layer] = _after(fresh[layer - 1], fresh[layer], layer_correlation)
        z = fresh if turn == 0 else _after(z, fresh, step_correlation)
    return z


def _after(before: Floats, fresh: Floats, correlation: float) -> Floats:
    return correlation * before + math.sqrt(1 - correlation**2) * fresh


def zipf_log_popularity(z: Floats, exponent: float) -> Floats:
    """Log popularity of Zipf's law, the largest of ``z`` [n] first."""
    place = np.empty(len(z))
    place[np.argsort(-z, kind="stable")] = np.arange(1, len(z) + 1)
    result: Floats = -exponent * np.log(place)
    return result


def log_popularity_of(chance: Floats) -> Floats:
    """Log popularity, up to a constant, at which each expert is selected with its chance in (0, 1)."""
    result: Floats = np.log(-np.log1p(-chance))
    return result


def hot_log_popularity(hot: NDArray[np.bool_], top_k: int, ratio: float, what: str) -> Floats:
    """Log popularity at which the ``hot`` experts [E] get ``ratio`` times the mean load (within 1 %, E >= 100).

    Raises:
        InputError: they would be needed by more than every token; ``what`` names them.
    """
    n_experts, n_hot = len(hot), int(hot.sum())
    chance = np.full(n_experts, top_k / n_experts)
    chance[hot] *= ratio
    if n_hot < n_experts:
        chance[~hot] = (top_k - chance[hot].sum()) / (n_experts - n_hot)
    if n_hot == 0 or abs(chance.sum() - top_k) > 1e-9 or chance.max() >= 1 or chance.min() <= 0:
        raise InputError(
            f"{what} with {n_hot} of {n_experts} experts cannot take {ratio:g} times the mean load of top-{top_k}",
            where="workload.synthetic.ratio",
            fix="each expert is chosen at most once per token, so choose a smaller ratio or more ranks",
        )
    return log_popularity_of(chance)

"""What papers say that balancing does, from the closed form with the constants that ship: nothing is fitted on them.

arXiv:2408.15664 (loss-free balancing): MaxVio_global of a 1B and a 3B model, 64 experts of which 6 are chosen.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest

from moesim.balance import NO_LOSS, Balancing, LossFactors, OffsetForm, shipped_constants
from moesim.routing import RouterSpec

pytestmark = pytest.mark.slow
STEPS, SEQUENCES, LAYERS = 6000, 1152, 8


@functools.cache
def max_violation(rate=0.0, expert_loss=0.0, magnitude=False, multiplicative=False, steps=STEPS, decayed=True):
    """MaxVio of an evaluation without noise: mean over layers and over the last tenth of the run."""
    spec = RouterSpec("v3" if rate else "v1", n_experts=64, top_k=6)
    factors = LossFactors(expert_loss, 0.0, 0.0, 0.0, 0.0) if expert_loss else NO_LOSS
    balancing = Balancing("", spec, np.arange(64) // 8, factors, rate, magnitude, multiplicative)
    constants = replace(shipped_constants(), learning_rate=1e-3, warm_up_share=1e-9, final_share=1.0)
    form = OffsetForm(constants, balancing, steps, (LAYERS,), seed=1)
    seen = []
    for step in range(steps):
        if step == int(0.9 * steps) and decayed:
            form.constants = replace(constants, learning_rate=1e-4)
        form.advance(SEQUENCES)
        if step >= int(0.95 * steps) and step % 20 == 0:
            load = form.loads()
            seen.append((load.max(axis=-1) - 1.0).mean())
    return float(np.mean(seen))


def test_the_published_bias_rate_leaves_what_was_published():
    assert 0.03 < max_violation(rate=0.001) < 0.07  # published: 0.04


def test_a_tenth_and_ten_times_the_published_rate_are_worse():
    best = max_violation(rate=0.001)
    assert max_violation(rate=0.0001) > 3 * best  # published: slow, poor early balance
    assert max_violation(rate=0.01) > 3 * best  # published: oscillates, poor late balance


def test_a_magnitude_update_works_at_higher_rates():
    # Published: 0.036 at 0.001, 0.028 at 0.01.
    slow, fast = (max_violation(rate=rate, magnitude=True) for rate in (0.001, 0.01))
    assert fast < slow < max_violation()
    assert fast < 0.07


def test_a_multiplicative_bias_balances_about_as_well():
    additive, multiplicative = (max_violation(rate=0.001, multiplicative=form) for form in (False, True))
    assert multiplicative < 2 * additive


def test_the_loss_leaves_ten_times_as_much_as_the_bias():
    # Published: 0.72 (1B) and 0.52 (3B) against 0.04. The loss comes out 1.6 to 2.2 times too high here.
    with_loss = max_violation(expert_loss=0.001)
    assert with_loss > 10 * max_violation(rate=0.001)
    assert 0.52 < with_loss < 2.5 * 0.52
    assert max_violation(expert_loss=0.01) < max_violation(expert_loss=0.003) < with_loss < max_violation()
